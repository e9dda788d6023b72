"""A tiny random model of every decoder that the installed transformers knows, from its own configuration class."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

VOCABULARY = 100
# Fields of many configurations, in the size of a test. A configuration is given those that it has.
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "head_dim": 12,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 40,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "sliding_window": 8,
    "state_size": 8,
    "conv_kernel": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {
    "hidden_size": 48,
    "embed_dim": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "depth": 2,
    "num_attention_heads": 6,
    "num_heads": 6,
    "image_size": 32,
    "patch_size": 16,
    "out_hidden_size": 48,
}
_LATENT = {"head_dim": 8, "num_key_value_heads": 4}
_LINEAR = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_SECTIONS = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}}
_PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
# What a family needs beside that.
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 8, "attn_layer_indices": [1]},
    "bloom": {"n_head": 4},
    "codegen": {"n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 256, "n_ctx": 256},
    "ctrl": {"dff": 80},
    "dbrx": {
        "d_model": 48,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 256,
        "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0},
    },
    "deepseek_v4": {"layer_types": None},
    "falcon": {"num_kv_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 96, "mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 8, "mamba_n_groups": 1},
    "falcon_mamba": {"num_hidden_layers": 2},
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_bigcode": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neo": {"num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {"n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 256},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 24,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "use_mamba_kernels": False},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 4, "head_dim": 24, "n_groups": 1, "state_size": 8},
    "mpt": {"d_model": 48, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
    "nemotron_h": {
        "mamba_num_heads": 4,
        "mamba_head_dim": 24,
        "ssm_state_size": 8,
        "n_groups": 1,
        "layers_block_type": ["mamba", "attention"],
    },
    "openai-gpt": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 80, "word_embed_proj_dim": 32},
    "phi": {"partial_rotary_factor": 0.5},
    "xglm": {"d_model": 48, "ffn_dim": 80, "num_layers": 2, "attention_heads": 4},
    **dict.fromkeys(
        "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa minicpm3 youtu".split(), _LATENT
    ),
    **dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"), _LINEAR),
    "lfm3": {"num_hidden_layers": 4},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 48, "attention_window_size": 8},
    "stablelm": {"partial_rotary_factor": 0.5, "head_dim": None},
    "zamba2": {
        "num_hidden_layers": 2,
        "layers_block_type": ["mamba", "hybrid"],
        "mamba_d_state": 8,
        "n_mamba_heads": 4,
        "mamba_headdim": 24,
        "mamba_ngroups": 1,
    },
    "zaya": {"num_experts_per_tok": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    "qwen2_vl": {"text_config": _SECTIONS},
    "qwen2_5_vl": {"text_config": _SECTIONS},
    "glm4v": {"text_config": _SECTIONS},
    "gemma4_text": _PER_LAYER,
    "gemma4": {"text_config": _PER_LAYER},
    "qwen3_5": {"text_config": {"num_hidden_layers": 4}},
    "qwen3_5_moe": {"text_config": {"num_hidden_layers": 4}},
}
# Not decoders of text alone: encoders that may be told to be decoders, decoders of encoder-decoder models, drafts.
LEFT_OUT = frozenset(
    "bart bert bert-generation big_bird bigbird_pegasus blenderbot blenderbot-small camembert data2vec-text electra "
    "ernie marian mbart megatron-bert moshi musicgen musicgen_melody mvp pegasus plbart prophetnet rembert roberta "
    "roberta-prelayernorm roc_bert roformer trocr whisper xlm xlm-roberta xlm-roberta-xl xlnet xmod git "
    "gemma4_assistant gemma4_unified_assistant blt reformer".split()
)
MULTIMODAL = (
    "llava llava_next qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe gemma3 gemma3n gemma4 mistral3 paligemma aya_vision "
    "internvl idefics3 smolvlm llama4 glm4v aria ovis2 qwen3_5"
).split()


@dataclass(frozen=True)
class Tiny:
    """One kind of model: its model_type, the class that holds it, and its configuration."""

    kind: str
    auto: Any
    config: Any = field(compare=False)

    def build(self, dtype: torch.dtype = torch.float32) -> Any:
        """The model with random weights: matrices large enough that the logits of different texts differ."""
        torch.manual_seed(0)
        model = self.auto.from_config(self.config, dtype=torch.float32).eval()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim >= 2 and "A_log" not in name and "conv" not in name:
                    parameter.copy_(0.08 * torch.randn(parameter.shape, generator=generator))
        return model.to(dtype)


def kinds() -> list[str]:
    """Every model_type whose model generates text from text, multimodal ones among them."""
    text = [kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if kind not in LEFT_OUT]
    return [*dict.fromkeys([*text, *(k for k in MULTIMODAL if k in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)])]


def tiny(kind: str, **options: Any) -> Tiny:
    """The tiny model of a model_type. Raises what transformers raises for a configuration that it does not take."""
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MULTIMODAL
    auto = AutoModelForCausalLM if causal else AutoModelForImageTextToText
    return Tiny(kind, auto, configured(AutoConfig.for_model(kind).__class__, {**OWN.get(kind, {}), **options}))


def configured(cls: Any, own: dict[str, Any], sizes: dict[str, Any] | None = None) -> Any:
    """A configuration with the small sizes that it has fields for, parts of it alike."""
    default, sizes = cls(), SMALL if sizes is None else sizes
    known = set(inspect.signature(cls.__init__).parameters) | set(vars(default)) | set(cls.attribute_map)
    values = {name: value for name, value in sizes.items() if name in known}
    for name, part in _parts(default):
        inner = dict(own.get(name) or {})
        values[name] = configured(type(part), inner, SMALL if "text" in name else VISION)
    parts = dict(_parts(default))
    return cls(**{**values, **{k: v for k, v in own.items() if k not in parts}})


def _parts(config: Any) -> Iterator[tuple[str, Any]]:
    for name in getattr(config, "sub_configs", {}):
        part = getattr(config, name, None)
        if part is not None:
            yield name, part
