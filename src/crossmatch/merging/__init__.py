"""Merging: a rule combines deltas, a plan says what will be written, one rename publishes it."""

from crossmatch.merging.adapter_output import merge_factors
from crossmatch.merging.cost_estimate import estimate, steps
from crossmatch.merging.execute import Output, Proof, execute, merge, write
from crossmatch.merging.form import check_form, read_storage
from crossmatch.merging.plan import DTYPE_ARGUMENTS, MergePlan, Parts, PlannedTensor, Storage, plan_merge
from crossmatch.merging.side_files import side_files
from crossmatch.merging.writer import Witness
from crossmatch.merging.written import Written, write_adapter, write_checkpoint

__all__ = [
    "DTYPE_ARGUMENTS",
    "MergePlan",
    "Output",
    "Parts",
    "PlannedTensor",
    "Proof",
    "Storage",
    "Witness",
    "Written",
    "check_form",
    "estimate",
    "execute",
    "merge",
    "merge_factors",
    "plan_merge",
    "read_storage",
    "side_files",
    "steps",
    "write",
    "write_adapter",
    "write_checkpoint",
]
