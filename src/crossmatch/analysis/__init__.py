"""Weight space: how tuning vectors lie to their base and to each other."""

from crossmatch.analysis.analyse import DEFAULT_KS, SCHEMA_VERSION, Wanted, analyse
from crossmatch.analysis.assemble import Opened, assemble, open_vectors
from crossmatch.analysis.overlap import Overlap, independent, overlap
from crossmatch.analysis.subspaces import Subspaces
from crossmatch.analysis.tuned import Difference

__all__ = [
    "DEFAULT_KS",
    "SCHEMA_VERSION",
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
