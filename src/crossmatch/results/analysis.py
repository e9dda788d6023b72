"""analysis.json: what fine-tuning changed in the weights, and what `--texts`, `--questions` and `--openings` add."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.answers import AnswerJson
from crossmatch.results.attribution import AttributionJson
from crossmatch.results.figures import NullFigureJson
from crossmatch.results.representations import RepresentationsJson

ANALYSIS_VERSION = 1


class AnalysedBaseJson(TypedDict):
    """The base; digest null: its weights were not read."""

    path: str
    architecture: str | None
    digest: str | None


class AnalysedVectorJson(TypedDict):
    """One tuning vector."""

    path: str
    kind: Literal["adapter", "vector", "checkpoint"]
    digest: str
    tensors: int
    on_its_base: bool | None
    """Whether it was made on these weights; null: not known."""


class MatrixPlaceJson(TypedDict):
    """Where a matrix lies."""

    name: str
    layer: int | None
    module: str
    part: str | None
    """`attn`, `mlp`, or null."""


class RowPlaceJson(TypedDict):
    """Where the matrix of a row lies, or by which key its group is known."""

    name: NotRequired[str]
    layer: NotRequired[int | None]
    module: NotRequired[str]
    part: NotRequired[str | None]
    """`attn`, `mlp`, or null."""
    key: NotRequired[str | int | None]


class PlaceJson(RowPlaceJson):
    """A row of one matrix by name (level `module`), or of a group of them by key."""

    level: str
    """`module`, `type`, `layer`, `<tower> layer` or `all`."""


class SizeJson(PlaceJson):
    """How large a change is."""

    shape: NotRequired[list[int]]
    method: NotRequired[str]
    """`factors`, `exact`, `sketch` or `vector`."""
    n: NotRequired[int]
    """Modules of a group."""
    frobenius: float
    spectral: float | None
    stable_rank: float | None
    effective_rank: float | None
    effective_rank_bounds: NotRequired[list[float] | None]
    """Where the effective rank is, if not all singular values are known."""
    base_norm: NotRequired[float | None]
    share: float | None
    """Norm over the base's."""
    singular_values: NotRequired[list[float]]


class HeadGroupJson(MatrixPlaceJson):
    """The part of one attention matrix that belongs to one key-value head."""

    group: int
    query_heads: int
    energy: float | None
    """Share of the matrix's squared norm."""
    null: float
    frobenius: float
    share: float | None


class SubspaceSummaryJson(TypedDict):
    """How the base's leading directions were come by, and how good they are at worst."""

    matrices: int
    cached: int
    directions: dict[str, int]
    largest_residual: float | None
    largest_figure_error: NotRequired[float | None]
    smallest_energy: float | None


class AlignmentJson(PlaceJson):
    """How a change lies to the k leading singular directions of its matrix; parts are shares of its squared norm."""

    k_label: str
    """How k was asked for: a number, `r`, or `90%`."""
    k: float
    n: int
    ee: NullFigureJson
    """Reads existing directions, writes existing ones."""
    ew: NullFigureJson
    """Reads new, writes existing."""
    er: NullFigureJson
    """Reads existing, writes new."""
    nn: NullFigureJson
    """Reads new, writes new."""
    write_existing: NullFigureJson
    read_existing: NullFigureJson
    write_new: NullFigureJson
    diagonal: NullFigureJson
    """Energy on pairs (u_i, v_i)."""
    gain: NullFigureJson
    """Relative change of the leading singular values, to first order."""
    gains: list[float]
    base_energy: float | None


class ReadingsJson(PlaceJson):
    """Three readings of what fine-tuning does to singular directions."""

    n: int
    intruders: NullFigureJson
    intruders_least: NotRequired[float]
    """Share that are intruders whatever the directions of the base are that were not computed."""
    amplified: NullFigureJson
    spread: NullFigureJson
    turned: NullFigureJson
    coordination: NullFigureJson
    certain: bool
    """Whether the leading pairs are converged, and nothing that was not computed changes `intruders`."""


class SpacesJson(TypedDict):
    """How two column (or row) spaces lie to each other."""

    cosines: list[float]
    overlap: NullFigureJson
    grassmann: float
    """Geodesic distance in radians."""


class SharedDirectionJson(TypedDict):
    """A principal pair of two column spaces, and its part of the interference."""

    cosine: float
    interference: float


class OverlapRowJson(PlaceJson):
    """How two changes of one matrix relate."""

    n: int
    cosine: NullFigureJson
    energy_ratio: float | None
    first_norm: float
    second_norm: float
    columns: SpacesJson | None
    rows: SpacesJson | None
    second_in_columns: NullFigureJson
    first_in_columns: NullFigureJson
    second_in_rows: NullFigureJson
    first_in_rows: NullFigureJson
    interference: NullFigureJson
    """What the sum's energy is more or less than the parts'."""
    shared: list[SharedDirectionJson]
    sign_conflict: NullFigureJson | None


class OverlapTableJson(TypedDict):
    """All matrices that two vectors change."""

    first: str
    second: str
    weights: list[float]
    rows: list[OverlapRowJson]


class ClaimPartJson(TypedDict):
    """One number that a statement needs on one side of `null`."""

    what: str
    value: float | None
    low: float | None
    high: float | None
    ceiling: NotRequired[float | None]
    null: float
    effect: NotRequired[float]
    """By how much it must be apart to matter."""
    layers: int
    test: NotRequired[str]
    """What was exchanged: `layers` or `modules`."""
    holds: bool | None


class ClaimJson(TypedDict):
    """A statement of the literature about one vector, put to the numbers."""

    id: str
    vector: str
    statement: str
    k_label: str
    primary: bool
    """Whether this k is read first."""
    verdict: str
    """`supported`, `contradicted`, `no difference that matters`, or `not decided at this size`."""
    why: str | None
    parts: list[ClaimPartJson]


class LeftOutJson(TypedDict):
    """What was not measured, and why."""

    vector: str | None
    name: str | None
    measure: str
    why: str


class WeightsAnalysisJson(TypedDict):
    """What weights alone say, by vector."""

    size: dict[str, list[SizeJson]]
    heads: dict[str, list[HeadGroupJson]]
    subspaces: SubspaceSummaryJson | None
    alignment: dict[str, list[AlignmentJson]]
    readings: dict[str, list[ReadingsJson]]
    overlap: list[OverlapTableJson]
    """Every pair of vectors."""
    claims: list[ClaimJson]
    left_out: list[LeftOutJson]


class AnalysisJson(WeightsAnalysisJson):
    """Everything that `crossmatch analyse` says of some tuning vectors on one base."""

    schema_version: Literal[1]
    base: AnalysedBaseJson
    vectors: dict[str, AnalysedVectorJson]
    seconds: float
    answers: NotRequired[list[AnswerJson]]
    representations: NotRequired[dict[str, RepresentationsJson]]
    """With --texts, by vector."""
    attribution: NotRequired[dict[str, dict[str, AttributionJson]]]
    """With --questions or --openings: vector -> `questions`, `openings`."""
