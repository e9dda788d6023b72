"""How a statement's answer and its numbers are shown, those of files that were written with other words included."""

from collections.abc import Mapping
from typing import Any

# What analyses said before.
_FORMER = {"confirmed": "supported", "refuted": "contradicted", "undecided": "not decided at this size"}
_OPEN, _NONE = "not decided at this size", "no difference that matters"
_CLASSES = {"supported": "confirmed", "contradicted": "refuted"}


def answer(verdict: str) -> str:
    """supported, contradicted, no difference that matters or not decided at this size."""
    return _FORMER.get(verdict, verdict)


def answer_of(claim: Mapping[str, Any]) -> str:
    """The same of a whole statement: files from before the third answer left it open, but hold the intervals."""
    said = answer(claim["verdict"])
    return _NONE if said == _OPEN and any(negligible(part) for part in claim["parts"]) else said


def negligible(part: Mapping[str, Any]) -> bool:
    """Whether a number's whole interval lies within the smallest effect that matters."""
    low, high, null, effect = part["low"], part["high"], part["null"], part.get("effect", 0.0)
    known = effect and low is not None and high is not None
    return bool(known and null - effect <= low and high <= null + effect)


def style(verdict: str) -> str:
    """The answer's class on the page."""
    return _CLASSES.get(answer(verdict), "undecided")


def side(part: Mapping[str, Any]) -> str:
    """Where a number's interval is, in words: beyond its bound, or how near to it."""
    low, high, null, effect = part["low"], part["high"], part["null"], part.get("effect", 0.0)
    above, below = null + effect, null - effect
    if low is not None and low > above:
        return f"above {above:g}"
    if high is not None and high < below:
        return f"below {below:g}"
    if negligible(part):
        return f"within {effect:g} of {null:g}: {_NONE}"
    return f"not apart from {f'{below:g} to {above:g}' if effect else f'{null:g}'}"
