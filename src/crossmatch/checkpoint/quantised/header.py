"""The header of a GGUF file, read without the library: every count, length and offset is checked before it is used."""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from crossmatch.errors import CheckpointError

MAX_HEADER_BYTES = 1 << 29
MAX_TENSORS, MAX_FIELDS = 1 << 16, 1 << 12
MAX_NAME = 256
# Strings in lists: a vocabulary of half a million tokens and its merges are below this.
MAX_STRINGS = 1 << 21
# What is kept of metadata: texts of this length, lists of this many numbers.
MAX_TEXT, MAX_LIST = 1024, 512
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies: its file, the name of its type, its shape (rows first), and its bytes."""

    name: str
    file: Path
    kind: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """Metadata (short strings, numbers and short lists of numbers; nothing else is kept) and tensors of one file."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_gguf_header(file: Path, sizes: Mapping[int, tuple[str, int, int]]) -> GgufHeader:
    """The header of one GGUF file of version 2 or 3.

    sizes: number of a type -> (its name, elements in a block, bytes in a block). Raises CheckpointError if the file is
    truncated, announces more than it can hold, has a name twice, or puts a tensor outside itself or over another.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            return _Reader(file, stream, size).header(sizes)
    except (OSError, ValueError, struct.error, OverflowError) as error:
        raise CheckpointError(f"{file} is not a whole GGUF file: {error}; fetch or export it again") from error


class _Reader:
    def __init__(self, file: Path, stream: BinaryIO, size: int) -> None:
        self.file, self.stream, self.size = file, stream, size
        self.position = 0
        self.strings = 0

    def header(self, sizes: Mapping[int, tuple[str, int, int]]) -> GgufHeader:
        """Everything before the data. Raises ValueError where it is no GGUF of a known version."""
        if self.take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self.number("I")
        if version not in (2, 3):
            raise ValueError(f"version {version} (a big-endian file?); 2 and 3 can be read")
        count, fields = self.number("Q"), self.number("Q")
        if count > MAX_TENSORS or fields > MAX_FIELDS:
            raise ValueError(f"it announces {count} tensors and {fields} fields")
        metadata: dict[str, Any] = {}
        for _ in range(fields):
            key = self.name(MAX_NAME)
            if key in metadata:
                raise ValueError(f"field {key} appears twice")
            metadata[key] = self.value(self.number("I"))
        found = [self.tensor(sizes) for _ in range(count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise ValueError(f"alignment {alignment}")
        start = -(-self.position // alignment) * alignment
        return GgufHeader(metadata, self.placed(found, start, alignment))

    def placed(self, found: list[GgufTensor], start: int, alignment: int) -> dict[str, GgufTensor]:
        """The tensors with offsets in the file, none outside it or over another."""
        end, result = start, {}
        for tensor in sorted(found, key=lambda t: t.offset):
            offset = start + tensor.offset
            if tensor.name in result:
                raise ValueError(f"tensor {tensor.name} appears twice")
            if tensor.offset % alignment or offset < end or offset + tensor.nbytes > self.size:
                raise ValueError(f"tensor {tensor.name} cannot lie at byte {offset} of {self.size}")
            end = offset + tensor.nbytes
            result[tensor.name] = GgufTensor(tensor.name, tensor.file, tensor.kind, tensor.shape, offset, tensor.nbytes)
        return result

    def tensor(self, sizes: Mapping[int, tuple[str, int, int]]) -> GgufTensor:
        name, dimensions = self.name(MAX_NAME), self.number("I")
        if not 1 <= dimensions <= 4:
            raise ValueError(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        kind, offset = self.number("I"), self.number("Q")
        if kind not in sizes:
            raise ValueError(f"tensor {name} has type {kind}, which is not known")
        label, block, nbytes = sizes[kind]
        if min(shape) < 1 or math.prod(shape) > self.size * 256 or shape[-1] % block:
            raise ValueError(f"tensor {name} of type {label} cannot have the shape {list(shape)}")
        return GgufTensor(name, self.file, label, shape, offset, math.prod(shape) // block * nbytes)

    def value(self, kind: int) -> Any:
        """One field's value; None for what is not kept."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"a field of type {kind}")
        inner, length = self.number("I"), self.number("Q")
        if inner == _STRING:
            self.strings += length
            if self.strings > MAX_STRINGS:
                raise ValueError(f"its fields hold more than {MAX_STRINGS} strings")
            for _ in range(length):
                self.skip(self.number("Q"))
            return None
        if inner not in _SCALARS:
            raise ValueError(f"a list of type {inner}")
        code = _SCALARS[inner]
        if length <= MAX_LIST:
            return [self.number(code) for _ in range(length)]
        self.skip(length * struct.calcsize(code))
        return None

    def text(self) -> str | None:
        length = self.number("Q")
        if length <= MAX_TEXT:
            return self.take(length).decode("utf-8", errors="replace")
        self.skip(length)
        return None

    def name(self, limit: int) -> str:
        length = self.number("Q")
        if length > limit:
            raise ValueError(f"a name of {length} bytes")
        return self.take(length).decode("utf-8")

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def take(self, count: int) -> bytes:
        self.advance(count)
        data = self.stream.read(count)
        if len(data) != count:
            raise ValueError("it ends in its header")
        return data

    def skip(self, count: int) -> None:
        self.advance(count)
        self.stream.seek(count, 1)

    def advance(self, count: int) -> None:
        self.position += count
        if self.position > min(self.size, MAX_HEADER_BYTES):
            raise ValueError("it ends in its header" if self.position > self.size else "its header has no end")
