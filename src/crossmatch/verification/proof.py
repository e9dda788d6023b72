"""The proof of a merge while it is written: some rows of every module, read back from the file, judged like the whole.

Whatever that does not verify is judged again from the whole file, so that a doubt costs time and not the answer.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from crossmatch.checkpoint import Checkpoint, TensorFiles
from crossmatch.delta import Delta, LowRank, TuningVector
from crossmatch.progress import SILENT, Progress
from crossmatch.verification.claim import Resolved
from crossmatch.verification.judge import DEFAULTS, Thresholds
from crossmatch.verification.scan import ModuleScan, Scan, add_rows, new_module, scan, working_dtype
from crossmatch.verification.verify import decide

SAMPLED_ROWS, SAMPLED_COLUMNS = 32, 1024


class WholeProof:
    """Judges a written directory as `verify` does, reading all of it."""

    def __init__(self, *, thresholds: Thresholds = DEFAULTS, progress: Progress = SILENT) -> None:
        self.thresholds, self.progress = thresholds, progress
        self.stochastic = False

    def watch(
        self, base: Checkpoint, claim: Mapping[str, tuple[TuningVector, float]], *, stochastic: bool = False
    ) -> "WholeProof | SampledProof | None":
        """Keep the claim; nothing is looked at on the way."""
        self.claim, self.stochastic = Resolved(base, claim), stochastic
        return None

    def verdict(self, path: Path) -> Mapping[str, Any]:
        """The verdict on all rows of all tensors."""
        merged = Checkpoint(path)
        found = scan(merged, self.claim, self.progress)
        verdict = decide(merged, self.claim, found, self.thresholds, stochastic=self.stochastic).for_manifest()
        return {**verdict, "scope": "all rows", "swallowed_by_adapter": None}


class SampledProof(WholeProof):
    """Judges some rows of every merged tensor (at least 32, spread over all of it) and every byte of the others.

    Of wide matrices 1,024 columns of these rows. Which ones follows from the tensor's name. Everything is read by this
    room's own means: base and output through their headers, deltas from the adapters anew. Of the maker it believes
    that blocks come in order, and counts that none is left out.
    """

    def watch(
        self, base: Checkpoint, claim: Mapping[str, tuple[TuningVector, float]], *, stochastic: bool = False
    ) -> "SampledProof":
        """Begin with an empty result."""
        super().watch(base, claim, stochastic=stochastic)
        self.found = Scan()
        self.alone: dict[str, list[float]] = {name: [0.0, 0.0] for name in claim}
        self._files: dict[Path, TensorFiles] = {}
        self._name: str | None = None
        self._columns = 1
        self._lines: list[slice] = []
        self._rows: dict[str, int] = {}
        self._widths: dict[str, int] = {}
        self._changed: set[str] = set()
        # Judged beside the writing, one tensor after the other.
        self._judge = ThreadPoolExecutor(1, "proof")
        self._judged: list[Future[ModuleScan]] = []
        self._merged = {name for vector, _ in claim.values() for name in vector}
        return self

    def wrote(self, name: str, file: Path, start: int, stop: int, columns: int) -> None:
        """Look at a block: at some of its rows when its tensor is complete, or, without a delta, at all of it now."""
        if name != self._name:
            self._judge_rows()
            self._name, self._columns, self._lines = name, columns, []
        if file not in self._files:
            self._files = {file: TensorFiles([file])}
        if start == self._rows.get(name, 0):
            self._rows[name], self._widths[name] = stop, columns
        if name in self._merged:
            self._lines.append(self._some_of(name, start, stop, columns))
        elif not self._is_base(name, file, start, stop, columns):
            self._changed.add(name)

    def _some_of(self, name: str, start: int, stop: int, columns: int) -> slice:
        height = self.claim.base.tensors[name].elements // columns
        count = min(stop - start, max(1, -(-SAMPLED_ROWS * (stop - start) // height)))
        first = start + crc32(f"{name}:{start}".encode()) % (stop - start - count + 1)
        return slice(first, first + count)

    def _is_base(self, name: str, file: Path, start: int, stop: int, columns: int) -> bool:
        ours = self.claim.base.rows(name, start, stop, columns)
        theirs = self._files[file].rows(name, start, stop, columns)
        # As bytes: -0 is not 0, and NaN is itself.
        first, second = (
            memoryview(t.contiguous().view(torch.uint8).numpy().data) for t in (ours.to(theirs.dtype), theirs)
        )
        return np.array_equal(np.frombuffer(first, np.uint8), np.frombuffer(second, np.uint8))

    def verdict(self, path: Path) -> Mapping[str, Any]:
        """The verdict on what was seen; on all of the file, if that does not verify it, or if a row was not seen."""
        self._judge_rows()
        for scanned in [future.result() for future in self._judged]:
            self.found.modules.append(scanned)
            for i, label in enumerate(self.claim.parts):
                lost, energy = scanned.alone.get(i, (0.0, 0.0))
                self.alone[label][0] += lost
                self.alone[label][1] += energy
        self._judge.shutdown()
        merged, base = Checkpoint(path), self.claim.base
        self.found.missing = [
            name
            for name, info in base.tensors.items()
            if name not in merged.tensors or merged.tensors[name].shape != info.shape
        ]
        self.found.extra = sorted(set(merged.tensors) - set(base.tensors))
        plain = [name for name in base.tensors if name not in self._merged]
        self.found.identical = [name for name in plain if name not in self._changed]
        self.found.untouched_changed = [name for name in plain if name in self._changed]
        self.found.cast = [
            name
            for name, info in base.tensors.items()
            if name in merged.tensors and merged.tensors[name].dtype != info.dtype
        ]
        complete = all(
            self._rows.get(name, 0) * self._widths.get(name, 1) == info.elements for name, info in base.tensors.items()
        )
        verdict = decide(merged, self.claim, self.found, self.thresholds, stochastic=self.stochastic)
        if not verdict.verified or not complete:
            return super().verdict(path)
        shares = {name: lost / energy if energy else None for name, (lost, energy) in self.alone.items()}
        return {**verdict.for_manifest(), "scope": "sampled rows", "swallowed_by_adapter": shares}

    def _judge_rows(self) -> None:
        if self._name is None or not self._lines:
            return
        file = next(iter(self._files.values()))
        self._judged.append(self._judge.submit(self._scan, self._name, file, self._lines, self._columns))
        self._lines = []

    def _scan(self, name: str, file: TensorFiles, lines: Sequence[slice], width: int) -> ModuleScan:
        """What some rows of one tensor show, those of the base and of the output read anew."""
        parts, base = self.claim.parts, self.claim.base
        columns = min(width, SAMPLED_COLUMNS)
        left = crc32(name.encode()) % (width - columns + 1)
        window = slice(left, left + columns)
        whole = torch.cat([base.rows(name, s.start, s.stop, width) for s in lines])
        theirs = torch.cat([file.rows(name, s.start, s.stop, width) for s in lines])[:, window]
        deltas = {i: vector[name] for i, (vector, _) in enumerate(parts.values()) if name in vector}
        deltas = {i: d.bind(lambda start, stop: base.rows(name, start, stop, width)) for i, d in deltas.items()}
        whole = whole.to(working_dtype(name, whole.dtype, theirs.dtype))
        rows = {i: _some_rows(delta, lines, window, whole) for i, delta in deltas.items()}
        module = new_module(name, deltas, len(parts), sampled=True)
        add_rows(module, theirs, whole[:, window], rows, [weight for _, weight in parts.values()], alone=True)
        return module


def _some_rows(delta: Delta, lines: Sequence[slice], columns: slice, base: Tensor) -> Tensor:
    """Those rows and columns of a delta; base: these rows of W, whole."""
    if isinstance(delta, LowRank):
        b = torch.cat([delta.b[s] for s in lines])
        return LowRank(b, delta.a[:, columns], delta.scale).rows(0, len(b), base.dtype)
    parts, done = [], 0
    for s in lines:
        count = s.stop - s.start
        weight = base[done : done + count] if delta.needs_base else None
        parts.append(delta.rows(s.start, s.stop, base.dtype, weight)[:, columns])
        done += count
    return torch.cat(parts)
