"""The grammar of honest merges: every way in which the tools of this field round, as a program to be run again.

    W_c  = c(W)                                the base cast to c
    S_i  = w_i s_i f(B_i) f(A_i)               factors cast to f; weight and scaling on the product, or, rounded too,
                                               on A, on B, or as roots on both
    S_i  = p(S_i)                              the delta rounded to p, before or after scaling and weight
    M    = s(c(W_c + sum_i S_i))               added at once, or one adapter after the other with a rounding between
    M    = s(sum_i w_i c(W_c + S_i))           or the mean of models of their own

c, f, p: single precision or better (None here), bfloat16 or float16, f TF32 as well; s is what is stored. A file that
was converted once more passes through a dtype before s. The operations are known, the order of the additions inside a
product is not. So a program is run twice, at the ends of the interval in which the product must lie whatever that
order; every operation is monotone, so an honest element lies between the two results: nearly always they are one value.
No share of elements is left to chance.

    |computed - exact| <= (r + 6) 2^-24 (|B| |A|)      for a product of rank r in single precision (Higham, 2002, 3.1)
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch

# A matrix unit reads single precision with 10 bits behind the point, to the nearest or cut off.
Factor = torch.dtype | Literal["tf32", "tf32-cut"]
TF32: tuple[Factor, ...] = ("tf32", "tf32-cut")
Place = Literal["product", "a", "b", "roots"]
Multiplied = Literal["wide", "once", "twice"]
Chain = Literal["whole", "weight", "scaling", "both"]
Step = int | tuple[int, ...]
Order = (
    Literal["sum", "cat", "each", "models", "models-scalar", "models-summed", "models-wide"]
    | Literal["mean", "mean-wide", "stochastic"]
    | tuple[Step, ...]
)
HALVES = (torch.bfloat16, torch.float16)
# Adapters of which all orders are tried by every program, and by the usual ones.
_MANY_ORDERS, _USUAL_ORDERS = 3, 5


@dataclass(frozen=True)
class LastMerge:
    """How the last of several merges is made, where it is another tool's than those before: c, to which their result is
    cast (None: it is added in single precision), f and p."""

    base: torch.dtype | None = None
    factors: Factor | None = None
    delta: torch.dtype | None = None

    def in_words(self) -> str:
        """What it does otherwise, behind a list of merges."""
        text = f", the last in {_name(self.base) if self.base else 'single precision'}"
        text += f" with factors rounded to {_name(self.factors)}" if self.factors else ""
        return text + (f" and its delta rounded to {_name(self.delta)}" if self.delta else "")


@dataclass(frozen=True)
class OwnModel:
    """How the models of a merge by models are made, where they are stored in another dtype than the base: it is added
    to the base as that is stored, or (`cast`) to the base in the model's dtype."""

    dtype: torch.dtype
    cast: bool = False

    def in_words(self) -> str:
        """Behind `a model of its own`."""
        return f" in {_name(self.dtype)}{', of the base cast to it' if self.cast else ''}"


@dataclass(frozen=True)
class Program:
    """One honest way to compute a merge.

    base: c; factors: f; place: where weight and scaling are multiplied; multiplied: a factor by both in single
    precision before it is rounded (`wide`), or rounded first and then by both at `once`, or one after the other
    (`twice`); delta: p; chain: what is multiplied after the product was rounded; order: how shares are added (`sum`:
    each by itself, in single precision; `cat`: as one product; `each`: in p; a tuple: one merge after the other, each
    rounded to c or, where the base is not cast, to s, of one adapter or of some that were combined before, to which f,
    place and p are then confined; `models`: every adapter into a model of its own, the differences weighted, by numbers
    of c or (`scalar`) by wider ones, and summed; `mean`: the models themselves weighted and summed, the base with what
    is missing to a sum of one; `wide`: in single precision); terms: in which order a mean is summed, the base with
    number -1 (default: as they are claimed, the base last); model: how each model is made; last: the last merge of a
    tuple, where it is made in another way; between: the dtype in which the file lies between two merges, where it is
    that of neither; long: an SVD lies between the factors and their sum; via: a dtype through which the sum passes
    before it is stored.
    """

    base: torch.dtype | None = None
    factors: Factor | None = None
    place: Place = "product"
    multiplied: Multiplied = "wide"
    delta: torch.dtype | None = None
    chain: Chain = "whole"
    order: Order = "sum"
    long: bool = False
    via: torch.dtype | None = None
    last: LastMerge | None = None
    between: torch.dtype | None = None
    terms: tuple[int, ...] = ()
    model: OwnModel | None = None

    @property
    def by_models(self) -> bool:
        """Whether every adapter becomes a model of its own first."""
        return isinstance(self.order, str) and self.order.startswith(("models", "mean"))

    @property
    def is_mean(self) -> bool:
        """Whether the models themselves are summed, and not their differences from the base."""
        return isinstance(self.order, str) and self.order.startswith("mean")

    @property
    def is_wide(self) -> bool:
        """Whether models are summed in single precision."""
        return self.order in ("models-wide", "mean-wide")

    @property
    def is_grouped(self) -> bool:
        """Whether some adapters were combined, and others merged before or after."""
        return isinstance(self.order, tuple) and any(isinstance(step, tuple) for step in self.order)

    @property
    def is_combined(self) -> bool:
        """Whether columns of several adapters' factors may be added up as one product."""
        return self.order in ("sum", "cat") or self.is_grouped

    def last_of(self, adapter: int) -> LastMerge | None:
        """The last merge, where it is of that adapter and made in another way."""
        return self.last if isinstance(self.order, tuple) and self.order[-1] == adapter else None

    @property
    def rounds_weight(self) -> bool:
        """Whether a weight is multiplied into a factor that is then rounded: others may give the same factors."""
        return self.factors is not None and self.place != "product"

    @property
    def final(self) -> torch.dtype | None:
        """The dtype in which the last sum lies before it is stored; None for single precision."""
        return self.last.base if self.last else self.base

    def of(self, adapter: int) -> "Program":
        """What is done with one adapter's factors: nothing, if others alone were combined."""
        if own := self.last_of(adapter):
            return Program(own.base, own.factors, delta=own.delta, long=self.long)
        alone = self.is_grouped and isinstance(self.order, tuple) and adapter in self.order
        return replace(self, factors=None, place="product", multiplied="wide") if alone else self

    @property
    def once(self) -> bool:
        """Whether the sum is rounded once, from the base as it is stored."""
        return self in (Program(), Program(long=True))

    def grains(self, stored: torch.dtype) -> list[torch.dtype]:
        """The dtypes in which the sum lies on its way to what is stored, the coarsest first; near zero float16 is the
        coarser of two that have 16 bits."""
        ways = {stored, self.base, self.via, self.final, self.between, self.model.dtype if self.model else None}
        return [dtype for dtype in (*HALVES, torch.float32) if dtype in ways]

    def describe(self, names: Sequence[str], stored: torch.dtype, *, tool: bool = True) -> str:
        """In words: what was rounded to what, in the order in which it happens; tool: with the one that does so."""
        if self.once:
            way = " after an SVD in single precision" if self.long else ""
            return f"summed in float32 or better, rounded once to {_name(stored)}{way}"
        if self.order == "stochastic":
            return f"rounded up or down at random to {_name(stored)}"
        common = _COMMON.get((self.factors, self.place, self.delta, self.order)) if self.base and tool else None
        parts = [f"base in {_name(self.base)}"] if self.base else []
        if self.factors:
            on = {"a": ", weight on A", "b": ", weight on B", "roots": ", weight on both"}.get(self.place, "")
            parts.append(f"factors rounded to {_name(self.factors)}{on}")
        if self.delta:
            parts.append(f"delta rounded to {_name(self.delta)}")
        if isinstance(self.order, tuple):
            parts.append(
                f"one merge after the other ({_steps(self.order, names)}){self.last.in_words() if self.last else ''}"
                + (f", the file between them in {_name(self.between)}" if self.between else "")
            )
        elif self.is_mean:
            parts.append(f"each adapter merged into a model of its own{_own(self.model)}, the mean of the models")
        elif self.by_models:
            parts.append(f"each adapter merged into a model of its own{_own(self.model)}, the differences summed")
        if self.via:
            parts.append(f"the sum stored in {_name(self.via)}, then in {_name(stored)}")
        text = ", ".join(parts) + (", after an SVD in single precision" if self.long else "")
        return f"{common}: {text}" if common else text

    def identifier(self, names: Sequence[str]) -> str:
        """A short name for `rounding.replay.route`."""
        if self.once:
            return "once"
        if isinstance(self.order, str) and self.order in ("stochastic", *_MODELS, *MEANS):
            return self.order
        order = f" {_steps(self.order, names)}".replace(", ", ",") if isinstance(self.order, tuple) else ""
        kinds = {"converted": self.via, "sequential": order, "combined": self.factors, "delta-rounded": self.delta}
        first = next((name for name, is_so in kinds.items() if is_so), "base-cast")
        end = "" if self.last is None else "-other-end" if self.last.base else "-wide-end"
        rounded = f"{'-rounded' if order and self.delta else ''}{end}"
        factors = f"-factors-{self.place}" if self.factors else ""
        return f"{first}{rounded}{factors}{order}"


def goes_through_16_bits(program: Program) -> bool:
    """Whether something lies in 16 bits on the way to what is stored."""
    model = program.model.dtype if program.model else None
    return not {program.base, program.between, model}.isdisjoint(HALVES)


def base_of(program: Program) -> torch.dtype | None:
    """The 16 bits in which the base was read, or what was made of it was stored."""
    if program.model:
        return program.model.dtype if program.model.cast else None
    return program.base if program.base in HALVES else program.via


_MODELS = ("models", "models-scalar", "models-summed", "models-wide")
MEANS: tuple[Literal["mean", "mean-wide"], ...] = ("mean", "mean-wide")
_COMMON = {}
for _half in HALVES:
    _short = str(_half).removeprefix("torch.")
    _COMMON[None, "product", None, "sum"] = "PEFT merge"
    _COMMON[None, "product", _half, "sum"] = "PEFT safe_merge"
    _COMMON[_half, "a", _half, "cat"] = f"PEFT, combined in {_short}"
    _COMMON[_half, "product", _half, "sum"] = f"PEFT, adapters in {_short}"


def _own(model: OwnModel | None) -> str:
    return model.in_words() if model else ""


def _name(dtype: Factor | None) -> str:
    named = {"tf32": "TF32", "tf32-cut": "TF32 (cut off)"}
    return named.get(str(dtype), str(dtype).removeprefix("torch."))


def _steps(order: Sequence[Step], names: Sequence[str]) -> str:
    each = ((step,) if isinstance(step, int) else step for step in order)
    return ", ".join("+".join(names[i] for i in step) for step in each)


def common(stored: torch.dtype, adapters: Sequence[int]) -> list[Program]:
    """The programs of the usual tools for what is stored so, over some adapters (their numbers), in the order in which
    they are met."""
    first = [Program()]
    orders = _orders(adapters, _USUAL_ORDERS)
    for c in _halves(stored):
        first += [Program(c), Program(c, delta=c)]
        first += [Program(c, order=o) for o in orders] + [Program(c, delta=c, order=o) for o in orders]
        first += [Program(c, c, "a", "wide", c, order="cat")]
        first += [Program(c, c, "a", m, c, order="cat") for m in ("twice", "once")]
        first += [Program(c, c, delta=c), *(Program(c, c, delta=c, order=o) for o in orders)]
        if len(adapters) > _MANY_ORDERS:
            first += [Program(c, f, delta=f, order=o) for f in HALVES if f != c for o in orders]
        first += [Program(c, order=o) for o in (*_MODELS, *MEANS)]
        first += [Program(c, order=o, terms=terms) for o in MEANS for terms in orders_of_a_mean(adapters)]
        for order in _grouped(adapters):
            first += [Program(c, order=order), Program(c, delta=c, order=order)]
            first += [Program(c, c, "a", m, c, order=order) for m in ("wide", "twice", "once")]
    if stored in HALVES:
        # Each merge in single precision, and what it gives stored before the next.
        first += [Program(order=o) for o in (*orders, *_grouped(adapters))]
    else:
        first += [Program(torch.float32, order=o) for o in (*orders, *_grouped(adapters), *_MODELS, *MEANS)]
        first += [Program(torch.float32, order="mean", terms=terms) for terms in orders_of_a_mean(adapters)]
    first += [Program(c, order=o, last=LastMerge()) for c in _halves(stored) if c != stored for o in orders]
    return first


def programs(stored: torch.dtype, adapters: Sequence[int]) -> Iterator[Program]:
    """All programs for what is stored so, the common ones first."""
    yield from _programs(stored, tuple(adapters))


# One proof asks several times, at several weights.
@lru_cache(maxsize=64)
def _programs(stored: torch.dtype, adapters: tuple[int, ...]) -> tuple[Program, ...]:
    halves, orders = _halves(stored), _orders(adapters, _MANY_ORDERS)
    every = sorted(_every(stored, halves, orders), key=_departures)
    rare = [*_converted(stored, halves), *_unlike(stored, halves, orders, adapters), *_tf32(halves, orders)]
    rare += _other_models(halves, adapters)
    # What an SVD leaves open is wide: it comes last.
    rare += [Program(long=True), *(Program(c, delta=p, long=True) for c in halves for p in (None, c))]
    return tuple(dict.fromkeys((*common(stored, adapters), *every, *rare)))


def _converted(stored: torch.dtype, halves: Sequence[torch.dtype]) -> Iterator[Program]:
    """Files that were stored in 16 bits and then in another dtype, merged in single precision or in the other one."""
    for via in halves:
        if via != stored:
            plain = (program for program in _every(stored, halves, ()) if program.base is None)
            yield from (replace(program, via=via) for program in plain)
            yield from (Program(c, via=via) for c in halves if c != via)


def _unlike(
    stored: torch.dtype, halves: Sequence[torch.dtype], orders: Sequence[tuple[int, ...]], adapters: Sequence[int]
) -> Iterator[Program]:
    """One merge after the other, the last by another tool: in another dtype, or with its delta or factors rounded in
    another way; and merges in single precision that are stored in between, of factors in 16 bits."""
    ways = [LastMerge(), *(LastMerge(None, f, f) for f in halves)]
    ways += [LastMerge(c, f, p) for c in halves for f, p in ((None, None), (None, c), *((f, f) for f in halves))]
    for first, last, order in itertools.product(ways, ways, orders):
        if first != last:
            yield Program(first.base, first.factors, delta=first.delta, order=order, last=last)
    if stored in HALVES:
        yield from (Program(None, f, delta=f, order=order) for f in halves for order in orders)
    for first, last, order in itertools.product(halves, halves, _grouped(adapters)):
        if first != last and isinstance(order[-1], int):
            yield Program(first, order=order, last=LastMerge(last))
    yield from _between(stored, halves, orders)


def _between(
    stored: torch.dtype, halves: Sequence[torch.dtype], orders: Sequence[tuple[int, ...]]
) -> Iterator[Program]:
    """Merges in single precision, or the last in 16 bits, with a file between them in a dtype that the end has not;
    and with the end converted once more."""
    lasts = [None, *(LastMerge(c, delta=p) for c in halves for p in (None, c))]
    vias = [None, *(half for half in halves if half != stored)]
    for half, last, via, order in itertools.product(halves, lasts, vias, orders):
        if half != stored or via or (last and last.base != half):
            yield Program(order=order, between=half, last=last, via=via)
    for c, via, order in itertools.product(halves, vias[1:], orders):
        yield Program(c, order=order, last=LastMerge(), via=via)


def _other_models(halves: Sequence[torch.dtype], adapters: Sequence[int]) -> Iterator[Program]:
    """Models in 16 bits of a base in another dtype, their differences or their mean taken in single precision."""
    for half, cast in itertools.product(halves, (True, False)):
        for p in (None, half):
            yield Program(delta=p, order="models-wide", model=OwnModel(half, cast))
            for terms in ((), *orders_of_a_mean(adapters)):
                yield Program(delta=p, order="mean-wide", terms=terms, model=OwnModel(half, cast))


def orders_of_a_mean(adapters: Sequence[int]) -> list[tuple[int, ...]]:
    """Orders in which a mean is summed, beside that of the claim with the base at the end."""
    if len(adapters) < 2:
        return []
    turned = tuple(adapters)[::-1]
    return [(-1, *adapters), (-1, *turned), *([(*turned, -1)] if len(adapters) > 2 else [])]


def _tf32(halves: Sequence[torch.dtype], orders: Sequence[tuple[int, ...]]) -> Iterator[Program]:
    for c, f in itertools.product((None, *halves), TF32):
        for p in dict.fromkeys((None, c)):
            sums: list[Order] = ["sum", *(orders if c else ())]
            yield from (Program(c, f, delta=p, order=order) for order in sums)
            yield from (Program(c, f, place, delta=p, order="cat" if p else "sum") for place in ("a", "b", "roots"))


def _halves(stored: torch.dtype) -> list[torch.dtype]:
    """The stored one first."""
    return sorted(HALVES, key=lambda d: d != stored)


def _orders(adapters: Sequence[int], many: int) -> list[tuple[int, ...]]:
    if len(adapters) < 2:
        return []
    if len(adapters) <= many:
        return list(itertools.permutations(adapters))
    return [tuple(adapters), tuple(adapters)[::-1]]


def _grouped(adapters: Sequence[int]) -> list[tuple[Step, ...]]:
    """Some of the adapters combined, the others merged one by one before or after: of few adapters."""
    if not 2 < len(adapters) <= _MANY_ORDERS + 1:
        return []
    found: list[tuple[Step, ...]] = []
    for size in range(2, len(adapters)):
        for group in itertools.combinations(adapters, size):
            others = [i for i in adapters if i not in group]
            found += list(itertools.permutations([group, *others]))
    return found


def _every(stored: torch.dtype, halves: Sequence[torch.dtype], orders: Sequence[tuple[int, ...]]) -> Iterator[Program]:
    places: list[tuple[Place, Multiplied]] = [
        ("product", "wide"),
        *(("roots", "wide"), ("roots", "once")),
        *(("a", "wide"), ("a", "once"), ("a", "twice")),
        *(("b", "wide"), ("b", "once"), ("b", "twice")),
    ]
    for c in (None, *halves, *([torch.float32] if stored == torch.float32 else [])):
        for f, (place, multiplied) in itertools.product((None, *halves), places):
            if f is None and place != "product":
                continue
            for p in dict.fromkeys((None, c if c in HALVES else None, f)):
                chains: tuple[Chain, ...] = (
                    ("whole", "weight", "scaling", "both") if p and place == "product" else ("whole",)
                )
                sums: list[Order] = ["sum", *(("cat", "each") if p else ()), *(orders if c else ())]
                sums += list(_MODELS) if c else []
                for chain, order in itertools.product(chains, sums):
                    if order != "cat" or chain == "whole":
                        yield Program(c, f, place, multiplied, p, chain, order)


def _departures(program: Program) -> int:
    plain = Program()
    named = ("base", "factors", "place", "multiplied", "delta", "chain", "order")
    formats = {d for d in (program.base, program.factors, program.delta) if d}
    return sum(getattr(program, n) != getattr(plain, n) for n in named) + 3 * (len(formats) > 1)
