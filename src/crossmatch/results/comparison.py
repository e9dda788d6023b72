"""`crossmatch compare --json`: two finished runs, document by document."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.answers import ComparisonAnswerJson
from crossmatch.results.figures import DifferenceJson, FigureJson


class NonInferiorityJson(TypedDict):
    """Whether B is worse than A by less than the margin."""

    answer: Literal["yes", "no", "cannot tell"]
    margin: float
    items: int | None
    """Documents that would decide, if the difference is the one found."""
    items_if_equal: int | None


class LineJson(TypedDict):
    """One metric of one task: both figures and B - A."""

    task: str
    metric: str
    a: FigureJson
    b: FigureJson
    difference: DifferenceJson | None
    higher_is_better: bool | None
    """None where it is not known."""
    direction: Literal["recorded", "given", "known", "unknown"]
    """How the direction is known: the run recorded it, the user gave it, or the metric's name is known."""
    point: float | None
    """What one point is in the metric's unit."""
    non_inferior: NonInferiorityJson | None


class PairingJson(TypedDict):
    """How the documents of a task were paired."""

    task: str
    paired: int
    only_a: int
    only_b: int
    unanswered: int
    other_prompts: int | None


class RunComparisonJson(TypedDict):
    """The comparison of two runs A and B."""

    schema_version: Literal[1]
    a: str
    b: str
    form: Literal["lm-eval", "crossmatch"]
    """Who wrote the runs."""
    lines: list[LineJson]
    pairings: list[PairingJson]
    notes: list[str]
    margin: float | None
    not_worse: Literal["yes", "no", "cannot tell"] | None
    answers: NotRequired[list[ComparisonAnswerJson]]
