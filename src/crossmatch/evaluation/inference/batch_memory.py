"""How many prompts go through a model at a time: what a memory budget holds, from the model's shapes.

No answer depends on it, up to the last digits of the arithmetic.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossmatch.errors import InputError
from crossmatch.positions import number_in
from crossmatch.runtime import free_memory

if TYPE_CHECKING:
    import torch

# Prompts at a time at most, unless a call says otherwise: beyond it a step on CPU gains nothing.
ROWS = 256
# Of what is free, a part is taken; of that, the largest power of two: a little more or less that is free changes
# nothing.
_SHARE = 0.25
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmg]i?b)$")
_LEAST, _UNKNOWN = 1 << 26, 1 << 30
# Tokens at a time at most: on CPU, what is padding costs as much as what is not, and larger batches gain nothing.
_TOKENS = {"cpu": 512}
_MANY = 8192
# Numbers held per token while a layer computes, in units of the hidden and of the intermediate width.
_HIDDEN, _INTERMEDIATE = 8, 3
# Numbers held per logit: the logits, their float32 copy and one more while they are normalised.
_LOGIT_BYTES = 12


@dataclass(frozen=True)
class Memory:
    """A budget in bytes for everything that grows with the batch: keys and values, activations, logits."""

    nbytes: int

    @classmethod
    def of(cls, device: "torch.device", asked: int | None = None) -> "Memory":
        """What was asked for, else a quarter of what is free on the device."""
        if asked is not None:
            return cls(asked)
        free = _free_on(device) if device.type == "cuda" else free_memory()
        wanted = max(_LEAST, int(free * _SHARE)) if free is not None else _UNKNOWN
        return cls(1 << (wanted.bit_length() - 1))

    def rows(self, model: Any, width: int, before: int = 0) -> int:
        """How many rows of `width` tokens go through the model at a time behind `before` cached ones: what fits, and no
        more tokens than gain speed; at least 1."""
        most = _TOKENS.get(model.device.type, _MANY) // max(1, width)
        return max(1, min(most, self.fit(model, width, before)))

    def fit(self, model: Any, width: int, before: int = 0) -> int:
        """How many such rows fit in half of the budget: the other half is for logits; at least 1."""
        each = width * token_bytes(model) + before * cached_bytes(model)
        return max(1, self.nbytes // 2 // max(1, each))

    def positions(self, model: Any) -> int:
        """How many positions may be turned into logits at a time, in the other half of the budget; at least 1."""
        vocabulary = model.config.get_text_config(decoder=True).vocab_size
        return max(1, self.nbytes // 2 // (vocabulary * _LOGIT_BYTES))

    def places(self, model: Any, width: int) -> int:
        """How many rows of `width` tokens may keep keys and values in a pool; at least 1."""
        return max(1, self.nbytes // 2 // (cached_bytes(model) * max(1, width)))


def parse_memory(text: str | None) -> int | None:
    """Bytes of a budget such as 512MB, 4GB or 4GiB; None of None. Raises InputError, also for less than 64 MiB."""
    if text is None:
        return None
    match = _SIZE.match(text.strip().lower())
    if match is None:
        raise InputError(f"memory {text}: write it as 512MB or 4GB")
    step = 1024 if match[2].endswith("ib") else 1000
    nbytes = int(float(match[1]) * step ** ("kmg".index(match[2][0]) + 1))
    if nbytes < _LEAST:
        raise InputError(f"memory {text} is too little; give at least {_LEAST >> 20}MiB")
    return nbytes


def _free_on(device: "torch.device") -> int:
    import torch

    return torch.cuda.mem_get_info(device)[0]


def cached_bytes(model: Any) -> int:
    """Bytes of keys and values for one token; of a model without attention heads, as if its states were such."""
    config = model.config.get_text_config(decoder=True)
    hidden, queries = number_in(config, "hidden_size"), number_in(config, "num_attention_heads")
    heads = number_in(config, "num_key_value_heads") or queries
    width = number_in(config, "head_dim") or (hidden // queries if queries else 0)
    return 2 * (number_in(config, "num_hidden_layers") or 1) * (heads * width or hidden or 1) * model.dtype.itemsize


def token_bytes(model: Any) -> int:
    """Bytes for one token on its way through the model: its keys and values, and what one layer holds beside them."""
    config = model.config.get_text_config(decoder=True)
    hidden = number_in(config, "hidden_size")
    inner = number_in(config, "intermediate_size") or 4 * hidden
    held = (_HIDDEN * hidden + _INTERMEDIATE * inner) * model.dtype.itemsize
    return cached_bytes(model) + held
