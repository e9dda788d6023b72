"""The verdict of `crossmatch verify` and `identify`, and of `verify/NAME.json` in a run directory."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

VERDICT_VERSION = 1
ProofScope = Literal["sampled rows", "all rows"]
ModuleState = Literal["agree", "disagree", "undecided"]
VerdictWord = Literal["verified", "identified", "failed", "inconclusive"]


class RecoveredWeightJson(TypedDict):
    """One adapter."""

    claimed: float | None
    """Null: no claim (`identify`)."""
    recovered: float | None
    """Null: not identifiable."""
    stderr: float | None


class GroupWeightJson(TypedDict):
    """A weight recovered from some of the modules."""

    recovered: float
    stderr: float


class ModuleCountsJson(TypedDict):
    """Adapted modules by what was found."""

    adapted: int
    agree: int
    disagree: int
    undecided: int


class TensorCountsJson(TypedDict):
    """Tensors of the file beside the adapted ones."""

    total: int
    untouched_identical: int
    untouched_changed: list[str]
    missing: list[str]
    extra: list[str]


class ReplayJson(TypedDict):
    """The arithmetic that gives the stored elements."""

    route: str | None
    mismatch: float | None


class RoundingJson(TypedDict):
    """How the stored values came about, and what of the deltas rounding lost."""

    route: NotRequired[str | None]
    """`once`, `twice`, `models`, `stochastic`; null: no honest rounding explains the file."""
    replay: NotRequired[ReplayJson | None]
    arithmetic: NotRequired[str | None]
    """The arithmetic in words."""
    violations: NotRequired[float | None]
    """Share of the elements outside it."""
    bit_mismatch: NotRequired[float | None]
    swallowed_energy: NotRequired[float | None]
    swallowed_by_adapter: NotRequired[dict[str, float | None]]


class SumJson(TypedDict):
    """What can be said of weights that cannot be told apart: a sum of them."""

    terms: dict[str, float]
    recovered: float
    stderr: float


class QuantisedKindJson(TypedDict):
    """Tensors of one quantised type."""

    tensors: int
    elements: int
    excess_allowed: list[float]
    gain: list[float]


class SignatureJson(TypedDict):
    """What `model.sig` says."""

    state: Literal["valid", "invalid", "absent"]
    reason: str
    files: list[str]


class LackJson(TypedDict):
    """What an adapter lacks."""

    fault: str
    evidence: str


class AdapterLacksJson(TypedDict):
    """What an adapter lacks, and what else was seen of it."""

    lacks: list[LackJson]
    remarks: list[str]


class SampledRowsJson(TypedDict):
    """With --quick: of the tensor that was seen least, how many rows, and the chance to miss a fault."""

    tensor: str
    rows: int
    of: int
    missed: dict[str, float]


class EvidenceJson(TypedDict):
    """What the verdict rests on."""

    elements: NotRequired[int]
    entries: NotRequired[int]
    residual_excess: NotRequired[float | None]
    """Residual variance over that of the file's own arithmetic."""
    residual_allowed: NotRequired[float]
    left_over: NotRequired[float | None]
    """What the program does not give, over the size of the claimed delta, in the module where it is most."""
    unseen: NotRequired[float | None]
    """Size of a further delta that would be seen with 99%, over that of the claimed one."""
    modules_in_question: NotRequired[list[str]]
    sums: NotRequired[list[SumJson]]
    noted: NotRequired[dict[str, str]]
    """Note -> what was seen of it."""
    checked: NotRequired[list[str]]
    """Files and fields that were compared."""
    not_checked: NotRequired[list[str]]
    """What was not compared, each with the reason after a colon."""
    quantisation: NotRequired[dict[str, QuantisedKindJson]]
    absent: NotRequired[list[str]]
    """Candidates of which nothing is in the file (`identify`)."""
    adapters: NotRequired[dict[str, AdapterLacksJson]]
    sampled: NotRequired[SampledRowsJson]
    signature: NotRequired[SignatureJson]


class VerdictDigestsJson(TypedDict):
    """blake3 of what was read; null: not digested (--quick)."""

    merged: NotRequired[str | None]
    base: NotRequired[str | None]
    adapters: NotRequired[dict[str, str | None]]


class FindingJson(TypedDict):
    """One thing that is wrong."""

    fault: str
    """The fault's id."""
    where: list[str]
    """Tensors, files or fields."""
    evidence: str
    """What was seen, as a sentence."""
    consequence: str
    remedy: str


class ModuleVerdictJson(TypedDict):
    """One adapted tensor (--detail)."""

    name: str
    layer: NotRequired[int | None]
    module: NotRequired[str]
    state: ModuleState
    weights: dict[str, GroupWeightJson]
    entries: int
    residual_excess: float | None
    elements: int
    looked_at: NotRequired[int]
    outside: NotRequired[int]
    bit_mismatches: NotRequired[int]
    arithmetic: NotRequired[str]
    rows_in_question: NotRequired[list[int] | None]
    changed: NotRequired[int]
    predicted_changed: NotRequired[float]
    quantisation: NotRequired[str]
    gain: NotRequired[float]
    worst_row: NotRequired[float]
    far: NotRequired[int]
    replayed: NotRequired[int]
    replay_mismatches: NotRequired[int | None]


class GroupsJson(TypedDict):
    """Recovered weights by module type and by layer (--detail)."""

    types: NotRequired[dict[str, dict[str, GroupWeightJson]]]
    layers: NotRequired[dict[str, dict[str, GroupWeightJson]]]


class VerdictBodyJson(TypedDict):
    """What a verdict says wherever it stands; a manifest's has no time and no digests."""

    schema_version: Literal[1]
    verdict: VerdictWord
    faults: list[str]
    """Ids of the findings, most telling first."""
    notes: list[str]
    """Honest peculiarities."""
    explained: dict[str, str]
    """What each note means here."""
    weights: dict[str, RecoveredWeightJson]
    modules: ModuleCountsJson
    tensors: TensorCountsJson
    rounding: RoundingJson
    evidence: EvidenceJson
    thresholds: dict[str, float]
    findings: list[FindingJson]


class JudgedByJson(TypedDict):
    """The program that judged."""

    name: str
    version: str


class VerdictJson(VerdictBodyJson):
    """What is inside a merged checkpoint."""

    checkpoint: NotRequired[str]
    """What was judged, as it was given to the command: a directory, a file or a hub id."""
    tool: NotRequired[JudgedByJson]
    digests: VerdictDigestsJson
    seconds: float
    details: NotRequired[list[ModuleVerdictJson]]
    groups: NotRequired[GroupsJson]


class ManifestVerdictJson(VerdictBodyJson):
    """The verdict in a merge's manifest."""

    scope: ProofScope
    swallowed_by_adapter: dict[str, float | None]
