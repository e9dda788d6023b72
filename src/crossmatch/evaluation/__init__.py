"""The measurement: variants of one model, suites as data, scorers, traces, intervals and paired tests."""

from crossmatch.evaluation.suites import Item, Suite, SuiteSettings, known_recipes, load_suite
from crossmatch.evaluation.variants import Variant, merge_name, standard_variants

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
