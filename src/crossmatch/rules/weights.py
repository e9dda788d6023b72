"""Merge weights that differ by module: one number, and others where a selector says so."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from crossmatch.checkpoint import layer_of, split_pairs
from crossmatch.delta import check_weights
from crossmatch.errors import InputError, RuleError
from crossmatch.rules.heads import ATTENTION, Heads, head_axis
from crossmatch.rules.towers import named_tower, tower_of

# Names that model families give to the module that holds attention, and the one that holds the feed-forward network.
_GROUPS = {
    "attn": ATTENTION,
    "mlp": {"mlp", "feed_forward", "ffn", "block_sparse_moe", "experts"},
}
_LAYERS = re.compile(r"layers\[(?:(?P<one>\d+)|(?P<start>\d*):(?P<stop>\d*))\]")
_HEADS = re.compile(_LAYERS.pattern.replace("layers", "(?P<unit>heads|groups)"))
_NAME = re.compile(r"[A-Za-z_]\w*")
_FORM = "a selector is layers[a:b], layers[a], attn, mlp or a module's name, or some of them joined by dots"
_WHERE = "crossmatch vectors add writes a vector with such weights, which merges as any other"


@dataclass(frozen=True)
class _Selector:
    """What one override applies to: tensors of these layers (None: of any) that hold a module of every set; heads:
    of them, only the rows or columns of these (`heads` or `groups`, from, to)."""

    layers: tuple[int, int | None] | None
    modules: tuple[frozenset[str], ...]
    heads: tuple[str, int, int | None] | None = None

    def matches(self, name: str) -> bool:
        # Layers and heads are the text's, unless a module of another stack is named.
        named = any(named_tower(module) for modules in self.modules for module in modules)
        if tower_of(name) and (self.heads or (self.layers and not named)):
            return False
        if self.layers:
            layer, (start, stop) = layer_of(name), self.layers
            if layer is None or layer < start or (stop is not None and layer >= stop):
                return False
        parts = set(name.removesuffix(".weight").split("."))
        return all(parts & modules for modules in self.modules) and (not self.heads or head_axis(name) is not None)


@dataclass(frozen=True)
class Weights:
    """A merge weight by module: `default`, and (selector, weight) overrides, of which the last that matches holds.

    As text: `0.3,mlp:0.2,layers[20:]:0.1,layers[20:].mlp:0.05,q_proj:0`. Selectors: `layers[a]`, `layers[a:b]`, either
    end open, as Python slices; `attn` and `mlp`; the name of any module on a tensor's path, such as `q_proj` or
    `lm_head`; joined by dots, all must match. For vectors also `heads[a:b]`, query heads, and `groups[a:b]`, heads of
    keys and values with their queries: rows of q, k and v, columns of o. Layers and heads are those of the text; the
    layers of another stack of a multimodal model are selected with its name, as in `vision_tower.layers[2:]`.
    Raises RuleError for a selector that has another form, and for a weight that is not a finite number.
    """

    default: float
    overrides: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        check_weights([self.default, *(weight for _, weight in self.overrides)])
        for selector, _ in self.overrides:
            _selector(selector)

    @classmethod
    def parse(cls, text: str) -> "Weights":
        """The weights that a text describes: a plain number first, then selector:number, joined by commas."""
        first, *others = (entry.strip() for entry in text.split(","))
        overrides = []
        for entry in others:
            selector, colon, weight = entry.rpartition(":")
            if not colon:
                point = f"; decimals take a point: {first}.{entry}" if entry.isdecimal() and first.isdecimal() else ""
                raise RuleError(f"{entry!r} in the weights {text!r} is not SELECTOR:NUMBER, as in mlp:0.2{point}")
            overrides.append((selector.strip(), _number(weight, text)))
        return cls(_number(first, text), tuple(overrides))

    def __str__(self) -> str:
        entries = [("", self.default), *((f"{selector}:", weight) for selector, weight in self.overrides)]
        return ",".join(prefix + repr(float(weight)).removesuffix(".0") for prefix, weight in entries)

    def __format__(self, spec: str) -> str:
        """As text, whatever is asked for: so that a weight prints like a number."""
        del spec
        return str(self)

    @property
    def by_head(self) -> bool:
        """Whether the weight differs inside of tensors."""
        return any(_selector(selector).heads for selector, _ in self.overrides)

    def inside(self, tensor_name: str, heads: Heads | None) -> tuple[float | Tensor, int]:
        """The weight of one tensor: a number, or float64 weights along an axis (0: its rows, 1: its columns).

        Raises RuleError if heads are selected, and the model's are not known or not there.
        """
        value: float | Tensor = self.default
        axis = 0
        for text, weight in self.overrides:
            selector = _selector(text)
            if not selector.matches(tensor_name):
                continue
            if selector.heads is None:
                value, axis = weight, 0
                continue
            if heads is None:
                raise RuleError(f"the weight of {text!r} needs the number of heads; give the base (--base)")
            chosen = heads.selected(tensor_name, *selector.heads)
            before = value if isinstance(value, Tensor) else torch.full(chosen.shape, value, dtype=torch.float64)
            value, axis = torch.where(chosen, weight, before), head_axis(tensor_name) or 0
        return value, axis

    def at(self, tensor_name: str) -> float:
        """The weight of one tensor. Raises RuleError where it differs between heads."""
        if self.by_head:
            raise RuleError(f"the weight {str(self)!r} differs between heads of one tensor; {_WHERE}")
        matching = (weight for selector, weight in reversed(self.overrides) if _selector(selector).matches(tensor_name))
        return next(matching, self.default)

    def scaled(self, factor: float) -> "Weights":
        """The same, every number times a factor."""
        return Weights(_times(self.default, factor), tuple((s, _times(w, factor)) for s, w in self.overrides))

    def lowered(self, where: str, factor: float, tensor_names: Iterable[str]) -> "Weights":
        """The same, times a factor where a selector matches; selectors that match none of the tensors are left out."""
        names = list(tensor_names)
        inside = [(where, self.default), *((_both(where, own), weight) for own, weight in self.overrides)]
        every = [*self.overrides, *((selector, _times(weight, factor)) for selector, weight in inside)]
        return Weights(self.default, tuple(one for one in every if any(_selector(one[0]).matches(n) for n in names)))

    def check(self, tensor_names: Iterable[str]) -> None:
        """Raise RuleError at the first selector that matches none of the tensors."""
        names = list(tensor_names)
        for selector, _ in self.overrides:
            if not any(_selector(selector).matches(name) for name in names):
                example = f"; one of them is {names[0]}" if names else ""
                raise RuleError(f"the weight of {selector!r} applies to none of the {len(names)} tensors{example}")


Weight = float | Weights
"""A merge weight: one number, or one that differs between modules."""


def _times(weight: float, factor: float) -> float:
    """A product without the last bits that no writer of a weight would give it."""
    return round(weight * factor, 9)


def _both(one: str, other: str) -> str:
    """The selector of what two match: their modules joined, of their layers those that are in both."""
    parts = [part for text in (one, other) for part in text.split(".")]
    modules = [part for part in parts if not _LAYERS.fullmatch(part)]
    spans = [span for text in (one, other) if (span := _selector(text).layers) is not None]
    if spans:
        stops = [stop for _, stop in spans if stop is not None]
        modules.insert(0, f"layers[{max(start for start, _ in spans)}:{min(stops) if stops else ''}]")
    return ".".join(modules)


def part_of(name: str) -> str | None:
    """`attn` or `mlp`, the part of a layer that a tensor belongs to by its name, or None."""
    parts = set(name.split("."))
    return next((part for part, names in _GROUPS.items() if parts & names and layer_of(name) is not None), None)


def parse_weight(value: str | float) -> Weight:
    """A weight from a number or a text; one without selectors is a number. Raises RuleError."""
    weights = Weights.parse(value) if isinstance(value, str) else Weights(float(value))
    return weights if weights.overrides else weights.default


def weight_json(weight: Weight) -> float | str:
    """A weight as plain JSON, which `parse_weight` reads."""
    return str(weight) if isinstance(weight, Weights) else float(weight)


def read_weight(text: str, option: str) -> Weight:
    """The weight that an option gives as text. Raises InputError, which names the option."""
    try:
        return parse_weight(text)
    except RuleError as error:
        raise InputError(f"{option}={text}: {error}") from None


def read_pairs(adapters: Sequence[str] | None, weights: Sequence[str] | None) -> dict[str, tuple[str, Weight]]:
    """Adapters' paths with their weights, from NAME=PATH and NAME=NUMBER texts. Raises InputError for one without the
    other, or a weight that is no number."""
    paths, numbers = split_pairs(adapters, "-a"), split_pairs(weights, "-w")
    for name in [*numbers, *paths]:
        if name not in paths:
            close = difflib.get_close_matches(name, paths, n=1)
            hint = f"did you mean {close[0]}?" if close else f"add -a {name}=PATH"
            raise InputError(f"weight {name} has no adapter; {hint}")
        if name not in numbers:
            raise InputError(f"adapter {name} has no weight; add -w {name}=NUMBER")
    if not paths:
        raise InputError("no adapter given; add -a NAME=PATH -w NAME=NUMBER")
    values = {name: read_weight(text, f"-w {name}") for name, text in numbers.items()}
    return {name: (path, values[name]) for name, path in paths.items()}


def weight_at(weight: Weight, name: str) -> float:
    """The weight of one tensor, from weights by module or from one for all."""
    return weight.at(name) if isinstance(weight, Weights) else weight


@lru_cache
def _selector(text: str) -> _Selector:
    layers, modules, heads = None, [], None
    for part in text.split("."):
        found = _LAYERS.fullmatch(part)
        if found and layers is None:
            start, stop = (int(found["one"]), int(found["one"]) + 1) if found["one"] else _ends(found)
            layers = (start, stop)
        elif (of := _HEADS.fullmatch(part)) and heads is None:
            start, stop = (int(of["one"]), int(of["one"]) + 1) if of["one"] else _ends(of)
            heads = (of["unit"], start, stop)
        elif _NAME.fullmatch(part):
            modules.append(frozenset(_GROUPS.get(part, {part})))
        elif part.startswith(("layers[", "heads[", "groups[")) and "-" in part:
            raise RuleError(
                f"{text!r}: {part.partition('[')[0]} are counted from the front here; "
                "write their index, not a negative one"
            )
        else:
            raise RuleError(f"{text!r} selects nothing; {_FORM}")
    return _Selector(layers, tuple(modules), heads)


def _ends(found: re.Match[str]) -> tuple[int, int | None]:
    return int(found["start"] or 0), int(found["stop"]) if found["stop"] else None


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RuleError(f"{text!r} in the weights {whole!r} is not a number; as in 0.3 or 0.3,mlp:0.2") from None
