"""The proof of a merge while it is written: some rows of every module, read back from the file, judged like the whole.

Whatever that does not verify is judged again from the whole file, so that a doubt costs time and not the answer.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import torch

from crossmatch.checkpoint import Checkpoint, TensorFiles
from crossmatch.delta import LowRank, TuningVector
from crossmatch.results.verdict import ManifestVerdictJson, ProofScope
from crossmatch.runtime import SILENT, Progress
from crossmatch.verification.arithmetic.grammar import Program
from crossmatch.verification.arithmetic.replay import Applied
from crossmatch.verification.claim import Resolved
from crossmatch.verification.subject import Subject, same_bytes
from crossmatch.verification.verdict import Verdict
from crossmatch.verification.verify import decide
from crossmatch.verification.weights.module_verdicts import DEFAULTS, Thresholds
from crossmatch.verification.weights.row_sums import bound, check_readable, look, read_rows, rows_from
from crossmatch.verification.weights.scan import ModuleScan, Scan, scan
from crossmatch.verification.weights.second_pass import look_again

SAMPLED_ROWS, SAMPLED_COLUMNS = 32, 1024


class WholeProof:
    """Judges a written directory as `verify` does, reading all of it."""

    def __init__(self, *, thresholds: Thresholds = DEFAULTS, progress: Progress = SILENT) -> None:
        self.thresholds, self.progress = thresholds, progress
        self.stochastic = False

    def watch(
        self, base: Checkpoint, claim: Mapping[str, tuple[TuningVector, float]], *, stochastic: bool = False
    ) -> "Sampling | None":
        """Keep the claim; nothing is looked at on the way."""
        self.claim, self.stochastic = Resolved(base, claim), stochastic
        return None

    def verdict(self, path: Path) -> ManifestVerdictJson:
        """The verdict on all rows of all tensors."""
        subject = Subject(Checkpoint(path), self.claim, self._program)
        found = scan(subject, self.progress)
        look_again(subject, found, self.thresholds, self.progress)
        return self._manifest(self._decide(subject, found), "all rows")

    @property
    def _program(self) -> Program:
        return Program(order="stochastic") if self.stochastic else Program()

    def _decide(self, subject: Subject, found: Scan) -> Verdict:
        return decide(subject, self.claim, found, self.thresholds)

    @staticmethod
    def _manifest(verdict: Verdict, scope: ProofScope) -> ManifestVerdictJson:
        return {
            **verdict.for_manifest(),
            "scope": scope,
            "swallowed_by_adapter": verdict.rounding["swallowed_by_adapter"],
        }


class SampledProof(WholeProof):
    """Judges some rows of every merged tensor (at least 32, spread over all of it) and every byte of the others.

    Of wide matrices 1,024 columns of these rows. Which ones follows from the tensor's name. Everything is read by this
    room's own means: base and output through their headers, deltas from the adapters anew. Of the maker it believes
    that blocks come in order, and counts that none is left out.
    """

    def watch(
        self, base: Checkpoint, claim: Mapping[str, tuple[TuningVector, float]], *, stochastic: bool = False
    ) -> "Sampling":
        """Keep the claim; the sampling that is to be told of every block."""
        super().watch(base, claim, stochastic=stochastic)
        self.sampling = Sampling(self.claim, self._program)
        return self.sampling

    def verdict(self, path: Path) -> ManifestVerdictJson:
        """The verdict on what was seen; on all of the file, if that does not verify it, or if a row was not seen."""
        merged = Checkpoint(path)
        found = self.sampling.result(merged)
        verdict = self._decide(Subject(merged, self.claim, self._program), found) if found else None
        if verdict is None or not verdict.verified:
            return super().verdict(path)
        return self._manifest(verdict, "sampled rows")


class Sampling:
    """A witness of the writing: takes some rows of every merged tensor when it is complete, and compares all bytes of
    the others."""

    def __init__(self, claim: Resolved, program: Program) -> None:
        self.claim, self.program = claim, program
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
        self._merged = {name for vector, _ in claim.parts.values() for name in vector}

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
            return
        theirs = self._files[file].rows(name, start, stop, columns)
        if not same_bytes(self.claim.base.rows(name, start, stop, columns).to(theirs.dtype), theirs):
            self._changed.add(name)

    def result(self, merged: Checkpoint) -> Scan | None:
        """What was seen, beside the finished directory; None if a row was not."""
        self._judge_rows()
        found, base = Scan([future.result() for future in self._judged]), self.claim.base
        self._judge.shutdown()
        theirs = merged.tensors
        found.missing = [n for n, i in base.tensors.items() if n not in theirs or theirs[n].shape != i.shape]
        found.extra = sorted(set(theirs) - set(base.tensors))
        plain = [name for name in base.tensors if name not in self._merged]
        found.identical = [name for name in plain if name not in self._changed]
        found.untouched_changed = [name for name in plain if name in self._changed]
        found.cast = [n for n, i in base.tensors.items() if n in theirs and theirs[n].dtype != i.dtype]
        sizes = {name: self._rows.get(name, 0) * self._widths.get(name, 1) for name in base.tensors}
        return found if all(sizes[name] == info.elements for name, info in base.tensors.items()) else None

    def _some_of(self, name: str, start: int, stop: int, columns: int) -> slice:
        height = self.claim.base.tensors[name].elements // columns
        count = min(stop - start, max(1, -(-SAMPLED_ROWS * (stop - start) // height)))
        first = start + crc32(f"{name}:{start}".encode()) % (stop - start - count + 1)
        return slice(first, first + count)

    def _judge_rows(self) -> None:
        if self._name is None or not self._lines:
            return
        file = next(iter(self._files.values()))
        self._judged.append(self._judge.submit(self._scan, self._name, file, self._lines, self._columns))
        self._lines = []

    def _scan(self, name: str, file: TensorFiles, lines: Sequence[slice], width: int) -> ModuleScan:
        """What some rows of one tensor show, those of the base and of the output read anew."""
        claimed, base = self.claim.parts, self.claim.base
        check_readable(name, base.tensors[name].dtype, file.tensors[name].dtype)
        columns = min(width, SAMPLED_COLUMNS)
        left = crc32(name.encode()) % (width - columns + 1)
        window: slice | None = slice(left, left + columns)
        raw, theirs = (read_rows(side, name, lines, width) for side in (base, file))
        parts = bound(base, name, {i: v[name] for i, (v, _) in enumerate(claimed.values()) if name in v})
        weights = [weight for _, weight in claimed.values()]
        exact = [0.0] * len(weights)
        where = lines
        if all(isinstance(delta, LowRank) for delta in parts.values()):
            # Factors are cut to these rows and columns, so that no more is computed.
            parts = {i: _cut(d, lines, window) for i, d in parts.items() if isinstance(d, LowRank)}
            raw, theirs, window, where = raw[:, window], theirs[:, window], None, [slice(0, len(raw))]
        use = Applied.of(self.program, parts, weights, exact, theirs.dtype)
        seen = look(rows_from(theirs, raw, parts, use, where, window), weights)
        counts = (seen.outside, seen.mismatches, seen.apart, seen.elements)
        return ModuleScan(name, seen, self.program, *counts, nonfinite=seen.nonfinite)


def _cut(delta: LowRank, lines: Sequence[slice], columns: slice) -> LowRank:
    """Those rows and columns of a delta, as one of their own."""
    return LowRank(torch.cat([delta.b[s] for s in lines]), delta.a[:, columns], delta.scale)
