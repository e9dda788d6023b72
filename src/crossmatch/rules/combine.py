"""Several tuning vectors combined by a rule into one: what a merge writes, and what a proof of it looks for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from crossmatch.delta import Delta, LowRank, Stack, TuningVector, check_weights, linear
from crossmatch.errors import RuleError
from crossmatch.results.merging import RuleJson
from crossmatch.rules.calibration import Calibration
from crossmatch.rules.context import Site
from crossmatch.rules.registry import bind, get_rule
from crossmatch.rules.weights import Weight, Weights, weight_at


@dataclass(frozen=True)
class Recipe:
    """How deltas are combined: the rule's name, its parameters, the seed of what is drawn, and data where it needs
    it."""

    rule: str = "linear"
    parameters: Mapping[str, str | float] = field(default_factory=dict)
    seed: int = 0
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        bind(self.rule, self.parameters)
        needs = get_rule(self.rule).data
        if needs is None and self.calibration is not None and self.rule != "project":
            raise RuleError(f"rule {self.rule} uses no calibration data; leave the file out, or choose another rule")
        if needs is not None and self.calibration is None:
            raise RuleError(
                f"rule {self.rule} needs {needs}; make a file with crossmatch calibrate and pass --calibration FILE"
            )

    def to_dict(self) -> RuleJson:
        """As plain JSON."""
        data = self.calibration.digest if self.calibration is not None else None
        values = get_rule(self.rule).resolve(self.parameters)
        return {"rule": self.rule, "parameters": values, "seed": self.seed, "calibration": data}


class Combined(TuningVector):
    """v[name] = rule(the deltas on that tensor, their weights there), formed when asked for.

    A rule that acts on factors or on elements cannot act on a saved module, trained tokens, DoRA or a bias; those
    tensors are summed linearly, and `summed` lists them. Raises RuleError for a weight that is not finite, or a
    selector of one that matches nothing.
    """

    def __init__(self, vectors: Mapping[str, TuningVector], weights: Mapping[str, Weight], recipe: Recipe) -> None:
        self.vectors, self.weights, self.recipe = dict(vectors), dict(weights), recipe
        self._rule = bind(recipe.rule, recipe.parameters)
        self.terms = ((1.0, self),)
        self._names = tuple(dict.fromkeys(name for vector in vectors.values() for name in vector))
        for label, weight in weights.items():
            if isinstance(weight, Weights):
                weight.check(tuple(vectors[label]))
            else:
                check_weights([weight])
        # A text without choices names an adapter.
        for key, parameter in get_rule(recipe.rule).parameters.items():
            named = recipe.parameters.get(key)
            if isinstance(parameter.default, str) and not parameter.choices and named and named not in vectors:
                raise RuleError(f"{recipe.rule}: {key} = {named} is none of the adapters {', '.join(vectors)}")
        self._combine = lru_cache(maxsize=4)(self._combined)

    def parts(self, name: str, *, idle: bool = False) -> list[tuple[str, float]]:
        """The vectors with a delta on a tensor, and their weights there; those of weight zero only with `idle`."""
        found = [(k, weight_at(self.weights[k], name)) for k, vector in self.vectors.items() if name in vector]
        return [(label, weight) for label, weight in found if idle or weight != 0.0]

    def __getitem__(self, name: str) -> Delta:
        if not self.parts(name):
            raise KeyError(name)
        used = self.parts(name, idle=get_rule(self.recipe.rule).idle)
        if self.recipe.rule == "linear":
            return linear([self.vectors[label][name] for label, _ in used], [weight for _, weight in used])
        return self._combine(name, tuple(used))

    def _combined(self, name: str, used: tuple[tuple[str, float], ...]) -> Delta:
        """The rule's delta; kept for a while, since thresholds take passes over the whole tensor."""
        deltas = [self.vectors[label][name] for label, _ in used]
        weights = [weight for _, weight in used]
        if not _can_take(self.recipe.rule, deltas):
            return linear(deltas, weights)
        labels = tuple(label for label, _ in used)
        return self._rule(deltas, weights, Site(name, labels, self.recipe.seed, self.recipe.calibration))

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if self.parts(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.parts(name))

    def summed(self, kinds: Mapping[str, Sequence[str]]) -> list[str]:
        """Tensors that are summed linearly although the rule is another; kinds: of the deltas, by tensor name."""
        if self.recipe.rule == "linear":
            return []
        plain = {"low-rank", "experts", "expert", "delta", "shared"}
        return [name for name in self if not set(kinds.get(name, ())) <= plain]

    def claim(self) -> dict[str, tuple[TuningVector, float]]:
        """What a checkpoint made from this is said to hold, as vectors with one number each.

        A linear sum claims every vector at its weight (at its largest one, relative to which the modules' other weights
        are taken into the vector); any other rule claims its result, once.
        """
        if self.recipe.rule != "linear":
            return {self.recipe.rule: (self, 1.0)}
        return {label: _one_number(self.vectors[label], weight) for label, weight in self.weights.items()}


class Reweighted(TuningVector):
    """v[name] = vector[name] * weight at name / unit, for weights that differ between modules."""

    def __init__(self, vector: TuningVector, weights: Weights, unit: float) -> None:
        self._vector, self._weights, self._unit = vector, weights, unit
        self.terms = ((1.0, self),)

    def __getitem__(self, name: str) -> Delta:
        return self._vector[name].scaled(self._weights.at(name) / self._unit)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._vector if self._weights.at(name) != 0.0)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._vector and self._weights.at(name) != 0.0


def _one_number(vector: TuningVector, weight: Weight) -> tuple[TuningVector, float]:
    if not isinstance(weight, Weights):
        return vector, weight
    unit = max((weight.at(name) for name in vector), key=abs, default=0.0)
    return (Reweighted(vector, weight, unit), unit) if unit else (vector, 0.0)


def _can_take(rule: str, deltas: Sequence[Delta]) -> bool:
    if any(delta.needs_base for delta in deltas) or any(len(delta.shape) < 2 for delta in deltas):
        return False
    return not get_rule(rule).factors or all(isinstance(delta, LowRank | Stack) for delta in deltas)
