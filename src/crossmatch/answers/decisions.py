"""Three rules over a paired difference: is it as good, is it better, is it there at all. Each may be undecided.

Intervals are the summary's (95%), p-values its own, adjusted by Holm's procedure for the variants and suites of one
metric. So a rule errs as often as they do: `better` says yes of an equal variant in 5% of families at most, and
`as_good` says yes of a variant that is worse by the margin in 2.5% of cases.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossmatch.answers.answer import CANNOT_TELL, NO, YES, Outcome
from crossmatch.errors import InputError
from crossmatch.statistics.estimates import Difference
from crossmatch.statistics.non_inferiority import non_inferiority

Json = Mapping[str, Any]
LEVEL = 0.05
# Points of a score from 0 to 100, or percent of a perplexity, within which a merge is as good as what it replaces. A
# convention: one answer in fifty may be lost. A recipe sets another; the number of items that are needed grows with the
# square of its inverse.
MARGIN = 2.0
# Share of answers with a trace above which traces are back: one in twenty is met by every user.
TRACES = 0.05
_Z = 1.959963984540054
_NEVER = 10**9


def check_margin(value: float | None) -> None:
    """Raise InputError for a margin that is no number of points above 0."""
    if value is not None and not 0 < value <= 100:
        raise InputError(f"--margin {value:g}: give points above 0 and up to 100, as in 2")


@dataclass(frozen=True)
class Decision:
    """outcome: of the rule; clear: whether the difference itself is beyond chance (Holm), and in which direction
    (+1 better, -1 worse, 0 no); needed: items for 80% power at the margin."""

    outcome: Outcome
    clear: int = 0
    needed: int | None = None


def as_good(found: Json | None, margin: float, *, higher_is_better: bool = True, family: int = 1) -> Decision:
    """Is it not worse by more than the margin (in the metric's own unit)? None, of too few items: cannot tell.

    yes: the interval of the gain lies above -margin, or the gain is beyond chance. no: it lies below -margin, with an
    interval that holds for all `family` comparisons at once. items: for 80% power where there is no difference.
    """
    if found is None:
        return Decision(CANNOT_TELL)
    difference = Difference(**{key: value for key, value in found.items() if key in _FIELDS})
    judged = non_inferiority(difference, margin, higher_is_better=higher_is_better, family=family)
    clear = direction(found, higher_is_better=higher_is_better)
    if clear > 0:
        return Decision(YES, clear)
    return Decision(judged.answer, clear, judged.items_if_equal)


_FIELDS = tuple(Difference.__dataclass_fields__)


def better(found: Json | None, smallest: float, *, higher_is_better: bool = True) -> Decision:
    """Is it better at all? smallest: the gain that is worth having, in the metric's own unit.

    yes: better beyond chance (Holm). no: worse beyond chance, or the interval excludes a gain of `smallest`.
    needed: n (mde / smallest)^2 items, at which a gain of `smallest` is found in four cases of five.
    """
    if found is None:
        return Decision(CANNOT_TELL)
    clear = direction(found, higher_is_better=higher_is_better)
    if clear:
        return Decision(YES if clear > 0 else NO, clear)
    highest = found["high"] if higher_is_better else -found["low"]
    if highest < smallest:
        return Decision(NO)
    mde = found.get("mde")
    return Decision(CANNOT_TELL, 0, _rounded_up(found["n"] * (mde / smallest) ** 2, found["n"]) if mde else None)


def more_traces(entry: Json, found: Json | None, most: float = TRACES) -> Decision:
    """Do traces return: is their share above the reference's beyond chance, or shown to be small?

    entry: share of the variant with Wilson's interval; found: its difference from the reference. yes: the share is
    higher beyond chance (Holm). no: the interval of the share, or of its increase, ends below `most`. needed: the items
    at which Wilson's interval of no trace at all ends at `most`, z^2 (1 - most) / most.
    """
    if found is not None and direction(found, higher_is_better=True) > 0:
        return Decision(YES, 1)
    bounds = [one["high"] for one in (entry, found) if one is not None and one["high"] is not None]
    if bounds and min(bounds) < most:
        return Decision(NO)
    return Decision(CANNOT_TELL, 0, _rounded_up(_Z**2 * (1 - most) / most, entry["n"]))


def direction(found: Json, *, higher_is_better: bool) -> int:
    """+1 if it is better beyond chance, -1 if it is worse, else 0."""
    p = found.get("p_holm")
    if p is None or p >= LEVEL or not found["value"]:
        return 0
    return 1 if (found["value"] > 0) == higher_is_better else -1


def _rounded_up(items: float, n: int) -> int | None:
    """To two digits, and more than there are."""
    if not 0 < items < _NEVER:
        return None
    step = 10 ** max(0, math.floor(math.log10(items)) - 1)
    return max(n + 1, math.ceil(items / step) * step)
