"""Fine-tunes for the tests of vectors: checkpoints whose tensors were moved, with everything else the base's."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from zlib import crc32

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossmatch.checkpoint import Checkpoint, find_weights

Tensors = dict[str, Tensor]


def tensors_of(directory: Path) -> Tensors:
    return {name: t for file in find_weights(directory).files for name, t in load_file(file).items()}


def moved(tensors: Mapping[str, Tensor], seed: int = 0, size: float = 0.05, only: str = "") -> Tensors:
    """Every tensor whose name contains `only`, moved at random by `size` times its norm, in its dtype."""
    result = dict(tensors)
    for name, tensor in tensors.items():
        if only in name:
            generator = torch.Generator().manual_seed(crc32(f"{seed}:{name}".encode()))
            noise = torch.randn(tensor.shape, generator=generator)
            change = noise * (size * (tensor.float().norm() or 1.0) / noise.norm())
            result[name] = (tensor.float() + change).to(tensor.dtype)
    return result


def tune(
    base: Path, out: Path, change: Callable[[Tensors], Tensors] = moved, config: Mapping[str, object] | None = None
) -> Path:
    """A copy of a checkpoint with other tensors, in the same files; new tensors go to the first."""
    layout = find_weights(base)
    shutil.copytree(base, out)
    new = change(tensors_of(base))
    left = dict(new)
    for file in layout.files:
        names = load_file(file).keys()
        held = {name: left.pop(name) for name in names if name in left}
        if file == layout.files[-1]:
            held |= left
        save_file({k: v.contiguous() for k, v in held.items()}, out / file.name, {"format": "pt"})
    if config:
        known = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**known, **config}))
    return out


def differing(first: Path, second: Path) -> int:
    """Elements of two checkpoints that are not the same bits."""
    ours, theirs = Checkpoint(first), Checkpoint(second)
    assert set(ours) == set(theirs)
    return sum(
        int((ours[n].view(torch.uint8) != theirs[n].view(torch.uint8)).any(-1).sum())
        if ours[n].ndim == 0
        else int((bits(ours[n]) != bits(theirs[n])).sum())
        for n in ours
    )


def bits(tensor: Tensor) -> Tensor:
    return tensor.view({2: torch.int16, 4: torch.int32}[tensor.dtype.itemsize])
