"""Writes what the installed transformers says of tensor names, class by class: `python tests/naming_table.py`.

The tool reads the written file, so that nothing that works on files alone has to load transformers.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, get_model_conversion_mapping
from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter, WeightTransform
from transformers.models.auto import modeling_auto

FILE = Path(__file__).parents[1] / "src" / "crossmatch" / "checkpoint" / "naming.json"
# Whole models first: the first class that knows all names is taken.
_KINDS = (
    "MODEL_FOR_CAUSAL_LM",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT",
    "MODEL_FOR_MULTIMODAL_LM",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ",
    "MODEL_FOR_MASKED_LM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION",
    "MODEL_FOR_TOKEN_CLASSIFICATION",
    "MODEL_FOR_QUESTION_ANSWERING",
    "MODEL",
)
# Whatever else than text a model without any of these reads, no adapter of this tool lies on it.
_TEXT = _KINDS[:-1]
# Layers do not matter to names; a class is built with two of each stack.
_COUNTS = (
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
    "depth",
)


def classes() -> dict[str, list[str]]:
    """Names of the classes of every model type, whole models first."""
    found: dict[str, list[str]] = {}
    for kind in _KINDS:
        for model_type, names in getattr(modeling_auto, f"{kind}_MAPPING_NAMES", {}).items():
            known = found.setdefault(model_type, [])
            known += [n for n in ([names] if isinstance(names, str) else names) if n not in known]
    read = {t for kind in _TEXT for t in getattr(modeling_auto, f"{kind}_MAPPING_NAMES", {})}
    return {t: names for t, names in found.items() if t in read or t.removesuffix("_text") in read}


def build(name: str, model_type: str) -> PreTrainedModel:
    """A model of a class, without memory for its weights. Raises whatever the class does, if it cannot be built."""
    cls = getattr(transformers, name)
    config = (cls.config_class or AutoConfig.for_model(model_type).__class__)()
    for part in (config, *_parts(config)):
        shrink(part)
    with torch.device("meta"):
        return cls(config)


def _parts(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            yield value
            yield from _parts(value)


def shrink(config: PreTrainedConfig) -> None:
    """Two layers where there are more, unless another field says something of each layer."""
    if any(isinstance(v, list) and len(v) > 2 for k, v in vars(config).items() if "layer" in k or "depth" in k):
        return
    for key in _COUNTS:
        if isinstance(getattr(config, key, None), int) and getattr(config, key) > 2:
            try:
                setattr(config, key, 2)
            except (AttributeError, NotImplementedError, ValueError):
                continue


def facts(model: PreTrainedModel) -> dict[str, Any]:
    """What is said of a class: prefix of its base model, renamings, names that it ignores and ties, its first parts."""
    names = [*dict(model.named_parameters(remove_duplicate=False)), *dict(model.named_buffers())]
    found = described(type(model), get_model_conversion_mapping(model, add_legacy=False) or [])
    found["ignored"] = sorted(model._keys_to_ignore_on_load_unexpected or ())
    if any("original_inv_freq" in n or n.endswith("rotary_emb.inv_freq") for n in names):
        found["ignored"] = sorted({*found["ignored"], r"rotary_emb\.inv_freq"})
    found["ignored"] = sorted({*found["ignored"], *unsaved(model)})
    found["parts"] = sorted({".".join(n.split(".")[:2]) for n in names})
    return found


def unsaved(model: PreTrainedModel) -> Iterator[str]:
    """Patterns of the buffers that a model makes by itself and that older versions stored."""
    for name, module in model.named_modules():
        for leaf in module._non_persistent_buffers_set:
            yield "^" + re.sub(r"\d+", r"\\d+", re.escape(f"{name}.{leaf}" if name else leaf)) + "$"


def described(cls: type[PreTrainedModel], transforms: list[WeightTransform]) -> dict[str, Any]:
    """The same of a class without a model of it: not what its parts add, nor what these are."""
    tied, ignored = getattr(cls, "_tied_weights_keys", None), cls._keys_to_ignore_on_load_unexpected
    return {
        "prefix": cls.base_model_prefix,
        "renames": [rename(t) for t in transforms if not isinstance(t, WeightConverter)],
        "experts": [e for t in transforms if isinstance(t, WeightConverter) for e in experts(t)],
        "ignored": sorted(ignored) if isinstance(ignored, list | set) else [],
        "tied": dict(tied) if isinstance(tied, dict) else {},
    }


def rename(transform: WeightTransform) -> list[Any]:
    """A renaming: its compiled pattern, what takes the place of each named group, the prefix to which it is limited,
    how the groups depend on the first one, and what is added to a number."""
    group = type(transform).__name__ == "GroupWeightRename"
    targets = transform.target_patterns if group else transform.target_patterns[:1]
    scope = transform.scope_prefix
    return [transform.compiled_sources.pattern, list(targets), scope, group, getattr(transform, "offset", 0)]


def experts(transform: WeightConverter) -> Iterator[list[Any]]:
    """What experts that are kept apart are called, of which the model makes one parameter: its name, theirs in order."""
    operations = [type(op) for op in transform.operations]
    if MergeModulelist in operations and set(operations) <= {MergeModulelist, Concatenate}:
        leaf = transform.target_patterns[0].rpartition(".")[2]
        yield [leaf, [p.removesuffix(".weight").rpartition(".")[2] for p in transform.source_patterns]]


def of_class(name: str, model_type: str) -> dict[str, Any]:
    """What is said of a class; of one that its default config, or a missing library, keeps from being built, less."""
    try:
        return facts(build(name, model_type))
    except Exception as error:  # whatever a class of somebody else raises
        print(f"{name} is not built: {type(error).__name__}", file=sys.stderr)
        # Not one that needs a library even to be named.
        cls = vars(transformers).get(name) or getattr(transformers, name)
        transforms = get_checkpoint_conversion_mapping(name) or get_checkpoint_conversion_mapping(model_type) or []
        return described(cls, transforms)


def tables(only: set[str] | None = None) -> dict[str, Any]:
    """All of it; only: of some classes."""
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    types, found = classes(), {}
    for model_type, names in types.items():
        for name in names:
            if name not in found and (only is None or name in only) and hasattr(transformers, name):
                found[name] = {key: value for key, value in of_class(name, model_type).items() if value}
    kept = {t: [n for n in names if n in found] for t, names in types.items()}
    return {
        "transformers": transformers.__version__,
        "legacy": [rename(t) for t in get_checkpoint_conversion_mapping("legacy") or []],
        "types": {t: names for t, names in kept.items() if names},
        "ties": sorted(t for t, names in kept.items() if names and ties(t)),
        "classes": found,
    }


def ties(model_type: str) -> bool:
    """Whether a config of a type ties the embeddings, unless it says otherwise."""
    try:
        config = AutoConfig.for_model(model_type).get_text_config()
    except Exception:  # whatever a class of somebody else raises
        return False
    return bool(getattr(config, "tie_word_embeddings", False))


def text_of(found: dict[str, Any]) -> str:
    """The file: JSON, one line for each class."""
    lines = [f'"{key}": {json.dumps(found[key])}' for key in ("transformers", "legacy", "ties")]
    for key in ("types", "classes"):
        inner = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(found[key].items()))
        lines.append(f'"{key}": {{\n{inner}\n}}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text_of(tables()))
