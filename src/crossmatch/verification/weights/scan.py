"""One pass over base and merged: every element is compared with what it should be, and files are digested in passing.

An element that has the very bits that the file's program gives (see arithmetic) needs no second look; the others are
held in float64 against all that the program can give. What weights are inside follows from some rows of every tensor,
and from all of them where these do not suffice.
"""

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from crossmatch.checkpoint import PassingDigests, is_needless
from crossmatch.delta import Workspace
from crossmatch.runtime import Progress, workers
from crossmatch.verification.arithmetic.grammar import Program
from crossmatch.verification.subject import Claimed, Subject
from crossmatch.verification.weights.remainder import Remainder
from crossmatch.verification.weights.row_sums import Looked, check_readable, sample, squares_apart

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

    outside: of `elements`, those that the program cannot have stored; mismatches: those of other bits than its own, and
    apart: the sum of squares by which these are off it, which is all that anybody can have added;
    program: the one that it was held against; bad: first and last row with an element outside; base_own: whether the
    whole tensor is the base's, known where it is not as claimed; whole: whether all rows were looked at; remainder:
    what no program explains, over all rows, where that was looked at.
    """

    name: str
    looked: Looked
    program: Program = field(default_factory=Program)
    outside: int = 0
    mismatches: int = 0
    apart: float = 0.0
    elements: int = 0
    remainder: Remainder | None = None
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
    outside: int = 0
    mismatches: int = 0
    apart: float = 0.0
    bad: tuple[int, int] | None = None
    nonfinite: int = 0
    differs: bool = False


def glance(subject: Subject, progress: Progress) -> list[Looked]:
    """Some rows of every adapted tensor: what weights are inside, before anything is claimed."""
    names = subject.adapted
    for name in names:
        check_readable(name, subject.base.tensors[name].dtype, subject.merged.tensors[name].dtype)
    with progress.task("look", len(names)) as task, workers() as pool:

        def one(name: str) -> Looked:
            return subject.look(name, subject.on(name))

        found = []
        for name, looked in zip(names, pool.map(one, names), strict=True):
            found.append(looked)
            task.advance(1, name)
    return found


def check_whole(subject: Subject, name: str, program: Program) -> ModuleScan:
    """All rows of one tensor held against another program than the file's, until one element lies outside it."""
    claimed = subject.on(name, program)
    held = _Pass(subject, Scan(), None, quick=False)
    result = ModuleScan(name, Looked.empty(subject.weights), program)
    for start, stop in subject.base.blocks(name, claimed.columns):
        done = held.check(name, start, stop, claimed)
        result.outside += done.outside
        result.mismatches += done.mismatches
        result.apart += done.apart
        result.nonfinite += done.nonfinite
        result.elements += done.theirs.numel()
        result.bad = result.bad or done.bad
        if done.outside:
            break
    return result


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

    def __init__(self, subject: Subject, result: Scan, pool: ThreadPoolExecutor | None, *, quick: bool) -> None:
        self.subject, self.result, self.quick = subject, result, quick
        self._pool = pool
        self._adapted = {name for vector in subject.vectors for name in vector}
        self._local = threading.local()
        self._modules: dict[str, ModuleScan] = {}
        self._differs: dict[str, bool] = {}
        self._spoilt: set[str] = set()

    @property
    def pool(self) -> ThreadPoolExecutor:
        """Where blocks are checked."""
        assert self._pool is not None
        return self._pool

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
                    pending.append(self.pool.submit(self.check, name, start, stop, claimed))
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
                found.outside, found.mismatches = found.looked.outside, found.looked.mismatches
                found.apart = found.looked.apart
                found.elements = found.looked.elements
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
        return self.subject.look(name, claimed)

    def _space(self) -> Workspace:
        if not hasattr(self._local, "space"):
            self._local.space = Workspace()
        return self._local.space

    def check(self, name: str, start: int, stop: int, claimed: Claimed | None) -> _Checked:
        """One block: bytes, and what they show."""
        columns = claimed.columns if claimed else None
        ours = self.subject.base.rows(name, start, stop, columns)
        theirs = self.subject.merged.rows(name, start, stop, columns)
        if claimed is None:
            same = self.subject.same(ours, theirs)
            return _Checked(name, ours, theirs, nonfinite=0 if _is_finite(theirs) else 1, differs=not same)
        return self._against(name, ours, theirs, claimed, start)

    def _against(self, name: str, ours: Tensor, theirs: Tensor, claimed: Claimed, start: int) -> _Checked:
        """A block held against the program: by bits, then element by element, or whole rows where these are many."""
        use = claimed.applied
        predicted = use.predict(ours, start, self._space())
        integer = _INTEGERS[theirs.dtype]
        unequal = predicted.view(integer).numpy() != theirs.view(integer).numpy()
        if not _is_finite(predicted):
            unequal[:] = True
        count = int(np.count_nonzero(unequal))
        if not count:
            return _Checked(name, ours, theirs)
        if count <= _FEW * unequal.size:
            # Flat, numpy finds few among many fifty times as fast as by two axes.
            places = np.divmod(np.flatnonzero(unequal), unequal.shape[1])
            rows, columns = (torch.from_numpy(x) for x in places)
            some, stored = use.at(ours[rows, columns], start + rows, columns), theirs[rows, columns]
            if some is not None and not bool(use.outside(stored, some).any()):
                apart = squares_apart(stored, predicted[rows, columns])
                return _Checked(name, ours, theirs, mismatches=count, apart=apart)
        lines = np.flatnonzero(unequal.any(axis=1))
        chosen, where = slice(None), [slice(start, start + len(ours))]
        if len(lines) <= _MANY_ROWS * len(ours):
            chosen, where = torch.from_numpy(lines), [slice(start + int(r), start + int(r) + 1) for r in lines]
        held = theirs[chosen]
        outside = use.outside(held, use.read(ours[chosen], where))
        wrong, bad = outside.any(dim=1), None
        if bool(wrong.any()):
            numbers = torch.cat([torch.arange(s.start, s.stop) for s in where])[wrong]
            bad = (int(numbers[0]), int(numbers[-1]))
        spoilt = int((~torch.isfinite(held)).sum())
        apart = squares_apart(held, predicted[chosen])
        return _Checked(name, ours, theirs, int(outside.sum()), count, apart, bad, nonfinite=spoilt)

    def _module(self, name: str) -> ModuleScan:
        # Blocks are many, and an empty scan is a dozen tensors.
        if name not in self._modules:
            empty = Looked.empty(self.subject.weights)
            self._modules[name] = ModuleScan(name, empty, self.subject.program_of(name))
        return self._modules[name]

    def _take(self, done: _Checked) -> None:
        if done.name not in self._adapted:
            self._differs[done.name] = self._differs.get(done.name, False) or done.differs
            if done.nonfinite:
                self._spoilt.add(done.name)
            return
        module = self._module(done.name)
        module.outside += done.outside
        module.mismatches += done.mismatches
        module.apart += done.apart
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
