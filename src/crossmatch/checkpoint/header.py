"""The safetensors header: read without loading a tensor, and every offset checked before it is used."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossmatch.checkpoint.untrusted import check_regular, parse_json
from crossmatch.errors import CheckpointError, InputError

MAX_HEADER_BYTES = 50_000_000
# No model comes near these; numbers and names beyond them are there to make a reader work.
MAX_NAME = 1000
MAX_AXES = 16
MAX_BITS = 48
# A string of JSON; one that does not end is left for the parser to refuse.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
# Known to the format, and to no tensor of every torch that is supported: scales, and numbers that share bytes.
_PACKED = ("F8_E8M0", "F4", "F6_E2M3", "F6_E3M2")
DTYPE_NAMES: Mapping[torch.dtype, str] = {v: k for k, v in DTYPES.items()}
# What a user may call the dtypes in which a model is stored.
DTYPE_WORDS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"} | {
    name: name for name in ("bfloat16", "float16", "float32")
}


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: its file, dtype, shape, and byte range from the start of the file."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Length of the last axis: the width of the matrix whose rows are read; 1 for a scalar."""
        return self.shape[-1] if self.shape else 1


def tensor_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """Stored size of a tensor in bytes."""
    return dtype.itemsize * math.prod(shape)


# How the text begins that Git LFS leaves in a file's place.
_POINTER = b"version https://git-lfs"


def read_header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file, in the order in which they lie in it.

    Raises CheckpointError if the file cannot be read, is truncated, its header is no JSON of the right form, or offsets
    overlap, leave holes, disagree with dtype and shape, or point outside the file.
    """
    size = check_regular(file)
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_POINTER))
            if start == _POINTER:
                raise InputError(f"{file} is a Git LFS pointer, not the file itself: run git lfs pull where it lies")
            stream.seek(8)
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise _corrupt(file, f"it is {size} bytes long and announces a header of {length}")
            raw = stream.read(length)
        # A tensor has one brace, two brackets and some 60 characters; nests of brackets would fill the memory.
        if _brackets(raw) > length / 10 + 4 and _brackets(_TEXT.sub(b"", raw)) > length / 10 + 4:
            raise _corrupt(file, "its header is full of brackets")
        entries = parse_json(raw, _unique, _no_number)
        if not isinstance(entries, dict):
            raise _corrupt(file, "its header is not an object")
        notes = entries.pop("__metadata__", None)
        if notes is not None and not (isinstance(notes, dict) and all(isinstance(v, str) for v in notes.values())):
            raise _corrupt(file, "its __metadata__ is no object of texts, which no loader takes")
        infos = [_entry(name, spec, file, 8 + length) for name, spec in entries.items()]
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, RecursionError, ArithmeticError) as error:
        raise _corrupt(file, str(error) or type(error).__name__) from error
    infos.sort(key=lambda info: (info.offset, info.nbytes))
    position = 8 + length
    for info in infos:
        if info.offset != position:
            raise _corrupt(file, f"tensor {_shown(info.name)} begins at byte {info.offset}, {position} expected")
        position += info.nbytes
    if position != size:
        raise _corrupt(file, f"its tensors end at byte {position}, the file at {size}")
    return {info.name: info for info in infos}


def _brackets(raw: bytes) -> int:
    """How many lists and objects begin in a JSON text, those in its strings included."""
    return raw.count(b"[") + raw.count(b"{")


def encode_header(tensors: list[tuple[str, torch.dtype, tuple[int, ...]]]) -> bytes:
    """Length prefix and header of a safetensors file that holds `tensors` in this order, padded to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in tensors:
        end = position + tensor_bytes(dtype, shape)
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def pread_exact(fd: int, nbytes: int, offset: int, file: Path) -> memoryview:
    """`nbytes` bytes from `offset`, writable; raises CheckpointError if the file ends before them."""
    # Not a bytearray, which would be filled with zeros first.
    view = memoryview(np.empty(nbytes, np.uint8).data)
    done = 0
    while done < nbytes:
        got = os.preadv(fd, [view[done:]], offset + done)
        if got == 0:
            raise _corrupt(file, f"it ends {nbytes - done} bytes early")
        done += got
    return view


def _entry(name: str, spec: Any, file: Path, start: int) -> TensorInfo:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"a tensor is called {_shown(name)}")
    shown = f"tensor {_shown(name)}"
    try:
        stored, shape, (begin, end) = spec["dtype"], spec["shape"], spec["data_offsets"]
        numbers = (*shape, begin, end)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{shown} has no dtype, shape and two data_offsets") from None
    dtype = DTYPES.get(stored) if isinstance(stored, str) else None
    if stored in _PACKED:
        raise CheckpointError(f"{file}: {shown} has dtype {stored}, which is not judged; dequantise it first")
    if dtype is None:
        raise ValueError(f"{shown} has dtype {_shown(stored)}, which is not supported")
    # True is an int, and what other readers refuse must not mean something here.
    if any(type(n) is not int for n in numbers) or not isinstance(shape, list):
        raise ValueError(f"shape and offsets of {shown} are not whole numbers")
    # Before anything is multiplied: numbers in JSON may have thousands of digits.
    if len(shape) > MAX_AXES or any(n.bit_length() > MAX_BITS for n in numbers):
        raise ValueError(f"{shown} is too large for any file")
    if any(n < 0 for n in shape) or begin < 0 or end - begin != tensor_bytes(dtype, tuple(shape)):
        raise ValueError(f"{shown} of shape {_shown(shape)} cannot lie in bytes {begin} to {end}")
    return TensorInfo(name, file, dtype, tuple(shape), start + begin, end - begin)


def _shown(text: Any) -> str:
    """A text of the file as it may stand in a message: short, printable."""
    shown = text if isinstance(text, str) and text.isprintable() else ascii(text)
    return shown if len(shown) <= 120 else f"{shown[:120]}..."


def _no_number(text: str) -> Any:
    raise ValueError(f"its header holds {text}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice in the header")
    return result


def _corrupt(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is not a whole safetensors file: {why}; fetch or save it again", fault="export-incomplete"
    )
