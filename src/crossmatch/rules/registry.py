"""The rules by name, and their parameters from text. A rule's parameters are its signature."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from crossmatch.delta import Delta, LowRank, Stack, check_weights, linear
from crossmatch.errors import RuleError
from crossmatch.rules.context import Site

BoundRule = Callable[[Sequence[Delta], Sequence[float], Site], Delta]
"""A rule with its parameters: deltas, weights and site in, one delta out."""


@dataclass(frozen=True)
class Range:
    """Where a number may lie; `above`: the lower end itself is not allowed."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'above' if self.above else 'from'} {self.low:g} to {self.high:g}"


Positive = Annotated[float, Range(0, 1, above=True)]
Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a rule: a number in a range, one of some words, or a text."""

    name: str
    default: str | float
    choices: tuple[str, ...] = ()
    range: Range | None = None

    def parse(self, value: str | float) -> str | float:
        """The value in the parameter's type. Raises RuleError if it is none, or out of range."""
        if isinstance(self.default, str):
            if self.choices and value not in self.choices:
                raise RuleError(f"{self.name} is one of {', '.join(self.choices)}, not {value!r}")
            return str(value)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (self.range and number not in self.range):
            raise RuleError(f"{self.name} is a number{f' {self.range}' if self.range else ''}, not {value!r}")
        return number


@dataclass(frozen=True)
class Rule:
    """A rule: its function and parameters, and what it asks for.

    factors: it needs low-rank deltas and returns one; stacks of experts are merged expert by expert.
    data: the calibration that it needs, in a word, or None.
    idle: deltas of weight zero are given to it too; other rules never see them.
    """

    name: str
    function: Callable[..., Delta]
    parameters: Mapping[str, Parameter]
    factors: bool = False
    data: str | None = None
    idle: bool = False

    def resolve(self, params: Mapping[str, str | float]) -> dict[str, str | float]:
        """All parameters: those given, parsed, and the others' defaults. Raises RuleError for one that is unknown."""
        for key in params:
            if key not in self.parameters:
                raise RuleError(f"{self.name} has no parameter {key!r}; {_hint(key, self.parameters)}")
        try:
            return {key: p.parse(params.get(key, p.default)) for key, p in self.parameters.items()}
        except RuleError as error:
            raise RuleError(f"{self.name}: {error}") from None

    def merge(self, deltas: Sequence[Delta], weights: Sequence[float], site: Site, values: Mapping[str, Any]) -> Delta:
        """The merged delta. Raises RuleError if the deltas do not fit each other, or the rule."""
        check_weights(weights)
        if not deltas or not len(deltas) == len(weights) == len(site.names):
            raise RuleError(
                f"{site.tensor}: a merge needs one weight and one name per delta: {len(deltas)} deltas, "
                f"{len(weights)} weights, {len(site.names)} names"
            )
        if len({d.shape for d in deltas}) != 1:
            raise RuleError(f"{site.tensor}: deltas of different shapes: {sorted({d.shape for d in deltas})}")
        active = [i for i, weight in enumerate(weights) if self.idle or weight != 0.0]
        if not active:
            return linear(deltas[:1], [0.0])
        used, of = [deltas[i] for i in active], [weights[i] for i in active]
        site = replace(site, names=tuple(site.names[i] for i in active))
        stacks = [d for d in used if isinstance(d, Stack)]
        if not self.factors or len(stacks) < len(used):
            return self.function(used, of, site, **values)
        experts = zip(*(stack.parts for stack in stacks), strict=True)
        return Stack(tuple(cast(LowRank, self.function(parts, of, site, **values)) for parts in experts))


RULES: dict[str, Rule] = {}


def rule(
    name: str, *, factors: bool = False, data: str | None = None, idle: bool = False
) -> Callable[[Callable[..., Delta]], Callable[..., Delta]]:
    """Register a function of (deltas, weights, site, *, parameters) as the rule of that name."""

    def register(function: Callable[..., Delta]) -> Callable[..., Delta]:
        hints = get_type_hints(function, include_extras=True)
        signature = inspect.signature(function).parameters.values()
        parameters = {p.name: _parameter(p, hints[p.name]) for p in signature if p.kind is p.KEYWORD_ONLY}
        RULES[name] = Rule(name, function, parameters, factors, data, idle)
        return function

    return register


def get_rule(name: str) -> Rule:
    """The rule of that name. Raises RuleError with the closest one."""
    if name not in RULES:
        raise RuleError(f"no rule is called {name!r}; {_hint(name, RULES)}")
    return RULES[name]


def bind(name: str, params: Mapping[str, str | float]) -> BoundRule:
    """The rule of that name with its parameters, given as text or numbers; the others keep their defaults.

    A delta of weight zero takes no part in any rule but `project`; where all weights are zero, so is the result.
    Raises RuleError if the rule or a parameter is unknown, or a value is out of range.
    """
    found = get_rule(name)
    values = found.resolve(params)

    def merge(deltas: Sequence[Delta], weights: Sequence[float], site: Site) -> Delta:
        return found.merge(deltas, weights, site, values)

    return merge


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    bounds = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Range)), None)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return Parameter(parameter.name, parameter.default, choices, bounds)


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there is: {', '.join(known) or 'none'}"
