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
from crossmatch.checkpoint.quantised.scaled import BESIDE, EIGHTS, ScaledCheckpoint, with_scales
from crossmatch.checkpoint.same import by_names_of
from crossmatch.errors import CheckpointError

__all__ = ["Levels", "QuantisedCheckpoint", "QuantisedTensor", "is_quantised", "open_quantised"]


def is_quantised(path: str | Path, base: Checkpoint | None = None) -> bool:
    """Whether a path is a GGUF file, a directory of one, or a directory with weights of 8 bits: with other ones than
    the base itself has. What lies beside weights is none."""
    where = Path(path)
    if find_gguf(where) is not None:
        return True
    if not where.is_dir() or not any(where.glob("*.safetensors")):
        return False
    ours = base.tensors if base is not None else {}
    theirs = {n: info for n, info in Checkpoint(where).tensors.items() if info.dtype in EIGHTS}
    weights = {n: info for n, info in theirs.items() if n.rpartition(".")[2] not in BESIDE}
    return any(n not in ours or ours[n].dtype != info.dtype for n, info in weights.items())


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
    stored = Checkpoint(path)
    _, renamed = by_names_of(base, stored)
    return ScaledCheckpoint(stored.renamed(with_scales(renamed, stored.tensors)), names)
