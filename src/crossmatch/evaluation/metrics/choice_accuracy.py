"""Choices: flips between two variants, and orders of the options."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossmatch.data.suites import Item
from crossmatch.errors import DataError
from crossmatch.statistics.estimates import Array


@dataclass(frozen=True)
class Flips:
    """Items by right and wrong under two variants: both right, gained, lost, and wrong twice, alike or otherwise."""

    kept: int
    gained: int
    lost: int
    wrong_alike: int
    wrong_otherwise: int


def flips(before: Sequence[int | None], after: Sequence[int | None], right: Sequence[int]) -> Flips:
    """Flip table of two variants' choices over the same items; an invalid answer (None) is wrong."""
    table = dict.fromkeys(("kept", "gained", "lost", "wrong_alike", "wrong_otherwise"), 0)
    for one, other, gold in zip(before, after, right, strict=True):
        if one == gold:
            table["kept" if other == gold else "lost"] += 1
        elif other == gold:
            table["gained"] += 1
        else:
            table["wrong_alike" if one == other else "wrong_otherwise"] += 1
    return Flips(**table)


def permutations_of(n_options: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """`count` distinct orders of options; order[place] is the option shown there: the map back.

    The first is the given order; the first n_options are its rotations, so that with that many (or all of them) every
    option stands equally often in every place. Raises DataError for more orders than there are.
    """
    if n_options < 2 or not 1 <= count <= math.factorial(min(n_options, 20)):
        raise DataError(f"{n_options} options have no {count} different orders; ask for fewer")
    rng = np.random.default_rng(seed)
    identity = tuple(range(n_options))
    shifts = [0, *(int(s) for s in rng.permutation(np.arange(1, n_options)))]
    orders = dict.fromkeys(identity[s:] + identity[:s] for s in shifts)
    if count > math.factorial(n_options) // 2 > 0 and n_options <= 8:
        rest = [o for o in itertools.permutations(identity) if o not in orders]
        orders.update(dict.fromkeys(rest[int(i)] for i in rng.permutation(len(rest))))
    while len(orders) < count:
        orders[tuple(int(i) for i in rng.permutation(n_options))] = None
    return list(orders)[:count]


def original(order: Sequence[int], place: int | None) -> int | None:
    """The option, in the given order, that was chosen by its place in a permuted one; None stays None."""
    return None if place is None else order[place]


def order_statistics(chosen: Sequence[Sequence[int | None]], right: Sequence[int]) -> dict[str, Array]:
    """What becomes of choices over option orders; one row an item, (n, 1) each; take their means.

    chosen: for every item, the original index chosen under each order. `mean`: share of orders answered rightly;
    `majority`: 1 if the right option has most votes and no other as many; `worst`: 1 if right under every order;
    `consistency`: share of pairs of orders that agree (an invalid answer agrees with nothing; 1 order: no pair, and the
    column is left out). Raises DataError if items have different numbers of orders.
    """
    counts = {len(c) for c in chosen}
    if len(counts) > 1 or 0 in counts or len(chosen) != len(right):
        raise DataError(f"every item needs the same number of option orders, one or more, and a right option: {counts}")
    names = ["mean", "majority", "worst", *(["consistency"] if counts and counts.pop() > 1 else [])]
    rows = [[_order_row(name, c, r) for name in names] for c, r in zip(chosen, right, strict=True)]
    table = np.array(rows, dtype=float).reshape(-1, len(names))
    return {name: table[:, [column]] for column, name in enumerate(names)}


def _order_row(name: str, chosen: Sequence[int | None], right: int) -> float:
    hits = sum(c == right for c in chosen)
    if name == "mean":
        return hits / len(chosen)
    if name == "worst":
        return float(hits == len(chosen))
    if name == "majority":
        others = {c for c in chosen if c is not None and c != right}
        return float(hits > max((sum(c == o for c in chosen) for o in others), default=0))
    pairs = list(itertools.combinations(chosen, 2))
    return sum(a is not None and a == b for a, b in pairs) / len(pairs)


def shuffled(item: Item, orders: int, number: int) -> tuple[Item, tuple[int, ...]]:
    """An item with its options in another order than the given one, of so many, and that order; few options have few
    orders, which then come again."""
    count = min(orders + 1, math.factorial(len(item.options)))
    others = permutations_of(len(item.options), count, 0)[1:]
    order = others[number % len(others)]
    options = tuple(item.options[place] for place in order)
    return replace(item, options=options, answer=order.index(item.answer)), order
