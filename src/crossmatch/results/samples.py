"""samples.json: answers side by side."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class WrittenJson(TypedDict):
    """A text with its traces, as the page shows it."""

    text: str
    trace: str
    lexical: bool
    marks: list[list[int]]
    """[begin, end] of what counts as trace, in units of UTF-16."""
    right: NotRequired[bool]


class SampleAnswerJson(TypedDict):
    """One variant's answer to one question."""

    text: str
    """The option, or the text."""
    right: NotRequired[bool | None]
    trace: NotRequired[str]
    lexical: NotRequired[bool]
    marks: NotRequired[list[list[int]]]
    generated: NotRequired[WrittenJson]
    """The text of a choice that was both scored and generated."""


class SampleRowJson(TypedDict):
    """One question with every variant's answer."""

    id: str
    question: str
    reference: str
    answers: list[SampleAnswerJson]
    """In the order of `variants`."""


class SampleSuiteJson(TypedDict):
    """The questions of one suite."""

    kind: str
    rows: list[SampleRowJson]


class SamplesJson(TypedDict):
    """Answers of all variants to the same questions, by condition and suite; of several seeds the first."""

    schema_version: Literal[1]
    variants: list[str]
    conditions: dict[str, dict[str, SampleSuiteJson]]
