"""What lies in a model's directory beside its weights: small files that belong to the model, and what does not."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from crossmatch.checkpoint.layout import MANIFEST
from crossmatch.errors import CheckpointError

_DEEPEST, _MOST_FILES = 4, 2000
# Larger than any side file of a published model; and than a pickle or array that is no weights.
_LARGEST, _LARGEST_ARRAY = 200_000_000, 64_000_000
_WEIGHTS = (
    *("*.safetensors", "*.gguf", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.mlmodel"),
    *("pytorch_model*.bin", "model*.bin", "model*.pt", "model*.pth", "consolidated*.pt", "consolidated*.pth"),
    *("adapter_model*", "*.ckpt"),
)
_ARRAYS = ("*.bin", "*.pt", "*.pth", "*.npz", "*.npy", "*.pkl")
_STATE = ("optimizer*", "scheduler.pt", "rng_state*", "training_args.bin", "scaler.pt")
# Other exports of the model, and what trainings leave.
_FOLDERS = ("original", "onnx", "openvino", "gguf", "coreml", "runs", "logs", "wandb", "checkpoint-*", "global_step*")
# The base's card would describe another model; an adapter's files would be attached again at load.
_OF_ITSELF = (MANIFEST, "README.md", "adapter_config.json", "model.sig", "training_args.bin")


@dataclass(frozen=True)
class Neighbours:
    """files: path inside the directory, with slashes -> file, of what belongs to the model; left: lines that name what
    does not travel with a merge, each with the reason; nested: those of them in folders, and folders."""

    files: dict[str, Path]
    left: tuple[str, ...]
    nested: tuple[str, ...] = ()


def neighbours(directory: Path, weights: frozenset[str]) -> Neighbours:
    """Look through a directory and its folders; weights: names of the files that hold the model, which are passed over.

    Nothing is opened. Hidden entries are passed over. Raises CheckpointError for a link that leads out of the directory
    (the cache of the hub's client apart), and for more files than a model has.
    """
    files: dict[str, Path] = {}
    left: dict[str, list[str]] = {}
    home = directory.resolve()
    rooms = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    for name, file in _walk(directory, "", 0):
        if len(files) > _MOST_FILES:
            raise CheckpointError(f"{directory} holds more than {_MOST_FILES} files beside the weights; remove some")
        if name in weights or name in _OF_ITSELF or name.endswith(".index.json"):
            continue
        if not any(file.resolve().is_relative_to(room) for room in rooms):
            raise CheckpointError(f"{file} is a link that leads out of its directory; put the file itself there")
        why = _stays(name, file)
        if why is None:
            files[name] = file
        else:
            left.setdefault(why, []).append(name)
    nested = [name for names in left.values() for name in names if "/" in name or (directory / name).is_dir()]
    lines = tuple(f"not copied, {why}: {_some(names)}" for why, names in left.items())
    return Neighbours(files, lines, tuple(nested))


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, Path]]:
    """Entries by name: files, and folders that are not looked into."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror or error}") from error
    for entry in entries:
        name = prefix + entry.name
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if entry.is_dir() and not _stays_whole(entry, depth):
            yield from _walk(Path(entry.path), f"{name}/", depth + 1)
        else:
            yield name, Path(entry.path)


def _stays_whole(entry: os.DirEntry[str], depth: int) -> bool:
    return entry.is_symlink() or depth >= _DEEPEST or any(fnmatch(entry.name, pattern) for pattern in _FOLDERS)


def _stays(name: str, file: Path) -> str | None:
    """Why an entry does not travel with a merge, or None: it does."""
    last = name.rpartition("/")[2]
    if file.is_dir():
        return "a folder of other exports, of a training, or a link"
    if not file.is_file():
        return "no regular file"
    if any(fnmatch(last, pattern) for pattern in _STATE):
        return "the state of a training"
    if any(fnmatch(last, pattern) for pattern in _WEIGHTS):
        return "other weights of the base"
    size = file.stat().st_size
    if size > (_LARGEST_ARRAY if any(fnmatch(last, pattern) for pattern in _ARRAYS) else _LARGEST):
        return "larger than a side file"
    return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
