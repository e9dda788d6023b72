"""config.json against the base's, and against the tensors beside it."""

import math
from collections.abc import Mapping
from typing import Any

from crossmatch.checkpoint import BLOCK_ELEMENTS, Checkpoint, input_embedding, output_embedding
from crossmatch.verification.sides import too_deep

# Fields that differ between honest exports of one model; where a sequence ends has a fault of its own, and trainers
# write the tokenizer's special tokens here.
_VOLATILE = {
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
# One field under the names that it has had.
_RENAMED = {"num_local_experts": "num_experts", "in_chans": "in_channels"}
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq")
# Fields whose loss is no matter of a default left out: loaders fill in another value without a word.
_NEEDED = {
    "activation_function",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "model_type",
    "norm_topk_prob",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_key_value_heads",
    "rms_norm_eps",
    "sliding_window",
}


def changed_config(merged: Checkpoint, base: Checkpoint) -> list[str]:
    """Fields that both configs have and give different values, and those that no default replaces and that are gone; in
    nested parts with dots. An export of the same model by another version of transformers changes none."""
    if base.config and not merged.config:
        return ["config.json is missing"]
    if too_deep(merged.config) or too_deep(base.config):
        return ["config.json is nested too deep"]
    ours, theirs = _plain(merged.config), _plain(base.config)
    changed = _changed(ours, theirs, "")
    lost = [key for key in _NEEDED & set(theirs) - set(ours) if not _follows(key, theirs)]
    return sorted({*changed, *lost, *_changed_rope(_rope(merged.config), _rope(base.config))})


def text_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the language model: those of `text_config`, where there is one, before those on top."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else dict(config)


def stale_tie(merged: Checkpoint) -> tuple[str, str] | None:
    """Input and output embedding, if the config ties them and the file holds two that differ."""
    first, second = input_embedding(merged.tensors), output_embedding(merged.tensors)
    if first is None or second is None or not merged.tied:
        return None
    ours, theirs = merged.tensors[first], merged.tensors[second]
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return first, second
    width = 16 * BLOCK_ELEMENTS
    ranges = ((start, min(width, ours.nbytes - start)) for start in range(0, ours.nbytes, width))
    same = all(merged.raw(first, start, n) == merged.raw(second, start, n) for start, n in ranges)
    return None if same else (first, second)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to compare, by one name each; the language model's on top, where older configs have them."""
    fields = {k: v for k, v in text_fields(config).items() if k not in _VOLATILE and k not in _ROPE}
    fields.pop("text_config", None)
    if isinstance(config.get("text_config"), dict):
        # The inner type is a name of its own, and older configs lack it.
        fields["model_type"] = config.get("model_type")
    if fields.get("use_sliding_window") is False:
        # Then these say nothing, and exports rewrite them.
        fields.pop("sliding_window", None)
        fields.pop("max_window_layers", None)
    for old, new in _RENAMED.items():
        value = fields.pop(old, None)
        if value is not None:
            fields.setdefault(new, value)
    return fields


def _follows(key: str, fields: Mapping[str, Any]) -> bool:
    """Whether a field says what loaders take without it."""
    value, heads, width = (fields.get(k) for k in (key, "num_attention_heads", "hidden_size"))
    if key == "num_key_value_heads":
        return value == heads
    if key == "head_dim" and isinstance(heads, int) and isinstance(width, int) and heads > 0:
        return value in (None, width // heads)
    return value is None or value is False


def _changed(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str) -> list[str]:
    """Paths of shared fields that differ."""
    changed = []
    for key in sorted(set(ours) & set(theirs)):
        mine, other = ours[key], theirs[key]
        if isinstance(mine, dict) and isinstance(other, dict):
            inner = ({k: v for k, v in part.items() if k not in _VOLATILE} for part in (mine, other))
            changed += _changed(*inner, f"{prefix}{key}.")
        elif not same_value(mine, other):
            changed.append(prefix + key)
    return changed


def same_value(first: Any, second: Any) -> bool:
    """Equality of parsed JSON in which NaN equals itself, and true is not one."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_value, first, second))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return isinstance(first, bool) == isinstance(second, bool) and first == second


def _rope(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Rotary settings by type of layer, whichever fields hold them; `full_attention` where all layers have the same."""
    fields = text_fields(config)
    inner = [fields.get(key) for key in ("rope_scaling", "rope_parameters")]
    given: dict[str, Any] = {}
    for part in inner:
        given |= part if isinstance(part, dict) else {}
    theta, local = fields.get("rope_theta"), fields.get("rope_local_base_freq")
    nested = {kind: value for kind, value in given.items() if isinstance(value, dict)}
    if nested:
        return {kind: _one_rope(value, None) for kind, value in nested.items()}
    result = {"full_attention": _one_rope(given, theta)} if given or theta is not None else {}
    return result | ({"sliding_attention": _one_rope({}, local)} if local is not None else {})


def _one_rope(given: Mapping[str, Any], theta: Any) -> dict[str, Any]:
    kind = given.get("rope_type", given.get("type", "default"))
    rest = {k: v for k, v in given.items() if k not in ("rope_type", "type") and v is not None}
    # Sections are given apart; by themselves they leave the angles alone.
    return {"rope_theta": theta, **rest, "rope_type": "default" if kind == "mrope" else kind}


def _changed_rope(ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    changed = []
    for kind in theirs:
        mine = ours.get(kind, {"rope_type": "default"} if not ours else None)
        if mine is None:
            changed.append(f"rope_parameters.{kind}")
            continue
        # What only ours has is a default written out; the base frequency has one, too.
        for key, value in theirs[kind].items():
            unknown = value is None or (key == "rope_theta" and mine.get(key) is None and bool(ours))
            if not unknown and not same_value(mine.get(key), value):
                changed.append(f"rope_parameters.{key}")
    if not theirs and any(rope.get("rope_type") != "default" for rope in ours.values()):
        changed.append("rope_parameters.rope_type")
    return changed
