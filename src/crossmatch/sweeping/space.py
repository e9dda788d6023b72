"""What is searched: weights of each adapter, by module type and depth, rules with their parameters, templates."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from crossmatch.errors import RecipeError, RuleError
from crossmatch.evaluation.conditions import Condition
from crossmatch.evaluation.variants.variants import Variant, merge_name
from crossmatch.results.summary import VariantKind
from crossmatch.rules import Calibration, Recipe, Weight, Weights, weight_json

# Numbers that are searched for one adapter, and points of a grid, at most.
MOST_NUMBERS, MOST_POINTS = 4, 1024
ALL = "all"
_SPAN = re.compile(r"\s*(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)(?:\s+step\s+([\d.]+))?\s*")
Value = float | str


@dataclass(frozen=True)
class Dimension:
    """One number that is searched: `values` that it may have, or a span from `low` to `high` without steps.

    name: the adapter's, `adapter.selector` for some of its modules, or the rule's parameter as `rule.parameter`.
    """

    name: str
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0

    @property
    def free(self) -> bool:
        """Whether there is more than one value."""
        return len(self.values) != 1

    def to_json(self) -> Any:
        """As plain JSON."""
        return list(self.values) if self.values else {"low": self.low, "high": self.high}


def parse_dimension(name: str, value: Any) -> Dimension:
    """A dimension from `0..1`, `0..1 step 0.25`, a list, a number, or (for parameters of rules) a word.

    Raises RecipeError.
    """
    if isinstance(value, str) and (match := _SPAN.fullmatch(value)):
        return _span(name, value, match)
    listed = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    found = tuple(dict.fromkeys(_number(name, entry) for entry in listed))
    if not found:
        raise RecipeError(f"space.{name}: an empty list; give numbers, or a span such as 0..1 step 0.25")
    return Dimension(name, found)


def _span(name: str, text: str, match: re.Match[str]) -> Dimension:
    try:
        low, high = Decimal(match[1]), Decimal(match[2])
        step = Decimal(match[3]) if match[3] else None
    except InvalidOperation:
        raise RecipeError(f"space.{name}: {text!r} is no span; write it as 0..1 step 0.25") from None
    if high <= low or (step is not None and step <= 0):
        raise RecipeError(f"space.{name}: {text!r} holds nothing; write it as 0..1 step 0.25")
    if step is None:
        return Dimension(name, (), float(low), float(high))
    count = int((high - low) / step) + 1
    if count > MOST_POINTS:
        raise RecipeError(f"space.{name}: {text!r} has {count} values; take a larger step")
    return Dimension(name, tuple(float(low + number * step) for number in range(count)))


def _number(name: str, value: Any) -> Value:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecipeError(f"space.{name}: {value!r} is no finite number")
    return float(value)


@dataclass(frozen=True)
class Point:
    """A model that may be recommended, or that others are compared with.

    weights: of the adapters that are in it (none of weight 0); kind: `base`, `adapter` (one alone at weight 1),
    `control` (the reference alone at another weight), or `merge`.
    """

    weights: Mapping[str, Weight]
    kind: VariantKind
    condition: Condition
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def variant(self) -> Variant:
        """As the evaluation has it."""
        return Variant(self.model_name, self.kind, dict(self.weights), recipe=self.recipe)

    @property
    def model_name(self) -> str:
        """What its weights and its rule are called, fit for a path."""
        if not self.weights:
            return "base"
        (name, weight), *others = self.weights.items()
        plain = name if not others and weight == 1.0 else merge_name(self.weights)
        if self.recipe.rule == "linear":
            return plain
        settings = [f"{key}{value}" for key, value in sorted(self.recipe.parameters.items())]
        return "-".join([plain, self.recipe.rule, *settings])

    @property
    def name(self) -> str:
        """The model's name, with the template where it is another than the base's own."""
        template = self.condition.template.name
        return self.model_name if template == "own" else f"{self.model_name}@{template}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        recipe = self.recipe.to_dict()
        return {
            "name": self.name,
            "kind": self.kind,
            "weights": {name: weight_json(weight) for name, weight in self.weights.items()},
            "rule": recipe["rule"],
            "parameters": dict(self.recipe.parameters),
            "template": self.condition.template.name,
        }


@dataclass(frozen=True)
class Space:
    """All that is searched.

    weights: adapter -> its dimensions by selector (`all` for what no other selector takes); rules: rule -> dimensions
    of its parameters; conditions: templates; reference: the adapter with which merges are compared.
    """

    weights: Mapping[str, Mapping[str, Dimension]]
    rules: Mapping[str, tuple[Dimension, ...]]
    conditions: tuple[Condition, ...]
    reference: str
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        for name, parts in self.weights.items():
            if len(parts) > MOST_NUMBERS:
                raise RecipeError(f"space.{name}: {len(parts)} numbers; at most {MOST_NUMBERS} can be searched well")
            try:
                self._weight(name, {d.name: d.values[0] if d.values else d.low for d in parts.values()})
            except RuleError as error:
                raise RecipeError(f"space.{name}: {error}") from None
        if not any(d.free for d in self.weight_dimensions):
            raise RecipeError(
                "space: no weight is free; give one a span, as in `pt: 0..1 step 0.25`, or use crossmatch evaluate"
            )

    @property
    def weight_dimensions(self) -> list[Dimension]:
        """Of all adapters."""
        return [dimension for parts in self.weights.values() for dimension in parts.values()]

    @property
    def continuous(self) -> list[str]:
        """Names of dimensions without steps."""
        every = [*self.weight_dimensions, *itertools.chain.from_iterable(self.rules.values())]
        return [dimension.name for dimension in every if not dimension.values]

    @property
    def always(self) -> list[Point]:
        """Base and each adapter alone, under every template."""
        names = [{}, *({name: 1.0} for name in self.weights)]
        return [self._point(weights, condition) for condition in self.conditions for weights in names]

    @property
    def reference_point(self) -> Point:
        """The reference adapter alone, under the first template: what every point is compared with."""
        return self._point({self.reference: 1.0}, self.conditions[0])

    def control_of(self, point: Point) -> Point | None:
        """The reference alone at the weight that it has in a merge; None for what is no merge, or at weight 0 or 1."""
        weight = point.weights.get(self.reference)
        if point.kind != "merge" or weight is None or weight == 1.0:
            return None
        return self._point({self.reference: weight}, point.condition)

    def grid(self) -> list[Point]:
        """Every point of the grid, each model once. Raises RecipeError for a dimension without steps, and for more
        than 1,024 points."""
        if self.continuous:
            raise RecipeError(
                f"space.{self.continuous[0]}: a grid needs steps, as in 0..1 step 0.25; or choose method: tpe"
            )
        sizes = [len(d.values) for d in self.weight_dimensions]
        rules = sum(math.prod(len(d.values) for d in own) for own in self.rules.values())
        count = math.prod(sizes) * rules * len(self.conditions)
        if count > MOST_POINTS:
            raise RecipeError(f"space: the grid has {count} points, more than {MOST_POINTS}; use a larger step, or tpe")
        found: dict[str, Point] = {}
        for values in itertools.product(*(d.values for d in self.weight_dimensions)):
            chosen = {d.name: v for d, v in zip(self.weight_dimensions, values, strict=True)}
            for rule, condition in itertools.product(self.rules, self.conditions):
                for settings in itertools.product(*(d.values for d in self.rules[rule])):
                    own = {d.name: v for d, v in zip(self.rules[rule], settings, strict=True)}
                    point = self.at({**chosen, **own, "rule": rule, "template": condition.template.name})
                    found.setdefault(point.name, point)
        return list(found.values())

    def at(self, values: Mapping[str, Value]) -> Point:
        """The point with these values: of every weight, of `rule` with its parameters, of `template`."""
        rule = str(values.get("rule", next(iter(self.rules))))
        template = values.get("template", self.conditions[0].template.name)
        condition = next(c for c in self.conditions if c.template.name == template)
        weights = {name: self._weight(name, values) for name in self.weights}
        parameters = {d.name.partition(".")[2]: values[d.name] for d in self.rules[rule]}
        return self._point({n: w for n, w in weights.items() if w != 0.0}, condition, (rule, parameters))

    def _weight(self, name: str, values: Mapping[str, Value]) -> Weight:
        parts = {selector: float(values[d.name]) for selector, d in self.weights[name].items()}
        default = parts.pop(ALL, 0.0)
        if all(value == default for value in parts.values()):
            Weights(default, tuple(parts.items()))
            return default
        return Weights(default, tuple(parts.items()))

    def _point(
        self, weights: Mapping[str, Weight], condition: Condition, rule: tuple[str, Mapping[str, Any]] = ("linear", {})
    ) -> Point:
        name, parameters = rule
        recipe = Recipe(name, parameters, calibration=self.calibration if name != "linear" else None)
        if not weights:
            return Point({}, "base", condition)
        if len(weights) == 1 and name == "linear":
            ((adapter, weight),) = weights.items()
            kind = "adapter" if weight == 1.0 else "control" if adapter == self.reference else "merge"
            return Point(weights, kind, condition)
        return Point(weights, "merge", condition, recipe)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "weights": {n: {s: d.to_json() for s, d in parts.items()} for n, parts in self.weights.items()},
            "rules": {rule: {d.name: d.to_json() for d in own} for rule, own in self.rules.items()},
            "templates": [condition.template.name for condition in self.conditions],
        }


def weight_space(name: str, value: Any) -> dict[str, Dimension]:
    """Selector -> dimension of an adapter, from one span, or from a mapping of selectors to spans."""
    if not isinstance(value, Mapping):
        return {ALL: _numeric(parse_dimension(name, value))}
    return {
        str(selector): _numeric(parse_dimension(name if selector == ALL else f"{name}.{selector}", span))
        for selector, span in value.items()
    }


def _numeric(dimension: Dimension) -> Dimension:
    word = next((value for value in dimension.values if isinstance(value, str)), None)
    if word is not None:
        raise RecipeError(f"space.{dimension.name}: {word!r} is no number, nor a span such as 0..1 step 0.25")
    return replace(dimension)


def distinct(points: Sequence[Point]) -> Iterator[Point]:
    """Every point once, by name."""
    yield from {point.name: point for point in reversed(points)}.values()
