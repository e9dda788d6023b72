"""The recommendation in words."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from crossmatch.statistics.estimates import Difference
from crossmatch.sweeping.conclusion import Conclusion, Confirmed, bounds_together
from crossmatch.sweeping.goals import Constraint, Kept
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


def constraint(text: str, metric: str, relation: Any, low: float, high: float, than: str = "sft") -> Kept:
    known = Constraint(text, Measure("def", metric, True), relation, than, 0.0, sure=relation == ">=")
    return Kept(known, (low + high) / 2, low, high, holds=True, broken=False)


def test_what_is_not_shown_is_not_called_kept() -> None:
    """`rougeL not below sft` is met by -5.6 (-13.0 to +1.8) of 17 items: no loss is shown, and none is ruled out."""
    reference: Any = SimpleNamespace(name="sft")
    recipe = SimpleNamespace(rule="linear", parameters={})
    condition = SimpleNamespace(template=SimpleNamespace(name="own"))
    point: Any = SimpleNamespace(name="x", weights={"pt": 0.75}, recipe=recipe, condition=condition)
    part = SimpleNamespace(items=30)
    kept = (
        constraint("rougeL not below sft", "rougeL", "not below", -13.0, 1.8),
        constraint("acc not below sft", "acc", "not below", 0.5, 3.5),
        constraint("bleu not above pt", "bleu", "not above", -1.0, 2.0, "pt"),
        constraint("rougeL >= sft - 15 at 95%", "rougeL", ">=", -13.0, 1.8),
    )
    one = Confirmed(point, (gain(4.0, 2.0),), ((1.0, 7.0),), kept)
    wanted = SimpleNamespace(reference=reference, goals=[Measure("def", "rougeL", True)])
    space = SimpleNamespace(control_of=lambda point: None)
    prepared: Any = SimpleNamespace(wanted=wanted, space=space, parts=SimpleNamespace(search=part, confirmation=part))
    board: Any = SimpleNamespace(gain=lambda point, goal, part: gain(4.0, 2.0))
    first: Any = SimpleNamespace(name="y")
    failed = (replace(kept[0], holds=False),)
    finalists = (Confirmed(first, (gain(4.0, 2.0),), ((1.0, 7.0),), failed), one)
    found = recommendation_of(prepared, board, Conclusion((), (), None, finalists, reference, finished=1), one, tried=1)
    # Whoever was ahead of it in the search is named, and why it is not recommended.
    assert found["reasons"][1] == "better in the search: y (unseen items break rougeL not below sft)"
    assert found["sentence"].endswith(
        "no trial saw; no lower ROUGE-L or accuracy is shown; no higher BLEU than pt is shown; "
        "keeps rougeL >= sft - 15 at 95%."
    )
    assert found["reasons"][-2:] == [
        "not ruled out there, against sft: ROUGE-L -5.6 (-13.0 to +1.8)",
        "not ruled out there, against pt: BLEU +0.5 (-1.0 to +2.0)",
    ]
