"""Merging: a rule combines deltas, a plan says what will be written, one rename publishes it."""

from crossmatch.merging.execute import Output, merge, write
from crossmatch.merging.plan import DTYPE_ARGUMENTS, MergePlan, Parts, PlannedTensor, plan_merge
from crossmatch.merging.rules import RULES, get_rule
from crossmatch.merging.sidecar import side_files

__all__ = [
    "DTYPE_ARGUMENTS",
    "RULES",
    "MergePlan",
    "Output",
    "Parts",
    "PlannedTensor",
    "get_rule",
    "merge",
    "plan_merge",
    "side_files",
    "write",
]
