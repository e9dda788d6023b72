"""summary.json: the figures and differences of an evaluation."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.answers import AnswerJson
from crossmatch.results.figures import BoundsJson, DifferenceJson, FigureJson
from crossmatch.results.interference import InterferenceJson

SUMMARY_VERSION = 3
Against = Literal["difference", "difference_base", "difference_control", "difference_null"]
# What an entry of a metric is compared with.
AGAINST: tuple[Against, ...] = ("difference", "difference_base", "difference_control", "difference_null")
VariantKind = Literal["base", "adapter", "merge", "control", "null", "strength", "removal", "checkpoint", "served"]
FallPart = Literal["total", "dilution", "content", "length", "rest"]
# Of a fall in BLEU.
FALL_PARTS: tuple[FallPart, ...] = ("total", "dilution", "content", "length", "rest")


class NullJson(TypedDict):
    """A random delta that stands for an adapter."""

    adapter: str
    kind: Literal["spectrum", "norm", "shuffled"]
    """Same singular values, same norm and rank, or the same deltas on other layers."""
    seed: int
    weight: float | str


class VariantJson(TypedDict):
    """A model that was evaluated."""

    kind: VariantKind
    weights: dict[str, float | str]
    """Adapter -> its weight, a number or a text by module."""
    note: str | None
    """What a reader must know of it."""
    nulls: NotRequired[list[NullJson]]


class EntryJson(FigureJson):
    """One metric of one variant, with its differences; null where there is nothing to compare or no test."""

    difference: DifferenceJson | None
    """From the reference."""
    difference_base: DifferenceJson | None
    """From the base."""
    difference_control: DifferenceJson | None
    """Of a merge, from its scale-matched control."""
    difference_null: DifferenceJson | None
    """Of a merge, from its random nulls, pooled."""


class FailedItemsJson(TypedDict):
    """Items that a variant did not answer."""

    failed: int
    reason: str
    """The first reason."""


class FlipsJson(TypedDict):
    """Items by right and wrong, a variant against another."""

    kept: int
    """Both right."""
    gained: int
    """Only this one right."""
    lost: int
    """Only the other one right."""
    wrong_alike: int
    wrong_otherwise: int
    gained_ids: list[str]
    lost_ids: list[str]
    against: NotRequired[str]
    """`control` in the row of a merge's control; without it the reference."""
    other: NotRequired[str]
    """The variant that it is compared with, if not the reference."""


class FallJson(TypedDict):
    """A difference in BLEU of the whole output, taken apart: total = dilution + content; length + rest = total."""

    total: DifferenceJson | None
    dilution: DifferenceJson | None
    """What the trace costs."""
    content: DifferenceJson | None
    length: DifferenceJson | None
    """What length alone explains."""
    rest: DifferenceJson | None
    against: NotRequired[str]
    other: NotRequired[str]


class SuiteResultJson(TypedDict):
    """Figures and differences of one suite under one condition."""

    kind: str
    version: int
    language: NotRequired[str]
    match: NotRequired[str | None]
    """How answers are matched with the reference: `text`, `number`, or null."""
    digest: str
    source: str | None
    """The file or data set of its items."""
    left_out: int
    """Rows of the source that the suite leaves out."""
    n: int
    """Items that all variants answered."""
    asked: int
    incomplete: dict[str, FailedItemsJson] | None
    """Variant -> items without an answer; null if there are none."""
    signatures: dict[str, str]
    """How scores are made where there is more than one way."""
    metrics: dict[str, dict[str, EntryJson]]
    """Metric -> variant -> figure (`docs/evaluate.md` lists the metrics)."""
    flips: NotRequired[dict[str, FlipsJson | list[FlipsJson]]]
    """Of scored choices, by variant: a row, or several of a merge with its control."""
    flips_generated: NotRequired[dict[str, FlipsJson | list[FlipsJson]]]
    fall: NotRequired[dict[str, FallJson | list[FallJson]]]
    clean: NotRequired["SuiteResultJson"]
    """The same of the items that no training data touch."""


class DivergenceRowJson(FigureJson):
    """Whether the surface of answers fell further than the choices, in standard errors: below zero it did."""

    surface: str
    choices: str
    """The two suites."""
    variant: str
    against: str
    """`reference` or `control`."""
    other: str
    surface_metric: str
    choices_metric: str


class StrengthPointJson(FigureJson):
    """A metric at one strength of a vector."""

    strength: float
    variant: str


class RemovedNullJson(TypedDict):
    """What removing the nulls of a vector costs."""

    seeds: int
    drop: DifferenceJson | None
    by_seed: list[float | None]
    beyond: DifferenceJson | None
    """How much more removing the vector costs."""


class CriticalityJson(TypedDict):
    """What removing a vector costs on one metric."""

    n: int
    removed: DifferenceJson | None
    nulls: dict[str, RemovedNullJson]
    verdict: Literal["critical", "not critical", "undecided"] | None


class BestPointJson(TypedDict):
    """Whether the best point of a grid beats something, by intervals that hold for all points at once."""

    verdict: Literal["confirmed", "refuted", "undecided"]
    value: float
    low: float
    high: float
    variant: str


class GapJson(TypedDict):
    """A difference of normalised means."""

    value: float
    low: float | None
    high: float | None


class AgainstJson(TypedDict):
    """Points of a grid against one other vector."""

    other: str
    differences: dict[str, DifferenceJson | None]
    best: BestPointJson


class MeanAgainstJson(TypedDict):
    """The same of the mean over domains."""

    other: str
    differences: dict[str, GapJson]
    best: BestPointJson


class CombinedSuiteJson(TypedDict):
    """Sums of vectors on one suite of one domain."""

    domain: str
    suite: str
    metric: str
    figures: dict[str, FigureJson]
    against_single: AgainstJson
    against_joint: NotRequired[AgainstJson]


class CombinedMeanJson(TypedDict):
    """The normalised mean over domains; figures null, and why, where a domain's own vector has no certain gain."""

    gains: dict[str, DifferenceJson | None]
    figures: dict[str, BoundsJson] | None
    why: NotRequired[str]
    against_single: NotRequired[MeanAgainstJson]
    against_joint: NotRequired[MeanAgainstJson]


class GridPointJson(TypedDict):
    """One point of a grid of weights."""

    variant: str
    weights: dict[str, float]


class CombinationJson(TypedDict):
    """Sums of vectors trained apart, scored on each one's domain."""

    singles: list[str]
    joint: str | None
    normalisation: str
    points: list[GridPointJson]
    suites: list[CombinedSuiteJson]
    mean: CombinedMeanJson


class ConditionJson(TypedDict):
    """All suites under one template and decoding."""

    template: str
    decoding: str
    seeds: int
    suites: dict[str, SuiteResultJson]
    divergence: list[DivergenceRowJson]
    strengths: NotRequired[dict[str, dict[str, dict[str, list[StrengthPointJson]]]]]
    """Vector -> suite -> metric -> figures by ascending strength."""
    critical: NotRequired[dict[str, dict[str, dict[str, CriticalityJson]]]]
    """Vector -> suite -> metric -> what removing it costs."""
    combination: NotRequired[CombinationJson]


class ServerJson(TypedDict):
    """The model on a server, and whether it is the one it is said to be."""

    url: str
    model: str
    same_as: str | None
    software: str | None
    version: str | None
    verdict: Literal["same", "other", "unknown"]
    agreement: float | None
    gap: float | None
    probes: int
    line: str
    """The finding in one line."""
    unchecked: str | None


class TokenJson(TypedDict):
    """A token of a vocabulary."""

    id: int
    text: str


class StopsJson(TypedDict):
    """Where generation stops: at any of these tokens, or before any of these texts."""

    tokens: list[TokenJson]
    texts: list[str]


class TurnEndJson(StopsJson):
    """Where answers end under a condition."""

    closing: str | None
    """What the template puts after an answer."""


class SummaryJson(TypedDict):
    """Every figure with n and interval, every difference paired, tested and adjusted."""

    schema_version: Literal[3]
    reference: str
    """The variant with which the others are compared."""
    variants: dict[str, VariantJson]
    conditions: dict[str, ConditionJson]
    server: NotRequired[ServerJson]
    on_its_base: NotRequired[dict[str, bool | None]]
    """Whether a vector was made on these weights; null: it does not say."""
    trained_with: NotRequired[dict[str, dict[str, bool | None]]]
    """Condition -> adapter -> whether it was trained with this template; null: no record tells."""
    answers: NotRequired[list[AnswerJson]]
    turn_ends: NotRequired[dict[str, TurnEndJson]]
    """By condition."""
    days: NotRequired[dict[str, str]]
    """Condition -> the day that its template was given as today."""
    interference: NotRequired[InterferenceJson]
    """Only in what `evaluate --interference --json` prints."""
