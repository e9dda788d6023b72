"""Whether the zeros of many factors are the lost shards of one training run.

A tool that trains on N machines and saves what one of them has leaves k of N equal blocks of rows at exactly zero, the
value that lora_B starts with, at the same place in every module. Zero rows of an adapter that is whole have other
reasons (units that never fire, gradients that underflow, heads that were cut out of the base), and these do not agree.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Numbers of machines that are tried.
_SIZES = (*range(2, 65), 72, 80, 96, 128, 192, 256, 384, 512)
# Blocks of rows that may die together for an honest reason, at most so many in a factor. Rows of attention's inputs die
# by heads; a head is rarely less than a sixteenth. Others die one by one, and are taken for less than they are.
_HEADS, _ROWS = 16, 64
# The modules that must agree, and how much of a run of zeros the lost shards must explain.
_AGREE = _EXPLAINED = 0.9
# Layers whose inner width is filled up with zeros, for kernels or for machines, have zero rows at the end of every
# lora_B: 2.3% of 11008 filled up to 11264. Fewer than this are therefore no shards.
_LEAST = 1 / 16
# Chance that an honest adapter is taken for one with lost shards, by the model of `chance`.
CHANCE = 1e-6


@dataclass(frozen=True)
class Run:
    """One factor's longest run of zero rows (or columns) start:stop, of `length`.

    family: module type; layer: None outside of layers; by_head: rows of an attention's query, key or value.
    """

    key: str
    family: str
    layer: int | None
    length: int
    start: int
    stop: int
    by_head: bool = False

    @property
    def share(self) -> float:
        """Part of the rows that the run has."""
        return (self.stop - self.start) / self.length if self.length else 0.0


@dataclass(frozen=True)
class Shards:
    """Shards first:last+1 of `size` are lost, in the runs given; chance: of seeing that in an adapter that is whole."""

    size: int
    first: int
    last: int
    runs: tuple[Run, ...]
    chance: float

    def named(self) -> str:
        """Which ones, counted from one, as in `shards 2 to 8 of 8`."""
        if self.first == self.last:
            return f"shard {self.first + 1} of {self.size}"
        return f"shards {self.first + 1} to {self.last + 1} of {self.size}"


def longest_run(zero: Tensor) -> tuple[int, int]:
    """Start and end of the longest run of true in a vector of bool; (0, 0) without one."""
    padded = torch.nn.functional.pad(zero.to(torch.int8), (1, 1))
    steps = padded.diff()
    starts, stops = (steps == 1).nonzero().flatten(), (steps == -1).nonzero().flatten()
    if not len(starts):
        return 0, 0
    longest = int((stops - starts).argmax())
    return int(starts[longest]), int(stops[longest])


def lost_shards(runs: Sequence[Run]) -> list[Shards]:
    """What the zeros of an adapter's factors show: shards lost in all modules, or in all modules of some families.

    runs: one of every factor that holds an update; a factor without zeros has an empty one.
    """
    whole = _agreed(runs)
    if whole is not None:
        return [whole]
    families = defaultdict(list)
    for run in runs:
        families[run.family].append(run)
    found: dict[tuple[int, int, int], list[Shards]] = defaultdict(list)
    for some in families.values():
        one = _agreed(some)
        if one is not None:
            found[one.size, one.first, one.last].append(one)
    return [
        Shards(*place, tuple(r for s in each for r in s.runs), math.prod(s.chance for s in each))
        for place, each in found.items()
    ]


def _agreed(runs: Sequence[Run]) -> Shards | None:
    """The shards whose loss explains the zeros of nearly all runs, if chance does not."""
    if sum(run.share >= _LEAST for run in runs) < _AGREE * len(runs) or not runs:
        return None
    candidates = (_placed(runs, size) for size in _SIZES)
    found = [candidate for candidate in candidates if candidate is not None]
    if not found:
        return None
    explained, size, (first, last), those = max(found, key=lambda c: (round(c[0], 6), -c[1]))
    if explained < _EXPLAINED:
        return None
    odds = chance(those, size)
    return Shards(size, first, last, tuple(those), odds) if odds <= CHANCE else None


def _placed(runs: Sequence[Run], size: int) -> tuple[float, int, tuple[int, int], list[Run]] | None:
    """With so many machines: how much of the runs is explained, the shards that most runs say are lost, those runs."""
    places = {run: _shards_of(run, size) for run in runs}
    named = Counter(place for place in places.values() if place is not None)
    if not named:
        return None
    (place, count) = named.most_common(1)[0]
    if count < _AGREE * len(runs):
        return None
    those = [run for run in runs if places[run] == place]
    shares = [_covered(run, size, place) / (run.stop - run.start) for run in those]
    return sum(shares) / len(shares), size, place, those


def _shards_of(run: Run, size: int) -> tuple[int, int] | None:
    """First and last shard that lies in a run as a whole. Shards have ceil(length / size) rows, the last ones fewer."""
    rows = -(-run.length // size)
    if run.share < _LEAST or rows * size - run.length >= rows:
        return None
    first = -(-run.start // rows)
    last = size - 1 if run.stop == run.length else run.stop // rows - 1
    return (first, last) if 0 <= first <= last else None


def _covered(run: Run, size: int, place: tuple[int, int]) -> int:
    rows = -(-run.length // size)
    return min((place[1] + 1) * rows, run.length) - place[0] * rows


def chance(runs: Iterable[Run], size: int) -> float:
    """Bound on the chance that zeros which have nothing to do with shards lie so, for one of all places of `size`.

    A factor has u units that die as a whole (u = 16 for rows of query, key and value, which die by heads, 64 for
    others, never more than rows). If z of u are dead, at places that say nothing of each other, they are these with
    chance 1 / C(u, z). Factors count once for every layer and family: experts of one layer are one. The places of one
    size are size^2 at most, and the sizes before it as many again for each: size^3 is what all of them add.
    """
    terms: dict[tuple[str, int | None], float] = {}
    for run in runs:
        units = max(2, min(_HEADS if run.by_head else _ROWS, run.length))
        dead = min(max(round(run.share * units), 1), units - 1)
        one = _log_choose(units, dead)
        where = (run.family, run.layer)
        terms[where] = min(one, terms.get(where, one))
    return math.exp(min(0.0, 3 * math.log(size) - sum(terms.values())))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
