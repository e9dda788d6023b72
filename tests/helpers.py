"""Builders shared by the tests: models of two layers, adapters with planted factors, PEFT's own merge."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

# Whether whole cross products and all random draws are run, where the ordinary run has a choice of them.
EVERY_CELL = bool(os.environ.get("CROSSMATCH_EVERY_CELL"))
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_llama(out: Path, *, tied: bool = False, dtype: torch.dtype = torch.bfloat16, **options: Any) -> Path:
    """A saved Llama of two layers, 64 wide; `shard` among the options: maximum shard size."""
    torch.manual_seed(0)
    shard = options.pop("shard", "5GB")
    shape = {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(**(shape | options), tie_word_embeddings=tied)  # type: ignore[arg-type]
    LlamaForCausalLM(config).to(dtype).save_pretrained(out, max_shard_size=shard)
    return out


def make_gpt2(out: Path) -> Path:
    """A saved GPT-2 of two layers: its linear weights are stored transposed."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=256, n_positions=64)).save_pretrained(out)
    return out


def make_adapter(base: Path, out: Path, *, seed: int, size: float = 0.1, **config: Any) -> Path:
    """An adapter saved by PEFT with random factors; each delta has `size` times the Frobenius norm of its base."""
    options: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": LINEAR, **config}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(**options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if not hasattr(module, "lora_A") or "default" not in module.lora_A:
                continue
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            a.copy_(torch.randn(a.shape, generator=generator) / a.shape[1] ** 0.5)
            b.copy_(torch.randn(b.shape, generator=generator))
            delta = module.get_delta_weight("default")
            b.mul_(size * module.get_base_layer().weight.norm() / delta.norm())
    model.save_pretrained(out)
    return out


def peft_merge(base: Path, adapters: list[Path], out: Path, *, safe: bool = False, **load: Any) -> Path:
    """What PEFT writes when adapters of weight one are merged one after the other."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, **load)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=safe)
    model.save_pretrained(out)
    return out


def copy(source: Path, out: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(source, out)
    return out


WORDS = (
    "the a of is what name very old new blood heart cell disease lung kidney bone system user assistant pick : ? . , "
    "anaemia increase decrease in level pressure high low answer question think okay let me see first define term"
).split()
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %} <think> "
    "</think>{% endif %} {% endif %}"
)


def make_tokenizer(out: Path) -> None:
    """A word tokenizer with a chat template that has a thinking switch, saved at `out`."""
    special = ["<pad>", "<unk>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<pad>", unk_token="<unk>", chat_template=TEMPLATE
    )
    fast.save_pretrained(out)


def make_chat_model(out: Path, **options: Any) -> Path:
    """A tiny Llama in float32 with a tokenizer and a chat template."""
    make_llama(out, dtype=torch.float32, vocab_size=64, eos_token_id=2, pad_token_id=0, **options)
    make_tokenizer(out)
    return out


def make_interfering(root: Path) -> None:
    """A chat model `base` with initial weights large enough that its logits differ; adapters `pt` and `sft` on it."""
    make_chat_model(root / "base", initializer_range=0.15)
    make_adapter(root / "base", root / "pt", seed=1, size=0.3)
    make_adapter(root / "base", root / "sft", seed=2, size=0.3, target_modules=["q_proj", "down_proj", "up_proj"], r=4)


def generate(
    engine: Any, prompts: list[str], limit: int, decoding: Any = None, seeds: list[int] | None = None
) -> list[Any]:
    """What a model generates, in the order of the prompts."""
    from crossmatch.evaluation.inference.protocol import Decoding

    found: dict[int, Any] = {}
    engine.generate(prompts, limit, decoding or Decoding(), seeds or list(range(len(prompts))), found.__setitem__)
    return [found[i] for i in range(len(prompts))]


def generated_texts(
    engine: Any, prompts: list[str], limit: int, decoding: Any = None, seeds: list[int] | None = None
) -> list[str]:
    """The texts of what a model generates."""
    return [answer.text for answer in generate(engine, prompts, limit, decoding, seeds)]


def loglikelihoods(engine: Any, prompts: list[str], options: list[list[str]]) -> list[list[float]]:
    """Scores of options, in the order of the prompts."""
    found: dict[int, list[float]] = {}
    engine.loglikelihoods(prompts, options, found.__setitem__)
    return [found[i] for i in range(len(prompts))]


def make_chat_room(root: Path) -> Path:
    """A chat model `base` with adapters `pt` and `sft` on it, and `foreign`, the adapter of a narrower model, `narrow`."""
    make_chat_model(root / "base")
    make_chat_model(root / "narrow", hidden_size=32)
    for seed, (base, name) in enumerate((("base", "pt"), ("base", "sft"), ("narrow", "foreign")), 1):
        make_adapter(root / base, root / name, seed=seed)
    return root
