"""Quantised exports: GGUF files, and safetensors with 8-bit numbers, read by the names of the base."""

from pathlib import Path

from crossmatch.checkpoint.checkpoint import Checkpoint
from crossmatch.checkpoint.quantised.checkpoint import (
    GgufCheckpoint,
    Levels,
    QuantisedCheckpoint,
    QuantisedTensor,
    find_gguf,
)
from crossmatch.checkpoint.quantised.scaled import EIGHTS, ScaledCheckpoint
from crossmatch.errors import CheckpointError

__all__ = ["Levels", "QuantisedCheckpoint", "QuantisedTensor", "is_quantised", "open_quantised"]


def is_quantised(path: str | Path) -> bool:
    """Whether a path is a GGUF file, a directory of one, or a directory with weights of 8 bits."""
    where = Path(path)
    if find_gguf(where) is not None:
        return True
    if not where.is_dir() or not any(where.glob("*.safetensors")):
        return False
    return any(info.dtype in EIGHTS for info in Checkpoint(where).tensors.values())


def open_quantised(path: str | Path, base: Checkpoint) -> QuantisedCheckpoint:
    """Open a quantised export of a model that has the tensor names of `base`.

    Raises CheckpointError for a file that is not whole, and for types, scales and architectures that are not known.
    """
    names = {name: info.shape for name, info in base.tensors.items()}
    file = find_gguf(Path(path))
    if file is not None:
        return GgufCheckpoint(file, names)
    if Path(path).is_file():
        raise CheckpointError(f"{path} is no GGUF file; give one, or the directory of a saved model")
    return ScaledCheckpoint(Checkpoint(path), names)
