"""The algebra: deltas on single tensors, tuning vectors over whole models. Tensors in, tensors out."""

from crossmatch.delta.deltas import Delta, Dense, LowRank, check_weights, dense, linear, low_rank
from crossmatch.delta.geometry import cosine, inner, norm, rms, row_energies, singular_values
from crossmatch.delta.rounding import STORABLE, add_rounded, merged_rows
from crossmatch.delta.vector import TuningVector

__all__ = [
    "STORABLE",
    "Delta",
    "Dense",
    "LowRank",
    "TuningVector",
    "add_rounded",
    "check_weights",
    "cosine",
    "dense",
    "inner",
    "linear",
    "low_rank",
    "merged_rows",
    "norm",
    "rms",
    "row_energies",
    "singular_values",
]
