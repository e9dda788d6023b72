"""Which files of a directory hold the weights: what a loader would take, and what else lies there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmatch.checkpoint.untrusted import check_links, parse_json, read_text
from crossmatch.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MANIFEST = "crossmatch.json"
_WHOLE_MODELS = ("model*.safetensors", "consolidated*", "pytorch_model*.bin", "*.gguf")
# What file systems take.
_MAX_FILE_NAME = 255
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Layout:
    """The weight files of a directory.

    files: what `from_pretrained` would load, in order; index: tensor name -> file name where an index says so;
    strays: other weight files of a whole model, in any format, which some loader prefers; an index beside a single file
    counts as one.
    """

    files: tuple[Path, ...]
    index: dict[str, str] | None
    strays: tuple[Path, ...]


def find_weights(directory: Path) -> Layout:
    """The weight files of `directory`, in the order of preference of transformers: single file before index.

    Raises CheckpointError if there are none, if they are pickles, or if the index names a file that is not there.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; give the directory that holds model.safetensors")
    check_links(directory)
    present = sorted(directory.glob("*.safetensors"))
    single, index_file = directory / SINGLE, directory / INDEX
    if single.exists():
        return Layout((single,), None, _strays(directory, [single]) + ((index_file,) if index_file.exists() else ()))
    if index_file.exists():
        index = _read_index(index_file)
        files = tuple(directory / name for name in sorted(set(index.values())))
        return Layout(files, index, _strays(directory, files))
    if (directory / "adapter_config.json").is_file():
        raise CheckpointError(f"{directory} is an adapter; a whole model is needed here (adapters go to -a)")
    if (directory / "vector.safetensors").is_file():
        raise CheckpointError(f"{directory} is a tuning vector; a whole model is needed here (vectors go to -a)")
    if present:
        names = ", ".join(p.name for p in present[:3])
        raise CheckpointError(
            f"{directory} has {names} but neither {SINGLE} nor {INDEX}; no loader would find them",
            fault="export-incomplete",
        )
    pickles = sorted(p.name for pattern in _PICKLES for p in directory.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{directory} holds pickled weights ({pickles[0]}), which can run code and are never opened; convert them: "
            "load the model with transformers and call save_pretrained"
        )
    raise CheckpointError(f"{directory} holds no *.safetensors; give the directory of a saved model")


def _strays(directory: Path, loaded: Sequence[Path]) -> tuple[Path, ...]:
    found = [p for pattern in _WHOLE_MODELS for p in sorted(directory.glob(pattern)) if p not in loaded]
    return tuple(dict.fromkeys(found))


def _read_index(index_file: Path) -> dict[str, str]:
    weight_map: Any = read_json(index_file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index_file} has no weight_map; save the model again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{index_file} puts {name} in {file!r}, which is not a plain file name; refused")
        if not file.endswith(".safetensors"):
            raise CheckpointError(f"{index_file} puts {name} in {file}, which is no .safetensors file; refused")
        if len(file) > _MAX_FILE_NAME or not (index_file.parent / file).exists():
            raise CheckpointError(
                f"{index_file} names {file}, which is missing: the export is incomplete", fault="export-incomplete"
            )
    return weight_map


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError if it cannot be read or is no object."""
    try:
        value = parse_json(read_text(file))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} must hold a JSON object")
    return value
