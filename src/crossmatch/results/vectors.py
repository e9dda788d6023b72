"""What the commands of `crossmatch vectors` print and leave beside a vector."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.merging import InputJson, MadeWithJson, MergePredicateJson, SubjectJson


class HeadsJson(TypedDict):
    """Attention heads of a model."""

    queries: int
    groups: int
    width: int


class TunedJson(InputJson):
    """The tuned checkpoint of a pair."""

    dtypes: list[str]


class ExactnessJson(TypedDict):
    """Elements of which base + vector is not, bit for bit, the tuned one, and why."""

    elements: int
    differ: int
    sign_of_zero: int
    rounded: int
    tensors: dict[str, int]


class WantedFormJson(TypedDict):
    """What was asked for."""

    rank: int | None
    energy: float | None
    seed: int


class MatrixFormJson(TypedDict):
    """One matrix as factors."""

    rank: int
    norm: float
    error: float
    relative_error: float | None
    spectral_bound: float


class WorstMatrixJson(TypedDict):
    """The matrix with the largest relative error."""

    tensor: str
    relative_error: float | None


class LowRankFormJson(TypedDict):
    """What it costs that a vector is kept as an adapter."""

    matrices: int
    rank: int | None
    ranks: list[int | None]
    wanted: WantedFormJson
    relative_error: float
    worst: WorstMatrixJson | None
    exact: list[str]
    exact_energy: float
    left_out: dict[str, float]
    tensors: dict[str, MatrixFormJson]


class SummandJson(InputJson):
    """One part of a sum of vectors."""

    weight: float | str
    factor: float
    """What brings it to the norm of another part."""
    norm: float
    norm_used: float


class CosineJson(TypedDict):
    """Cosine of two parts, as they are used."""

    first: str
    second: str
    cosine: float | None


# `from` is a keyword, and can be no field of a class.
TextFilesJson = TypedDict("TextFilesJson", {"from": str | None, "files": list[str], "disagree": list[str]})
"""Of which part tokenizer files were taken along, and the parts whose files disagree."""


MadeBy = Literal["extract", "add", "scale"]


class PairFactsJson(TypedDict):
    """Two checkpoints, and what of them differs."""

    base: InputJson
    tuned: TunedJson
    heads: HeadsJson | None
    changed: int
    unchanged: int
    rounding: float | None
    """Share of the squared norm that rounding to 16 bits makes by itself; none where the base is not wider."""
    notes: list[str]


class VectorFactsJson(TypedDict):
    """How a vector was made: `extract` (from a pair of checkpoints), `add` or `scale` (from vectors)."""

    made_by: MadeBy
    base: NotRequired[InputJson | None]
    tuned: NotRequired[TunedJson]
    heads: HeadsJson | None
    changed: NotRequired[int]
    unchanged: NotRequired[int]
    rounding: NotRequired[float | None]
    """Share of the squared norm that rounding to 16 bits makes by itself; none where the base is not wider."""
    notes: NotRequired[list[str]]
    dtype: NotRequired[str]
    exactness: NotRequired[ExactnessJson]
    form: NotRequired[LowRankFormJson]
    text_files: list[str] | TextFilesJson
    match_norm: NotRequired[str | None]
    parts: NotRequired[dict[str, SummandJson]]
    cosines: NotRequired[list[CosineJson]]
    norm: NotRequired[float]


class VectorPredicateJson(VectorFactsJson):
    """The same with its version, and those of what made it."""

    schema_version: Literal[1]
    versions: MadeWithJson


class VectorManifestJson(TypedDict):
    """crossmatch.json of a stored vector: an in-toto Statement v1."""

    _type: Literal["https://in-toto.io/Statement/v1"]
    subject: list[SubjectJson]
    predicateType: str
    predicate: VectorPredicateJson


class VectorResultJson(VectorPredicateJson):
    """`crossmatch vectors extract --json` and `vectors add --json`."""

    output: str


class StrengthNormJson(TypedDict):
    """One strength of a scaled vector."""

    strength: float
    norm: float


class ScaledJson(TypedDict):
    """`crossmatch vectors scale --json`."""

    schema_version: Literal[1]
    output: str
    strengths: list[StrengthNormJson]


class UnequalJson(TypedDict):
    """How many elements of a result are not the base's."""

    elements: int
    differ: int
    beyond: int
    tensors: dict[str, int]


class AppliedStrengthJson(MergePredicateJson):
    """One strength of a vector on a checkpoint: a merge of one vector."""

    strength: float
    weight: float
    against_base: NotRequired[UnequalJson | None]
    """`remove` at strength 1, where the base is known."""


class AppliedJson(TypedDict):
    """`crossmatch vectors apply --json` and `vectors remove --json`."""

    schema_version: Literal[1]
    output: str
    strengths: list[AppliedStrengthJson]


class GridManifestJson(TypedDict):
    """crossmatch.json of a directory that holds one result for each strength."""

    schema_version: Literal[1]
    kind: Literal["urn:crossmatch:strengths:1"]
    strengths: dict[str, float]
    """Directory -> strength."""
