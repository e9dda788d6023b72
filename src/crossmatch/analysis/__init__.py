"""Weight space: how tuning vectors lie to each other."""

from crossmatch.analysis.overlap import Overlap, independent, overlap

__all__ = ["Overlap", "independent", "overlap"]
