"""The recommendation in words, where the reference stays."""

from types import SimpleNamespace
from typing import Any

import pytest

from crossmatch.statistics.estimates import Difference
from crossmatch.sweeping.conclusion import Conclusion, Confirmed, bounds_together
from crossmatch.sweeping.metrics import Measure
from crossmatch.sweeping.sentences import recommendation_of


def gain(value: float, half: float) -> Difference:
    return Difference(value, value - half, value + half, 11, 0.5, "randomisation")


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ((-64.2, -64.0), "every point that reached them is worse"),
        ((-64.2, 0.5), "no point is surely better"),
        ((0.4, 0.5), "no point is surely better"),
    ],
)
def test_worse_is_told_from_not_distinguishable(gains: tuple[float, float], said: str) -> None:
    finalists = []
    for name, value in zip(("base", "pt"), gains, strict=True):
        point: Any = SimpleNamespace(name=name)
        one = gain(value, 5.0)
        finalists.append(Confirmed(point, (one,), (bounds_together(one, 2),), ()))
    reference: Any = SimpleNamespace(name="sft")
    parts = SimpleNamespace(search=SimpleNamespace(items=34), confirmation=SimpleNamespace(items=32))
    wanted = SimpleNamespace(reference=reference, goals=[Measure("def", "rougeL", True)])
    prepared: Any = SimpleNamespace(wanted=wanted, parts=parts)
    board: Any = SimpleNamespace(gain=lambda point, goal, part: gain(-77.4, 5.0))
    points = tuple(one.point for one in finalists)
    conclusion = Conclusion(points, points, None, tuple(finalists), reference, finished=3)
    found = recommendation_of(prepared, board, conclusion, None, tried=6)
    assert found["sentence"].startswith(f"Ship sft alone: on 11 unseen items {said} (the search's best of these, base")
    assert "3 of them were dropped before all search items were asked: points.csv says why" in found["reasons"]
