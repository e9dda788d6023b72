"""A signature's part in a verdict: who made the files, beside what is inside them."""

from dataclasses import replace
from pathlib import Path

from crossmatch.checkpoint import SIGNATURE, check_signature
from crossmatch.verification.verdict import Finding, Verdict


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
