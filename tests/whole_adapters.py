"""Adapters that PEFT makes and an optimiser trains, and the ways in which tools cut them off."""

import json
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

State = dict[str, Tensor]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _llama(layers: int, **options: Any) -> LlamaForCausalLM:
    shape = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4}
    shape |= {"num_hidden_layers": layers, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return LlamaForCausalLM(LlamaConfig(**{**shape, **options}))  # type: ignore[arg-type]


def _moe() -> Any:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=128, hidden_size=32, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=8, num_experts_per_tok=1,
            mlp_only_layers=[0], decoder_sparse_step=1, tie_word_embeddings=False,
        )
    )  # fmt: skip


BASES: dict[str, Callable[[], Any]] = {
    "llama2": lambda: _llama(2),
    "llama1": lambda: _llama(1),
    "llama8": lambda: _llama(8),
    "tied": lambda: _llama(2, tie_word_embeddings=True),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=128, n_positions=64)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            vocab_size=128, hidden_size=64, ffn_dim=128, num_hidden_layers=3, num_attention_heads=4,
            word_embed_proj_dim=64, max_position_embeddings=64,
        )
    ),
    "moe": _moe,
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(
            vocab_size=128, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4, decoder_start_token_id=0,
            tie_word_embeddings=False,
        )
    ),
}  # fmt: skip


def make_base(root: Path, kind: str) -> Path:
    """A saved model of one of the kinds, made once."""
    out = root / kind
    if not out.exists():
        torch.manual_seed(0)
        model = BASES[kind]()
        model.save_pretrained(out)
    return out


def train(base: Path, out: Path, **options: Any) -> Path:
    """`_train` without what PEFT warns of, such as layers that it saves whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _train(base, out, **options)


def _train(
    base: Path,
    out: Path,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    steps: int = 2,
    rate: float = 1e-3,
    optimiser: str = "adamw",
    freeze: str = "",
    **config: Any,
) -> Path:
    """An adapter that an optimiser trained for some steps on random tokens, saved by PEFT.

    dtype: of the model and the factors; freeze: factors whose name contains it get no gradient.
    """
    torch.manual_seed(seed)
    loader: Any = T5ForConditionalGeneration if "t5" in base.name else AutoModelForCausalLM
    model = loader.from_pretrained(base, dtype=torch.float32)
    options: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": LINEAR, **config}
    model = get_peft_model(model, LoraConfig(**options), autocast_adapter_dtype=False).to(dtype)
    for name, parameter in model.named_parameters():
        if freeze and freeze in name:
            parameter.requires_grad_(False)
    learnt = [p for p in model.parameters() if p.requires_grad]
    method: Any = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "adafactor": torch.optim.Adafactor}[optimiser]
    update = method(learnt, lr=rate)
    for _ in range(steps):
        tokens = torch.randint(3, 128, (2, 12))
        model(input_ids=tokens, labels=tokens).loss.backward()
        update.step()
        update.zero_grad()
    model.save_pretrained(out)
    return out


def state(adapter: Path) -> State:
    """The tensors of an adapter."""
    return load_file(adapter / "adapter_model.safetensors")


def rewrite(adapter: Path, change: Callable[[State], State], **fields: Any) -> Path:
    """Change an adapter's tensors, and fields of its config (None: removed)."""
    save_file({k: v.contiguous() for k, v in change(state(adapter)).items()}, adapter / "adapter_model.safetensors")
    file = adapter / "adapter_config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({k: v for k, v in config.items() if fields.get(k, 0) is not None}))
    return adapter


def shard(tensor: Tensor, size: int, kept: Collection[int], axis: int = 0) -> Tensor:
    """Zeros for all but the kept ones of `size` equal shards, as torch.chunk cuts them."""
    parts = list(tensor.chunk(size, axis))
    return torch.cat([part if i in kept else torch.zeros_like(part) for i, part in enumerate(parts)], axis)


def only_rank(size: int, kept: Collection[int]) -> Callable[[State], State]:
    """Every lora_B has the rows of some machines, zeros for the others (axolotl #3772)."""
    return lambda t: {k: shard(v, size, kept) if "lora_B" in k else v for k, v in t.items()}


def tensor_parallel(size: int, kept: Collection[int]) -> Callable[[State], State]:
    """Rows of lora_B where outputs are divided, columns of lora_A where inputs are (Megatron-Bridge #2240)."""

    def one(key: str, tensor: Tensor) -> Tensor:
        """The tensor as one rank has it, filled up with zeros."""
        by_row = any(name in key for name in ("o_proj", "down_proj"))
        if ("lora_A" in key) == by_row:
            return shard(tensor, size, kept, 1 if by_row else 0)
        return tensor

    return lambda t: {k: one(k, v) for k, v in t.items()}


def local_shard(size: int) -> Callable[[State], State]:
    """The rows of the first machine alone, of both factors (accelerate #4206)."""
    return lambda t: {k: v.chunk(size)[0].clone() for k, v in t.items()}


def local_rows(size: int) -> Callable[[State], State]:
    """The rows of the first machine alone, of lora_B."""
    return lambda t: {k: v.chunk(size)[0].clone() if "lora_B" in k else v for k, v in t.items()}


def flat(t: State) -> State:
    """What DeepSpeed's ZeRO-3 and FSDP leave of a parameter on one machine: one axis, or nothing."""
    return {k: v.flatten()[: v.numel() // 2] for k, v in t.items()}


def without_layers(layers: range) -> Callable[[State], State]:
    """The layers of other pipeline stages are not in the file (NeMo Automodel #3096)."""
    return lambda t: {k: v for k, v in t.items() if not any(f".layers.{n}." in k for n in layers)}


def zero_layers(layers: range) -> Callable[[State], State]:
    """The layers of other pipeline stages have their starting values."""
    return lambda t: {
        k: torch.zeros_like(v) if "lora_B" in k and any(f".layers.{n}." in k for n in layers) else v
        for k, v in t.items()
    }


def named_one_by_one(adapter: Path) -> list[str]:
    """Modules of an adapter's file by their whole names, as NeMo's config lists them."""
    prefix = "base_model.model."
    return sorted({k.removeprefix(prefix).rpartition(".lora_")[0] for k in state(adapter)})


def zeroed(part: str) -> Callable[[State], State]:
    """Zeros in the tensors whose keys contain a text."""
    return lambda t: {k: torch.zeros_like(v) if part in k else v for k, v in t.items()}


def configurations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Whole adapters: name, base, what is asked of `train`."""
    targets: dict[str, tuple[str, dict[str, Any]]] = {
        "linear": ("llama2", {}),
        "q and v": ("llama2", {"target_modules": ["q_proj", "v_proj"]}),
        "one layer, q alone": ("llama1", {"target_modules": ["q_proj"], "r": 2}),
        "one layer": ("llama1", {"r": 3}),
        "all-linear": ("llama8", {"target_modules": "all-linear"}),
        "regex of one layer": ("llama8", {"target_modules": r".*\.3\.mlp\..*_proj"}),
        "regex without the last layers": ("llama8", {"target_modules": r".*layers\.[0-5]\..*(q|v)_proj"}),
        "layers to transform": ("llama8", {"layers_to_transform": [0, 1, 2], "layers_pattern": "layers"}),
        "last layer alone": ("llama8", {"layers_to_transform": 7}),
        "every second layer": ("llama8", {"layers_to_transform": [1, 3, 5, 7]}),
        "whole names of the first half": (
            "llama8",
            {"target_modules": [f"model.layers.{n}.self_attn.{m}_proj" for n in range(4) for m in "qv"]},
        ),
        "excluded": ("llama8", {"exclude_modules": r".*layers\.[4-7]\..*"}),
        "patterns": ("llama2", {"rank_pattern": {"q_proj": 2, r"layers\.1\..*up_proj": 16}, "use_rslora": True}),
        "rank above width": ("llama2", {"r": 128}),
        "dora": ("llama2", {"use_dora": True}),
        "biases": ("opt", {"lora_bias": True, "target_modules": ["q_proj", "fc1"]}),
        "embedding": ("llama2", {"target_modules": ["embed_tokens", "q_proj"]}),
        "embedding alone": ("llama2", {"target_modules": ["embed_tokens"]}),
        "output": ("llama2", {"target_modules": ["lm_head", "v_proj"]}),
        "saved": ("llama2", {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}),
        "tokens": ("llama2", {"trainable_token_indices": [3, 4], "target_modules": ["q_proj"]}),
        "gaussian": ("llama2", {"init_lora_weights": "gaussian"}),
        "orthogonal": ("llama2", {"init_lora_weights": "orthogonal"}),
        "random": ("llama2", {"init_lora_weights": False}),
        "tied": ("tied", {}),
        "gpt2": ("gpt2", {"target_modules": ["c_attn", "c_fc", "c_proj"], "fan_in_fan_out": True}),
        "opt with relu": ("opt", {"target_modules": ["q_proj", "v_proj", "fc1", "fc2"]}),
        "opt, fc1 alone": ("opt", {"target_modules": ["fc1"], "r": 4}),
        "experts as parameters": (
            "moe",
            {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
        ),
        "dense and sparse layers": ("moe", {"target_modules": r".*layers\.0\.mlp\..*_proj|.*\.(q|v)_proj"}),
        "encoder and decoder": ("t5", {"target_modules": ["q", "v", "wi", "wo"], "task_type": "SEQ_2_SEQ_LM"}),
        "cross attention": ("t5", {"target_modules": r".*EncDecAttention\.(q|k|v)", "task_type": "SEQ_2_SEQ_LM"}),
        "last layer of eight frozen": ("llama8", {"freeze": "layers.7"}),
    }
    ways: dict[str, dict[str, Any]] = {
        "fp32": {},
        "bf16": {"dtype": torch.bfloat16},
        "bf16 sgd": {"dtype": torch.bfloat16, "optimiser": "sgd", "rate": 1e-4, "steps": 1},
        "fp16": {"dtype": torch.float16, "optimiser": "sgd", "rate": 1e-2},
        "adafactor": {"optimiser": "adafactor"},
    }
    for name, (base, config) in targets.items():
        for way, options in ways.items():
            yield f"{name}, {way}", base, {**config, **options}
