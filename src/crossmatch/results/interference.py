"""interference.json: what a guest adapter does to its host's task, predicted and measured."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.figures import EstimateJson, FigureJson


class InterferenceScopeJson(TypedDict):
    """How much was done."""

    measured: int
    nodes: int
    units: int
    multiples: list[float]
    tokens: int
    draws: int
    seed: int


class TextCountsJson(TypedDict):
    """Texts and tokens that were looked at."""

    items: int
    probes: int
    tokens: int
    measured_items: int
    measured_probes: int


class EffectEstimatesJson(TypedDict):
    """Of the two effects p (guest) and s (host) on the same inputs x."""

    ratio: EstimateJson
    """E||p||^2 / E||s||^2."""
    guest: EstimateJson
    """E||p||^2 / E||W x||^2."""
    host: EstimateJson
    """E||s||^2 / E||W x||^2."""
    inside: EstimateJson
    """Share of the guest's energy in the output space of the host's delta."""
    cosine: EstimateJson
    reversed: EstimateJson
    """How much of the host's effect is taken back along its own direction."""
    obscured: EstimateJson
    """Share of tokens where the guest's effect across that direction is larger than the host's."""


class EffectsJson(EffectEstimatesJson):
    """The same at the tokens of one class."""

    kind: str
    n: int
    texts: int


class ModuleEffectsJson(EffectsJson):
    """The same of one module."""

    name: str
    layer: int | None
    module: str
    inside_null: float | None
    """`inside` of a random direction."""


class PooledEffectsJson(EffectsJson):
    """The same of all modules that both adapters change, taken as one."""

    modules: int
    spread: list[float] | None
    """Lowest, median and highest ratio of single modules."""


class NonAdditivityJson(TypedDict):
    """How far the shift of the merge is from the sum of the two shifts, at one layer and class of tokens."""

    layer: int
    kind: str
    n: int
    texts: int
    ratio: EstimateJson
    to_merge: EstimateJson
    guest_to_host: EstimateJson
    cosine: float | None


class HostDivergenceJson(TypedDict):
    """KL(merge || host alone) in nats."""

    first_token: EstimateJson
    per_token: EstimateJson


class GateJson(TypedDict):
    """One module of one adapter: derivatives by a gate on its delta."""

    name: str
    layer: int | None
    module: str
    adapter: str
    gradient: EstimateJson
    alone: EstimateJson
    integrated: EstimateJson | None


class TargetAttributionJson(TypedDict):
    """Values of a target, its change by the guest, and the modules that it comes from."""

    host_alone: EstimateJson
    merge: EstimateJson
    change: EstimateJson
    integrated: EstimateJson
    completeness: float | None
    modules: list[GateJson]


class PredictedJson(TypedDict):
    """A predictor for switching off, switching on, and the mean of both."""

    off: float | None
    on: float | None
    mean: float | None


class AblatedUnitJson(TypedDict):
    """One group of modules: what switching the guest off and on there changes, beside the predictions."""

    name: str
    module: str
    layers: list[int] | None
    sites: int
    off: EstimateJson
    on: EstimateJson
    mean: float
    predicted: dict[str, PredictedJson]


class MeasuredJson(TypedDict):
    """All groups of modules."""

    units: list[AblatedUnitJson]


class RankAgreementJson(TypedDict):
    """Rank correlations of a prediction with what was measured."""

    change: FigureJson
    size: FigureJson


class ScorePointJson(TypedDict):
    """A target at multiples of the merge weights, measured and by expansions around references."""

    guest: float
    host: float
    measured: float
    first_order: float
    second_order: float


class WeightsGridJson(TypedDict):
    """A target over a grid of weights."""

    points: list[ScorePointJson]
    agreement: dict[str, FigureJson]


class InterferenceFactsJson(TypedDict):
    """What was predicted and measured."""

    texts: TextCountsJson
    activation: list[ModuleEffectsJson]
    classes: NotRequired[list[PooledEffectsJson]]
    residual: list[NonAdditivityJson]
    divergence: HostDivergenceJson
    attribution: dict[str, TargetAttributionJson]
    """By target: `loss`, and `odds` if there are probes."""
    measured: dict[str, MeasuredJson]
    agreement: dict[str, dict[str, dict[str, RankAgreementJson]]]
    """Target -> predictor -> off, on, mean."""
    weights_grid: dict[str, WeightsGridJson]


class InterferenceJson(InterferenceFactsJson):
    """Interference of one adapter of a merge (guest) with the task of the other (host)."""

    schema_version: Literal[1]
    guest: str
    host: str
    weights: dict[str, float | str]
    scope: InterferenceScopeJson
