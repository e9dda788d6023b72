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


class AnswerJson(TypedDict):
    """One question, answered."""

    id: str
    """What a pipeline asks for."""
    question: str
    about: str | None
    """The variant."""
    against: str | None
    """What it is compared with."""
    condition: str | None
    """Template and decoding."""
    outcome: Literal["yes", "no", "cannot tell"]
    good: Literal["yes", "no", "cannot tell"]
    """The welcome outcome."""
    sentence: str
    short: str
    """The same as part of a sentence."""
    margin: float | None
    """Points that may be lost."""
    needed: int | None
    """Items that would decide; null if it is decided, or not known."""
    evidence: list[EvidenceJson]
    next: str | None
    """What to do."""
