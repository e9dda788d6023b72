"""What a quantised checkpoint is, in words: from its config, or from how its tensors are stored."""

from collections.abc import Mapping
from typing import Any

import torch

from crossmatch.checkpoint.header import TensorInfo

# What quantisers store in place of a weight, where no config says so.
_PACKED = {".qweight": "packed integers, as GPTQ and AWQ store them", ".quant_state.bitsandbytes__nf4": "4-bit nf4"}
_EIGHTS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)


def quantised_as(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> str | None:
    """Bits and method of a quantisation, as in `4-bit gptq`, or None for plain weights."""
    text = config.get("text_config")
    declared = config.get("quantization_config", text.get("quantization_config") if isinstance(text, dict) else None)
    if isinstance(declared, dict):
        return _declared(declared)
    packed = next((what for name in tensors for end, what in _PACKED.items() if name.endswith(end)), None)
    return packed or next((f"{i.dtype}".split(".")[-1] for i in tensors.values() if i.dtype in _EIGHTS), None)


def _declared(block: Mapping[str, Any]) -> str:
    # Files of 2023 name no method: only bitsandbytes could be meant.
    bits = 4 if block.get("load_in_4bit") else 8 if block.get("load_in_8bit") else block.get("bits")
    method = block.get("quant_method") or ("bitsandbytes" if "load_in_8bit" in block else "by no named method")
    return f"{bits}-bit {method}" if isinstance(bits, int) else str(method)
