"""Blocks of quantised numbers as GGUF stores them: their values, the distance between neighbouring levels, and the
same numbers quantised again.

Values and quantisation are the `gguf` library's own; steps are read from the scales of the blocks.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmatch.errors import CheckpointError, pip_line

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
# Explicit mantissa bits, exponent of the smallest normal number.
FORMATS: Mapping[str, tuple[int, int]] = {
    "F32": (23, -126),
    "F16": (10, -14),
    "BF16": (7, -126),
    "F8_E4M3": (3, -6),
    "F8_E5M2": (2, -14),
}


def library() -> Any:
    """The gguf library. Raises CheckpointError if it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(f"GGUF files need the gguf library: {pip_line('gguf')}") from error
    return gguf


def ulp(value: Tensor, kind: str) -> Tensor:
    """Distance between neighbours of a floating type at `value`."""
    mantissa, smallest = FORMATS[kind]
    exponent = torch.frexp(value.abs()).exponent - 1
    return torch.ldexp(torch.ones_like(value), exponent.clamp_min(smallest) - mantissa)


def decode(raw: Bytes, kind: str) -> tuple[Tensor, Tensor]:
    """Values and steps, both float32 and (rows, columns), of (rows, bytes). Raises CheckpointError for a type that is
    not known here."""
    gguf = library()
    check_kind(kind)
    with np.errstate(all="ignore"):
        values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
        if kind in FORMATS:
            result = torch.from_numpy(np.array(values, dtype=np.float32))
            return result, ulp(result.nan_to_num(posinf=0.0, neginf=0.0), kind)
        block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        scales = _SCALES[kind](raw.reshape(-1, nbytes))
        steps = np.repeat(scales, block // scales.shape[1], axis=1).reshape(values.shape)
        if kind in _UNEVEN:
            steps = steps * _gaps(values, steps, gguf.quants.IQ4_NL.kvalues)
        steps = np.abs(steps, dtype=np.float32)
    return torch.from_numpy(values), torch.from_numpy(steps)


def requantise(values: Tensor, kind: str) -> Tensor | None:
    """Float32 values as the type would store them, or None for a type that the library can only read."""
    gguf = library()
    qtype = gguf.GGMLQuantizationType[kind]
    with np.errstate(all="ignore"):
        try:
            stored = gguf.quants.quantize(np.ascontiguousarray(values.numpy()), qtype)
        except (NotImplementedError, gguf.quants.QuantError):
            return None
        return torch.from_numpy(np.array(gguf.quants.dequantize(stored, qtype), dtype=np.float32))


def check_kind(kind: str) -> None:
    """Raise CheckpointError for a type that cannot be read: one whose levels are no grid for each element."""
    if kind not in _SCALES and kind not in ("F32", "F16", "BF16"):
        raise CheckpointError(
            f"the type {kind} cannot be verified; export as one of F32, F16, BF16, {', '.join(_SCALES)}"
        )


def _half(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _first(blocks: Bytes) -> Floats:
    return _half(blocks, 0)


def _q2_k(blocks: Bytes) -> Floats:
    return _half(blocks, 80) * (blocks[:, :16] & 15)


def _q3_k(blocks: Bytes) -> Floats:
    low, high = blocks[:, 96:104], blocks[:, 104:108]
    low = np.concatenate([low & 15, low >> 4], axis=1)
    high = np.concatenate([(high >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
    return _half(blocks, 108) * ((low | (high << 4)).astype(np.float32) - 32)


def _q4_k(blocks: Bytes) -> Floats:
    scales = library().quants.Q4_K.get_scale_min(np.ascontiguousarray(blocks[:, 4:16]))[0]
    return _half(blocks, 0) * scales


def _q6_k(blocks: Bytes) -> Floats:
    return _half(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)


def _iq4_xs(blocks: Bytes) -> Floats:
    high = np.ascontiguousarray(blocks[:, 2:4]).view(np.uint16)
    high = (high >> np.arange(0, 16, 2, dtype=np.uint16)).astype(np.uint8) & 3
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    return _half(blocks, 0) * ((low | (high << 4)).astype(np.float32) - 32)


def _gaps(values: Floats, scales: Floats, levels: tuple[int, ...]) -> Floats:
    """Width of the cell around each level of an uneven table; the gap inside an outer one counts for both its sides."""
    table = np.array(levels, dtype=np.float32)
    between = np.diff(table)
    width = (np.concatenate([between[:1], between]) + np.concatenate([between, between[-1:]])) / 2
    level = np.divide(values, scales, out=np.zeros_like(values), where=scales != 0)
    return width[np.searchsorted(table[:-1] + between / 2, level)].astype(np.float32)


_SCALES: dict[str, Callable[[Bytes], Floats]] = {
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"), _first),
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q4_k,
    "Q6_K": _q6_k,
    "IQ4_XS": _iq4_xs,
}
_UNEVEN = ("IQ4_NL", "IQ4_XS")
