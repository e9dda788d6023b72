"""Weight space: how tuning vectors lie to each other."""

from crossmatch.analysis.overlap import Overlap, overlap

__all__ = ["Overlap", "overlap"]
