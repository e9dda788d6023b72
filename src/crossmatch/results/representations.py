"""What a fine-tune does to the activations, layer by layer: a part of analysis.json."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.figures import BoundsJson


class ComparisonScopeJson(TypedDict):
    """How much was looked at."""

    positions: int
    length: int
    ks: list[int]
    parts: list[str]
    nulls: int
    massive: float
    small: float
    draws: int
    tokens: int
    seed: int


class SvccaJson(BoundsJson):
    """Mean canonical correlation."""

    kept: list[int]
    """Axes kept on each side."""
    null: float | None


class TurnJson(TypedDict):
    """How the space of the first k principal axes is turned."""

    k: int
    cosine2: BoundsJson
    """Mean squared cosine of the principal angles."""
    null: float
    null_sd: float
    rotated: list[float]
    """The same for shifts turned at random."""
    cosines: list[float]
    inside: BoundsJson
    """Share of the shift's energy in the base's first k axes."""
    inside_null: float
    inside_null_sd: float


class RandomShiftJson(TypedDict):
    """The shift that a random vector of the same spectrum makes."""

    seed: int
    size: float | None
    effective_rank: float | None
    participation: float | None
    k90: int | None
    inside: list[float | None]


class ViewJson(TypedDict):
    """Base and tuned activations of one layer."""

    positions: int
    dimensions: int
    cka: BoundsJson
    cka_plain: BoundsJson
    svcca: SvccaJson
    subspaces: list[TurnJson]
    size: BoundsJson
    """Norm of the shift over that of the activations."""
    constant: BoundsJson
    """Share of the shift that is its mean."""
    effective_rank: BoundsJson
    participation: BoundsJson
    k90: int | None
    base_effective_rank: BoundsJson
    random: list[RandomShiftJson]


class LayerViewsJson(TypedDict):
    """One layer, or a half of it."""

    layer: int
    part: str
    massive: list[int]
    """Dimensions of massive activations in the base."""
    all: ViewJson
    without: ViewJson
    """The same without first tokens and massive dimensions."""


class LayerReadingJson(TypedDict):
    """A reading of the claim at one layer."""

    layer: int
    part: BoundsJson
    ratio: BoundsJson
    verdict: str


class ReadingJson(TypedDict):
    """One reading of the claim over all layers."""

    part: BoundsJson | None
    ratio: BoundsJson | None
    verdict: str
    reason: str
    layers: list[LayerReadingJson]


class SmallSubspaceJson(TypedDict):
    """Whether a fine-tune changes a small part of what its base represents."""

    small: float
    verdict: str
    reason: str
    directions: NotRequired[ReadingJson]
    subspace: NotRequired[ReadingJson]


class RepresentationsJson(TypedDict):
    """The same tokens through base and tuned model, compared at every layer."""

    schema_version: Literal[1]
    scope: ComparisonScopeJson
    level: float
    """Of the intervals."""
    variance: float
    positions: int
    texts: int
    equal: bool
    """Whether no activation differs anywhere."""
    layers: list[LayerViewsJson]
    claim: SmallSubspaceJson | None
