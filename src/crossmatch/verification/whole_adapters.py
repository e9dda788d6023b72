"""Whether the adapters of a claim are whole: a model that holds all of half an adapter is not what was trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from crossmatch.adapter import Adapter, Lack, Wholeness, examine
from crossmatch.errors import InputError
from crossmatch.results.verdict import AdapterLacksJson
from crossmatch.verification.claim import Claim
from crossmatch.verification.verdict import Finding, Verdict


@dataclass(frozen=True)
class Adapters:
    """What the adapters of a claim lack, by name; allowed: those that may lack it."""

    found: Mapping[str, Wholeness]
    allowed: tuple[str, ...]

    def added_to(self, verdict: Verdict) -> Verdict:
        """A verdict on the weights with what the adapters lack: findings, or a note where it is allowed."""
        lacks = [(name, lack) for name, whole in self.found.items() for lack in whole.lacks]
        findings = _findings([(name, lack) for name, lack in lacks if name not in self.allowed])
        notes = ["partial-adapter-allowed"] * any(name in self.allowed for name, _ in lacks)
        notes += ["modules-without-update"] * any(whole.remarks for whole in self.found.values())
        if not findings and not notes:
            return verdict
        return replace(
            verdict,
            verdict="failed" if findings else verdict.verdict,
            findings=(*verdict.findings, *findings),
            notes=(*verdict.notes, *notes),
            evidence={**verdict.evidence, "adapters": self._facts()},
        )

    def _facts(self) -> dict[str, AdapterLacksJson]:
        """What each adapter lacks, as plain JSON."""
        return {
            name: {
                "lacks": [{"fault": lack.fault, "evidence": lack.evidence} for lack in whole.lacks],
                "remarks": list(whole.remarks),
            }
            for name, whole in self.found.items()
            if whole.lacks or whole.remarks
        }


def examine_adapters(claim: Claim) -> Adapters | Verdict:
    """What the adapters of a claim lack; the verdict, if one cannot be laid on the base because of it.

    An adapter of weight zero is not looked at. Raises AdapterError for one that does not belong to the base.
    """
    found: dict[str, Wholeness] = {}
    for name, (vector, weight) in claim.parts.items():
        if not isinstance(vector, Adapter) or weight == 0:
            continue
        try:
            found[name] = examine(vector, claim.base)
        except InputError as error:
            if error.fault is None:
                raise
            return Verdict.refused(error.fault, f"adapter {name}: {error}")
    for name, whole in found.items():
        for lack in whole.lacks:
            if not lack.usable or (lack.absent and name not in claim.partial):
                return Verdict.refused(lack.fault, f"adapter {name}: {lack.evidence}")
    return Adapters(found, claim.partial)


def _findings(lacks: list[tuple[str, Lack]]) -> list[Finding]:
    """One finding for every fault, with the evidence of the first adapter that has it and the places of all."""
    by_fault: dict[str, list[tuple[str, Lack]]] = {}
    for name, lack in lacks:
        by_fault.setdefault(lack.fault, []).append((name, lack))
    return [
        Finding(
            fault,
            tuple(dict.fromkeys(place for _, lack in each for place in lack.where)),
            "; ".join(f"adapter {name}: {lack.evidence}" for name, lack in each),
        )
        for fault, each in by_fault.items()
    ]
