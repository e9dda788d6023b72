"""A study: the recipe, its stages, the run directory, resuming.

Names are loaded when they are first used: `report` and `vectors apply` need no recipe.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossmatch.study.plan import plan_evaluation as plan_evaluation
    from crossmatch.study.plan import plan_study as plan_study
    from crossmatch.study.plan import plan_training as plan_training
    from crossmatch.study.recipe import AdapterRecipe as AdapterRecipe
    from crossmatch.study.recipe import Recipe as Recipe
    from crossmatch.study.recipe import load_recipe as load_recipe
    from crossmatch.study.recipe import with_margin as with_margin
    from crossmatch.study.run import StudyResult as StudyResult
    from crossmatch.study.run import run_study as run_study

_HOMES = {
    **dict.fromkeys(("plan_evaluation", "plan_study", "plan_training"), "crossmatch.study.plan"),
    **dict.fromkeys(("AdapterRecipe", "Recipe", "load_recipe", "with_margin"), "crossmatch.study.recipe"),
    **dict.fromkeys(("StudyResult", "run_study"), "crossmatch.study.run"),
}
__all__ = [
    "AdapterRecipe",
    "Recipe",
    "StudyResult",
    "load_recipe",
    "plan_evaluation",
    "plan_study",
    "plan_training",
    "run_study",
    "with_margin",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'crossmatch.study' has no attribute {name!r}")
