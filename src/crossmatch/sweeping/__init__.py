"""The search over merge weights: which ones to ship, with what proof, and at what cost.

Names are loaded when they are first used: `merge --from` needs no model library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossmatch.sweeping.recipe import SweepRecipe as SweepRecipe
    from crossmatch.sweeping.recipe import load_sweep as load_sweep
    from crossmatch.sweeping.recipe import parse_sweep as parse_sweep
    from crossmatch.sweeping.recipe import recipe_of as recipe_of
    from crossmatch.sweeping.run import SweepResult as SweepResult
    from crossmatch.sweeping.run import sweep as sweep

_HOMES = {
    **dict.fromkeys(("SweepRecipe", "load_sweep", "parse_sweep", "recipe_of"), "crossmatch.sweeping.recipe"),
    **dict.fromkeys(("SweepResult", "sweep"), "crossmatch.sweeping.run"),
}
__all__ = ["SweepRecipe", "SweepResult", "load_sweep", "parse_sweep", "recipe_of", "sweep"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'crossmatch.sweeping' has no attribute {name!r}")
