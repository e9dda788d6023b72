"""The proof of a merge while it is written: some rows of every module, read back from the file, judged like the whole.

Whatever that does not verify is judged again from the whole file, so that a doubt costs time and not the answer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from crossmatch.checkpoint import Checkpoint
from crossmatch.delta import Delta, LowRank, TuningVector
from crossmatch.progress import SILENT, Progress
from crossmatch.verification.claim import Resolved
from crossmatch.verification.judge import DEFAULTS, Thresholds
from crossmatch.verification.scan import Scan, add_rows, new_module, scan, working_dtype
from crossmatch.verification.verify import decide

SAMPLED_ROWS, SAMPLED_COLUMNS = 32, 1024

Window = tuple[slice, slice]
"""Rows and columns of a matrix."""


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

    Of wide matrices 1,024 columns of these rows. Which ones follows from the tensor's name; they are read back from the
    file after they were written. Deltas are read and multiplied anew.
    """

    def watch(
        self, base: Checkpoint, claim: Mapping[str, tuple[TuningVector, float]], *, stochastic: bool = False
    ) -> "SampledProof":
        """Begin with an empty result."""
        super().watch(base, claim, stochastic=stochastic)
        self.found = Scan()
        self.alone: dict[str, list[float]] = {name: [0.0, 0.0] for name in claim}
        self._name: str | None = None
        self._seen: list[tuple[Window, Tensor, Tensor]] = []
        self._same: dict[str, bool] = {}
        return self

    def wanted(self, name: str, start: int, stop: int, shape: tuple[int, int]) -> Window:
        """Some rows in each block, at least one, and of wide matrices some columns, the same in all of a tensor."""
        height, width = shape
        count = min(stop - start, max(1, -(-SAMPLED_ROWS * (stop - start) // height)))
        first = start + crc32(f"{name}:{start}".encode()) % (stop - start - count + 1)
        columns = min(width, SAMPLED_COLUMNS)
        left = crc32(name.encode()) % (width - columns + 1)
        return slice(first, first + count), slice(left, left + columns)

    def see(self, name: str, window: Window, base: Tensor, written: Tensor) -> None:
        """Keep a part until its tensor is complete."""
        if name != self._name:
            self._judge_rows()
            self._name = name
        self._seen.append((window, base.clone(), written))

    def same(self, name: str, identical: bool) -> None:
        """Note a block of a tensor without a delta."""
        self._same[name] = self._same.get(name, True) and identical

    def verdict(self, path: Path) -> Mapping[str, Any]:
        """The verdict on what was seen; on all of the file, if that does not verify it."""
        self._judge_rows()
        merged = Checkpoint(path)
        self.found.identical = [name for name, same in self._same.items() if same]
        self.found.untouched_changed = [name for name, same in self._same.items() if not same]
        self.found.missing = sorted(set(self.claim.base.tensors) - set(merged.tensors))
        self.found.extra = sorted(set(merged.tensors) - set(self.claim.base.tensors))
        names = [name for name, info in self.claim.base.tensors.items() if merged.tensors[name].dtype != info.dtype]
        self.found.cast = names
        verdict = decide(merged, self.claim, self.found, self.thresholds, stochastic=self.stochastic)
        if not verdict.verified:
            return super().verdict(path)
        shares = {name: lost / energy if energy else None for name, (lost, energy) in self.alone.items()}
        return {**verdict.for_manifest(), "scope": "sampled rows", "swallowed_by_adapter": shares}

    def _judge_rows(self) -> None:
        if self._name is None or not self._seen:
            return
        name, parts, base = self._name, self.claim.parts, self.claim.base
        lines = [window[0] for window, _, _ in self._seen]
        columns = self._seen[0][0][1]
        ours = torch.cat([part for _, part, _ in self._seen])
        theirs = torch.cat([part for _, _, part in self._seen])
        self._seen = []
        deltas = {i: vector[name] for i, (vector, _) in enumerate(parts.values()) if name in vector}
        width = next(iter(deltas.values())).columns
        deltas = {i: d.bind(lambda start, stop: base.rows(name, start, stop, width)) for i, d in deltas.items()}
        working = working_dtype(name, ours.dtype, theirs.dtype)
        # A delta that depends on its base may need whole rows of it.
        whole = [base.rows(name, s.start, s.stop, width).to(working) for s in lines] if _any_based(deltas) else []
        rows = {i: _some_rows(delta, lines, columns, working, whole) for i, delta in deltas.items()}
        module = new_module(name, deltas, len(parts))
        add_rows(module, theirs, ours.to(working), rows, [weight for _, weight in parts.values()], alone=True)
        for i, label in enumerate(parts):
            lost, energy = module.alone.get(i, (0.0, 0.0))
            self.alone[label][0] += lost
            self.alone[label][1] += energy
        self.found.modules.append(module)


def _any_based(deltas: Mapping[int, Delta]) -> bool:
    return any(delta.needs_base for delta in deltas.values())


def _some_rows(
    delta: Delta, lines: Sequence[slice], columns: slice, dtype: torch.dtype, whole: Sequence[Tensor]
) -> Tensor:
    if isinstance(delta, LowRank):
        b = torch.cat([delta.b[s] for s in lines])
        return LowRank(b, delta.a[:, columns], delta.scale).rows(0, len(b), dtype)
    based = whole if delta.needs_base else [None] * len(lines)
    return torch.cat([delta.rows(s.start, s.stop, dtype, w)[:, columns] for s, w in zip(lines, based, strict=True)])
