"""Safetensors directories with 8-bit numbers and scales beside them: FP8, bitsandbytes' int8, compressed-tensors."""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from crossmatch.checkpoint.checkpoint import Checkpoint
from crossmatch.checkpoint.header import DTYPE_NAMES
from crossmatch.checkpoint.quantised.blocks import ulp
from crossmatch.checkpoint.quantised.checkpoint import PLAIN, Levels, QuantisedCheckpoint, QuantisedTensor
from crossmatch.errors import CheckpointError

EIGHTS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)
_SCALES = ("weight_scale", "weight_scale_inv", "SCB")
# Stored beside a weight, and no weight themselves: they concern activations, or say what the weight is.
BESIDE = ("input_scale", "output_scale", "k_scale", "v_scale", "q_scale", "weight_format", "weight_shape", *_SCALES)
_BLOCK = 128


class ScaledCheckpoint(QuantisedCheckpoint):
    """A safetensors directory in which some weights are 8-bit numbers times a scale: one for the tensor, one for each
    row, or one for each group or block of a row's elements."""

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, tuple[int, ...]]) -> None:
        self._stored = checkpoint
        self.path, self.files = checkpoint.path, checkpoint.layout.files
        self.config = checkpoint.config
        self._scales: dict[str, Tensor] = {}
        self.tensors = {}
        beside = {n for n in checkpoint.tensors if n not in names and n.rpartition(".")[2] in BESIDE}
        for name, info in checkpoint.tensors.items():
            if name.endswith((".weight_zero_point", ".weight_packed", ".absmax", ".quant_map")):
                raise CheckpointError(
                    f"{self.path}: {name} belongs to a quantisation that cannot be verified; FP8, and 8-bit integers "
                    "around zero, can (or export as GGUF)"
                )
            if name not in names or info.shape != tuple(names[name]):
                continue
            if info.dtype in EIGHTS:
                self._scales[name] = self._scale(name)
            elif DTYPE_NAMES[info.dtype] not in PLAIN:
                raise CheckpointError(f"{self.path}: {name} is stored as {DTYPE_NAMES[info.dtype]}; refused")
            self.tensors[name] = QuantisedTensor(name, info.shape, DTYPE_NAMES[info.dtype])
        self.extra = tuple(sorted(set(checkpoint.tensors) - set(names) - beside))

    @property
    def checkpoint(self) -> Checkpoint:
        """The directory as it is stored."""
        return self._stored

    def levels(self, name: str, start: int, stop: int, columns: int | None = None) -> Levels:
        """Rows times their scales."""
        info = self._stored.tensors[name]
        columns = info.columns if columns is None else columns
        raw = self._stored.rows(name, start, stop, columns)
        kind = self.tensors[name].kind
        if name not in self._scales:
            values = raw.float()
            return Levels(values, ulp(values.nan_to_num(posinf=0.0, neginf=0.0), kind))
        scale = self._spread(name, start, stop, columns)
        values = raw.float()
        unit = torch.ones_like(values) if kind == "I8" else ulp(values.nan_to_num(), kind)
        return Levels(values * scale, unit * scale)

    def requantise(self, name: str, start: int, stop: int, values: Tensor) -> Tensor | None:
        """With the scales that are stored."""
        dtype = self._stored.tensors[name].dtype
        if name not in self._scales:
            return values.to(dtype).float()
        scale = self._spread(name, start, stop, values.shape[-1])
        if dtype == torch.int8:
            return (values / scale).round().clamp(-128, 127) * scale
        limit = torch.finfo(dtype).max
        return (values / scale).clamp(-limit, limit).to(dtype).float() * scale

    def _scale(self, name: str) -> Tensor:
        """The scales of a tensor as (rows, columns) of its grid of blocks; none means one."""
        stem = name.removesuffix("weight")
        found = [stem + part for part in _SCALES if stem + part in self._stored.tensors]
        if not found and self._stored.tensors[name].dtype == torch.int8:
            raise CheckpointError(f"{self.path}: {name} is stored as 8-bit integers without a scale; export it again")
        if not found:
            return torch.ones(1, 1)
        rows, columns = self._shape(name)
        info = self._stored.tensors[found[0]]
        if len(found) > 1 or info.elements > rows * columns or not info.dtype.is_floating_point:
            raise CheckpointError(f"{self.path}: {found[0]} is no scale of {name}")
        scale = self._stored[found[0]].float()
        scale = scale.reshape(-1, scale.shape[-1] if scale.ndim > 1 else 1)
        if found[0].endswith("SCB"):
            scale = scale / 127
        if not bool(torch.isfinite(scale).all()) or bool((scale < 0).any()):
            raise CheckpointError(f"{self.path}: {found[0]} holds scales that are negative or not finite")
        _sizes((rows, columns), scale, name)
        return scale

    def _spread(self, name: str, start: int, stop: int, columns: int) -> Tensor:
        """The scale of every element of some rows."""
        scale = self._scales[name]
        rows, own = self._shape(name)
        if scale.numel() == 1:
            return scale.reshape(1, 1)
        if columns != own:
            raise CheckpointError(f"{name}: rows of {columns} do not consist of stored rows of {own}")
        height, width = _sizes((rows, own), scale, name)
        spread = scale[torch.arange(start, stop) // height]
        return spread if scale.shape[1] == 1 else spread[:, torch.arange(own) // width]

    def _shape(self, name: str) -> tuple[int, int]:
        shape = self._stored.tensors[name].shape
        width = shape[-1] if shape else 1
        return math.prod(shape) // max(1, width), width


def with_scales(names: Mapping[str, str], stored: Collection[str]) -> dict[str, str]:
    """Weights under other names, new name -> stored one, together with what is stored beside them."""
    pairs = ((new.removesuffix("weight"), old.removesuffix("weight")) for new, old in names.items())
    beside = {new + part: old + part for new, old in pairs for part in BESIDE if old + part in stored}
    return {**beside, **names}


def _sizes(shape: tuple[int, int], scale: Tensor, name: str) -> tuple[int, int]:
    """Rows and columns of the blocks that share a scale. Raises CheckpointError if the scales do not fit."""
    sizes = []
    for length, count in zip(shape, scale.shape, strict=True):
        if count == 1:
            sizes.append(length)
        elif -(-length // _BLOCK) == count:
            sizes.append(_BLOCK)
        elif count and length % count == 0:
            sizes.append(length // count)
        else:
            raise CheckpointError(f"{name} of {list(shape)} cannot have scales of {list(scale.shape)}")
    return sizes[0], sizes[1]
