"""Is B not worse than A by a margin: yes, no, or it cannot be told, and how many documents would decide."""

import math
from dataclasses import dataclass
from typing import Literal

from scipy.stats import norm

from crossmatch.results.comparison import NonInferiorityJson
from crossmatch.statistics.estimates import Difference
from crossmatch.statistics.resampling import LEVEL, POWER

Answer = Literal["yes", "no", "cannot tell"]
_Z, _POWER = float(norm.ppf((1 + LEVEL) / 2)), float(norm.ppf(POWER))
# More documents than this is as good as never.
_NEVER = 10**9


@dataclass(frozen=True)
class NonInferiority:
    """Whether B is worse than A by less than the margin.

    yes: the 95% interval of the gain (B - A where higher is better, else A - B) lies above -margin, an error of 2.5% if
    B is worse by the margin and the interval is right (docs/compare.md has how often it is); no: it lies below, with an
    interval that holds for all comparisons of the family at once. items: documents that would decide in four cases of
    five if the difference is the one found; items_if_equal: the same if there is no difference (None: none are needed,
    or no number would do).
    """

    answer: Answer
    margin: float
    items: int | None
    items_if_equal: int | None

    def to_dict(self) -> NonInferiorityJson:
        """As plain JSON."""
        return {
            "answer": self.answer,
            "margin": self.margin,
            "items": self.items,
            "items_if_equal": self.items_if_equal,
        }


def non_inferiority(found: Difference, margin: float, *, higher_is_better: bool, family: int) -> NonInferiority:
    """Judge B - A by a margin in the metric's own unit; family: comparisons that are judged together.

    The interval of the family has Bonferroni's level: (bound - value) is stretched by z(1 - 0.025 / family) / z(0.975).
    items = n ((z(0.975) + z(0.8)) / z(0.975) * width / distance)^2, where width is the interval's on the side of the
    margin, and distance that of the difference to the margin (Julious, 2004, for means of paired values).
    """
    gain = found.value if higher_is_better else -found.value
    low = found.low if higher_is_better else -found.high
    high = found.high if higher_is_better else -found.low
    wider = float(norm.ppf(1 - (1 - LEVEL) / 2 / family)) / _Z
    if low > -margin:
        return NonInferiority("yes", margin, None, None)
    if gain + wider * (high - gain) < -margin:
        return NonInferiority("no", margin, None, None)
    side = gain - low if gain > -margin else wider * (high - gain)
    items = _items(found.n, side, gain + margin)
    return NonInferiority("cannot tell", margin, items, _items(found.n, gain - low, margin))


def _items(n: int, width: float, distance: float) -> int | None:
    """Documents that bring the interval's bound to the margin in four cases of five, to two digits upwards."""
    if distance == 0 or width <= 0:
        return None
    wanted = n * ((_Z + _POWER) / _Z * width / distance) ** 2
    if not wanted < _NEVER:
        return None
    step = 10 ** max(0, math.floor(math.log10(wanted)) - 1)
    return max(n + 1, math.ceil(wanted / step) * step)
