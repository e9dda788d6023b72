"""What may mend a merge: an adapter lowered in some layers or modules, or projected off the reference."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from crossmatch.checkpoint import layer_of
from crossmatch.delta import TuningVector, norm
from crossmatch.errors import RuleError
from crossmatch.rules import Calibration, Combined, Recipe, Weight, Weights, weight_at
from crossmatch.sweeping.space import Point

# What the weights of the lowered part are multiplied by.
FACTORS = (0.0, 0.5)
_LEAST = 1e-6


@dataclass(frozen=True)
class Change:
    """A merge with one adapter changed.

    what: in words, as in `lowering pt to 0 in layers 20-29`; guest: the adapter; kept: the norm of its update over
    the one before.
    """

    what: str
    guest: str
    point: Point
    kept: float


def guests_of(point: Point, reference: str) -> list[str]:
    """Adapters that may be lowered: all but the reference."""
    return [name for name in point.weights if name != reference]


def changes_of(
    target: Point, reference: str, vectors: Mapping[str, TuningVector], calibration: Calibration | None
) -> list[Change]:
    """All that may be tried, the smallest first; what would leave all of an adapter, or nothing, is none of it."""
    found = []
    for guest in guests_of(target, reference):
        every = [*_lowered(target, guest, vectors[guest])]
        if reference in target.weights and target.recipe.rule == "linear":
            every += _projected(target, guest, reference, vectors, calibration)
        found += [change for change in every if _LEAST < change.kept < 1 - _LEAST]
    return sorted(found, key=lambda change: -change.kept)


def weakened(change: Change, target: Point) -> Point:
    """The null of a change: the whole adapter lowered until as much of its update's norm is left."""
    weight = target.weights[change.guest]
    less = weight.scaled(change.kept) if isinstance(weight, Weights) else round(weight * change.kept, 4)
    return replace(target, weights={**target.weights, change.guest: less}, kind="merge")


def _lowered(target: Point, guest: str, vector: TuningVector) -> Iterator[Change]:
    weight, names = target.weights[guest], list(vector)
    whole = weight if isinstance(weight, Weights) else Weights(weight)
    norms = {name: norm(delta) for name, delta in vector.items()}
    before = _size(norms, weight)
    for place, selector in _places(names):
        for factor in FACTORS:
            less = whole.lowered(selector, factor, names)
            to = f"to {whole.default * factor:g}" if less.default == weight else f"to {factor:g} of its weight"
            point = replace(target, weights={**target.weights, guest: less}, kind="merge")
            kept = _size(norms, less) / before if before else 1.0
            yield Change(f"lowering {guest} {to} in {place}", guest, point, kept)


def _places(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Words and selector of the thirds of an adapter's depth, and of attention and MLP; of those that are a part."""
    layers = sorted({layer for name in names if (layer := layer_of(name)) is not None})
    every = {"attention modules": "attn", "MLP modules": "mlp"}
    if layers:
        first, height = layers[0], layers[-1] + 1 - layers[0]
        edges = [first + round(height * third / 3) for third in range(4)]
        thirds = [(start, stop) for start, stop in pairwise(edges) if start < stop]
        words = [f"layers {a}-{b - 1}" if b - a > 1 else f"layer {a}" for a, b in thirds]
        every = {**{w: f"layers[{a}:{b}]" for w, (a, b) in zip(words, thirds, strict=True)}, **every}
    for words, selector in every.items():
        inside = [name for name in names if Weights(0.0, ((selector, 1.0),)).at(name)]
        if 0 < len(inside) < len(names):
            yield words, selector


def _projected(
    target: Point,
    guest: str,
    reference: str,
    vectors: Mapping[str, TuningVector],
    calibration: Calibration | None,
) -> Iterator[Change]:
    """The guest off what the calibration's tokens read where there is one, else off the reference's subspace."""
    if calibration is not None and not all(calibration.has_inputs(reference, name) for name in vectors[guest]):
        return
    recipe = Recipe("project", {"of": guest, "off": reference}, calibration=calibration)
    alone: dict[str, Weight] = {**dict.fromkeys(target.weights, 0.0), guest: target.weights[guest]}
    try:
        left = Combined({name: vectors[name] for name in alone}, alone, recipe).norm()
    except RuleError:
        # Of deltas that are no factors.
        return
    before = _size({name: norm(delta) for name, delta in vectors[guest].items()}, target.weights[guest])
    off = f"{reference}'s subspace" if calibration is None else f"what {calibration.path.name} protects"
    point = replace(target, recipe=recipe, kind="merge")
    yield Change(f"projecting {guest} off {off}", guest, point, left / before if before else 1.0)


def _size(norms: Mapping[str, float], weight: Weight) -> float:
    """Of an update, from the norms of its tensors at weight one."""
    return math.hypot(*(weight_at(weight, name) * norm for name, norm in norms.items()))
