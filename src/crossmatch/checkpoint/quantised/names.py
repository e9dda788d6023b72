"""What llama.cpp's converter makes of a Hugging Face checkpoint: names, the order of rows, stacked experts, config."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from crossmatch.checkpoint.quantised.blocks import library
from crossmatch.checkpoint.quantised.header import GgufTensor
from crossmatch.checkpoint.tensor_names import expert_of
from crossmatch.errors import CheckpointError

# Architectures whose tensors are stored as they are, but for the order of rows in q and k where it says True.
_ARCHITECTURES = {
    "llama": True,
    "granite": True,
    "smollm3": True,
    "qwen2": False,
    "qwen2moe": False,
    "qwen3": False,
    "qwen3moe": False,
    "phi3": False,
}
_TURNED = re.compile(r"\.(q|k)_proj\.(weight|bias)$")
# What the converter computes from the config: tables for rotary positions.
DERIVED = re.compile(r"^(rope_freqs|rope_factors_long|rope_factors_short)\.weight$")
_MAX_BLOCKS = 4096
_FIELDS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}


@dataclass(frozen=True)
class Part:
    """What of a GGUF tensor is one tensor of the base: `height` rows from row `first`.

    heads: 0, or into how many heads the rows are divided whose halves the converter has interleaved.
    """

    tensor: GgufTensor
    first: int
    height: int
    heads: int = 0


def find_parts(
    tensors: Mapping[str, GgufTensor], metadata: Mapping[str, Any], names: Mapping[str, tuple[int, ...]]
) -> dict[str, Part]:
    """Name in the base -> the part of a GGUF tensor that it became, for those that the file holds in their shape.

    names: the base's names and shapes. Raises CheckpointError for an architecture whose conversion is not known here.
    """
    gguf = library()
    architecture = metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise CheckpointError(
            f"the architecture {str(architecture)[:40]!r} cannot be verified from GGUF: how its tensors are converted "
            f"is known for {', '.join(_ARCHITECTURES)} only; verify the checkpoint before its conversion"
        )
    blocks = metadata.get(f"{architecture}.block_count")
    if not isinstance(blocks, int) or not 0 < blocks <= _MAX_BLOCKS:
        raise CheckpointError(f"the file says that it has {blocks} layers; export it again")
    known = {label: key for key, label in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        raise CheckpointError(f"the installed gguf library does not know {architecture}: pip install -U gguf")
    table = gguf.get_tensor_name_map(known[architecture], blocks)
    result = {}
    for name, shape in names.items():
        found = _locate(name, shape, table, tensors)
        if found is not None and _ARCHITECTURES[architecture] and (turned := _TURNED.search(name)):
            found = replace(found, heads=_heads(metadata, architecture, turned.group(1), found))
        if found is not None:
            result[name] = found
    return result


def config_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of config.json that the metadata give, by their names there."""
    architecture = metadata.get("general.architecture")
    values = {ours: metadata.get(f"{architecture}.{theirs}") for theirs, ours in _FIELDS.items()}
    return {key: value for key, value in values.items() if isinstance(value, int | float)}


def _locate(name: str, shape: tuple[int, ...], table: Any, tensors: Mapping[str, GgufTensor]) -> Part | None:
    suffixes = (".weight", ".bias")
    tensor = tensors.get(table.get_name(name, try_suffixes=suffixes) or "")
    if tensor is not None:
        fits = [n for n in tensor.shape if n > 1] == [n for n in shape if n > 1]
        return Part(tensor, 0, tensor.elements // tensor.shape[-1]) if fits else None
    expert = expert_of(name)
    if expert is None or len(shape) != 2:
        return None
    head, index, tail = expert
    tensor = tensors.get(table.get_name(head[:-1] + tail, try_suffixes=suffixes) or "")
    if tensor is None or tensor.shape[1:] != tuple(shape) or index >= tensor.shape[0]:
        return None
    return Part(tensor, index * shape[0], shape[0])


def _heads(metadata: Mapping[str, Any], architecture: str, which: str, part: Part) -> int:
    """Number of heads of q or k."""
    heads = metadata.get(f"{architecture}.attention.head_count")
    grouped = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    count = heads if which == "q" else grouped
    # A bias is one row of as many numbers as the weight has rows.
    height = part.height if part.height > 1 else math.prod(part.tensor.shape)
    if not isinstance(count, int) or count < 1 or height % (2 * count):
        raise CheckpointError(f"{part.tensor.name}: {height} rows are not divided among {count} heads")
    return count
