"""Tuning vectors as files: extracted from a fine-tune, added, scaled, masked, described."""

from crossmatch.vectors.add import Summing, add
from crossmatch.vectors.bit_difference import Unequal, count_unequal
from crossmatch.vectors.checkpoint_pair import Pair, pair_checkpoints
from crossmatch.vectors.describe import describe, origin_of
from crossmatch.vectors.extract import extract
from crossmatch.vectors.lowrank import LowRankForm, extract_adapter
from crossmatch.vectors.strengths import grid, strength_name, strengths

__all__ = [
    "LowRankForm",
    "Pair",
    "Summing",
    "Unequal",
    "add",
    "count_unequal",
    "describe",
    "extract",
    "extract_adapter",
    "grid",
    "origin_of",
    "pair_checkpoints",
    "strength_name",
    "strengths",
]
