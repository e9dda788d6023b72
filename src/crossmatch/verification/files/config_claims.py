"""What config.json declares of the weights beside it: a quantisation, a dtype, a class. Is it true of the tensors?"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from crossmatch.checkpoint import Checkpoint
from crossmatch.checkpoint.quantisation import quantised_as
from crossmatch.verification.files.config_names import text_fields

_BLOCKS = ("quantization_config", "compression_config", "quantization")
# Where quantisers leave their settings; servers read some of them.
_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json")


def stale_quantisation(merged: Checkpoint) -> dict[str, str]:
    """Field of config.json -> sentence, for every quantisation that it declares although the tensors are plain.

    Loaders quantise such weights once more, or refuse them.
    """
    if quantised_as({}, merged.tensors) is not None:
        return {}
    stored = ", ".join(sorted({_name(info.dtype) for info in merged.tensors.values()}))
    inner = merged.config.get("text_config")
    parts = {"": merged.config, "text_config.": inner if isinstance(inner, dict) else {}}
    return {
        prefix + key: f"{prefix}{key} declares {_method(part[key])}, and the tensors are plain {stored}"
        for prefix, part in parts.items()
        for key in _BLOCKS
        if isinstance(part.get(key), dict) and part[key]
    }


def remarks(merged: Checkpoint, base: Checkpoint) -> dict[str, str]:
    """Note -> what was seen: declarations that loaders follow and that are no fault by themselves."""
    found = {}
    names = [name for name in _FILES if (merged.path / name).is_file()]
    if names and quantised_as({}, merged.tensors) is None:
        found["quantisation-file"] = ", ".join(names)
    ours, theirs = (_classes(checkpoint.config) for checkpoint in (merged, base))
    if ours != theirs and theirs:
        found["architectures-differ"] = f"{', '.join(ours) or 'none'}, in the base {', '.join(theirs)}"
    pair = _declared_dtypes(merged)
    if pair is not None and pair != _declared_dtypes(base):
        found["dtype-declared"] = f"{pair[0]} is declared, {pair[1]} is stored"
    return found


def _method(block: Mapping[str, Any]) -> str:
    return quantised_as({"quantization_config": dict(block)}, {}) or "a quantisation"


def _classes(config: Mapping[str, Any]) -> list[str]:
    value = config.get("architectures")
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _declared_dtypes(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """The dtype that a config declares and the one that most elements have, if these are two."""
    fields = text_fields(checkpoint.config)
    declared = next((v for v in (fields.get("dtype"), fields.get("torch_dtype")) if isinstance(v, str)), None)
    sizes: Counter[str] = Counter()
    for info in checkpoint.tensors.values():
        if info.dtype.is_floating_point:
            sizes[_name(info.dtype)] += info.elements
    if declared is None or not sizes:
        return None
    stored = sizes.most_common(1)[0][0]
    declared = declared.removeprefix("torch.")
    return (declared, stored) if declared != stored else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
