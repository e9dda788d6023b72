"""Which modules of a fine-tune a log-odds comes from: a part of analysis.json."""

from typing import Literal

from typing_extensions import TypedDict

from crossmatch.results.figures import EstimateJson, FigureJson


class AttributionScopeJson(TypedDict):
    """How much was done."""

    nodes: int
    limit: int
    tolerance: float
    top: int
    controls: int
    tokens: int
    draws: int
    seed: int


class AttributedModuleJson(TypedDict):
    """What one module's delta adds."""

    name: str
    layer: int | None
    module: str
    gradient: EstimateJson
    integrated: EstimateJson


class RemovedModuleJson(AttributedModuleJson):
    """The same, with what taking the delta out does."""

    removed: EstimateJson
    confirmed: bool


class RankPairJson(TypedDict):
    """A rank correlation over the top modules, and over these and the controls."""

    top: FigureJson
    all: FigureJson


class PredictorRanksJson(TypedDict):
    """Of both predictors."""

    integrated: RankPairJson
    gradient: RankPairJson


class RemovalProofJson(TypedDict):
    """The first modules, and controls, taken out one by one."""

    modules: list[RemovedModuleJson]
    controls: list[RemovedModuleJson]
    confirmed: int
    larger: int | None
    """Top modules that change more than any control does."""
    spearman: PredictorRanksJson


class AttributionJson(TypedDict):
    """What every module's delta adds to the mean log-odds of the items, in nats."""

    schema_version: Literal[1]
    scope: AttributionScopeJson
    metric: str
    items: int
    base: EstimateJson
    tuned: EstimateJson
    change: EstimateJson
    integrated: EstimateJson
    completeness: float | None
    """The sum of the attributions over the change."""
    complete: bool
    nodes: int
    modules: list[AttributedModuleJson]
    types: dict[str, EstimateJson]
    removed: RemovalProofJson
