"""Weight space: how tuning vectors lie to their base and to each other."""

from crossmatch.analysis.analyse import Opened, assemble, open_vectors
from crossmatch.analysis.checkpoint_difference import Difference
from crossmatch.analysis.weights.base_directions import Subspaces
from crossmatch.analysis.weights.overlap import Overlap, independent, overlap
from crossmatch.analysis.weights.tables import DEFAULT_KS, Wanted, analyse

__all__ = [
    "DEFAULT_KS",
    "Difference",
    "Opened",
    "Overlap",
    "Subspaces",
    "Wanted",
    "analyse",
    "assemble",
    "independent",
    "open_vectors",
    "overlap",
]
