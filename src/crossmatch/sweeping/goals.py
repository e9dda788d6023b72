"""What is wanted, in words: goals such as `define.rougeL`, constraints such as `rougeL >= sft - 1 at 95%`.

A constraint has one of three forms:

M >= NAME - 1 [at 95%]    the paired difference to the variant NAME (an adapter, or `base`); with `at 95%` its whole
                          interval must lie there (non-inferiority with a margin), without it the measured value
M not below NAME          the paired interval does not lie below zero: the loss is not shown
M <= 1% [at 95%]          the figure itself, or with `at 95%` the whole of its interval

Numbers are in the unit in which a metric is shown: points of percent for accuracies and rates, points for ROUGE.
"""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import norm

from crossmatch.data.suites import Suite
from crossmatch.errors import RecipeError
from crossmatch.statistics.estimates import Difference, Figure
from crossmatch.statistics.non_inferiority import non_inferiority
from crossmatch.statistics.resampling import LEVEL
from crossmatch.sweeping.metrics import Measure, find_measure

_Z = float(norm.ppf((1 + LEVEL) / 2))
_FORM = re.compile(
    r"(?P<metric>.+?)\s*(?P<relation>>=|<=|not below|not above)\s*(?P<bound>.+?)(?:\s+at\s+(?P<level>.+))?"
)
_NUMBER = r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<percent>%?)"
_BOUND = re.compile(rf"(?P<name>[A-Za-z][\w.-]*)\s*(?:(?P<sign>[+-])\s*{_NUMBER})?")
_ABSOLUTE = re.compile(rf"(?P<minus>-?)\s*{_NUMBER}")
Relation = Literal[">=", "<=", "not below", "not above"]


def parse_goal(text: str, suites: Sequence[Suite]) -> Measure:
    """A goal: a metric, behind `maximise` or `minimise` where its direction is not known. Raises RecipeError."""
    word, _, rest = text.strip().partition(" ")
    higher = {"maximise": True, "maximize": True, "minimise": False, "minimize": False}.get(word.lower())
    return find_measure(rest if higher is not None else text, suites, f"goal {text!r}", higher)


def early(value: float, bound: float, share: float) -> float:
    """The bound of an interval that is looked at when a share of the items has been asked, so that all looks together
    err about as often as the last alone would: its distance over sqrt(share) (O'Brien and Fleming, Biometrics 1979)."""
    return value + (bound - value) / math.sqrt(share)


@dataclass(frozen=True)
class Constraint:
    """What a point must keep.

    than: the variant that it is compared with (None: the figure itself is); offset: in the unit that is shown; sure:
    whether the whole interval must lie there.
    """

    text: str
    measure: Measure
    relation: Relation
    than: str | None
    offset: float
    sure: bool

    def judge(self, found: Difference | Figure | None, share: float = 1.0) -> "Kept":
        """Whether the difference to `than`, or the figure, meets this. What cannot be known is not kept.

        share: of the items that will be asked; with fewer, it is broken only if an interval so much wider says so.
        """
        if found is None or found.value is None or found.low is None or found.high is None:
            return Kept(self, None, None, None, holds=False, broken=False)
        scale = self.measure.scale
        value, low, high = (round(number * scale, 10) for number in (found.value, found.low, found.high))
        above, offset = self.relation in (">=", "not below"), 0.0 if self.relation.startswith("not") else self.offset
        edge = early(value, high if above else low, share)
        broken = edge < offset if above else edge > offset
        if self.relation.startswith("not"):
            return Kept(self, value, low, high, holds=high >= 0 if above else low <= 0, broken=broken)
        if self.sure:
            holds = low >= self.offset if above else high <= self.offset
        else:
            holds = value >= self.offset if above else value <= self.offset
        return Kept(self, value, low, high, holds=holds, broken=broken, items=self._items(found))

    def _items(self, found: Difference | Figure) -> int | None:
        """About how many items would decide; of margins to another variant alone."""
        if not self.sure or not isinstance(found, Difference):
            return None
        above = self.relation == ">="
        margin = (-self.offset if above else self.offset) / self.measure.scale
        return non_inferiority(found, margin, higher_is_better=above, family=1).items if margin > 0 else None

    @property
    def items_needed(self) -> int | None:
        """Items without which it can never be shown: those of an upper bound of a share, though none is found.

        Wilson's upper bound of 0 in n is z^2 / (n + z^2). None where there is no such number.
        """
        share = self.offset / self.measure.scale
        if not self.sure or self.than is not None or not self.measure.percent or not 0 < share < 1:
            return None
        edge = share if self.relation == "<=" else 1 - share
        return math.ceil(_Z**2 * (1 - edge) / edge)


@dataclass(frozen=True)
class Kept:
    """How a point stands to a constraint: figures in the unit that is shown; holds, or surely broken, or neither."""

    constraint: Constraint
    value: float | None
    low: float | None
    high: float | None
    holds: bool
    broken: bool
    items: int | None = None

    @property
    def violation(self) -> float:
        """How far the value is on the wrong side; at most 0 where it is on the right one."""
        if self.value is None:
            return 1.0
        away = self.constraint.offset - self.value
        return away if self.constraint.relation in (">=", "not below") else -away

    def to_json(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "constraint": self.constraint.text,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "holds": self.holds if self.value is not None else None,
            "items_that_would_decide": self.items,
        }


def parse_constraint(text: str, suites: Sequence[Suite], names: Sequence[str]) -> Constraint:
    """A constraint in words. names: variants that it may name. Raises RecipeError for what is not understood."""
    place = f"constraint {text!r}"
    match = _FORM.fullmatch(" ".join(text.split()))
    if match is None:
        raise RecipeError(
            f"{place}: write it as `rougeL >= sft - 1 at 95%`, `acc not below sft`, or `trace rate <= 1%`"
        )
    if match["level"] not in (None, "95%"):
        raise RecipeError(f"{place}: at {match['level']}: intervals are of 95%; write `at 95%`, or nothing")
    relation: Relation = match["relation"]  # type: ignore[assignment]
    measure = find_measure(match["metric"], suites, place, relation in (">=", "not below"))
    number = _ABSOLUTE.fullmatch(match["bound"])
    if relation.startswith("not") and (number is not None or match["level"]):
        raise RecipeError(f"{place}: `{relation}` is followed by a variant and no more, as in `acc not below sft`")
    if number is not None:
        offset = float(number["number"]) * (-1 if number["minus"] else 1)
        if measure.percent and not number["percent"] and 0 < offset < 1:
            raise RecipeError(f"{place}: {measure.metric} is in percent; write {offset:g}% or {100 * offset:g}%")
        return Constraint(text, measure, relation, None, offset, match["level"] is not None)
    bound = _BOUND.fullmatch(match["bound"])
    if bound is None or bound["name"] not in names:
        close = difflib.get_close_matches(bound["name"] if bound else match["bound"], names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise RecipeError(f"{place}: {match['bound']!r} is neither a number nor one of {', '.join(names)}{hint}")
    offset = float(bound["number"] or 0) * (-1 if bound["sign"] == "-" else 1)
    return Constraint(text, measure, relation, bound["name"], offset, match["level"] is not None)


def all_hold(kept: Sequence[Kept]) -> bool:
    """Whether all constraints are kept; what is not known is not kept."""
    return all(one.holds for one in kept)


def holding(kept: Sequence[Kept]) -> bool | None:
    """The same; None where one is not known (its suite was not asked, or has no such figure) and no other is broken."""
    if any(one.value is not None and not one.holds for one in kept):
        return False
    return None if any(one.value is None for one in kept) else True
