"""The search over merge weights: which ones to ship, with what proof, and at what cost."""

from crossmatch.sweeping.recipe import SweepRecipe, load_sweep, parse_sweep
from crossmatch.sweeping.run import SweepResult, sweep

__all__ = ["SweepRecipe", "SweepResult", "load_sweep", "parse_sweep", "sweep"]
