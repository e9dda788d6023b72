"""A few rows of some modules, by which the programs of the grammar are told apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from crossmatch.checkpoint import module_type_of
from crossmatch.delta import Delta, LowRank
from crossmatch.verification.arithmetic import Applied, rows_of
from crossmatch.verification.grammar import HALVES, Program
from crossmatch.verification.look import check_readable, read_rows
from crossmatch.verification.rounding import step
from crossmatch.verification.scan import ModuleScan
from crossmatch.verification.subject import Subject

# Modules and rows of each, and columns of a row.
MODULES, _ROWS, _COLUMNS = 8, 4, 512


@dataclass(frozen=True)
class Piece:
    """A few rows of one tensor: M and W as they are stored, and the deltas at weight one."""

    name: str
    where: list[slice]
    stored: Tensor
    raw: Tensor
    parts: Mapping[int, Delta]
    _seen: dict[Any, bool] = field(default_factory=dict, repr=False)

    def holds(self, program: Program, weights: Sequence[float], doubts: Sequence[float]) -> bool:
        """Whether a program can have stored every element."""
        narrow = [d for d in (program.base, program.via) if d in HALVES]
        if not all(map(self.on_grid, narrow)) or not self.possible(tuple(weights)):
            return False
        use = Applied.of(program, self.parts, weights, doubts, self.stored.dtype)
        return not bool(use.outside(self.stored, use.read(self.raw, self.where)).any())

    def on_grid(self, half: torch.dtype) -> bool:
        """Whether what is stored may have been rounded to that dtype: in a finer one, all lies on its grid."""
        if self.stored.dtype in (half, torch.bfloat16):
            return True
        if half not in self._seen:
            self._seen[half] = torch.equal(self.stored.to(half).to(self.stored.dtype), self.stored)
        return self._seen[half]

    def possible(self, weights: tuple[float, ...]) -> bool:
        """Whether any program can have stored every element: the coarsest rounds base, factors, deltas and every sum to
        bfloat16. So a thousand programs need not be tried on a file that none of them made."""
        if weights not in self._seen:
            none = [0.0] * len(weights)
            use = Applied.of(Program(), self.parts, weights, none, self.stored.dtype)
            some = use.read(self.raw, self.where)
            sizes = [x.abs() for x in some.shares.values()]
            products = [s.magnitude for s in use.shares.values() if s.magnitude is not None]
            sizes += [rows_of(delta, self.where, some.ours) for delta in products]
            moved = sum(sizes, some.ours.abs())
            coarsest = torch.bfloat16 if self.stored.dtype != torch.float32 or self.on_grid(torch.bfloat16) else None
            unit = step(moved, coarsest or (torch.float16 if self.on_grid(torch.float16) else self.stored.dtype))
            # Half a step for base, file, every sum and, by models, each model at its weight and what is multiplied.
            halves = 2 + sum(2 + 2 * max(1.0, abs(weights[i])) for i in use.shares)
            room = halves / 2 * unit + 2.0**-6 * sum(sizes, torch.zeros_like(moved))
            room = room + sum(_below_float16(d, self.where, weights[i]) for i, d in self.parts.items())
            self._seen[weights] = not bool(((self.stored.double() - use.exact(some)).abs() > room).any())
        return self._seen[weights]

    def misses(self, program: Program, weights: Sequence[float]) -> int:
        """Elements of other bits than the program's own."""
        use = Applied.of(program, self.parts, weights, [0.0] * len(weights), self.stored.dtype)
        return int((use.centre(use.read(self.raw, self.where)) != self.stored).sum())


def _below_float16(delta: Delta, where: Sequence[slice], weight: float) -> Tensor:
    """What float16 loses below its normal numbers, by 2^-25 in every factor and delta: (rows, columns)."""
    if not isinstance(delta, LowRank):
        return torch.zeros((), dtype=torch.float64)
    number = 1.0 + abs(weight) * float(delta.scale.abs().max())
    b, a = torch.cat([delta.b[s] for s in where]).double().abs(), delta.a.double().abs()
    return 2.0**-24 * number * (b.sum(1, keepdim=True) + a.sum(0, keepdim=True) + 3.0)


def pieces_of(subject: Subject) -> Iterator[Piece]:
    """Rows of modules of every type, spread over the depth."""
    names, kinds = subject.adapted, {}
    for name in names:
        check_readable(name, subject.base.tensors[name].dtype, subject.merged.tensors[name].dtype)
        kinds.setdefault(module_type_of(name), []).append(name)
    groups = list(kinds.values())
    chosen = [group[(len(group) - 1) * n // max(1, len(groups) - 1)] for n, group in enumerate(groups)][:MODULES]
    chosen += [n for n in names[:: max(1, len(names) // MODULES)] if n not in chosen][: MODULES - len(chosen)]
    for name in chosen:
        claimed = subject.on(name)
        places = subject.places(name, claimed)
        if places and places[0].stop - places[0].start > _ROWS:
            height = places[0].stop
            places = [slice(r, r + 1) for r in sorted({height * k // _ROWS for k in range(_ROWS)})]
        else:
            places = places[:: max(1, len(places) // _ROWS)][:_ROWS]
        if places:
            yield _piece(subject, name, claimed.parts, places)


def _piece(subject: Subject, name: str, parts: Mapping[int, Delta], where: list[slice]) -> Piece:
    """Those rows; of factors, cut to some columns, so that a thousand programs are tried in a second. These are columns
    with an element that the subject's own program does not give, as far as there are any."""
    columns = next(iter(parts.values())).columns
    stored, raw = (read_rows(side, name, where, columns) for side in (subject.merged, subject.base))
    low = {i: d for i, d in parts.items() if isinstance(d, LowRank)}
    if len(low) < len(parts) or columns <= _COLUMNS:
        return Piece(name, where, stored, raw, parts)
    use = Applied.of(subject.program, parts, subject.weights, subject.doubts, stored.dtype)
    wrong = use.outside(stored, use.read(raw, where)).any(0).nonzero().flatten()
    spread = torch.linspace(0, columns - 1, _COLUMNS // 2).long()
    chosen = torch.cat([spread, wrong[: _COLUMNS // 2]]).unique()
    cut = {i: LowRank(torch.cat([d.b[s] for s in where]), d.a[:, chosen], d.scale) for i, d in low.items()}
    return Piece(name, [slice(0, len(raw))], stored[:, chosen], raw[:, chosen], cut)


def wrong_rows(subject: Subject, module: ModuleScan) -> Piece:
    """A few rows of a module, those in question first."""
    claimed = subject.on(module.name)
    where = subject.places(module.name, claimed)[:2]
    rows = {r for s in where for r in range(s.start, min(s.stop, s.start + 2))} | set(module.bad or ())
    return _piece(subject, module.name, claimed.parts, [slice(r, r + 1) for r in sorted(rows)])
