"""The in-toto statement of `verify --attest`: who is meant, and what was found in it."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.verdict import ModuleCountsJson, RecoveredWeightJson, VerdictDigestsJson, VerdictWord


class Sha256Json(TypedDict):
    """The digest of a model, or of its file."""

    sha256: str


class AttestedModelJson(TypedDict):
    """The model that a statement is about."""

    name: str
    digest: Sha256Json


class VerifierJson(TypedDict):
    """What judged."""

    name: Literal["crossmatch"]
    version: str


class ClaimedPartJson(TypedDict):
    """A base or an adapter of the claim: where it is on the hub, and the digest of its content."""

    hub_id: str | None
    revision: str | None
    blake3: str | None


class ClaimedBaseJson(ClaimedPartJson):
    """The base."""

    name: str


class ClaimedAdapterJson(ClaimedPartJson):
    """An adapter, and its weight."""

    weight: float | str | None


class AttestedClaimJson(TypedDict):
    """What the file was said to be."""

    base: ClaimedBaseJson | None
    """Null: the claim could not be read."""
    adapters: dict[str, ClaimedAdapterJson]
    rule: NotRequired[str]
    parameters: NotRequired[dict[str, Any]]
    seed: NotRequired[int]
    calibration: NotRequired[str | None]
    """Digest of the calibration that the rule used."""


class AttestedRoundingJson(TypedDict):
    """How the stored values came about."""

    route: str | None
    violations: float | None
    swallowed_energy: float | None


class AttestedFindingJson(TypedDict):
    """One thing that is wrong."""

    fault: str
    where: list[str]
    evidence: str


class AttestedInputsJson(TypedDict):
    """Digests of all that was read."""

    blake3: VerdictDigestsJson
    files_sha256: dict[str, str]


class VerdictPredicateJson(TypedDict):
    """`urn:crossmatch:verdict:1`. No times and no paths: the same inputs give the same bytes."""

    schema_version: Literal[1]
    verifier: VerifierJson
    subject_digest: str
    """How the subject's digest was made: of one file, or of all files' digests."""
    verdict: VerdictWord
    faults: list[str]
    claim: AttestedClaimJson
    weights: dict[str, RecoveredWeightJson]
    modules: ModuleCountsJson
    rounding: AttestedRoundingJson
    findings: list[AttestedFindingJson]
    notes: list[str]
    thresholds: dict[str, float]
    scope: Literal["sampled rows", "every element"]
    checked: list[str]
    not_checked: list[str]
    inputs: AttestedInputsJson


class StatementJson(TypedDict):
    """An in-toto Statement v1 whose subject is the judged model."""

    _type: Literal["https://in-toto.io/Statement/v1"]
    subject: list[AttestedModelJson]
    predicateType: Literal["urn:crossmatch:verdict:1"]
    predicate: VerdictPredicateJson
