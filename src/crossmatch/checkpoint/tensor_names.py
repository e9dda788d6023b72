"""What the name of a tensor says: its layer, its module, whether it is one of the two embeddings."""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"\.(\d{1,9})\.")
_INPUT = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in)\.weight$")
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")
_EXPERT = re.compile(r"\.experts\.(\d{1,4})\.")
# Classes that call the one so call the other so; all else has an lm_head.
_PAIRS = {"embed_in": "embed_out", "tok_embeddings": "output"}


def is_output(name: str) -> bool:
    """Whether a tensor is an output embedding; one inside a layer is that of no whole model."""
    return _OUTPUT.search(name) is not None and layer_of(name) is None


def input_embedding(names: Iterable[str]) -> str | None:
    """The input embedding among a checkpoint's tensors, as far as it goes by a known name: the one that lies least
    deep."""
    found = (name for name in names if _INPUT.search(name) and layer_of(name) is None)
    return min(found, key=lambda name: (name.count("."), name), default=None)


def output_embedding(names: Iterable[str]) -> str | None:
    """The output embedding among a checkpoint's tensors, or None if none is stored."""
    return next(filter(is_output, names), None)


def untied_output(entrance: str) -> str:
    """What the output embedding will be called beside that input embedding, where none is stored yet."""
    return f"{_PAIRS.get(module_type_of(entrance), 'lm_head')}.weight"


def expert_of(name: str) -> tuple[str, int, str] | None:
    """What stands before an expert's number, the number, and what stands behind it; None outside of experts."""
    match = _EXPERT.search(name)
    return (name[: match.start(1)], int(match.group(1)), name[match.end(1) :]) if match else None


def layer_of(name: str) -> int | None:
    """Index of the layer that a tensor name belongs to, or None outside the stack."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None


def module_type_of(name: str) -> str:
    """Last part of the module's name, as in `q_proj` for `model.layers.0.self_attn.q_proj.weight`."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 else name
