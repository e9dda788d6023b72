"""Writing the tensors of a plan: blocks of rows are read, summed, rounded and written by all cores at once.

Order matters to digests alone: blocks are finished in any order and digested in that of the file, which is the base's,
so that the digests of what is read and of what is written cost no second pass. In memory are a few blocks and the
factors of the modules that they belong to.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import torch
from blake3 import blake3
from torch import Tensor

from crossmatch.checkpoint import Checkpoint, OutputFile
from crossmatch.delta import Delta, Workspace, round_once, round_randomly, summed_rows
from crossmatch.errors import CheckpointError, OutputError
from crossmatch.merging.plan import MergePlan, PlannedTensor
from crossmatch.results.merging import DigestsJson
from crossmatch.rules import uniform
from crossmatch.runtime import Task, cores, workers

# What holds numbers that a dtype does not.
_WIDER = {torch.float16: "bfloat16 or float32", torch.bfloat16: "float32"}

# Largest exponent bits: what is not below them is infinite or no number.
_FINITE = {
    torch.bfloat16: (torch.int16, 0x7FFF, 0x7F80),
    torch.float16: (torch.int16, 0x7FFF, 0x7C00),
    torch.float32: (torch.int32, 0x7FFFFFFF, 0x7F800000),
}


class Witness(Protocol):
    """Is told of every block when it is in its file, reads there what it likes, and judges at the end."""

    def wrote(self, name: str, file: Path, start: int, stop: int, columns: int) -> None:
        """Rows [start:stop] of a tensor, seen as a matrix of `columns` columns, are in `file`; in order."""
        ...


@dataclass(frozen=True)
class _Block:
    """Rows [start:stop] of one tensor, seen as a matrix of its columns."""

    tensor: PlannedTensor
    output: OutputFile
    start: int
    stop: int
    delta: "Future[Delta] | None"


@dataclass(frozen=True)
class _Done:
    """A finished block: rows of the base, bytes for the output and their place; copied: they are in it already."""

    block: _Block
    rows: Tensor
    written: memoryview
    offset: int
    copied: bool = False


class Stream:
    """One run of a plan.

    digests: of every file written, by algorithm; base_digests: blake3 of every file of the base that was read in
    passing from its first byte to its last.
    """

    def __init__(self, plan: MergePlan, out: Path, *, witness: Witness | None, task: Task, sha256: bool) -> None:
        self.plan, self.out, self.witness, self.task, self.sha256 = plan, out, witness, task, sha256
        self.base: Checkpoint = plan.fit.base
        self._local = threading.local()
        self.digests: dict[str, DigestsJson] = {}
        self.base_digests: dict[str, str] = {}

    def run(self, *, durable: bool = False) -> None:
        """Write all files. `durable`: wait until the disk has them."""
        with workers() as pool:
            for file, tensors in self.plan.files().items():
                output = OutputFile(self.out / file, [(t.name, t.dtype, t.shape) for t in tensors])
                try:
                    self.digests[file] = self._write(pool, output, tensors, window=2 * cores() + 2)
                finally:
                    output.close(durable=durable)

    def _write(
        self, pool: ThreadPoolExecutor, output: OutputFile, tensors: Sequence[PlannedTensor], *, window: int
    ) -> DigestsJson:
        digests = {"blake3": blake3(output.header)} | ({"sha256": sha256(output.header)} if self.sha256 else {})
        source, source_file = self._source_digest(tensors)
        pending: deque[Future[_Done]] = deque()

        def finish() -> None:
            done = pending.popleft().result()
            # Written by one thread, in order: two would wait for each other at the file's lock.
            if not done.copied:
                output.write(done.offset, done.written)
            for digest in digests.values():
                digest.update(done.written)
            if source is not None:
                source.update(_bytes(done.rows))
            self._tell(output, done)

        try:
            for block in self._blocks(pool, output, tensors):
                pending.append(pool.submit(self._work, block))
                if len(pending) >= window:
                    finish()
            while pending:
                finish()
        except BaseException:
            # Nobody may still be copying when the file is closed: its descriptor could be another file's by then.
            for future in pending:
                future.cancel()
            wait(pending)
            raise
        if source is not None and source_file is not None:
            self.base_digests[source_file.name] = source.hexdigest()
        found: DigestsJson = {"blake3": digests["blake3"].hexdigest()}
        if "sha256" in digests:
            found["sha256"] = digests["sha256"].hexdigest()
        return found

    def _source_digest(self, tensors: Sequence[PlannedTensor]) -> tuple[blake3 | None, Path | None]:
        """A digest that has taken in the header of the base's file, if these tensors are that file, all of it."""
        infos = [self.base.tensors[t.name] for t in tensors]
        files = {info.file for info in infos}
        file = next(iter(files))
        whole = [name for name, info in self.base.original.tensors.items() if info.file == file]
        plain = all(self.base.on_disk(t.name) for t in tensors)
        if len(files) != 1 or not plain or [t.name for t in tensors] != whole or "file_digests" in vars(self.base):
            return None, None
        return blake3(os.pread(self.base.descriptor(file), infos[0].offset, 0)), file

    def _blocks(
        self, pool: ThreadPoolExecutor, output: OutputFile, tensors: Sequence[PlannedTensor]
    ) -> Iterator[_Block]:
        for tensor in tensors:
            delta = pool.submit(self._delta, tensor) if tensor.parts else None
            for start, stop in self.base.blocks(tensor.name, tensor.columns):
                yield _Block(tensor, output, start, stop, delta)

    def _delta(self, tensor: PlannedTensor) -> Delta:
        columns = tensor.columns
        return self.plan.vector[tensor.name].bind(lambda start, stop: self.base.rows(tensor.name, start, stop, columns))

    def _work(self, block: _Block) -> _Done:
        tensor, start, stop = block.tensor, block.start, block.stop
        rows = self.base.rows(tensor.name, start, stop, tensor.columns)
        offset = block.output.offsets[tensor.name] + start * tensor.columns * tensor.dtype.itemsize
        if tensor.action == "copy":
            return self._copy(block, rows, offset)
        if block.delta is None:
            done = rows.to(tensor.dtype)
        else:
            total = summed_rows(rows, block.delta.result(), start, stop, self._space())
            done = self._round(total, tensor, start)
        _check_finite(self.base, tensor, done, rows)
        return _Done(block, rows, _bytes(done), offset)

    def _copy(self, block: _Block, rows: Tensor, offset: int) -> _Done:
        name = block.tensor.name
        info = self.base.tensors[name]
        source = _bytes(rows)
        _check_finite(self.base, block.tensor, rows, rows)
        where = info.offset + block.start * block.tensor.columns * info.dtype.itemsize
        block.output.copy(self.base.descriptor(info.file), where, offset, len(source))
        return _Done(block, rows, block.output.read(offset, len(source)), offset, copied=True)

    def _space(self) -> Workspace:
        if not hasattr(self._local, "space"):
            self._local.space = Workspace()
        return self._local.space

    def _round(self, total: Tensor, tensor: PlannedTensor, start: int) -> Tensor:
        if self.plan.storage.rounding == "nearest":
            return round_once(total, tensor.dtype, self._space())
        seed = self.plan.vector.recipe.seed
        drawn = uniform(seed, "rounding", tensor.name, start * tensor.columns, total.numel())
        return round_randomly(total, tensor.dtype, drawn.view_as(total))

    def _tell(self, output: OutputFile, done: _Done) -> None:
        """Progress, and for the witness what is in the file now."""
        block, tensor = done.block, done.block.tensor
        self.task.advance(len(done.written), tensor.name)
        if self.witness is not None:
            self.witness.wrote(tensor.name, output.file, block.start, block.stop, tensor.columns)


def _check_finite(base: Checkpoint, tensor: PlannedTensor, done: Tensor, rows: Tensor) -> None:
    if _is_finite(done):
        return
    if not _is_finite(rows):
        raise CheckpointError(f"{base.path}: {tensor.name} holds NaN or infinite values; fetch or save the base again")
    form = str(tensor.dtype).split(".")[-1]
    remedy = _WIDER.get(tensor.dtype)
    wanted = f"store the merge in {remedy} (--dtype)" if remedy else "give smaller weights (-w)"
    raise OutputError(f"{tensor.name} overflows {form}; {wanted}")


def _is_finite(block: Tensor) -> bool:
    """Whether all are finite: by their sum, and if that is not, by their bits; torch's own test takes 40 times as
    long."""
    if not block.dtype.is_floating_point or math.isfinite(float(block.sum(dtype=torch.float32))):
        return True
    if block.dtype not in _FINITE:
        return bool(torch.isfinite(block).all())
    integer, magnitude, limit = _FINITE[block.dtype]
    return not block.numel() or int((block.view(integer).numpy() & magnitude).max()) < limit


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data) if tensor.numel() else memoryview(b"")
