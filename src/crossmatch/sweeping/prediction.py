"""What could have been predicted before anything was asked, and how well it would have put the points in order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossmatch.adapter import Recorded, fit
from crossmatch.analysis.interference.weight_scores import SCORES, WeightScores
from crossmatch.checkpoint import Checkpoint
from crossmatch.errors import InputError
from crossmatch.rules import parse_weight
from crossmatch.statistics.rank_correlation import spearman
from crossmatch.sweeping.space import Point


def open_scores(base: Checkpoint, adapters: Mapping[str, Recorded], reference: str) -> WeightScores | None:
    """Scores of these adapters on their base; None where they have no deltas of their own."""
    try:
        return WeightScores(fit(base, dict(adapters)).vectors, reference)
    except InputError:
        return None


def in_order(scores: WeightScores | None, points: Sequence[Point]) -> list[Point]:
    """Points in the order in which they are tried: the nearest to the reference first, since in published figures the
    size of a change says more than any measure of conflict; other rules behind, as they stand."""
    if scores is None:
        return list(points)

    def place(point: Point) -> tuple[bool, float]:
        linear = point.recipe.rule == "linear"
        return not linear, scores.scores(point.weights)["away"] if linear else 0.0

    return sorted(points, key=place)


def predicted(scores: WeightScores | None, points: Sequence[Mapping[str, Any]], goal: str) -> dict[str, Any] | None:
    """Scores of every point that is a sum, and the rank correlation of each with the measured gain over the reference.

    points: as in `sweep.json`; goal: of which the gain is, as `suite.metric`. No score was fitted or chosen on these
    points. The interval is a bootstrap over points.
    """
    if scores is None:
        return None
    rows = []
    for point in points:
        gain = point["search"][goal]["gain"]
        if point["rule"] == "linear" and gain is not None:
            found = scores.scores(_weights(point["weights"]))
            rows.append({"number": point["number"], "gain": gain["value"], **found})
    measured = np.array([row["gain"] for row in rows], dtype=float)
    agreement = []
    for name, (title, what) in SCORES.items():
        found = spearman(np.array([row[name] for row in rows], dtype=float), measured)
        agreement.append({"score": name, "title": title, "what": what, **found.to_dict()})
    pairs = [pair.to_dict() for pair in scores.overlaps()]
    return {"goal": goal, "scores": rows, "agreement": agreement, "sizes": scores.sizes(), "pairs": pairs}


def _weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {name: parse_weight(weight) for name, weight in weights.items()}
