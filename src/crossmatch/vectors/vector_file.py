"""The files of a stored vector, and the statement beside them."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from blake3 import blake3
from torch import Tensor

from crossmatch.adapter import VECTOR
from crossmatch.checkpoint import TOKENIZER_FILES, OutputFile, TensorFiles, versions
from crossmatch.results.vectors import VectorFactsJson, VectorManifestJson
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


def statement(kind: str, subjects: Mapping[str, str], predicate: VectorFactsJson) -> VectorManifestJson:
    """An in-toto Statement v1: files with their blake3 digests, and how they were made. No times, no host."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"blake3": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": kind,
        "predicate": {"schema_version": 1, **predicate, "versions": versions()},
    }


def vector_statement(subjects: Mapping[str, str], predicate: VectorFactsJson) -> VectorManifestJson:
    """The statement by which a directory is known to be a stored vector."""
    return statement(VECTOR, subjects, predicate)


def copy_text_files(source: Path, out: Path) -> list[str]:
    """Copy tokenizer, template and generation config, which a merge takes from a vector as from an adapter."""
    names = [name for name in (*TOKENIZER_FILES, GENERATION) if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, out / name)
    return names
