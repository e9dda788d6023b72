"""A study: the recipe, its stages, the run directory, resuming."""

from crossmatch.study.plan import plan_evaluation, plan_study, plan_training
from crossmatch.study.recipe import AdapterRecipe, Recipe, load_recipe
from crossmatch.study.run import StudyResult, run_study

__all__ = [
    "AdapterRecipe",
    "Recipe",
    "StudyResult",
    "load_recipe",
    "plan_evaluation",
    "plan_study",
    "plan_training",
    "run_study",
]
