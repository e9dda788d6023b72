"""The proof of a merge while it is written: some rows of every module, read back from the file, judged like the whole.

Whatever that does not verify is judged again from the whole file, so that a doubt costs time and not the answer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossmatch.checkpoint import Checkpoint, bytes_digest
from crossmatch.delta import Delta, LowRank, TuningVector
from crossmatch.progress import SILENT, Progress
from crossmatch.verification.claim import Resolved
from crossmatch.verification.judge import DEFAULTS, Thresholds
from crossmatch.verification.scan import Scan, add_rows, new_module, scan, working_dtype
from crossmatch.verification.verify import decide

SAMPLED_ROWS = 32


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

    Rows are chosen by the tensor's name, and read back from the file after they were written. Deltas are read and
    multiplied anew.
    """

    def watch(
        self, base: Checkpoint, claim: Mapping[str, tuple[TuningVector, float]], *, stochastic: bool = False
    ) -> "SampledProof":
        """Begin with an empty result."""
        super().watch(base, claim, stochastic=stochastic)
        self.found = Scan()
        self.alone: dict[str, list[float]] = {name: [0.0, 0.0] for name in claim}
        self._name: str | None = None
        self._seen: list[tuple[Sequence[int], Tensor, Tensor]] = []
        self._same: dict[str, bool] = {}
        return self

    def wanted(self, name: str, start: int, stop: int, height: int) -> Sequence[int]:
        """Rows of a block, evenly spread, from a first one that the name decides."""
        count = min(stop - start, max(1, round(SAMPLED_ROWS * (stop - start) / height)))
        first = int(bytes_digest(f"{name}:{start}".encode())[:8], 16) % (stop - start)
        step = (stop - start) // count
        return sorted(start + (first + i * step) % (stop - start) for i in range(count))

    def see(self, name: str, rows: Sequence[int], base: Tensor, written: Tensor) -> None:
        """Keep rows until their tensor is complete."""
        if name != self._name:
            self._judge_rows()
            self._name = name
        self._seen.append((rows, base, written))

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
        name, parts = self._name, self.claim.parts
        index = [row for rows, _, _ in self._seen for row in rows]
        ours = torch.cat([base for _, base, _ in self._seen])
        theirs = torch.cat([written for _, _, written in self._seen])
        self._seen = []
        columns = ours.shape[1]
        base = self.claim.base
        deltas = {
            i: vector[name].bind(lambda start, stop: base.rows(name, start, stop, columns))
            for i, (vector, _) in enumerate(parts.values())
            if name in vector
        }
        working = working_dtype(name, ours.dtype, theirs.dtype)
        ours = ours.to(working)
        rows = {i: _some_rows(delta, index, working, ours) for i, delta in deltas.items()}
        module = new_module(name, deltas, len(parts))
        add_rows(module, theirs, ours, rows, [weight for _, weight in parts.values()], alone=True)
        for i, label in enumerate(parts):
            lost, energy = module.alone.get(i, (0.0, 0.0))
            self.alone[label][0] += lost
            self.alone[label][1] += energy
        self.found.modules.append(module)


def _some_rows(delta: Delta, index: Sequence[int], dtype: torch.dtype, base: Tensor) -> Tensor:
    if isinstance(delta, LowRank):
        picked = torch.tensor(index)
        return LowRank(delta.b[picked], delta.a, delta.scale).rows(0, len(index), dtype)
    return torch.cat([delta.rows(row, row + 1, dtype, base[i : i + 1]) for i, row in enumerate(index)])
