"""The proof: what is inside a merged checkpoint, recovered from its bytes."""

from crossmatch.verification.claim import Claim, Parts, claim_from_manifest
from crossmatch.verification.identify import identify
from crossmatch.verification.judge import DEFAULTS, Thresholds
from crossmatch.verification.proof import SampledProof, WholeProof
from crossmatch.verification.signature import with_signature
from crossmatch.verification.verdict import Finding, RecoveredWeight, Verdict
from crossmatch.verification.verify import verify, verify_claim

__all__ = [
    "DEFAULTS",
    "Claim",
    "Finding",
    "Parts",
    "RecoveredWeight",
    "SampledProof",
    "Thresholds",
    "Verdict",
    "WholeProof",
    "claim_from_manifest",
    "identify",
    "verify",
    "verify_claim",
    "with_signature",
]
