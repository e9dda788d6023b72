"""Rows of several modules, held against one program after the other, all modules at once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crossmatch.verification.arithmetic.grammar import HALVES, Program
from crossmatch.verification.arithmetic.sample_reader import Reader, Trial, unit_of
from crossmatch.verification.arithmetic.sample_rows import Piece


@dataclass(frozen=True)
class Fit:
    """A program at some weights, each known to its doubt; whole: whether it explains every piece; missed: how many it
    does not; sharpened: whether the doubts are all that a sample leaves."""

    program: Program
    weights: tuple[float, ...]
    doubts: tuple[float, ...]
    whole: bool = False
    missed: int = 0
    sharpened: bool = False


class Sample:
    """The pieces by which programs are told apart.

    A program costs some fifty operations of torch, however few the elements are. So a few elements of all pieces are
    joined and tried before all of them, and what a candidate was found to explain is kept.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = list(pieces)
        self._bounds: dict[Any, int] = {}
        self._held: dict[Any, Tensor] = {}
        self._grids: dict[tuple[torch.dtype, ...], Tensor] = {}
        self.reader = Reader(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)

    def first(self, count: int) -> "Sample":
        """The first pieces alone, with what is known of them: what a candidate could not explain there, it cannot."""
        some = Sample(self.pieces[:count])
        some._bounds = {candidate: int(held[:count].sum()) for candidate, held in self._held.items()}
        return some

    @property
    def elements(self) -> int:
        """Of all pieces."""
        return sum(piece.stored.numel() for piece in self.pieces)

    @property
    def stored(self) -> torch.dtype:
        """What the file stores."""
        return self.pieces[0].stored.dtype

    def numbers(self, weights: Sequence[float]) -> list[int]:
        """Adapters that have a delta in some piece, and a weight."""
        return sorted({i for piece in self.pieces for i in piece.parts if weights[i]})

    def on_grid(self, half: torch.dtype) -> bool:
        """Whether all that is stored may have been rounded to that dtype."""
        return all(piece.on_grid(half) for piece in self.pieces)

    def explained(self, program: Program, weights: Sequence[float], doubts: Sequence[float], more_than: int = 0) -> int:
        """Pieces of which the program can have stored every element; of no more than `more_than` an upper bound."""
        candidate = (program, tuple(weights), tuple(doubts))
        bound = self._bounds.get(candidate)
        if bound is not None and bound <= more_than:
            return bound
        # What is summed in single precision from models of 16 bits lies on no grid of theirs.
        base = None if program.is_wide else program.final
        narrow = tuple(d for d in (base, program.via) if d in HALVES)
        if narrow not in self._grids:
            self._grids[narrow] = torch.tensor([all(map(piece.on_grid, narrow)) for piece in self.pieces])
        trial = Trial(*candidate)
        explained = self._grids[narrow] if program.long else self._grids[narrow] & ~self.reader.beyond(trial)
        for wrong in self._wrong(trial) if int(explained.sum()) > more_than else ():
            explained = explained & ~wrong
            if int(explained.sum()) <= more_than:
                break
        self._bounds[candidate], self._held[candidate] = int(explained.sum()), explained
        return self._bounds[candidate]

    def misses(self, program: Program, weights: Sequence[float], limit: float = math.inf) -> int:
        """Elements of other bits than the program's own; from `limit` on a lower bound."""
        trial, count = Trial(program, tuple(weights), (0.0,) * len(weights)), 0
        for whole in (False, True) if math.isfinite(limit) else (True,):
            read = self.reader.read(trial, whole=whole)
            count = sum(int((use.centre(joined.some) != joined.stored).sum()) for use, joined in read)
            if count >= limit:
                break
        return count

    def outside(self, program: Program, weights: Sequence[float]) -> int:
        """Elements that the program cannot have stored at these weights."""
        trial = Trial(program, tuple(weights), (0.0,) * len(weights))
        read = self.reader.read(trial, whole=True)
        return sum(int(use.outside(joined.stored, joined.some).sum()) for use, joined in read)

    def gram(self, program: Program, weights: Sequence[float], numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(adapters, adapters) and (adapters,): by how many steps elements move with each weight, relative to it, in
        products with each other and with the steps that elements are off."""
        result, pull = torch.zeros(len(numbers), len(numbers), dtype=torch.float64), 0.0
        for moves, left, _ in self._moves(program, weights, numbers):
            result, pull = result + moves @ moves.T, pull + moves @ left
        return result, torch.as_tensor(pull)

    def cuts(self, program: Program, weights: Sequence[float], numbers: Sequence[int]) -> Tensor:
        """(elements outside, adapters): whither each weight, relative to it, moves an element that the program cannot
        have stored, towards what is stored."""
        found = [
            (moves[:, beyond] * left[beyond].sign()).T for moves, left, beyond in self._moves(program, weights, numbers)
        ]
        return torch.cat([torch.zeros(0, len(numbers), dtype=torch.float64), *found])

    def _moves(
        self, program: Program, weights: Sequence[float], numbers: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """By how many steps elements move with each weight, relative to it, by how many they differ, and which of them
        the program cannot have stored."""
        trial = Trial(program, tuple(weights), (0.0,) * len(weights))
        for use, joined in self.reader.read(trial, whole=True):
            some = joined.some
            unit = unit_of(use, some)
            unit, none = torch.hypot(unit, some.blur), torch.zeros_like(unit)
            sizes = {i: weights[i] if program.by_models else 1.0 for i in numbers}
            moves = torch.stack([(sizes[i] * some.shares.get(i, none) / unit).flatten() for i in numbers])
            left = (joined.stored.double() - use.centre(some).double()) / unit
            yield moves, left.flatten(), use.outside(joined.stored, some).flatten()

    def _wrong(self, trial: Trial) -> Iterator[Tensor]:
        """Pieces with an element that the program cannot have stored, as booleans, the cheapest test first."""
        if not trial.program.is_grouped:
            yield from self.reader.impossible(trial)
        few = torch.zeros(len(self.pieces), dtype=torch.bool)
        for use, joined in self.reader.read(trial):
            few[joined.of[use.outside(joined.stored, joined.some)]] = True
            yield few
        every, failed = torch.zeros(len(self.pieces), dtype=torch.bool), []
        for use, joined in self.reader.read(trial, whole=True):
            outside = use.outside(joined.stored, joined.some)
            every[joined.of[outside]] = True
            failed.append((joined.of[outside], joined.place[outside]))
        self.reader.sharpen(torch.cat([of for of, _ in failed]), torch.cat([place for _, place in failed]))
        yield every


def turned(sample: Sample, program: Program, weights: Sequence[float]) -> float:
    """Share of the elements that the order of additions turns, as a rule: what errs by e ends on the other side of a
    boundary with probability e / step, and |e| of a width `blur` is sqrt(2 / pi) / sqrt(12) of it on average."""
    trial, total = Trial(program, tuple(weights), (0.0,) * len(weights)), 0.0
    for use, joined in sample.reader.read(trial, whole=True):
        total += float((joined.some.blur / unit_of(use, joined.some)).sum())
    return total / math.sqrt(6 * math.pi) / max(1, sample.elements)
