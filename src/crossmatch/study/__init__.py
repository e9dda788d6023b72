"""A study: the recipe, its stages, the run directory, resuming."""

from crossmatch.study.plan import plan_study
from crossmatch.study.recipe import Recipe, load_recipe
from crossmatch.study.run import StudyResult, run_study

__all__ = ["Recipe", "StudyResult", "load_recipe", "plan_study", "run_study"]
