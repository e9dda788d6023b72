"""The algebra: deltas on single tensors, tuning vectors over whole models. Tensors in, tensors out."""

from crossmatch.delta.based import Dora, Replacement, TokenRows
from crossmatch.delta.compound import Blockwise, Stack, Sum, cat, linear, summands
from crossmatch.delta.deltas import Delta, Dense, LowRank, ReadRows, check_weights, dense, low_rank
from crossmatch.delta.geometry import cosine, frobenius, inner, norm, random_like, singular_values, truncated
from crossmatch.delta.nulls import layer_shuffled, same_norm, same_spectrum
from crossmatch.delta.rounding import (
    STORABLE,
    Workspace,
    is_finite,
    merged_rows,
    round_once,
    round_randomly,
    summed_rows,
)
from crossmatch.delta.sketch import (
    HELD_ELEMENTS,
    Product,
    Rows,
    Singular,
    converged_singular,
    figure_angle,
    top_singular,
)
from crossmatch.delta.vector import Built, TuningVector

__all__ = [
    "HELD_ELEMENTS",
    "STORABLE",
    "Blockwise",
    "Built",
    "Delta",
    "Dense",
    "Dora",
    "LowRank",
    "Product",
    "ReadRows",
    "Replacement",
    "Rows",
    "Singular",
    "Stack",
    "Sum",
    "TokenRows",
    "TuningVector",
    "Workspace",
    "cat",
    "check_weights",
    "converged_singular",
    "cosine",
    "dense",
    "figure_angle",
    "frobenius",
    "inner",
    "is_finite",
    "layer_shuffled",
    "linear",
    "low_rank",
    "merged_rows",
    "norm",
    "random_like",
    "round_once",
    "round_randomly",
    "same_norm",
    "same_spectrum",
    "singular_values",
    "summands",
    "summed_rows",
    "top_singular",
    "truncated",
]
