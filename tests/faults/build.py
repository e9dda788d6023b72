"""What faults and honest routes are made of: small models, adapters of a given size, and the merges of PEFT.

A bench is one base and any number of adapters on it, made when they are asked for. Every delta has `size` times the
Frobenius norm of the weight that it belongs to. Adapter names: pt and sft (rank 16, scalings 5 and 3, so that no
mistake in a scaling looks like another), foreign, and the kinds of ADAPTERS.
"""

import copy
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.utils import logging

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIZES = (1e-1, 1e-2, 1e-3, 1e-4)
CLAIM = {"pt": 0.3, "sft": 0.7}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
TARGETS: Mapping[str, list[str]] = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "moe": ["q_proj", "k_proj", "v_proj", "o_proj"],
}
_SHAPE: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
_DEEP = {"hidden_size": 32, "intermediate_size": 88, "num_hidden_layers": 29, "vocab_size": 64}
_SQUARE = {"intermediate_size": 128, "num_key_value_heads": 4, "num_hidden_layers": 3}
_MOE = {"hidden_size": 96, "head_dim": 24, "num_experts": 4, "moe_intermediate_size": 96, "num_experts_per_tok": 2}
FAMILIES: Mapping[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE)),
    "tied": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE | {"tie_word_embeddings": True})),
    "shards": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE)),
    "square": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE | _SQUARE)),
    "deep": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE | _DEEP)),
    "qwen": lambda: Qwen2ForCausalLM(Qwen2Config(**_SHAPE)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=128, n_layer=2, n_head=4, vocab_size=256, n_positions=64)),
    "moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**_SHAPE | _MOE)),
}
_PLAIN = {"r": 16, "lora_alpha": 80}
# Name -> seed and config.
ADAPTERS: Mapping[str, tuple[int, dict[str, Any]]] = {
    "pt": (1, _PLAIN),
    "sft": (2, {"r": 16, "lora_alpha": 48}),
    "foreign": (3, _PLAIN),
    "low": (4, {"r": 4, "lora_alpha": 8}),
    "rslora": (1, _PLAIN | {"use_rslora": True}),
    "alphas": (1, _PLAIN | {"alpha_pattern": {"q_proj": 16, r"layers\.1\.mlp\.up_proj": 32}}),
    "ranks": (1, _PLAIN | {"rank_pattern": {"q_proj": 4, "down_proj": 32}}),
    "embeddings": (1, _PLAIN | {"target_modules": ["embed_tokens", "lm_head", *LINEAR]}),
    "entrance": (1, _PLAIN | {"target_modules": ["embed_tokens", *LINEAR]}),
    "head": (1, _PLAIN | {"target_modules": ["lm_head", *LINEAR]}),
    "saved": (1, _PLAIN | {"modules_to_save": ["lm_head"]}),
    "tokens": (1, _PLAIN | {"trainable_token_indices": [3, 7, 200]}),
    "biases": (1, _PLAIN | {"target_modules": ["q_proj", "k_proj", "v_proj"], "lora_bias": True}),
    "dora": (1, _PLAIN | {"use_dora": True}),
    "experts": (1, _PLAIN | {"target_parameters": EXPERTS}),
    "pissa": (1, _PLAIN | {"init_lora_weights": "pissa"}),
    "grown": (1, _PLAIN),
}

Claim = dict[str, float]
State = dict[str, Tensor]


@contextmanager
def silence() -> Iterator[None]:
    """Without what PEFT and transformers say of the mistakes that are made here on purpose."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Bench:
    """One base of a family and a dtype, adapters of one size on it; `root` is shared by the sizes."""

    def __init__(self, root: Path, family: str, dtype: str, size: float) -> None:
        self.family, self.stored, self.size = family, dtype, size
        self.home = root / f"{family}-{dtype}"

    @property
    def dtype(self) -> torch.dtype:
        """In which base and merges are stored."""
        return DTYPES[self.stored]

    @cached_property
    def base(self) -> Path:
        """The base, with norms and biases that are not all alike."""
        out = self.home / "base"
        if not out.exists():
            torch.manual_seed(0)
            model = FAMILIES[self.family]()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim == 1:
                        parameter.add_(torch.randn_like(parameter) * 0.02)
            self.save(model, out)
        return out

    def model(self, dtype: torch.dtype = torch.float32) -> Any:
        """The base as transformers loads it, to be changed at will."""
        return copy.deepcopy(_loaded(self.base)).to(dtype)

    def tuned(self, *adapters: Path) -> Any:
        """The base in float32 with adapters, named as their directories are, as PEFT loads them; to be changed at
        will."""
        return copy.deepcopy(_tuned(self.base, *adapters))

    def save(self, model: Any, out: Path, dtype: torch.dtype | None = None) -> Path:
        """What transformers writes."""
        with silence():
            model.to(dtype or self.dtype).save_pretrained(
                out, max_shard_size="300KB" if self.family == "shards" else "5GB"
            )
        return out

    def adapter(self, name: str) -> Path:
        """An adapter as PEFT saves it."""
        out = self.home / f"{self.size:g}" / name
        if not out.exists():
            seed, config = ADAPTERS[name]
            targets = {"target_modules": TARGETS.get(self.family, LINEAR), "fan_in_fan_out": self.family == "gpt2"}
            model = self.model()
            if name == "grown":
                grow(model)
            tune(model, out, seed, self.size, {**targets, **config})
        return out


@lru_cache(maxsize=64)
def _loaded(base: Path) -> Any:
    with silence():
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


@lru_cache(maxsize=64)
def _tuned(base: Path, *adapters: Path) -> Any:
    return load(copy.deepcopy(_loaded(base)), {path.name: path for path in adapters})


def grow(model: Any) -> None:
    """Four tokens more."""
    torch.manual_seed(3)
    with silence():
        model.resize_token_embeddings(260, mean_resizing=False)


def tune(model: Any, out: Path, seed: int, size: float, config: dict[str, Any]) -> Path:
    """An adapter whose every part moves what it belongs to by `size` of its norm."""
    with silence():
        tuned = get_peft_model(model, LoraConfig(**config))
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    def nudge(parameter: Tensor) -> None:
        parameter.add_(noise(parameter) * size * parameter.norm() / parameter.numel() ** 0.5)

    with torch.no_grad():
        for module in tuned.modules():
            if isinstance(module, LoraLayer):
                _plant(module, size, noise, kept=config.get("init_lora_weights") == "pissa")
            if isinstance(module, ModulesToSaveWrapper):
                for parameter in module.modules_to_save["default"].parameters():
                    nudge(parameter)
        for name, parameter in tuned.named_parameters():
            if "trainable_tokens_delta" in name:
                nudge(parameter)
    with silence():
        tuned.save_pretrained(out)
    return out


def _plant(module: Any, size: float, noise: Callable[[Tensor], Tensor], *, kept: bool) -> None:
    embedding = "default" in module.lora_embedding_A
    if not embedding and "default" not in module.lora_A:
        return
    if embedding:
        a, b = module.lora_embedding_A["default"], module.lora_embedding_B["default"]
    else:
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    if kept:
        # Trained from a start that is part of the base.
        b.add_(noise(b) * size * b.norm() / b.numel() ** 0.5)
        return
    weight = module.get_param() if hasattr(module, "get_param") else module.get_base_layer().weight
    a.copy_(noise(a) / a.shape[1] ** 0.5)
    b.copy_(noise(b))
    b.mul_(size * weight.norm() / module.get_delta_weight("default").norm())
    bias = None if embedding else module.lora_B["default"].bias
    if bias is not None:
        theirs = module.get_base_layer().bias
        bias.copy_(noise(bias) * size * theirs.norm() / theirs.numel() ** 0.5 / module.scaling["default"])
    if "default" in module.lora_magnitude_vector:
        magnitude = module.lora_magnitude_vector["default"].weight
        magnitude.mul_(1 + size * noise(magnitude))


def load(model: Any, adapters: Mapping[str, Path], **options: Any) -> Any:
    """The model with adapters by name, as PEFT loads them."""
    tuned: Any = None
    with silence():
        for name, path in adapters.items():
            if tuned is None:
                tuned = PeftModel.from_pretrained(model, path, adapter_name=name, **options)
            else:
                tuned.load_adapter(path, adapter_name=name, **options)
    return tuned


def _paths(bench: Bench, names: Iterable[str], given: Mapping[str, Path] | None) -> dict[str, Path]:
    return {name: (given or {}).get(name) or bench.adapter(name) for name in names}


def peft(
    bench: Bench, out: Path, weights: Claim, paths: Mapping[str, Path] | None = None, base: Any = None, **how: Any
) -> Path:
    """A weighted sum by PEFT's add_weighted_adapter (`cat`, unless said otherwise), merged in float32 and saved."""
    found = _paths(bench, weights, paths)
    plain = base is None and not paths
    tuned = bench.tuned(*found.values()) if plain else load(base or bench.model(), found)
    dtype = how.pop("dtype", None)
    with silence():
        tuned.add_weighted_adapter(list(weights), list(weights.values()), "all", **{"combination_type": "cat", **how})
        tuned.set_adapter("all")
        return bench.save(tuned.merge_and_unload(), out, dtype)


def one_by_one(
    bench: Bench, out: Path, weights: Claim, paths: Mapping[str, Path] | None = None, base: Any = None, **how: Any
) -> Path:
    """PEFT's merge_and_unload of each adapter into what the one before it left; dtype: in which that is done; saved: in
    which it is stored."""
    dtype, safe, saved = how.pop("dtype", bench.dtype), how.pop("safe", False), how.pop("saved", None)
    model = base or bench.model(dtype)
    for name, path in _paths(bench, weights, paths).items():
        tuned = load(model, {name: path}, **how)
        for module in tuned.modules():
            if isinstance(module, LoraLayer):
                module.scale_layer(weights[name])
        with silence():
            model = tuned.merge_and_unload(safe_merge=safe)
    return bench.save(model, out, saved)


def altered(
    source: Path,
    out: Path,
    config: Mapping[str, Any] | Callable[[dict[str, Any]], dict[str, Any]] = {},  # noqa: B006
    tensors: Callable[[State], State] = dict,
) -> Path:
    """A copy of an adapter with another config or other tensors."""
    shutil.copytree(source, out)
    file = out / "adapter_config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(config(fields) if callable(config) else {**fields, **config}))
    weights = out / "adapter_model.safetensors"
    save_file({k: v.clone().contiguous() for k, v in tensors(load_file(weights)).items()}, weights)
    return out


def aside(out: Path, name: str) -> Path:
    """A directory beside the output, for what it is made from."""
    return out.parent / f"{out.name}.{name}"


def state(directory: Path) -> State:
    """All tensors of a directory."""
    return {k: v for file in sorted(directory.glob("model*.safetensors")) for k, v in load_file(file).items()}


def edit(directory: Path, change: Callable[[State], State]) -> Path:
    """Change the tensors of a checkpoint in one file."""
    file = directory / "model.safetensors"
    tensors = {k: v.contiguous() for k, v in change(load_file(file)).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


def configure(directory: Path, **fields: Any) -> Path:
    """Change fields of config.json."""
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return directory
