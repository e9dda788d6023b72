"""The map of a goal over the weights of two adapters: points as they were measured, and a surface between them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.interpolate import RBFInterpolator

# Cells of the surface in either direction, and points without which there is none.
_CELLS, _FEWEST = 24, 6
Json = dict[str, Any]


def map_of(points: Sequence[Mapping[str, Any]], space: Mapping[str, Any], goal: Mapping[str, Any]) -> Json | None:
    """The first goal over the first two adapters whose weights are free, of points with one number an adapter that are
    summed under the first template; None where fewer than two weights are free.

    points: x, y, value, interval and gain of each; steps: the width of a cell where the weights lie on a grid; surface:
    elsewhere, a thin-plate spline through the measured values (smoothed by 1), inside of the measured range alone, of
    points that were asked most items: those of other items are no values of the same thing.
    """
    free = [
        n for n, parts in space["weights"].items() if any(isinstance(v, dict) or len(v) > 1 for v in parts.values())
    ]
    if len(free) < 2:
        return None
    first, second = free[:2]
    template, name = space["templates"][0], f"{goal['suite']}.{goal['metric']}"
    rows = []
    for point in points:
        weights = point["weights"]
        plain = all(isinstance(weight, int | float) for weight in weights.values())
        others = [w for n, w in weights.items() if n not in (first, second)]
        if not plain or others or point["rule"] != "linear" or point["template"] != template:
            continue
        found = point["search"][name]
        gain = found["gain"] or {}
        rows.append(
            {
                "number": point["number"],
                "name": point["name"],
                "x": weights.get(first, 0.0),
                "y": weights.get(second, 0.0),
                **{key: found[key] for key in ("value", "low", "high", "n")},
                **{f"gain_{key}": gain.get(key) for key in ("value", "low", "high")},
                "dropped": point["dropped"],
            }
        )
    known = [row for row in rows if row["value"] is not None]
    steps = [_step([row[axis] for row in known]) for axis in ("x", "y")]
    most = max((row["n"] for row in known), default=0)
    surface = [] if None not in steps else _surface([row for row in known if row["n"] == most])
    return {"x": first, "y": second, "measure": name, "points": rows, "steps": steps, "surface": surface}


def _step(values: Sequence[float]) -> float | None:
    """The common distance of weights on a grid; None if they are on none."""
    places = sorted(set(values))
    gaps = {round(b - a, 6) for a, b in pairwise(places)}
    smallest = min(gaps, default=0.0)
    on_grid = smallest > 0 and all(abs(gap / smallest - round(gap / smallest)) < 1e-6 for gap in gaps)
    return smallest if on_grid and len(places) <= 2 + (places[-1] - places[0]) / smallest else None


def _surface(rows: Sequence[Mapping[str, Any]]) -> list[Json]:
    places = np.array([[row["x"], row["y"]] for row in rows], dtype=float)
    if len(rows) < _FEWEST or np.linalg.matrix_rank(places - places.mean(0)) < 2:
        return []
    spline = RBFInterpolator(places, np.array([row["value"] for row in rows], dtype=float), smoothing=1.0)
    edges = [np.linspace(low, high, _CELLS + 1) for low, high in zip(places.min(0), places.max(0), strict=True)]
    middles = [(edge[:-1] + edge[1:]) / 2 for edge in edges]
    grid = np.array([[x, y] for x in middles[0] for y in middles[1]])
    half = [(edge[1] - edge[0]) / 2 for edge in edges]
    return [
        {
            "x": round(x - half[0], 6),
            "x2": round(x + half[0], 6),
            "y": round(y - half[1], 6),
            "y2": round(y + half[1], 6),
            "value": round(float(value), 6),
        }
        for (x, y), value in zip(grid.tolist(), spline(grid), strict=True)
    ]
