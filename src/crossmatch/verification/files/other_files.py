"""Files beside weights, config and tokenizer: the model's own code, processors, and what was left behind or lost."""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import (
    TOKENIZER_FILES,
    Checkpoint,
    Neighbours,
    file_digest,
    neighbours,
    parse_json,
    read_text,
)
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
# Files that some loaders take where they lie.
_TAKEN = ("params.json", "tekken.json", "modules.json", "config_sentence_transformers.json", "chat_template.json")
# Numbers by which a processor turns pictures and sounds into inputs; class names and paths change between versions.
_NAMES_ONLY = re.compile(r"(_type|_class|processor_class|auto_map|name_or_path|transformers_version|chat_template)$")


def look_beside(merged: Checkpoint, base: Checkpoint) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Faults and notes, each with sentences. No file is run or unpickled.

    code-changed: code of the model's own is other than the base's, or was added; processor-changed: a number that both
    processors give is not the same; side-files-missing, side-files-differ, processor-fields-differ, remote-code,
    other-weights-beside: notes.
    """
    try:
        ours, theirs = (neighbours(c.path, frozenset(f.name for f in c.layout.files)) for c in (merged, base))
    except CheckpointError as error:
        return {"code-changed": [f"the directory cannot be looked through: {error}"]}, {}
    processors = [_processor(side.files) for side in (ours, theirs)]
    maps = [_processor_map(side.files) for side in (ours, theirs)]
    code = [*_changed_code(ours, theirs), *_changed_map(merged.config, base.config), *_changed_map(*maps)]
    faults = {"code-changed": code, "processor-changed": _changed_processors(*processors)}
    gone = [n for n in theirs.files if n not in ours.files and not any(fnmatch(n, p) for p in _NO_MATTER)]
    if any(name in ours.files for name in _PROCESSORS):
        # Versions of transformers write them into one file, or apart.
        gone = [name for name in gone if name not in _PROCESSORS]
    notes = {"side-files-missing": gone, "side-files-differ": _other_files(ours, theirs)}
    notes["processor-fields-differ"] = _other_fields(*processors)
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


def _other_files(ours: Neighbours, theirs: Neighbours) -> list[str]:
    """JSON files that hold something else than the base's, and such that loaders take and the base lacks. Those that
    have a check of their own are left out; chat_template.json is a processor's, which looks there first."""
    own = [name for name in ours.files if name in _TAKEN or not any(fnmatch(name, p) for p in _NO_MATTER)]
    own = [name for name in own if name.endswith(".json") and name not in _PROCESSORS]
    both = [name for name in own if name in theirs.files]
    found = [name for name in both if _content(ours.files[name]) != _content(theirs.files[name])]
    return [*found, *(f"{name} (the base has none)" for name in own if name in _TAKEN and name not in theirs.files)]


def _content(file: Path) -> Any:
    """A file as JSON; its digest where it is none that may be read."""
    try:
        return parse_json(read_text(file))
    except (CheckpointError, ValueError, RecursionError):
        return file_digest(file)


def _other_fields(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Fields that one processor alone has, and classes that are others; nothing where one side has no processor."""
    if not mine or not other:
        return []
    alone = [f"{name} is {mine[name]}, the base names none" for name in sorted(mine.keys() - other.keys())]
    alone += [f"{name}, {other[name]} in the base, is not named" for name in sorted(other.keys() - mine.keys())]
    classes = [name for name in sorted(mine.keys() & other.keys()) if re.search(r"(_type|_class)$", name)]
    return [*(f"{n} is {mine[n]}, in the base {other[n]}" for n in classes if mine[n] != other[n]), *alone]


def _processor_map(files: Mapping[str, Path]) -> dict[str, Any]:
    """`auto_map` of all processor files, as a config has it."""
    found: dict[str, Any] = {}
    for name in _PROCESSORS:
        whole = _content(files[name]) if name in files else None
        inner = whole.get("auto_map") if isinstance(whole, dict) else None
        found |= inner if isinstance(inner, dict) else {}
    return {"auto_map": found}


def _changed_processors(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
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
            config = _content(files[name])
            if not isinstance(config, dict):
                continue
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
