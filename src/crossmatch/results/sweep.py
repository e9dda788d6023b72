"""sweep.json and the plan of a sweep: weights that were searched, confirmed and recommended."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.figures import DifferenceJson, FigureJson


class MeasureJson(TypedDict):
    """A metric of a suite."""

    suite: str
    metric: str
    higher_is_better: bool


class PointFigureJson(FigureJson):
    """A figure of a point."""

    gain: DifferenceJson | None
    """Over the reference."""


class KeptConstraintJson(TypedDict):
    """Whether a point keeps a constraint."""

    constraint: str
    value: float | None
    low: float | None
    high: float | None
    holds: bool | None
    items_that_would_decide: int | None


class PointJson(TypedDict):
    """A point of the space: weights, rule, template."""

    name: str
    kind: str
    weights: dict[str, float | str]
    rule: str
    parameters: dict[str, Any]
    template: str


class SearchedPointJson(PointJson):
    """A point that was tried."""

    number: int
    items: int
    dropped: str | None
    """Why it was dropped on the way."""
    search: dict[str, PointFigureJson]
    """`suite.metric` -> figure."""
    constraints: list[KeptConstraintJson]
    holds: bool | None


class ConfirmedPointJson(TypedDict):
    """A point that was asked the confirmation items."""

    number: int
    name: str
    figures: dict[str, PointFigureJson]


class TogetherJson(TypedDict):
    """Bounds that hold for all finalists at once."""

    low: float
    high: float


class FinalistGainJson(TypedDict):
    """A goal of a finalist: what the search claimed, and what was confirmed."""

    goal: str
    claimed: DifferenceJson | None
    confirmed: DifferenceJson | None
    together: TogetherJson | None
    optimism: float | None


class FinalistJson(TypedDict):
    """A point that was confirmed."""

    number: int
    name: str
    gains: list[FinalistGainJson]
    constraints: list[KeptConstraintJson]
    holds: bool | None
    better: bool | None
    control: str | None
    over_control: list[DifferenceJson | None] | None


class ConfirmationJson(TypedDict):
    """What unseen items say."""

    points: list[ConfirmedPointJson]
    finalists: list[FinalistJson]


class QuestionsJson(TypedDict):
    """Items that candidates were asked, and what all of them would have been."""

    candidates: int
    asked: int
    without_halving: int
    saved: float


class RecommendationJson(PointJson):
    """The point to ship, and why."""

    number: int
    confirmed: bool
    sentence: str
    reasons: list[str]
    against: dict[str, dict[str, DifferenceJson | None]]


class RepairedPointJson(PointJson):
    """A merge with one adapter changed."""

    change: str
    adapter: str
    kept: float
    """Norm of the adapter's update over the one before."""


class RepairCandidateJson(RepairedPointJson):
    """A change that may mend a merge. What was not asked has no figures."""

    foretold: float | None
    """By gates: change of the target in nats; less is better."""
    search: dict[str, PointFigureJson] | None
    constraints: list[KeptConstraintJson] | None
    holds: bool | None


class RepairForetoldJson(TypedDict):
    """From what gates foretold the effect of a change, and how well they put in order what was asked."""

    suite: str
    items: int
    target: str
    agreement: FigureJson


class RepairConfirmedJson(TypedDict):
    """One of `repaired`, `merge`, `null`, `reference` on the confirmation items."""

    role: str
    name: str
    figures: dict[str, PointFigureJson]
    constraints: list[KeptConstraintJson]
    holds: bool


class RepairConfirmationJson(TypedDict):
    """What unseen items say of the chosen change."""

    points: list[RepairConfirmedJson]
    over: dict[str, dict[str, DifferenceJson | None]]
    """By how much it is better than `merge`, `null`, `reference`, by measure."""
    null: PointJson
    """The whole adapter lowered until as much of its norm is left."""
    beyond_null: Literal["better", "worse", "not distinguishable"]


class RepairJson(TypedDict):
    """The cheapest change that mends a merge."""

    outcome: Literal["no fault", "not mended", "not confirmed", "mended"]
    sentence: str
    reasons: list[str]
    point: PointJson | None
    """The merge."""
    faults: list[KeptConstraintJson]
    """What it does not keep on the search items."""
    foretold: RepairForetoldJson | None
    candidates: list[RepairCandidateJson]
    repaired: RepairedPointJson | None
    confirmation: RepairConfirmationJson | None


class PairOverlapJson(TypedDict):
    """How two updates relate, over all tensors."""

    first: str
    second: str
    cosine: float | None
    columns: float | None
    """Mean squared cosine of the column spaces."""
    rows: float | None


class ScoreAgreementJson(FigureJson):
    """Rank correlation of a score with the measured gain."""

    score: str
    title: str
    what: str


class WeightScoresJson(TypedDict):
    """Scores that are known before anything is asked."""

    size: float
    added: float
    away: float
    prism: float


class ModelScoresJson(TypedDict):
    """Scores that take passes of the model over a few texts."""

    hidden: float
    gates: float


class PredictedScoresJson(WeightScoresJson):
    """All scores of one merge."""

    hidden: NotRequired[float]
    gates: NotRequired[float]


class PromptsJson(TypedDict):
    """Of what texts the scores that take passes of the model are."""

    suite: str
    items: int


class PointScoresJson(WeightScoresJson):
    """The same of a point that was measured."""

    number: int
    gain: float


class PredictionJson(TypedDict):
    """How well scores of the weights would have put the points in order."""

    goal: str
    scores: list[PointScoresJson]
    agreement: list[ScoreAgreementJson]
    sizes: dict[str, float]
    pairs: list[PairOverlapJson]


class SweptAgreementJson(TypedDict):
    """The same, taken from a sweep."""

    sweep: str
    goal: str
    scores: list[ScoreAgreementJson]


class PredictJson(TypedDict):
    """`crossmatch predict --json`."""

    schema_version: Literal[1]
    reference: str
    weights: dict[str, float | str]
    sizes: dict[str, float]
    """Norm of each update at weight one."""
    pairs: list[PairOverlapJson]
    scores: PredictedScoresJson
    texts: NotRequired[PromptsJson | None]
    prism_threshold: float
    agreement: SweptAgreementJson | None


class SweepDigestsJson(TypedDict):
    """Digests of what a sweep reads."""

    base: str
    adapters: dict[str, str]
    suites: dict[str, str]
    calibration: str | None


class SweepStudyJson(TypedDict):
    """All that decides what a sweep does: the recipe with its defaults, where work is done left out."""

    schema_version: Literal[1]
    name: str
    base: str
    adapters: dict[str, str]
    suites: list[str]
    reference: str
    space: dict[str, Any]
    """As it is searched: `weights`, `rules`, `templates`."""
    fixed: dict[str, float]
    rules: dict[str, dict[str, Any]]
    calibration: str | None
    templates: list[str]
    goals: list[str]
    constraints: list[str]
    method: str
    trials: int
    seed: int
    halving: list[float]
    finalists: int
    confirm: float
    shard: int
    dtype: str | None
    allow_partial_adapter: bool
    digests: SweepDigestsJson


class SweepSecondsJson(TypedDict):
    """How long the last call of a sweep took."""

    schema_version: Literal[1]
    seconds: float
    """From the search's first point to the last file."""
    asked_seconds: float
    """Of these, waiting for answers: models are loaded, weights changed, questions answered."""


class SweepJson(TypedDict):
    """The result of a sweep."""

    schema_version: Literal[1]
    name: str
    study: SweepStudyJson
    reference: str
    goals: list[MeasureJson]
    measures: list[MeasureJson]
    parts: dict[str, dict[str, int]]
    """`search` and `confirmation`: suite -> items."""
    points: list[SearchedPointJson]
    front: list[int]
    knee: int | None
    ranked: list[int]
    confirmation: ConfirmationJson
    questions: QuestionsJson
    map: dict[str, Any] | None
    prediction: NotRequired[PredictionJson | None]
    recommendation: RecommendationJson
    repair: NotRequired[RepairJson]
    digest: str


class SweepGatesJson(TypedDict):
    """What gates foretell of a merge's modules, kept for the next call."""

    schema_version: Literal[1]
    key: str
    """Digest of the merge and of the items that were read."""
    suite: str
    items: int
    target: str
    """`loss`, or `odds` of a trace, in nats."""
    modules: dict[str, dict[str, float]]
    """Adapter -> tensor -> what it adds to the target."""


class SweepQuestionsJson(TypedDict):
    """Questions at most."""

    search: int
    confirmation: int


class SweepPlanJson(TypedDict):
    """`crossmatch sweep --dry-run --json`."""

    schema_version: Literal[1]
    name: str
    method: str
    points: int
    parts: dict[str, dict[str, int]]
    rungs: list[int]
    questions: SweepQuestionsJson
    lines: list[str]
    submission: NotRequired[str | None]
    """The command that hands the work to a cluster."""
