"""Is this machine, this base and these adapters fit for the work? What can be known before hours are spent."""

from crossmatch.study.doctor.checkup import Checkup, Line, doctor

__all__ = ["Checkup", "Line", "doctor"]
