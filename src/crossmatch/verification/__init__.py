"""The proof: what is inside a merged checkpoint, recovered from its bytes."""

from crossmatch.verification.claim import Claim, Parts, claim_from_manifest
from crossmatch.verification.identify import identify
from crossmatch.verification.proof import SampledProof, WholeProof
from crossmatch.verification.verdict import Finding, RecoveredWeight, Verdict, with_signature
from crossmatch.verification.verify import verify, verify_claim
from crossmatch.verification.weights.module_verdicts import DEFAULTS, Thresholds

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
