"""A few rows of some modules, by which the programs of the grammar are told apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from crossmatch.checkpoint import module_type_of
from crossmatch.delta import Delta, LowRank
from crossmatch.verification.arithmetic.replay import Applied
from crossmatch.verification.arithmetic.tensor_kinds import Kind
from crossmatch.verification.subject import Subject
from crossmatch.verification.weights.row_sums import check_readable, read_rows
from crossmatch.verification.weights.scan import ModuleScan

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
    _grids: dict[torch.dtype, bool] = field(default_factory=dict, repr=False)

    def on_grid(self, half: torch.dtype) -> bool:
        """Whether what is stored may have been rounded to that dtype: in a finer one, all lies on its grid."""
        if self.stored.dtype in (half, torch.bfloat16):
            return True
        if half not in self._grids:
            self._grids[half] = torch.equal(self.stored.to(half).to(self.stored.dtype), self.stored)
        return self._grids[half]


def pieces_of(subject: Subject, kind: Kind | None = None) -> Iterator[Piece]:
    """Rows of modules of every type, spread over the depth: of those of one kind, default: of which there are most."""
    kinds = subject.kinds.groups(subject.adapted)
    names = kinds.get(kind, []) if kind is not None else next(iter(kinds.values()), [])
    types: dict[str, list[str]] = {}
    for name in names:
        check_readable(name, subject.base.tensors[name].dtype, subject.merged.tensors[name].dtype)
        types.setdefault(module_type_of(name), []).append(name)
    groups = list(types.values())
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
    use = Applied.of(subject.program_of(name), parts, subject.weights, subject.doubts, stored.dtype)
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
