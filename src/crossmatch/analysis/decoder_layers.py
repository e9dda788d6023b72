"""Where a decoder's layers are, and whether two configs compute the same."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from crossmatch.causal import text_decoder
from crossmatch.checkpoint import Checkpoint
from crossmatch.errors import InputError


def decoder_layers(model: Any) -> Sequence[nn.Module]:
    """The text decoder's layers: its first list of modules as long as the config says. Raises InputError for none."""
    count = model.config.get_text_config().num_hidden_layers
    for module in text_decoder(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise InputError(f"{type(model).__name__} holds no list of {count} layers; its residual stream cannot be read")


def hidden_of(output: Any) -> Tensor:
    """The hidden state among what a layer returns, (rows, length, d)."""
    return output if isinstance(output, Tensor) else output[0]


# Fields of a config that change nothing of what a forward pass computes.
_IDLE = (
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "dtype",
    "initializer_range",
    "pretraining_tp",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)


def check_configs(base: Checkpoint, other: Checkpoint) -> None:
    """Raise InputError if the configs of two checkpoints differ in what a forward pass computes."""
    for key in sorted({*base.config, *other.config}):
        idle = key in _IDLE or key.endswith("_token_id")
        if not idle and base.config.get(key) != other.config.get(key):
            values = f"{base.config.get(key)!r} in {base.path}, {other.config.get(key)!r} in {other.path}"
            raise InputError(f"config.json, {key}: {values}; such models' activations do not compare")
