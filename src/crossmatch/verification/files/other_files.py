"""Files beside weights, config and tokenizer: the model's own code, processors, and what was left behind or lost."""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import TOKENIZER_FILES, Checkpoint, Neighbours, file_digest, neighbours, read_json
from crossmatch.errors import CheckpointError
from crossmatch.verification.files.config_names import same_value

_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
# Files without which the model computes the same; those with a check of their own.
_NO_MATTER = (
    *("*.md", "*.txt", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg"),
    *("*.pdf", "*.webp", "*.mp4", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"),
    *("*.log", "*.jsonl", "*.csv", "*.yaml", "*.yml", "*.sig", "config.json", "generation_config.json"),
    *("additional_chat_templates/*", "chat_template.*", "params.json", *TOKENIZER_FILES),
)
# Numbers by which a processor turns pictures and sounds into inputs; class names and paths change between versions.
_NAMES_ONLY = re.compile(r"(_type|_class|processor_class|auto_map|name_or_path|transformers_version|chat_template)$")


def look_beside(merged: Checkpoint, base: Checkpoint) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Faults and notes, each with sentences. No file is run or unpickled.

    code-changed: code of the model's own is other than the base's, or was added; processor-changed: a number that both
    processors give is not the same; side-files-missing, remote-code, other-weights-beside: notes.
    """
    try:
        ours, theirs = (neighbours(c.path, frozenset(f.name for f in c.layout.files)) for c in (merged, base))
    except CheckpointError as error:
        return {"code-changed": [f"the directory cannot be looked through: {error}"]}, {}
    code = [*_changed_code(ours, theirs), *_changed_map(merged.config, base.config)]
    faults = {"code-changed": code, "processor-changed": _changed_processors(ours, theirs)}
    gone = [n for n in theirs.files if n not in ours.files and not any(fnmatch(n, p) for p in _NO_MATTER)]
    if any(name in ours.files for name in _PROCESSORS):
        # Versions of transformers write them into one file, or apart.
        gone = [name for name in gone if name not in _PROCESSORS]
    notes = {"side-files-missing": gone}
    if _code_map(merged.config) or any(name.endswith(".py") for name in ours.files):
        named = sorted({*_code_map(merged.config).values(), *(n for n in ours.files if n.endswith(".py"))})
        notes["remote-code"] = named
    notes["other-weights-beside"] = list(ours.nested)
    return {k: v for k, v in faults.items() if v}, {k: v for k, v in notes.items() if v}


def _changed_code(ours: Neighbours, theirs: Neighbours) -> Iterator[str]:
    for name in sorted(name for name in ours.files if name.endswith(".py")):
        if name not in theirs.files:
            yield f"{name} is not the base's"
        elif file_digest(ours.files[name]) != file_digest(theirs.files[name]):
            yield f"{name} differs from the base's"


def _code_map(config: Mapping[str, Any]) -> dict[str, str]:
    """What `auto_map` names: class of the library -> module and class, or repository--module and class."""
    found = config.get("auto_map")
    if not isinstance(found, dict):
        return {}
    return {str(key): value for key, value in found.items() if isinstance(value, str)}


def _changed_map(merged: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[str]:
    theirs = _code_map(base)
    for key, value in sorted(_code_map(merged).items()):
        # A copy names the repository in front.
        if theirs.get(key, "").rpartition("--")[2] != value.rpartition("--")[2]:
            yield f"auto_map.{key} is {value[:80]}, in the base {theirs.get(key, 'nothing')[:80]}"


def _changed_processors(ours: Neighbours, theirs: Neighbours) -> list[str]:
    mine, other = _processor(ours.files), _processor(theirs.files)
    return [
        f"{name} is {mine[name]}, in the base {other[name]}"
        for name in sorted(mine.keys() & other.keys())
        if not _NAMES_ONLY.search(name) and not same_value(mine[name], other[name])
    ]


def _processor(files: Mapping[str, Path]) -> dict[str, Any]:
    """Fields of all processors, whichever file holds them: leaf -> value."""
    found: dict[str, Any] = {}
    for name in _PROCESSORS:
        if name in files:
            kind = "video_processor" if name.startswith("video") else "image_processor"
            config = read_json(files[name])
            inner = {k: v for k, v in config.items() if k.endswith("_processor") or k == "feature_extractor"}
            rest = {key: value for key, value in config.items() if key not in inner}
            parts = {**{k: v for k, v in inner.items() if isinstance(v, dict)}}
            if name != "processor_config.json":
                parts = {"feature_extractor" if "sampling_rate" in rest else kind: rest}
            for part, fields in parts.items():
                found |= dict(_leaves(fields, part))
    return found


def _leaves(fields: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}.{key}")
        elif value is not None:
            yield f"{prefix}.{key}", value
