"""The merge rules: how deltas on one tensor become one. Each is a function; here they are found by name."""

# Imported for the rules that they register, in the order in which rules are listed.
from crossmatch.rules import linear, ties, dare, core, projection, regmean, fisher_obim  # noqa: F401, I001
from crossmatch.rules.calibration import Calibration
from crossmatch.rules.combine import Combined, Recipe
from crossmatch.rules.heads import Heads
from crossmatch.rules.dare import uniform
from crossmatch.rules.registry import RULES, BoundRule, Parameter, Rule, bind, get_rule
from crossmatch.rules.context import Site
from crossmatch.rules.weights import Weight, Weights, parse_weight, part_of, weight_at, weight_json

__all__ = [
    "RULES",
    "BoundRule",
    "Calibration",
    "Combined",
    "Heads",
    "Parameter",
    "Recipe",
    "Rule",
    "Site",
    "Weight",
    "Weights",
    "bind",
    "get_rule",
    "parse_weight",
    "part_of",
    "uniform",
    "weight_at",
    "weight_json",
]
