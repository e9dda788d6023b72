"""The answer: verdict, faults, recovered weights, and what they rest on."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from crossmatch.checkpoint import SIGNATURE, check_signature
from crossmatch.export.results import Tabled, by_name
from crossmatch.export.table import Table
from crossmatch.export.tables.proof import verdict_tables
from crossmatch.report.verdict_text import weight_line
from crossmatch.results.verdict import (
    EvidenceJson,
    FindingJson,
    GroupsJson,
    ModuleCountsJson,
    ModuleVerdictJson,
    RecoveredWeightJson,
    RoundingJson,
    TensorCountsJson,
    VerdictBodyJson,
    VerdictDigestsJson,
    VerdictJson,
    VerdictWord,
)
from crossmatch.verification.faults import FAULTS, NOTES, UNCLAIMED


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the fault's id, the tensors, files or fields in which it shows, and what was seen there,
    as a sentence for people; unclaimed: whether adapters were given and nothing was claimed of them."""

    fault: str
    where: tuple[str, ...] = ()
    evidence: str = ""
    unclaimed: bool = False

    def to_dict(self) -> FindingJson:
        """As plain JSON, with what it means and what to do about it."""
        known = UNCLAIMED.get(self.fault) if self.unclaimed else None
        consequence, remedy = known or FAULTS[self.fault]
        return {
            "fault": self.fault,
            "where": list(self.where),
            "evidence": self.evidence,
            "consequence": consequence,
            "remedy": remedy,
        }


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

    def to_dict(self) -> RecoveredWeightJson:
        """As plain JSON."""
        return {"claimed": self.claimed, "recovered": self.recovered, "stderr": self.stderr}


def _no_modules() -> ModuleCountsJson:
    return {"adapted": 0, "agree": 0, "disagree": 0, "undecided": 0}


def _no_tensors() -> TensorCountsJson:
    return {"total": 0, "untouched_identical": 0, "untouched_changed": [], "missing": [], "extra": []}


@dataclass(frozen=True)
class Verdict(Tabled):
    """What is inside a merged checkpoint.

    verdict: `verified`, `failed` or `inconclusive`; findings: what is wrong, most telling first; notes: honest
    peculiarities; modules, tensors, rounding, thresholds: as in the documentation of `verify --json`; details: one
    entry per module; groups: recovered weights by module type and by layer.
    """

    verdict: VerdictWord
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    weights: dict[str, RecoveredWeight] = field(default_factory=dict)
    modules: ModuleCountsJson = field(default_factory=_no_modules)
    tensors: TensorCountsJson = field(default_factory=_no_tensors)
    rounding: RoundingJson = field(default_factory=RoundingJson)
    evidence: EvidenceJson = field(default_factory=EvidenceJson)
    thresholds: dict[str, float] = field(default_factory=dict)
    digests: VerdictDigestsJson = field(default_factory=VerdictDigestsJson)
    seconds: float = 0.0
    details: tuple[ModuleVerdictJson, ...] = field(default=(), repr=False)
    groups: GroupsJson = field(default_factory=GroupsJson, repr=False)

    @classmethod
    def refused(cls, fault: str, evidence: str) -> "Verdict":
        """Failed before a weight was read: what there is cannot be what is claimed."""
        return cls("failed", (Finding(fault, (), evidence),))

    @property
    def faults(self) -> tuple[str, ...]:
        """Ids of the findings, in their order."""
        return tuple(finding.fault for finding in self.findings)

    def __bool__(self) -> bool:
        """True only for `verified`, so that `if verify(...)` never takes a failed or an open answer for a pass."""
        return self.verified

    def __repr__(self) -> str:
        weights = [weight_line(name, weight.to_dict()) for name, weight in self.weights.items()]
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

    def for_manifest(self) -> VerdictBodyJson:
        """As plain JSON without the time it took, so that the same inputs give the same bytes, and without the digests,
        which the manifest has."""
        return {
            "schema_version": 1,
            "verdict": self.verdict,
            "faults": list(self.faults),
            "notes": list(self.notes),
            "weights": {name: weight.to_dict() for name, weight in self.weights.items()},
            "modules": self.modules,
            "tensors": self.tensors,
            "rounding": self.rounding,
            "evidence": self.evidence,
            "thresholds": self.thresholds,
            "explained": {note: self.explained(note) for note in self.notes},
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def to_dict(self, *, detail: bool = False) -> VerdictJson:
        """As plain JSON; results by module, module type and layer only with `detail`."""
        result: VerdictJson = {**self.for_manifest(), "digests": self.digests, "seconds": self.seconds}
        if detail:
            result["details"], result["groups"] = list(self.details), self.groups
        return result


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
