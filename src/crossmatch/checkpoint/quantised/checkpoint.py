"""A model whose weights are stored quantised, seen by the tensor names of its base."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossmatch.checkpoint.checkpoint import TensorFiles
from crossmatch.checkpoint.digest import file_digest, files_digest
from crossmatch.checkpoint.header import pread_exact
from crossmatch.checkpoint.quantised.blocks import check_kind, decode, library, requantise
from crossmatch.checkpoint.quantised.header import GgufTensor, read_gguf_header
from crossmatch.checkpoint.quantised.names import DERIVED, Part, config_of, find_parts
from crossmatch.errors import CheckpointError

PLAIN = ("F32", "F16", "BF16")
_SPLIT = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class QuantisedTensor:
    """One tensor by its name in the base: its shape there, and the name of its type, such as Q4_K, F8_E4M3 or BF16."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def plain(self) -> bool:
        """Whether it is stored as floating numbers, without scales."""
        return self.kind in PLAIN

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Levels:
    """Some rows: what they stand for, and the distance between neighbouring levels at each; float32, one shape."""

    values: Tensor
    steps: Tensor


class QuantisedCheckpoint(ABC):
    """Weights stored quantised, read in rows.

    path: file or directory; files: the weight files; tensors: by the base's names, as far as they were found; extra:
    the file's own names of those that the base does not have; config: fields of config.json that the file gives.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: dict[str, QuantisedTensor]
    extra: tuple[str, ...]
    config: dict[str, Any]

    @abstractmethod
    def levels(self, name: str, start: int, stop: int, columns: int | None = None) -> Levels:
        """Rows [start:stop] of a tensor seen as a matrix of `columns` columns (default: its last axis)."""

    @abstractmethod
    def requantise(self, name: str, start: int, stop: int, values: Tensor) -> Tensor | None:
        """What the type of a tensor makes of other values of these rows (of its last axis); None if not known."""

    def rows(self, name: str, start: int, stop: int, columns: int | None = None) -> Tensor:
        """Values of some rows, float32; see `levels`."""
        return self.levels(name, start, stop, columns).values

    def steps(self, name: str, start: int, stop: int, columns: int | None = None) -> Tensor:
        """Distance between neighbouring levels at each element of some rows; see `levels`."""
        return self.levels(name, start, stop, columns).steps

    @cached_property
    def digest(self) -> str:
        """One digest of the weights: of the names and digests of their files."""
        return files_digest({file.name: file_digest(file) for file in self.files})


class GgufCheckpoint(QuantisedCheckpoint):
    """A GGUF file, or all files of a split one."""

    def __init__(self, file: Path, names: Mapping[str, tuple[int, ...]]) -> None:
        gguf = library()
        sizes = {int(t): (t.name, *gguf.GGML_QUANT_SIZES[t]) for t in gguf.GGML_QUANT_SIZES}
        self.path, self.files = file, _split(file)
        headers = [read_gguf_header(one, sizes) for one in self.files]
        self.metadata = headers[0].metadata
        stored: dict[str, GgufTensor] = {}
        for header in headers:
            for name, tensor in header.tensors.items():
                if name in stored:
                    raise CheckpointError(f"{name} lies in both {stored[name].file.name} and {tensor.file.name}")
                stored[name] = tensor
        self._parts = find_parts(stored, self.metadata, names)
        for part in self._parts.values():
            check_kind(part.tensor.kind)
        self.tensors = {n: QuantisedTensor(n, tuple(names[n]), p.tensor.kind) for n, p in self._parts.items()}
        used = {part.tensor.name for part in self._parts.values()}
        self.extra = tuple(sorted(name for name in stored if name not in used and not DERIVED.match(name)))
        self.config = config_of(self.metadata)
        self._sizes = {label: (block, nbytes) for label, block, nbytes in sizes.values()}
        self._reader = TensorFiles([])

    def levels(self, name: str, start: int, stop: int, columns: int | None = None) -> Levels:
        """Rows in the base's order."""
        part = self._parts[name]
        width = part.tensor.shape[-1]
        columns = self.tensors[name].shape[-1] if columns is None else columns
        if columns % width:
            raise CheckpointError(f"{name}: rows of {columns} do not consist of stored rows of {width}")
        ratio = columns // width
        if part.heads and part.height == 1:
            # A bias: one stored row, its numbers in the order of the weight's rows.
            values, steps = self._stored(part, 0, 1)
            order = _interleaved(0, width, width // part.heads)
            return Levels(values[:, order], steps[:, order])
        if not part.heads:
            values, steps = self._stored(part, start * ratio, stop * ratio)
            return Levels(values.reshape(-1, columns), steps.reshape(-1, columns))
        head = part.height // part.heads
        first, last = start * ratio // head * head, min(part.height, -(-stop * ratio // head) * head)
        values, steps = self._stored(part, first, last)
        order = _interleaved(start * ratio, stop * ratio, head) - first
        return Levels(values[order].reshape(-1, columns), steps[order].reshape(-1, columns))

    def requantise(self, name: str, start: int, stop: int, values: Tensor) -> Tensor | None:
        """As the gguf library quantises these rows; their order in the file makes no difference."""
        del start, stop
        if values.shape[-1] != self._parts[name].tensor.shape[-1]:
            return None
        return requantise(values, self.tensors[name].kind)

    def _stored(self, part: Part, first: int, last: int) -> tuple[Tensor, Tensor]:
        tensor = part.tensor
        block, nbytes = self._sizes[tensor.kind]
        width = tensor.shape[-1] // block * nbytes
        try:
            raw = pread_exact(
                self._reader.descriptor(tensor.file),
                (last - first) * width,
                tensor.offset + (part.first + first) * width,
                tensor.file,
            )
        except OSError as error:
            raise CheckpointError(f"{tensor.file} cannot be read: {error.strerror or error}") from error
        return decode(np.frombuffer(raw, np.uint8).reshape(last - first, width), tensor.kind)


def _interleaved(start: int, stop: int, head: int) -> Tensor:
    """Where rows [start:stop] of the base lie after the converter's permutation: in each head the two halves of the
    rotation alternate."""
    rows = torch.arange(start, stop)
    within = rows % head
    return rows - within + within % (head // 2) * 2 + within // (head // 2)


def _split(file: Path) -> tuple[Path, ...]:
    """All files of a split one, in order. Raises CheckpointError if one is missing."""
    match = _SPLIT.match(file.name)
    if match is None:
        return (file,)
    stem, _, count = match.groups()
    files = []
    for number in range(1, int(count) + 1):
        files.append(file.with_name(f"{stem}-{number:05d}-of-{count}.gguf"))
        if not files[-1].is_file():
            raise CheckpointError(f"{files[-1]} is missing: the export is incomplete")
    return tuple(files) or (file,)


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the only model of a directory without safetensors."""
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    found: Sequence[Path] = sorted(path.glob("*.gguf"))
    models = {file: _SPLIT.match(file.name) for file in found}
    first = [file for file, match in models.items() if match is None or int(match.group(2)) == 1]
    if len(first) > 1:
        raise CheckpointError(f"{path} holds {first[0].name} and {first[1].name}; give the file itself")
    return first[0] if first else None
