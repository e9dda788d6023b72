"""The small files of a checkpoint: config, tokenizer, chat template, generation config."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import MANIFEST, TOKENIZER_FILES, Checkpoint, chat_template, read_json, write_json
from crossmatch.delta import TuningVector
from crossmatch.errors import AdapterError

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".npz")
# The base's card would describe another model; an adapter's files would be attached again at load.
_LEFT_BEHIND = (MANIFEST, "README.md", "adapter_config.json", "training_args.bin")


@dataclass(frozen=True)
class SideFiles:
    """Files to copy, by output name, and whose tokenizer and template they are: `base` or an adapter's name."""

    files: Mapping[str, Path]
    tokenizer_from: str


def side_files(base: Checkpoint, parts: Mapping[str, tuple[TuningVector, float]], wanted: str | None) -> SideFiles:
    """Choose the small files: all of the base's, with tokenizer and template from `wanted` if it is given.

    By default the tokenizer is the base's, unless an adapter was trained with another chat template: then that
    adapter's. Raises AdapterError if two adapters were trained with two other templates and nothing was chosen, or if
    the chosen one carries no tokenizer.
    """
    files = {p.name: p for p in sorted(base.path.iterdir()) if p.is_file() and _travels(p.name)}
    own = chat_template(base.path)
    adapters = {name: v.path for name, (v, _) in parts.items() if isinstance(v, Adapter)}
    templates = {name: chat_template(path) for name, path in adapters.items()}
    if wanted is None:
        others = {name: text for name, text in templates.items() if text is not None and text != own}
        if len(set(others.values())) > 1:
            raise AdapterError(
                f"adapters {', '.join(others)} were trained with different chat templates; "
                "choose one with --tokenizer NAME (or base)"
            )
        wanted = next(iter(others), "base")
    if wanted == "base":
        return SideFiles(files, "base")
    if wanted not in adapters:
        raise AdapterError(f"--tokenizer {wanted}: give base or one of {', '.join(adapters)}")
    theirs = {name: adapters[wanted] / name for name in TOKENIZER_FILES if (adapters[wanted] / name).exists()}
    if not theirs:
        raise AdapterError(f"adapter {wanted} carries no tokenizer; choose --tokenizer base")
    kept = {name: path for name, path in files.items() if name not in TOKENIZER_FILES}
    return SideFiles(kept | theirs, wanted)


def copy_side_files(chosen: SideFiles, out: Path, dtype: str | None) -> None:
    """Copy the files; config.json is rewritten only where its dtype would no longer be true."""
    for name, source in chosen.files.items():
        shutil.copyfile(source, out / name)
    config_file = out / "config.json"
    if dtype is None or not config_file.exists():
        return
    config = read_json(config_file)
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
    write_json(config_file, config | dict.fromkeys(keys, dtype))


def _travels(name: str) -> bool:
    indexes = name.endswith(".index.json")
    return not (name.startswith(".") or name.endswith(_WEIGHT_SUFFIXES) or indexes or name in _LEFT_BEHIND)
