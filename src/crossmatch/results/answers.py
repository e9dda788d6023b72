"""Answers to the questions that a user may ask, as every result of a command holds them under `answers`."""

from typing import Literal

from typing_extensions import TypedDict


class EvidenceJson(TypedDict):
    """One figure that an answer rests on."""

    where: str
    """The file and the keys in it."""
    text: str
    """The figure with its interval."""
    n: int | None
    """Items."""
    needed: int | None
    """Items that would decide with 80% power; null: decided, or not known."""


class ComparisonAnswerJson(TypedDict):
    """The question of a comparison of two runs, answered."""

    id: str
    """What a pipeline asks for."""
    question: str
    about: str | None
    """The variant, or the run."""
    against: str | None
    """What it is compared with."""
    outcome: Literal["yes", "no", "cannot tell"]
    sentence: str
    margin: float | None
    """Points that may be lost."""
    needed: int | None
    """Items that would decide; null if it is decided, or not known."""


class AnswerJson(ComparisonAnswerJson):
    """One question, answered."""

    condition: str | None
    """Template and decoding."""
    good: Literal["yes", "no", "cannot tell"]
    """The welcome outcome."""
    short: str
    """The sentence as part of another."""
    evidence: list[EvidenceJson]
    next: str | None
    """What to do."""
