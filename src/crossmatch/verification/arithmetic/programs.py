"""Every program of the grammar, in the order in which they are tried: those of the usual tools first."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from crossmatch.verification.arithmetic.grammar import (
    HALVES,
    MEANS,
    MODELS,
    TF32,
    Chain,
    LastMerge,
    Multiplied,
    Order,
    OwnModel,
    Place,
    Program,
    Step,
)

# Adapters of which all orders are tried by every program, and by the usual ones.
_MANY_ORDERS, _USUAL_ORDERS = 3, 5


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
        first += [Program(c, order=o) for o in (*MODELS, *MEANS)]
        first += [Program(c, order=o, terms=terms) for o in MEANS for terms in orders_of_a_mean(adapters)]
        for order in _grouped(adapters):
            first += [Program(c, order=order), Program(c, delta=c, order=order)]
            first += [Program(c, c, "a", m, c, order=order) for m in ("wide", "twice", "once")]
    if stored in HALVES:
        # Each merge in single precision, and what it gives stored before the next.
        first += [Program(order=o) for o in (*orders, *_grouped(adapters))]
    else:
        first += [Program(torch.float32, order=o) for o in (*orders, *_grouped(adapters), *MODELS, *MEANS)]
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
                sums += list(MODELS) if c else []
                for chain, order in itertools.product(chains, sums):
                    if order != "cat" or chain == "whole":
                        yield Program(c, f, place, multiplied, p, chain, order)


def _departures(program: Program) -> int:
    plain = Program()
    named = ("base", "factors", "place", "multiplied", "delta", "chain", "order")
    formats = {d for d in (program.base, program.factors, program.delta) if d}
    return sum(getattr(program, n) != getattr(plain, n) for n in named) + 3 * (len(formats) > 1)
