"""The files of a stored vector, and the statement beside them."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from crossmatch.adapter import VECTOR, VECTOR_FILE
from crossmatch.checkpoint import TOKENIZER_FILES, OutputFile, TensorFiles, statement, versions
from crossmatch.runtime import QUIET, Task

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Entry:
    """One tensor that will be written: its key, dtype and shape, and its content in blocks, made when it is needed."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[Tensor]]

    @classmethod
    def of(cls, key: str, tensor: Tensor) -> "Entry":
        """An entry whose content is there."""
        return cls(key, tensor.dtype, tuple(tensor.shape), lambda: (tensor,))

    @classmethod
    def stored(cls, key: str, files: TensorFiles, name: str) -> "Entry":
        """A tensor as it is stored in other files."""
        info = files.tensors[name]
        return cls(key, info.dtype, info.shape, lambda: (files.rows(name, *at) for at in files.blocks(name)))


def write_entries(file: Path, entries: Sequence[Entry], task: Task = QUIET) -> str:
    """Write a safetensors file block by block; returns its blake3 digest. `task` is told elements."""
    output = OutputFile(file, [(entry.key, entry.dtype, entry.shape) for entry in entries])
    try:
        digest = blake3(output.header)
        for entry in entries:
            position = output.offsets[entry.key]
            for block in entry.blocks():
                if not block.numel():
                    continue
                data = memoryview(block.contiguous().view(-1).view(torch.uint8).numpy().data)
                output.write(position, data)
                digest.update(data)
                position += len(data)
                task.advance(block.numel(), entry.key.partition("/")[2])
    finally:
        output.close()
    return digest.hexdigest()


def vector_statement(digest: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The statement by which a directory is known to be a stored vector; digest: blake3 of its file."""
    return statement(VECTOR, {VECTOR_FILE: {"blake3": digest}}, {**facts, "versions": versions()})


def copy_text_files(source: Path, out: Path) -> list[str]:
    """Copy tokenizer, template and generation config, which a merge takes from a vector as from an adapter."""
    names = [name for name in (*TOKENIZER_FILES, GENERATION) if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, out / name)
    return names
