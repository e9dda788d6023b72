"""An answer to a question that a user may ask, with the figures that it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crossmatch.results.answers import AnswerJson, EvidenceJson

Json = Mapping[str, Any]
Outcome = Literal["yes", "no", "cannot tell"]
YES: Outcome = "yes"
NO: Outcome = "no"
CANNOT_TELL: Outcome = "cannot tell"
_NEXT_TO_NOTHING = 0.05


@dataclass(frozen=True)
class Evidence:
    """One figure that an answer rests on.

    where: the file and the keys in it, as `summary.json: conditions/own.greedy/suites/define/...`; text: the figure
    with its interval; n: items; needed: items that would decide with 80% power (None: decided, or not known).
    """

    where: str
    text: str
    n: int | None = None
    needed: int | None = None

    def to_dict(self) -> EvidenceJson:
        """As plain JSON."""
        return {"where": self.where, "text": self.text, "n": self.n, "needed": self.needed}


@dataclass(frozen=True)
class Answer:
    """One question, answered.

    id: what a pipeline asks for; about, against, condition: the variant, what it is compared with and under which
    template and decoding (None where there is no such thing); good: which outcome is the welcome one; sentence: one or
    two plain sentences; short: the same as part of a sentence, for a terminal; next: what to do, if there is anything.
    """

    id: str
    question: str
    outcome: Outcome
    sentence: str
    short: str = ""
    about: str | None = None
    against: str | None = None
    condition: str | None = None
    good: Outcome = YES
    margin: float | None = None
    evidence: tuple[Evidence, ...] = field(default=())
    next: str | None = None

    def to_dict(self) -> AnswerJson:
        """As plain JSON; `needed` is the number of items that would decide the figure that needs most."""
        needed = [one.needed for one in self.evidence if one.needed is not None]
        return {
            "id": self.id,
            "question": self.question,
            "about": self.about,
            "against": self.against,
            "condition": self.condition,
            "outcome": self.outcome,
            "good": self.good,
            "sentence": self.sentence,
            "short": self.short,
            "margin": self.margin,
            "needed": max(needed) if needed and self.outcome == CANNOT_TELL else None,
            "evidence": [one.to_dict() for one in self.evidence],
            "next": self.next,
        }


def all_of(outcomes: list[Outcome]) -> Outcome:
    """yes if every part is, no if one part is, else cannot tell; cannot tell of nothing."""
    if NO in outcomes:
        return NO
    return YES if outcomes and set(outcomes) == {YES} else CANNOT_TELL


def joined(parts: list[str], word: str = "and") -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}" if parts else ""


def change_text(found: Json, scale: float = 1.0, digits: int = 1) -> str:
    """A difference with its 95% interval: -1.2, -4.1 to +0.9."""
    small = max(abs(found[key] * scale) for key in ("value", "low", "high")) < _NEXT_TO_NOTHING
    value, low, high = (format(found[key] * scale, "+.2g" if small else f"+.{digits}f") for key in _BOUNDS)
    return f"{_unsigned(value)}, {_unsigned(low)} to {_unsigned(high)}"


_BOUNDS = ("value", "low", "high")


def _unsigned(text: str) -> str:
    """Zero has no sign."""
    return text[1:] if float(text) == 0 else text
