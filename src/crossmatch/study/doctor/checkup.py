"""A checkup: lines, each ok, a warning or a fault, with what to do; the machine first, then base and adapters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from crossmatch.results.start import CheckLineJson, DoctorJson
from crossmatch.runtime import SILENT, Progress

State = Literal["ok", "warning", "fault"]
STATES: tuple[State, ...] = ("ok", "warning", "fault")


@dataclass(frozen=True)
class Line:
    """One thing that was looked at: its topic, its state, what was seen, and what to do about it (empty: nothing)."""

    topic: str
    state: State
    seen: str
    remedy: str = ""

    def to_dict(self) -> CheckLineJson:
        """As plain JSON."""
        return {"topic": self.topic, "state": self.state, "seen": self.seen, "remedy": self.remedy}


@dataclass(frozen=True)
class Checkup:
    """All that was looked at, in order."""

    lines: tuple[Line, ...]

    @property
    def worst(self) -> State:
        """`fault` before `warning` before `ok`."""
        if self.count("fault"):
            return "fault"
        return "warning" if self.count("warning") else "ok"

    def count(self, state: State) -> int:
        """How many lines are in a state."""
        return sum(line.state == state for line in self.lines)

    def to_dict(self) -> DoctorJson:
        """As plain JSON."""
        return {
            "schema_version": 1,
            "worst": self.worst,
            "ok": self.count("ok"),
            "warning": self.count("warning"),
            "fault": self.count("fault"),
            "lines": [line.to_dict() for line in self.lines],
        }


def doctor(
    base: str | None = None, adapter: Mapping[str, str] | None = None, *, progress: Progress = SILENT
) -> Checkup:
    """Look at the machine and, if given, at a base and adapters (name -> directory or hub id) against each other.

    Weights are read where only they tell: adapters whole, the base where an adapter's record names its digest. Raises
    InputError for adapters without a base, and for a path or hub id behind which there is nothing.

        >>> import crossmatch
        >>> found = crossmatch.doctor("models/base", {"pt": "runs/pt", "sft": "runs/sft"})
        >>> [line.seen for line in found.lines if line.state == "fault"]
        []
    """
    from crossmatch.checkpoint import locate
    from crossmatch.errors import InputError
    from crossmatch.study.doctor.environment import environment
    from crossmatch.study.doctor.models import base_and_adapters

    if adapter and base is None:
        raise InputError("adapters are looked at on their base; give the base as well: crossmatch doctor BASE -a ...")
    # What is not there is a mistake of the command, not of the model.
    for path in [*([base] if base is not None else []), *(adapter or {}).values()]:
        locate(path)
    lines = list(environment())
    if base is not None:
        lines += base_and_adapters(base, adapter or {}, progress)
    return Checkup(tuple(lines))
