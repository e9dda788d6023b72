"""One pass over base and merged: every element is compared with what it should be, and files are digested in passing.

An element that has the very bits of the claimed sum needs no second look; the others are judged in float64, route by
route. What weights are inside follows from some rows of every tensor, and from all of them where these do not suffice.
"""

import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from crossmatch.checkpoint import Checkpoint, PassingDigests, is_needless
from crossmatch.delta import Delta, LowRank, TokenRows, TuningVector, Workspace, linear
from crossmatch.process import workers
from crossmatch.progress import Progress
from crossmatch.verification.claim import Resolved
from crossmatch.verification.look import ROWS, Looked, Rows, bound, check_readable, look, read, row_sizes, sample
from crossmatch.verification.rounding import Violations, violations

_INTEGERS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}
_INFINITE = {torch.bfloat16: 0x7F80, torch.float16: 0x7C00}
# Elements of a block, as a share, that are looked at one by one.
_FEW = 1e-3
# A block with unexpected elements in more of its rows than this is judged as a whole.
_MANY_ROWS = 0.25
# Blocks under way at a time.
_WINDOW = 6


@dataclass
class ModuleScan:
    """What one adapted tensor showed: at some rows (`looked`), and at all of them.

    violations: against the claimed sum, of `elements`; bad: first and last row with an element that no route explains;
    base_own: whether the whole tensor is the base's, known where it is not as claimed; whole: whether all rows were
    looked at.
    """

    name: str
    looked: Looked
    violations: Violations = field(default_factory=Violations)
    elements: int = 0
    bad: tuple[int, int] | None = None
    base_own: bool = False
    nonfinite: int = 0
    whole: bool = False


@dataclass
class Scan:
    """The whole pass: adapted modules, and the tensors that should be the base's own."""

    modules: list[ModuleScan] = field(default_factory=list)
    identical: list[str] = field(default_factory=list)
    untouched_changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    cast: list[str] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Checked:
    """One block: the bytes that were read, and what they showed."""

    name: str
    ours: Tensor
    theirs: Tensor
    violations: Violations = field(default_factory=Violations)
    bad: tuple[int, int] | None = None
    nonfinite: int = 0
    differs: bool = False


@dataclass(frozen=True)
class Claimed:
    """The claim on one tensor: deltas at weight one by the number of their vector, and their weighted sum."""

    parts: Mapping[int, Delta]
    total: Delta

    @property
    def columns(self) -> int:
        """Width of the matrix as which the tensor is read."""
        return self.total.columns


class Subject:
    """A merged checkpoint beside the claim about it: where rows of any tensor can be looked at, at any time."""

    def __init__(self, merged: Checkpoint, claim: Resolved) -> None:
        self.merged, self.base, self.names = merged, claim.base, list(claim.parts)
        self.vectors: list[TuningVector] = [vector for vector, _ in claim.parts.values()]
        self.weights = [weight for _, weight in claim.parts.values()]

    def on(self, name: str) -> Claimed:
        """What the claim says of a tensor."""
        found = {i: vector[name] for i, vector in enumerate(self.vectors) if name in vector}
        parts = bound(self.base, name, found)
        return Claimed(parts, linear(list(parts.values()), [self.weights[i] for i in parts]))

    def some(self, name: str, claimed: Claimed, within: tuple[int, int] | None = None, least: int = ROWS) -> Rows:
        """Some rows of a tensor, at least so many, of all of it or `within` a range of rows."""
        height = self.base.tensors[name].elements // max(1, claimed.columns)
        first, last = within or (0, height - 1)
        chosen = sample(name, last - first + 1, claimed.columns, least)
        where = [slice(first + s.start, first + s.stop) for s in chosen]
        if len(chosen) > 1:
            # A delta in a few rows only would hardly ever be met.
            few = {int(i) for d in claimed.parts.values() if isinstance(d, TokenRows) for i in d.indices[:least]}
            rows = {s.start for s in where} | {i for i in few if first <= i <= last}
            where = [slice(row, row + 1) for row in sorted(rows)]
        return read(self.merged, self.base, name, claimed.parts, where)

    def all(self, name: str, claimed: Claimed) -> Iterator[Rows]:
        """All rows of a tensor, block by block."""
        for start, stop in self.base.blocks(name, claimed.columns):
            yield read(self.merged, self.base, name, claimed.parts, [slice(start, stop)])

    def is_base(self, name: str) -> bool:
        """Whether a tensor is the base's, bit for bit, or the base's cast to the stored dtype."""
        return all(
            same_bytes(self.base.rows(name, *rows).to(self.merged.tensors[name].dtype), self.merged.rows(name, *rows))
            for rows in self.base.blocks(name)
        )


def glance(subject: Subject, progress: Progress) -> list[Looked]:
    """Some rows of every adapted tensor: what weights are inside, before anything is claimed."""
    adapted = {name for vector in subject.vectors for name in vector}
    both = [n for n, i in subject.merged.tensors.items() if n in adapted and subject.base.tensors[n].shape == i.shape]
    for name in both:
        check_readable(name, subject.base.tensors[name].dtype, subject.merged.tensors[name].dtype)
    with progress.task("look", len(both)) as task, workers() as pool:

        def one(name: str) -> Looked:
            return look(subject.some(name, subject.on(name)), subject.weights)

        found = []
        for name, looked in zip(both, pool.map(one, both), strict=True):
            found.append(looked)
            task.advance(1, name)
    return found


def scan(subject: Subject, progress: Progress, *, quick: bool = False) -> Scan:
    """Compare every tensor with base and claim; memory is a few blocks of rows. `quick`: some rows of each only."""
    merged, base, result = subject.merged, subject.base, Scan()
    outside = set(merged.tensors) - set(base.tensors)
    result.extra = sorted(name for name in outside if not is_needless(name, merged, base))
    names = []
    for name, info in base.tensors.items():
        theirs = merged.tensors.get(name)
        if theirs is None or theirs.shape != info.shape:
            if theirs is not None or not is_needless(name, base, merged):
                result.missing.append(name)
            continue
        if theirs.dtype != info.dtype:
            result.cast.append(name)
        names.append(name)
    # In the order of the file, so that it is digested while it is read.
    files = {file: place for place, file in enumerate(merged.layout.files)}
    names.sort(key=lambda n: (files[merged.tensors[n].file], merged.tensors[n].offset, n))
    with workers() as pool:
        _Pass(subject, result, pool, quick=quick).run(names, progress)
    return result


class _Pass:
    """The pass over all tensors, blocks checked by all cores and taken in in order."""

    def __init__(self, subject: Subject, result: Scan, pool: ThreadPoolExecutor, *, quick: bool) -> None:
        self.subject, self.result, self.pool, self.quick = subject, result, pool, quick
        self._adapted = {name for vector in subject.vectors for name in vector}
        self._local = threading.local()
        self._modules: dict[str, ModuleScan] = {}
        self._differs: dict[str, bool] = {}
        self._spoilt: set[str] = set()

    def run(self, names: Sequence[str], progress: Progress) -> None:
        """Fill the result."""
        merged, base = self.subject.merged, self.subject.base
        looks: deque[tuple[str, Future[Looked]]] = deque()
        pending: deque[Future[_Checked]] = deque()
        digests = [] if self.quick else [PassingDigests(base), PassingDigests(merged)]
        with progress.task("verify", sum(base.tensors[name].nbytes for name in names)) as task:

            def finish() -> None:
                done = pending.popleft().result()
                for digest, tensor in zip(digests, (done.ours, done.theirs), strict=False):
                    digest.feed(done.name, tensor)
                self._take(done)
                task.advance(base.tensors[done.name].dtype.itemsize * done.ours.numel(), done.name)

            # One tensor ahead: factors are read while blocks are checked.
            upcoming: dict[str, Future[Claimed]] = {}
            for place, name in enumerate(names):
                for soon in names[place : place + 2]:
                    if soon in self._adapted and soon not in upcoming:
                        check_readable(soon, base.tensors[soon].dtype, merged.tensors[soon].dtype)
                        upcoming[soon] = self.pool.submit(self.subject.on, soon)
                claimed = upcoming.pop(name).result() if name in upcoming else None
                if claimed:
                    looks.append((name, self.pool.submit(self._look, name, claimed)))
                for start, stop in self._blocks(name, claimed):
                    pending.append(self.pool.submit(self._check, name, start, stop, claimed))
                    while len(pending) > _WINDOW:
                        finish()
                self._differs.setdefault(name, False)
            while pending:
                finish()
        for digest in digests:
            digest.note()
        for name, future in looks:
            found = self._module(name)
            found.looked = future.result()
            if self.quick:
                found.violations, found.elements = found.looked.violations, found.looked.elements
                found.nonfinite = found.looked.nonfinite
        self.result.modules = [self._modules[name] for name in self.subject.base.tensors if name in self._modules]
        plain = [name for name in base.tensors if name in self._differs and name not in self._adapted]
        self.result.identical = [name for name in plain if not self._differs[name]]
        self.result.untouched_changed = [name for name in plain if self._differs[name]]
        self.result.nonfinite = [name for name in plain if name in self._spoilt]

    def _blocks(self, name: str, claimed: Claimed | None) -> Iterator[tuple[int, int]]:
        columns = claimed.columns if claimed else self.subject.base.tensors[name].columns
        if not self.quick:
            yield from self.subject.base.blocks(name, columns)
        elif not claimed:
            height = self.subject.base.tensors[name].elements // max(1, columns)
            yield from ((s.start, s.stop) for s in sample(name, height, columns))

    def _look(self, name: str, claimed: Claimed) -> Looked:
        return look(self.subject.some(name, claimed), self.subject.weights)

    def _space(self) -> Workspace:
        if not hasattr(self._local, "space"):
            self._local.space = Workspace()
        return self._local.space

    def _check(self, name: str, start: int, stop: int, claimed: Claimed | None) -> _Checked:
        columns = claimed.columns if claimed else None
        ours = self.subject.base.rows(name, start, stop, columns)
        theirs = self.subject.merged.rows(name, start, stop, columns)
        if claimed is None:
            same = same_bytes(ours.to(theirs.dtype), theirs)
            return _Checked(name, ours, theirs, nonfinite=0 if _is_finite(theirs) else 1, differs=not same)
        unequal = self._unexpected(ours, theirs, claimed.total, start)
        count = np.count_nonzero(unequal)
        if not count:
            return _Checked(name, ours, theirs)
        if count <= _FEW * unequal.size and all(isinstance(part, LowRank) for part in claimed.parts.values()):
            seen = self._elements(unequal, ours, theirs, claimed.parts, start)
            if not seen.once:
                return _Checked(name, ours, theirs, seen)
        rows = np.flatnonzero(unequal.any(axis=1))
        where = [slice(start, stop)]
        if len(rows) <= _MANY_ROWS * (stop - start):
            where = [slice(start + int(r), start + int(r) + 1) for r in rows]
        found = read(self.subject.merged, self.subject.base, name, claimed.parts, where)
        return self._judge(name, ours, theirs, found, where)

    def _elements(
        self, unequal: "np.ndarray", ours: Tensor, theirs: Tensor, parts: Mapping[int, Delta], start: int
    ) -> Violations:
        """What a few elements show by themselves, where deltas are factors; with less slack than rows have, which also
        know how large a delta is around them."""
        rows, columns = (torch.from_numpy(x) for x in np.nonzero(unequal))
        deltas = {i: part.at(start + rows, columns) for i, part in parts.items() if isinstance(part, LowRank)}
        stored, before = theirs[rows, columns], ours[rows, columns].double()
        return violations(stored, before, deltas, self.subject.weights, torch.zeros((), dtype=torch.float64))

    def _unexpected(self, ours: Tensor, theirs: Tensor, total: Delta, start: int) -> "np.ndarray":
        """Elements that are not, bit for bit, the claimed sum in single precision (in double for one that is stored in
        single); all, if one is not finite."""
        wide = torch.float64 if theirs.dtype == torch.float32 else torch.float32
        exact = self._space().buffer(ours.shape, wide).copy_(ours)
        total.add_to(exact, start, start + len(ours))
        predicted = exact.to(theirs.dtype)
        if not _is_finite(predicted):
            return np.ones(ours.shape, dtype=bool)
        integer = _INTEGERS[theirs.dtype]
        return predicted.view(integer).numpy() != theirs.view(integer).numpy()

    def _judge(self, name: str, ours: Tensor, theirs: Tensor, rows: Rows, where: Sequence[slice]) -> _Checked:
        """A block with unexpected rows, these in double precision."""
        finite = torch.isfinite(rows.stored)
        stored = torch.where(finite, rows.stored, rows.ours.to(rows.stored.dtype))
        size = row_sizes(rows.deltas.values())
        seen = violations(stored, rows.ours, rows.deltas, self.subject.weights, size, scaled=rows.scaled)
        bad = (where[0].start, where[-1].stop - 1) if seen.once else None
        return _Checked(name, ours, theirs, seen, bad, nonfinite=int((~finite).sum()))

    def _module(self, name: str) -> ModuleScan:
        return self._modules.setdefault(name, ModuleScan(name, Looked.empty(self.subject.weights)))

    def _take(self, done: _Checked) -> None:
        if done.name not in self._adapted:
            self._differs[done.name] = self._differs.get(done.name, False) or done.differs
            if done.nonfinite:
                self._spoilt.add(done.name)
            return
        module = self._module(done.name)
        module.violations += done.violations
        module.elements += done.theirs.numel()
        module.nonfinite += done.nonfinite
        if done.bad:
            module.bad = (module.bad[0] if module.bad else done.bad[0], done.bad[1])


def _is_finite(block: Tensor) -> bool:
    """Whether all are finite: by their bits, or by their sum, which are many times faster than torch's own test."""
    if block.dtype in _INFINITE and block.numel():
        bits, infinite = block.view(torch.int16).numpy(), _INFINITE[block.dtype]
        return bool(bits.max() < infinite and bits.view(np.uint16).max() < infinite + 0x8000)
    if not block.dtype.is_floating_point or math.isfinite(float(block.sum(dtype=torch.float32))):
        return True
    return bool(torch.isfinite(block).all())


def same_bytes(ours: Tensor, theirs: Tensor) -> bool:
    """Bit for bit: -0 is not 0, and NaN is itself."""
    first, second = (t.contiguous().view(torch.uint8).numpy() for t in (ours, theirs))
    return np.array_equal(first, second)
