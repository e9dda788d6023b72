"""How a statement's answer and its numbers are shown, those of files that were written with other words included."""

from collections.abc import Mapping
from typing import Any

# What analyses said before.
_FORMER = {"confirmed": "supported", "refuted": "contradicted", "undecided": "not decided at this size"}
_CLASSES = {"supported": "confirmed", "contradicted": "refuted"}


def answer(verdict: str) -> str:
    """supported, contradicted or not decided at this size."""
    return _FORMER.get(verdict, verdict)


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
    if effect and low is not None and high is not None and below <= low and high <= above:
        return f"within {effect:g} of {null:g}: no difference that matters"
    return f"not apart from {f'{below:g} to {above:g}' if effect else f'{null:g}'}"
