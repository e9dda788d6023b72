"""The answer: verdict, faults, recovered weights, and what they rest on."""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import SIGNATURE, check_signature
from crossmatch.export.results import Tabled, by_name
from crossmatch.export.table import Table
from crossmatch.export.tables.proof import verdict_tables
from crossmatch.report.verdict_text import weight_line
from crossmatch.verification.faults import FAULTS, NOTES

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
class Verdict(Tabled):
    """What is inside a merged checkpoint.

    verdict: `verified`, `failed` or `inconclusive`; findings: what is wrong, most telling first; notes: honest
    peculiarities; modules, tensors, rounding, thresholds: as in the documentation of `verify --json`; details: one
    entry per module; groups: recovered weights by module type and by layer.
    """

    verdict: str
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    weights: dict[str, RecoveredWeight] = field(default_factory=dict)
    modules: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)
    rounding: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    digests: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    details: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    groups: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def refused(cls, fault: str, evidence: str) -> "Verdict":
        """Failed before a weight was read: what there is cannot be what is claimed."""
        return cls("failed", (Finding(fault, (), evidence),), modules=dict.fromkeys(_STATES, 0), tensors=dict(_NONE))

    @property
    def faults(self) -> tuple[str, ...]:
        """Ids of the findings, in their order."""
        return tuple(finding.fault for finding in self.findings)

    def __bool__(self) -> bool:
        """True only for `verified`, so that `if verify(...)` never takes a failed or an open answer for a pass."""
        return self.verified

    def __repr__(self) -> str:
        weights = [weight_line(name, asdict(weight)) for name, weight in self.weights.items()]
        parts = [self.verdict, *(f"fault {fault}" for fault in self.faults), *weights]
        return f"Verdict({'; '.join(parts)})"

    def tables(self) -> dict[str, Table]:
        """`weights`, `verdicts`, `findings` where there are any, and what was found by module and group."""
        return by_name(verdict_tables({None: self.to_dict(detail=True)}))

    @property
    def verified(self) -> bool:
        """True only for `verified`: an inconclusive answer is not one."""
        return self.verdict == "verified"

    def explained(self, note: str) -> str:
        """What a note means, with what was seen of it here."""
        seen = self.evidence.get("noted", {}).get(note)
        return f"{NOTES[note]}: {seen}" if seen else NOTES[note]

    def for_manifest(self) -> dict[str, Any]:
        """As plain JSON without the time it took, so that the same inputs give the same bytes, and without the digests,
        which the manifest has."""
        return {key: value for key, value in self.to_dict().items() if key not in ("seconds", "digests")}

    def to_dict(self, *, detail: bool = False) -> dict[str, Any]:
        """As plain JSON; results by module, module type and layer only with `detail`."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("findings", "details", "groups")}
        result = {"schema_version": SCHEMA_VERSION, "verdict": plain.pop("verdict"), "faults": list(self.faults)}
        result |= {**plain, "notes": list(self.notes), "explained": {note: self.explained(note) for note in self.notes}}
        result["findings"] = [f.to_dict() for f in self.findings]
        if detail:
            result |= {"details": list(self.details), "groups": self.groups}
        return result


_STATES = ("adapted", "agree", "disagree", "undecided")
_NONE = {"total": 0, "untouched_identical": 0, "untouched_changed": [], "missing": [], "extra": []}


def with_signature(verdict: Verdict, directory: Path, public_key: Path) -> Verdict:
    """The verdict with what `model.sig` says under evidence.signature; failed unless the signature holds.

    Raises InputError without the extra `signing`, or for a key that cannot be used.
    """
    found = check_signature(directory, public_key)
    verdict = replace(verdict, evidence={**verdict.evidence, "signature": found.to_dict()})
    if found.valid:
        return verdict
    finding = Finding("signature-invalid", (SIGNATURE,), found.reason)
    return replace(verdict, verdict="failed", findings=(*verdict.findings, finding))
