"""The measurement: variants of one model, suites as data, scorers, traces, intervals, paired tests, the audit.

Names are loaded when they are first used: the audit's processes need no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossmatch.data.suites import Item as Item
    from crossmatch.data.suites import Suite as Suite
    from crossmatch.data.suites import SuiteSettings as SuiteSettings
    from crossmatch.data.suites import known_recipes as known_recipes
    from crossmatch.data.suites import load_suite as load_suite
    from crossmatch.evaluation.variants.variants import Variant as Variant
    from crossmatch.evaluation.variants.variants import merge_name as merge_name
    from crossmatch.evaluation.variants.variants import standard_variants as standard_variants

_SUITES, _VARIANTS = "crossmatch.data.suites", "crossmatch.evaluation.variants.variants"
_HOMES = {
    **dict.fromkeys(("Item", "Suite", "SuiteSettings", "known_recipes", "load_suite"), _SUITES),
    **dict.fromkeys(("Variant", "merge_name", "standard_variants"), _VARIANTS),
}
__all__ = [
    "Item",
    "Suite",
    "SuiteSettings",
    "Variant",
    "known_recipes",
    "load_suite",
    "merge_name",
    "standard_variants",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'crossmatch.evaluation' has no attribute {name!r}")
