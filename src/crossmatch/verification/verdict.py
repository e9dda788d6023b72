"""The answer: verdict, faults, recovered weights, and what they rest on."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from crossmatch.verification.faults import FAULTS

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the fault's id, the tensors, files or fields in which it shows, and what was seen there,
    as a sentence for people."""

    fault: str
    where: tuple[str, ...] = ()
    evidence: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, with what it means and what to do about it."""
        consequence, remedy = FAULTS[self.fault]
        return {**asdict(self), "where": list(self.where), "consequence": consequence, "remedy": remedy}


@dataclass(frozen=True)
class RecoveredWeight:
    """One adapter: claimed (None: no claim), recovered and its standard error (None: not identifiable)."""

    claimed: float | None
    recovered: float | None
    stderr: float | None

    @classmethod
    def of(cls, claimed: float | None, recovered: float, stderr: float) -> "RecoveredWeight":
        """With NaN, the numeric sign for "unknown", turned into None."""
        unknown = math.isnan(recovered)
        return cls(claimed, None if unknown else recovered, None if unknown else stderr)


@dataclass(frozen=True)
class Verdict:
    """What is inside a merged checkpoint.

    verdict: `verified`, `failed` or `inconclusive`; faults: ids, most telling first; notes: honest peculiarities;
    modules, tensors, rounding, thresholds: as in the documentation of `verify --json`; details: one entry per module.
    """

    verdict: str
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    weights: dict[str, RecoveredWeight]
    modules: dict[str, int]
    tensors: dict[str, Any]
    rounding: dict[str, Any]
    evidence: dict[str, Any]
    thresholds: dict[str, float]
    digests: dict[str, Any]
    seconds: float
    details: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def verified(self) -> bool:
        """True only for `verified`: an inconclusive answer is not one."""
        return self.verdict == "verified"

    def for_manifest(self) -> dict[str, Any]:
        """As plain JSON without the time it took, so that the same inputs give the same bytes, and without the digests,
        which the manifest has."""
        return {key: value for key, value in self.to_dict().items() if key not in ("seconds", "digests")}

    def to_dict(self, *, detail: bool = False) -> dict[str, Any]:
        """As plain JSON, per-module results only with `detail`."""
        result = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        result["faults"], result["notes"] = list(self.faults), list(self.notes)
        result["details"] = list(self.details)
        if not detail:
            del result["details"]
        return result
