"""Nulls in the place of adapters: which kind, by which seed, at which weight."""

import re
from dataclasses import dataclass
from typing import Literal

from crossmatch.delta import TuningVector, layer_shuffled, same_norm, same_spectrum
from crossmatch.results.summary import NullJson
from crossmatch.rules import Weight, weight_json

Kind = Literal["spectrum", "norm", "shuffled"]
# What a variant's null is told from another's by in its digest; raised when the same seed gives other numbers.
VERSION = 1
_LAYER = re.compile(r"\.\d{1,9}\.")


@dataclass(frozen=True)
class Null:
    """A null of an adapter, added at a weight.

    kind: `spectrum` (random, of the same singular values), `norm` (random, of the same Frobenius norm and rank), both
    tensor by tensor, or `shuffled` (the same deltas on other layers of the same module).
    """

    adapter: str
    kind: Kind
    seed: int
    weight: Weight

    def vector(self, adapter: TuningVector) -> TuningVector:
        """The null's deltas. Raises RuleError for an adapter whose deltas depend on the base."""
        if self.kind == "spectrum":
            return same_spectrum(adapter, self.seed)
        if self.kind == "norm":
            return same_norm(adapter, self.seed)
        return layer_shuffled(adapter, self.seed, without_layer)

    def to_dict(self) -> NullJson:
        """As plain JSON."""
        return {"adapter": self.adapter, "kind": self.kind, "seed": self.seed, "weight": weight_json(self.weight)}


def without_layer(name: str) -> str:
    """A tensor's name without the number of its layer: the same for the same module of every layer."""
    return _LAYER.sub(".*.", name, count=1)
