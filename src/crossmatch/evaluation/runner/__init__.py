"""A suite asked of variants under conditions, answers kept on disk, resumable."""
