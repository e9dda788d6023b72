"""How two tuning vectors lie to each other, tensor by tensor, from their factors alone."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from crossmatch.checkpoint import layer_of, module_type_of
from crossmatch.delta import TuningVector, cosine, norm
from crossmatch.rules import Weight, weight_at
from crossmatch.rules.towers import labelled


@dataclass(frozen=True)
class Overlap:
    """One tensor that both vectors change.

    cosine: <D1, D2> / (||D1|| ||D2||), None where one is zero; cosine_null: standard deviation of that cosine when one
    delta is rotated at random on both sides, 1 / sqrt(d_out d_in); energy_ratio: ||w1 D1||^2 / ||w2 D2||^2 at the merge
    weights, None where the second is zero; norms: Frobenius, at weight one.
    """

    name: str
    layer: int | None
    module: str
    cosine: float | None
    cosine_null: float
    energy_ratio: float | None
    first_norm: float
    second_norm: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def independent(vector: TuningVector) -> TuningVector:
    """The deltas that mean something without their base: neither saved modules nor tokens nor DoRA."""
    return TuningVector({name: delta for name, delta in vector.items() if not delta.needs_base})


def overlap(first: TuningVector, second: TuningVector, weights: tuple[Weight, Weight] = (1.0, 1.0)) -> list[Overlap]:
    """Cosine and energy ratio for every tensor in both vectors, in the order of the first.

    The null is exact: for D2 replaced by U D2 V with U, V uniform over rotations, E <D1, U D2 V>^2 =
    ||D1||^2 ||D2||^2 / (d_out d_in), whatever the ranks.
    """
    results = []
    for name in first:
        if name not in second:
            continue
        x, y = first[name], second[name]
        size, other = norm(x), norm(y)
        w1, w2 = (weight_at(weight, name) for weight in weights)
        below = (w2 * other) ** 2
        results.append(
            Overlap(
                name=name,
                layer=layer_of(name),
                module=labelled(name, module_type_of(name)),
                cosine=cosine(x, y),
                cosine_null=1.0 / math.sqrt(math.prod(x.shape)),
                energy_ratio=(w1 * size) ** 2 / below if below > 0 else None,
                first_norm=size,
                second_norm=other,
            )
        )
    return results
