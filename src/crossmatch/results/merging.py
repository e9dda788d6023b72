"""What `crossmatch merge` prints and leaves beside a merge: plan, result, manifest."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.verdict import ManifestVerdictJson

Action = Literal["merge", "copy", "cast"]
MergeType = Literal["urn:crossmatch:merge:1", "urn:crossmatch:merged-adapter:1"]


class DigestsJson(TypedDict):
    """Digests of one file."""

    blake3: str
    sha256: NotRequired[str]


class SubjectJson(TypedDict):
    """A file that a statement is about."""

    name: str
    digest: DigestsJson


class OriginJson(TypedDict):
    """Where an input lies: relative to the output, or on the hub."""

    path: NotRequired[str | None]
    hub_id: NotRequired[str | None]
    revision: NotRequired[str | None]


class InputJson(OriginJson):
    """An input with the digests of its weights."""

    digest: str | None
    files: NotRequired[dict[str, str]]


class WeightedInputJson(InputJson):
    """An adapter or a vector, and its weight."""

    weight: float | str


class MadeWithJson(TypedDict):
    """Versions that decide the bytes."""

    crossmatch: str
    torch: str
    python: str


class RuleJson(TypedDict):
    """How deltas were combined."""

    rule: str
    parameters: dict[str, Any]
    """The rule's own, by name; `docs/merge.md` lists them."""
    seed: int
    calibration: str | None


class TextFactsJson(TypedDict):
    """What a directory says about text."""

    tokenizer: str | None
    template: str | None
    eos_config: list[int] | None
    eos_generation: list[int] | None


class ActionCountsJson(TypedDict):
    """Tensors by what is done with them."""

    merge: int
    copy: int
    cast: int


class FormWorstJson(TypedDict):
    """The tensor with the largest relative error."""

    tensor: str
    relative_error: float | None


class AdapterFormJson(TypedDict):
    """What it costs that the sum is kept as factors."""

    rank: int
    exact: bool
    relative_error: float | None
    worst: FormWorstJson | None


class PartialJson(TypedDict):
    """Adapters that were allowed to be partial, and what they lack; left out where all are whole."""

    partial_adapters: NotRequired[dict[str, list[str]]]


class ChosenBySweepJson(TypedDict):
    """The sweep that chose the weights."""

    name: str
    digest: str
    """Of all that decides what the sweep did."""
    file: str
    """Digest of its sweep.json."""
    point: int | Literal["repair"]
    recommended: bool
    template: str


class RecordedJson(TypedDict):
    """What a manifest says besides."""

    sweep: NotRequired[ChosenBySweepJson]


class MadeOfJson(RuleJson, PartialJson, RecordedJson):
    """From what and how a merge was made."""

    schema_version: Literal[1]
    base: InputJson
    adapters: dict[str, WeightedInputJson]
    notes: list[str]
    versions: MadeWithJson


class MergePredicateJson(MadeOfJson):
    """The same with what was written; of an adapter `form` stands in place of the fields of a checkpoint."""

    dtypes: list[str]
    verdict: ManifestVerdictJson | None
    """Null: not proved (--no-verify, or an adapter)."""
    linear_instead: NotRequired[list[str]]
    tensors: NotRequired[ActionCountsJson]
    route: NotRequired[str]
    tied: NotRequired[str]
    tokenizer_from: NotRequired[str]
    generation_config_from: NotRequired[str]
    not_copied: NotRequired[list[str]]
    text: NotRequired[TextFactsJson]
    form: NotRequired[AdapterFormJson]


class MergeManifestJson(TypedDict):
    """crossmatch.json of a merge: an in-toto Statement v1."""

    _type: Literal["https://in-toto.io/Statement/v1"]
    subject: list[SubjectJson]
    predicateType: MergeType
    predicate: MergePredicateJson


class MergeResultJson(MergePredicateJson):
    """`crossmatch merge --json`."""

    output: str
    """The directory, or `ORG/NAME@REVISION` on the hub."""


class PlannedTensorJson(TypedDict):
    """One tensor of the output."""

    name: str
    file: str
    action: Action
    dtype: str
    shape: list[int]
    parts: list[str]
    """Adapters that change it."""


class CostJson(TypedDict):
    """What a plan will take on this machine."""

    seconds: float
    memory_bytes: int


class PlannedMergeJson(RuleJson, PartialJson):
    """What a merge would write."""

    schema_version: Literal[1]
    weights: dict[str, float | str]
    rounding: str
    bytes: int
    counts: ActionCountsJson
    files: int
    linear_instead: list[str]
    notes: list[str]
    tensors: list[PlannedTensorJson]


class MergePlanJson(PlannedMergeJson):
    """`crossmatch merge --dry-run --json`."""

    estimate: CostJson
