"""The files of a stored vector, and the statement beside them."""

import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from crossmatch.adapter import VECTOR
from crossmatch.checkpoint import TOKENIZER_FILES, OutputFile
from crossmatch.export.results import Manifest
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


def statement(kind: str, subjects: Mapping[str, str], predicate: Mapping[str, Any]) -> Manifest:
    """An in-toto Statement v1: files with their blake3 digests, and how they were made. No times, no host."""
    facts = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"blake3": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": kind,
        "predicate": {
            "schema_version": 1,
            **predicate,
            "versions": {
                "crossmatch": version("crossmatch"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
    }
    return Manifest(facts)


def vector_statement(subjects: Mapping[str, str], predicate: Mapping[str, Any]) -> Manifest:
    """The statement by which a directory is known to be a stored vector."""
    return statement(VECTOR, subjects, predicate)


def copy_text_files(source: Path, out: Path) -> list[str]:
    """Copy tokenizer, template and generation config, which a merge takes from a vector as from an adapter."""
    names = [name for name in (*TOKENIZER_FILES, GENERATION) if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, out / name)
    return names
