"""Calibration data: what modules read, and the gradients at what they write, on a few tokens."""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from crossmatch.checkpoint import TensorFiles, file_digest
from crossmatch.errors import CheckpointError, InputError

_KINDS = (".inputs", ".gradients")


class Calibration:
    """A safetensors file of module inputs and output gradients, read on demand.

    Keys, with <module> a tensor's name without `.weight`: `<adapter>/<module>.inputs` (N, d_in) as that adapter's
    tokens give them; `<adapter>/<module>.gradients` (N, d_out) of the loss at the same tokens; `<module>.inputs` for
    every adapter that has none of its own.
    Raises InputError if the file cannot be read or holds anything else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._files = TensorFiles([self.path])
        except CheckpointError as error:
            raise InputError(f"{error}; `crossmatch calibrate` makes a calibration file") from error
        for name, info in self._files.tensors.items():
            if not name.endswith(_KINDS) or len(info.shape) != 2 or not info.shape[0]:
                raise InputError(
                    f"{self.path}: {name} of shape {list(info.shape)} is no calibration, which is a matrix called "
                    "<module>.inputs or <adapter>/<module>.gradients; `crossmatch calibrate` makes such a file"
                )

    @cached_property
    def digest(self) -> str:
        """blake3 of the file."""
        return file_digest(self.path)

    def inputs(self, adapter: str, tensor: str) -> Tensor | None:
        """X (N, d_in), float64: the adapter's own, else the ones for all adapters, else None."""
        module = tensor.removesuffix(".weight")
        own = self._read(f"{adapter}/{module}.inputs")
        return self._read(f"{module}.inputs") if own is None else own

    def has_inputs(self, adapter: str, tensor: str) -> bool:
        """Whether `inputs` would find any; nothing is read."""
        module = tensor.removesuffix(".weight")
        return f"{adapter}/{module}.inputs" in self._files or f"{module}.inputs" in self._files

    def gradients(self, adapter: str, tensor: str) -> Tensor | None:
        """G (N, d_out), float64, row by row at the same tokens as the adapter's own inputs; or None."""
        return self._read(f"{adapter}/{tensor.removesuffix('.weight')}.gradients")

    def _read(self, key: str) -> Tensor | None:
        if key not in self._files:
            return None
        value = self._files[key].double()
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{self.path}: {key} holds NaN or infinite values; run `crossmatch calibrate` again")
        return value
