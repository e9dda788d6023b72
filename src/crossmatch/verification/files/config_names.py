"""What a config.json says where transformers cannot be asked: known names of a field, rotary settings in both forms."""

import math
from collections.abc import Mapping
from typing import Any

# Names that one field has had, the present one first; of several in one config the first holds.
_NAMES = (
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"),
    ("hidden_size", "n_embd", "d_model"),
    ("num_attention_heads", "n_head", "n_heads"),
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    ("max_position_embeddings", "n_positions", "max_seq_len"),
    ("layer_types", "layers_block_type"),
    ("rms_norm_eps", "norm_eps"),
    ("layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon"),
    ("hidden_act", "activation_function"),
    ("in_channels", "in_chans"),
    ("image_token_id", "image_token_index"),
    ("video_token_id", "video_token_index"),
)
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq")
# Fields whose loss is no matter of a default left out: loaders fill in another value without a word.
_NEEDED = {
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "layer_norm_eps",
    "model_type",
    "norm_topk_prob",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_key_value_heads",
    "rms_norm_eps",
    "sliding_window",
}


def text_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the language model: those of `text_config`, where there is one, before those on top."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else dict(config)


def same_value(first: Any, second: Any) -> bool:
    """Equality of parsed JSON in which NaN equals itself, and true is not one."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_value, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same_value(value, second[key]) for key, value in first.items())
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return isinstance(first, bool) == isinstance(second, bool) and first == second


def read_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by one name each, those of the language model on top, rotary settings as `rope_parameters`."""
    fields = {key: value for key, value in text_fields(config).items() if key not in _ROPE and key != "text_config"}
    if isinstance(config.get("text_config"), dict):
        # The inner type is a name of its own, and older configs lack it.
        fields["model_type"] = config.get("model_type")
    rope = _rope(text_fields(config))
    return _renamed(fields) | ({"rope_parameters": rope} if rope else {})


def _renamed(fields: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in fields.items() if value is not None}
    result = {key: _renamed(value) if isinstance(value, dict) else value for key, value in given.items()}
    for present, *older in _NAMES:
        for name in older:
            # One that contradicts the present name stays, to be seen.
            if name in result and same_value(result.get(present, result[name]), result[name]):
                result[present] = result.pop(name)
    return result


def written_as(name: str, config: Mapping[str, Any]) -> str:
    """The name under which a config gives a field, if it is one of its known names; else the name itself."""
    fields = text_fields(config)
    group = next((group for group in _NAMES if name in group), ())
    return name if name in fields else next((other for other in group if other in fields), name)


def needed_and_lost(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """Fields that only the second config has, and that no default of its class can be trusted to replace."""
    return {key for key in _NEEDED & set(theirs) if ours.get(key) is None and not _follows(key, theirs)}


def _follows(key: str, fields: Mapping[str, Any]) -> bool:
    """Whether a field says what loaders take without it."""
    value, heads, width = (fields.get(k) for k in (key, "num_attention_heads", "hidden_size"))
    if key == "num_key_value_heads":
        return value == heads
    if key == "head_dim" and isinstance(heads, int) and isinstance(width, int) and heads > 0:
        return value in (None, width // heads)
    return value is None or value is False


def _rope(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings, by type of layer where these differ; `rope_scaling` holds before `rope_parameters`, as in
    transformers."""
    given = next((v for key in ("rope_scaling", "rope_parameters") if isinstance(v := fields.get(key), dict) and v), {})
    inner = fields.get("rope_parameters")
    theta, local = fields.get("rope_theta"), fields.get("rope_local_base_freq")
    if theta is None and isinstance(inner, dict):
        theta = inner.get("rope_theta")
    nested = {kind: value for kind, value in given.items() if isinstance(value, dict)}
    if nested:
        return {kind: _one_rope(value, theta, fields) for kind, value in nested.items()}
    whole = _one_rope(given, theta, fields)
    if local is None:
        return whole if given or theta is not None else {}
    return {"full_attention": whole, "sliding_attention": {"rope_type": "default", "rope_theta": local}}


def _one_rope(given: Mapping[str, Any], theta: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    kind = given.get("rope_type", given.get("type", "default"))
    rest = {key: value for key, value in given.items() if key not in ("rope_type", "type") and value is not None}
    defaults: dict[str, Any] = {"rope_theta": theta} if theta is not None else {}
    if kind == "yarn":
        defaults |= {"beta_fast": 32, "beta_slow": 1}
    if kind in ("yarn", "llama3", "longrope") and fields.get("max_position_embeddings") is not None:
        defaults["original_max_position_embeddings"] = fields["max_position_embeddings"]
    return {**defaults, **rest, "rope_type": kind}
