"""A safetensors directory, read lazily."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from crossmatch.checkpoint.digest import file_digest, files_digest
from crossmatch.checkpoint.header import TensorInfo, pread_exact, read_header, tensor_bytes
from crossmatch.checkpoint.hub import locate
from crossmatch.checkpoint.layout import MANIFEST, find_weights, read_json
from crossmatch.checkpoint.quantisation import quantised_as
from crossmatch.checkpoint.tensor_names import output_embedding
from crossmatch.errors import CheckpointError

# Rows are taken in blocks that nearly stay in the cache: 4 MB in float64. Smaller ones cost more in calls.
BLOCK_ELEMENTS = 1 << 19


class TensorFiles(Mapping[str, Tensor]):
    """Some safetensors files as one mapping *tensor name -> tensor*; opening reads headers, tensors come on demand."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self._fds: dict[Path, int] = {}
        for file in files:
            for name, info in read_header(file).items():
                if name in self.tensors:
                    raise CheckpointError(f"{name} lies in both {self.tensors[name].file.name} and {file.name}")
                self.tensors[name] = info

    def __getitem__(self, name: str) -> Tensor:
        info = self.tensors[name]
        return self._tensor(info, 0, info.nbytes, info.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Bound above: at the end of the interpreter the module may be gone before this object.
        if getattr(self, "_original", self) is self:
            for fd in getattr(self, "_fds", {}).values():
                close(fd)

    def rows(self, name: str, start: int, stop: int, columns: int | None = None) -> Tensor:
        """Rows [start:stop] of a tensor seen as a matrix of `columns` columns (default: its last axis), read alone."""
        info = self.tensors[name]
        columns = info.columns if columns is None else columns
        width = columns * info.dtype.itemsize
        return self._tensor(info, start * width, (stop - start) * width, (stop - start, columns))

    def raw(self, name: str, start: int, nbytes: int) -> memoryview:
        """`nbytes` stored bytes of a tensor from byte `start` of it, in a buffer of its own."""
        info = self.tensors[name]
        try:
            return pread_exact(self.descriptor(info.file), nbytes, info.offset + start, info.file)
        except OSError as error:
            raise CheckpointError(f"{info.file} cannot be read: {error.strerror or error}") from error

    def descriptor(self, file: Path) -> int:
        """A descriptor of one of the files, open for reading as long as this object lives."""
        if file not in self._fds:
            opened = os.open(file, os.O_RDONLY)
            if self._fds.setdefault(file, opened) != opened:
                os.close(opened)
        return self._fds[file]

    def blocks(
        self, name: str, columns: int | None = None, elements: int = BLOCK_ELEMENTS
    ) -> Iterator[tuple[int, int]]:
        """Row ranges (start, stop) that cover a tensor, seen as a matrix as in `rows`, in blocks of about
        `elements`."""
        info = self.tensors[name]
        columns = info.columns if columns is None else columns
        height = info.elements // max(1, columns)
        step = max(1, elements // max(1, columns))
        for start in range(0, height, step):
            yield start, min(height, start + step)

    @property
    def nbytes(self) -> int:
        """Stored bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Number of stored elements."""
        return sum(info.elements for info in self.tensors.values())

    def _tensor(self, info: TensorInfo, start: int, nbytes: int, shape: tuple[int, ...]) -> Tensor:
        if nbytes == 0:
            return torch.empty(shape, dtype=info.dtype)
        return torch.frombuffer(self.raw(info.name, start, nbytes), dtype=info.dtype).reshape(shape)


@dataclass(frozen=True)
class Tail:
    """Rows that were added to a tensor: it has `rows` in all, the added ones are the last of tensor `key` in `files`;
    head: the tensor of the checkpoint to which they were added; first: the row with which tensor `key` begins."""

    files: TensorFiles
    key: str
    rows: int
    head: str
    first: int = 0


class Checkpoint(TensorFiles):
    """A model's directory of safetensors files.

    The files taken are those that a loader would take; what else lies in the directory is in `layout`. Accepts a path
    or a hub id `org/name[@revision]`.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = locate(source)
        self.path = self.source.path
        self.layout = find_weights(self.path)
        super().__init__(self.layout.files)
        for name, file in (self.layout.index or {}).items():
            if name not in self.tensors or self.tensors[name].file.name != file:
                raise CheckpointError(
                    f"{self.path}: the index puts {name} in {file}, which does not hold it", fault="export-incomplete"
                )
        self._tails: dict[str, Tail] = {}
        self._original: Checkpoint = self
        config = self.path / "config.json"
        self.config: dict[str, Any] = read_json(config) if config.exists() else {}

    def extended(
        self, aliases: Mapping[str, str], grown: Mapping[str, "Tail"], config: Mapping[str, Any]
    ) -> "Checkpoint":
        """This checkpoint as an adapter saw it when it was trained: nothing on disk changes.

        aliases: new tensor -> the one whose content it has (an untied output embedding); grown: tensor -> where the
        rows that were added to it are; config: fields of config.json that follow from it.
        """
        view = copy.copy(self)
        # Descriptors belong to the original, which the view keeps alive.
        view._original = self._original
        view.tensors = dict(self.tensors)
        view._tails = {**self._tails, **grown}
        for name, tail in grown.items():
            info = self.tensors[name]
            shape = (tail.rows, *info.shape[1:])
            view.tensors[name] = replace(info, shape=shape, nbytes=tensor_bytes(info.dtype, shape))
        for name, content in aliases.items():
            view.tensors[name] = replace(view.tensors[content], name=name)
            if content in view._tails:
                view._tails[name] = view._tails[content]
        view.config = {**self.config, **config}
        return view

    def renamed(self, names: Mapping[str, str]) -> "Checkpoint":
        """This checkpoint with some tensors under other names, new name -> stored one: nothing on disk changes."""
        view = self.extended({}, {}, {})
        news = {stored: name for name, stored in names.items()}
        view.tensors = {news.get(n, n): replace(i, name=news.get(n, n)) for n, i in self.tensors.items()}
        return view

    def raw(self, name: str, start: int, nbytes: int) -> memoryview:
        """`nbytes` stored bytes of a tensor from byte `start` of it, those of added rows included."""
        tail = self._tails.get(name)
        if tail is None:
            return super().raw(name, start, nbytes)
        head = self._original.tensors[name if name in self._original.tensors else tail.head].nbytes
        own = max(0, min(nbytes, head - start))
        result = bytearray(super().raw(name, start, own)) if own else bytearray()
        dtype = self.tensors[name].dtype
        count = (nbytes - own) // dtype.itemsize
        first = (start + own) // dtype.itemsize - tail.first * self.tensors[name].columns if count else 0
        theirs = tail.files.tensors[tail.key].dtype
        raw = tail.files.raw(tail.key, first * theirs.itemsize, count * theirs.itemsize)
        added = torch.frombuffer(raw, dtype=theirs).to(dtype) if count else torch.empty(0, dtype=dtype)
        return memoryview(result + added.view(torch.uint8).numpy().tobytes())

    @property
    def original(self) -> "Checkpoint":
        """The checkpoint as it lies on disk; itself unless it was extended."""
        return self._original

    @property
    def tails(self) -> Mapping[str, "Tail"]:
        """Tensors that have grown, with where their added rows are."""
        return dict(self._tails)

    def on_disk(self, name: str) -> bool:
        """Whether a tensor's bytes are those of one range of one file."""
        return name not in self._tails

    @property
    def tied(self) -> bool:
        """Whether the output embedding is tied to the input embedding: as the config says, or, where it leaves that to
        the model's class, whenever none is stored."""
        text = self.config.get("text_config")
        inner = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        declared = self.config.get("tie_word_embeddings", inner)
        return bool(declared) if declared is not None else output_embedding(self.tensors) is None

    @property
    def quantisation(self) -> str | None:
        """The quantisation that the config declares or the tensors show, in words, or None."""
        return quantised_as(self.config, self.tensors)

    @cached_property
    def file_digests(self) -> dict[str, str]:
        """blake3 of every weight file that a loader would take, by file name. Reads them all, once."""
        return {file.name: file_digest(file) for file in self.layout.files}

    def note_digests(self, digests: Mapping[str, str]) -> None:
        """Keep the digests that were taken while the files were read for another purpose."""
        self.file_digests = dict(digests)

    @cached_property
    def digest(self) -> str:
        """One digest of the weights: of the names and digests of their files."""
        return files_digest(self.file_digests)

    @cached_property
    def manifest(self) -> dict[str, Any] | None:
        """The statement that a merge left in the directory, or None."""
        file = self.path / MANIFEST
        return read_json(file) if file.exists() else None


class PassingDigests:
    """Digests of a checkpoint's files, taken from tensors that somebody reads anyhow, if they come in the files' order.

    A file whose tensors come in another order, or not all, is left to be read again.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        # A view that has grown, or has one tensor under two names, is not what lies in the files.
        self._plain = checkpoint.original is checkpoint and "file_digests" not in vars(checkpoint)
        self._open: dict[Path, tuple[blake3, int]] = {}
        self._fed: dict[str, int] = {}

    def feed(self, name: str, rows: Tensor) -> None:
        """The next rows of a tensor, as they were stored."""
        if not self._plain or not rows.numel():
            return
        info = self._checkpoint.tensors[name]
        offset = info.offset + self._fed.get(name, 0)
        data = rows.reshape(-1).view(torch.uint8).numpy().data
        if info.file not in self._open:
            header = pread_exact(self._checkpoint.descriptor(info.file), info.offset, 0, info.file)
            first = min(i.offset for i in self._checkpoint.tensors.values() if i.file == info.file)
            self._open[info.file] = (blake3(header), info.offset if info.offset == first else -1)
        digest, at = self._open[info.file]
        if at == offset:
            digest.update(data)
            self._open[info.file] = (digest, offset + len(data))
        else:
            self._open[info.file] = (digest, -1)
        self._fed[name] = self._fed.get(name, 0) + len(data)

    def note(self) -> None:
        """Tell the checkpoint, if every one of its files was read to its end."""
        files = self._checkpoint.layout.files
        if self._plain and all(f in self._open and self._open[f][1] == f.stat().st_size for f in files):
            self._checkpoint.note_digests({f.name: self._open[f][0].hexdigest() for f in files})
