"""The keys of an adapter file: which tensor of the base each belongs to, and as what.

Written by PEFT 0.18 to 0.21 (`lora_A.weight`), by older versions and raw state dicts with the adapter's name inside
(`lora_A.default.weight`). The prefix `base_model.model.` is PEFT's own.
"""

import re
from dataclasses import dataclass

from crossmatch.errors import AdapterError

_PREFIX = "base_model.model."
_NAME = r"(?:\.[^.]+)?"
_FORMS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in {
        "a": rf"(?P<module>.+)\.lora_A{_NAME}\.weight",
        "b": rf"(?P<module>.+)\.lora_B{_NAME}\.weight",
        "b_bias": rf"(?P<module>.+)\.lora_B{_NAME}\.bias",
        "embedding_a": rf"(?P<module>.+)\.lora_embedding_A{_NAME}",
        "embedding_b": rf"(?P<module>.+)\.lora_embedding_B{_NAME}",
        "magnitude": rf"(?P<module>.+)\.lora_magnitude_vector{_NAME}(?:\.weight)?",
        "tokens": rf"(?P<module>.+?)(?:\.token_adapter)?\.trainable_tokens_delta{_NAME}",
        "backward": rf"(?P<module>.+)\.lora_velora_embed{_NAME}",
        "superseded": r"(?P<module>.+)\.(?:original_module|trainable_tokens_original)\..+",
        "copy": r"(?P<module>.+)\.modules_to_save(?:\.[^.]+)?\.(?P<leaf>weight|bias)",
        "saved": r"(?P<module>.+?)(?:\.token_adapter)?(?:\.base_layer)*\.(?P<leaf>[^.]+)",
    }.items()
)


@dataclass(frozen=True)
class Key:
    """One key: the module it belongs to, as what, the parameter's name for a saved one, and how deeply it is nested
    (PEFT wraps a module once for each of its targeted parameters)."""

    key: str
    kind: str
    module: str
    leaf: str
    depth: int


def parse_key(key: str) -> Key:
    """What a key says. Raises AdapterError for one that says nothing known."""
    name = key.removeprefix(_PREFIX)
    for kind, pattern in _FORMS:
        match = pattern.fullmatch(name)
        if match is None:
            continue
        module = match["module"]
        depth = len(re.findall(r"\.base_layer(?=\.|$)", module))
        leaf = match.groupdict().get("leaf") or ""
        if kind == "saved" and re.search(r"lora_|ia3_|hada_|lokr_|oft_|vera_|boft_", leaf):
            break
        return Key(key, kind, module.replace(".base_layer", ""), leaf, depth)
    raise AdapterError(f"{key} is no tensor that a LoRA adapter holds; refused rather than dropped")
