"""Every kind of adapter that PEFT writes, merged at weight one, against PEFT's own merge of that adapter.

PEFT forms delta and sum in float32, so values agree to a few of its last bits. Where PEFT is wrong, the reference is the
formula in float64: tied embeddings, where its merge lets a change of one leak into the other, and weights other than one.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from crossmatch import Adapter, Checkpoint, merge, verify
from crossmatch.adapter import fit
from crossmatch.delta import dense
from crossmatch.errors import AdapterError
from crossmatch.merging import Output, Storage
from crossmatch.verification import SampledProof, WholeProof, claim_from_manifest, verify_claim
from helpers import LINEAR, copy, make_gpt2, make_llama

SHAPE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    make_llama(root / "llama", dtype=torch.float32)
    make_llama(root / "tied", dtype=torch.float32, tied=True)
    make_gpt2(root / "gpt2")
    torch.manual_seed(0)
    MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=4)).save_pretrained(root / "mixtral")
    qwen = Qwen3MoeConfig(**SHAPE, num_experts=4, moe_intermediate_size=24, head_dim=8, tie_word_embeddings=False)
    Qwen3MoeForCausalLM(qwen).save_pretrained(root / "qwen")
    GptOssForCausalLM(GptOssConfig(**SHAPE, num_local_experts=4, head_dim=8)).save_pretrained(root / "oss")
    square = GptOssConfig(**SHAPE | {"intermediate_size": 32}, num_local_experts=4, head_dim=8)
    GptOssForCausalLM(square).save_pretrained(root / "oss-square")
    return root


Prepare = Callable[[Any], None] | None


def tune(base: Path, out: Path, prepare: Prepare = None, *, seed: int = 1, **config: Any) -> Path:
    """An adapter as PEFT saves it, all of its trained parameters moved at random."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if prepare:
        prepare(model)
    with warnings.catch_warnings():
        # PEFT warns of what is tested here: ties, biases.
        warnings.simplefilter("ignore")
        model = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **config}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(out)
    if prepare:
        (out / "tokenizer.json").write_text('{"of": "the adapter"}')
    return out


def by_peft(base: Path, adapter: Path, prepare: Prepare = None) -> dict[str, torch.Tensor]:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if prepare:
        prepare(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return {name: tensor.detach().clone() for name, tensor in merged.state_dict().items()}


def by_us(base: Path, adapter: Path, out: Path, **storage: Any) -> dict[str, torch.Tensor]:
    """The parameters of our merge, loaded by transformers; proved on the way, and again from the manifest."""
    manifest = merge(
        Checkpoint(base), {"a": (Adapter(adapter), 1.0)}, out, storage=Storage(**storage), proof=WholeProof()
    )
    assert manifest["predicate"]["verdict"]["verdict"] == "verified", manifest["predicate"]["verdict"]
    assert verify_claim(out, claim_from_manifest(Checkpoint(out), None, {})).verified
    model: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    return dict(model.state_dict())


def grow(model: Any) -> None:
    torch.manual_seed(3)
    model.resize_token_embeddings(260, mean_resizing=False)


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
KINDS: dict[str, tuple[str, Prepare, dict[str, Any]]] = {
    "linear": ("llama", None, {"target_modules": LINEAR}),
    "rslora with patterns": (
        "llama",
        None,
        {"target_modules": LINEAR, "use_rslora": True, "rank_pattern": {r"layers\.1\..*up_proj": 2}},
    ),
    "layers": ("llama", None, {"target_modules": LINEAR, "layers_to_transform": [1]}),
    "regex": ("llama", None, {"target_modules": r".*\.[01]\.mlp\.(up|down)_proj", "exclude_modules": None}),
    "excluded": ("llama", None, {"target_modules": LINEAR, "exclude_modules": ["k_proj"]}),
    "conv1d": ("gpt2", None, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "lora bias": ("gpt2", None, {"target_modules": ["c_attn"], "fan_in_fan_out": True, "lora_bias": True}),
    "all biases": ("gpt2", None, {"target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"}),
    "embeddings": ("llama", None, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "dora": ("llama", None, {"target_modules": LINEAR, "use_dora": True}),
    "dora conv1d": ("gpt2", None, {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "dora embedding": ("llama", None, {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}),
    "saved": ("llama", None, {"modules_to_save": ["lm_head", "embed_tokens"]}),
    "saved norm": ("llama", None, {"modules_to_save": ["norm"]}),
    "tokens": ("llama", None, {"trainable_token_indices": [3, 200, 7]}),
    "tokens by module": ("llama", None, {"trainable_token_indices": {"embed_tokens": [3, 7], "lm_head": [1]}}),
    "tokens, tied": ("tied", None, {"trainable_token_indices": [3, 200]}),
    "grown": ("llama", grow, {}),
    "grown, tied": ("tied", grow, {}),
    "grown, saved": ("llama", grow, {"modules_to_save": ["lm_head", "embed_tokens"]}),
    "grown, tokens": ("llama", grow, {"trainable_token_indices": [256, 257, 258, 259]}),
    "experts, fused in the file": ("oss", None, {"target_parameters": EXPERTS}),
    "experts, square": ("oss-square", None, {"target_parameters": EXPERTS}),
    "experts, apart in the file": ("qwen", None, {"target_parameters": EXPERTS}),
    "experts, renamed": ("mixtral", None, {"target_parameters": EXPERTS}),
    "router": ("mixtral", None, {"target_parameters": ["mlp.gate.weight"]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_what_peft_merges(bases: Path, tmp_path: Path, kind: str) -> None:
    base, prepare, config = KINDS[kind]
    tune(bases / base, tmp_path / "a", prepare, **config)
    expected = by_peft(bases / base, tmp_path / "a", prepare)
    found = by_us(bases / base, tmp_path / "a", tmp_path / "out")
    assert set(found) == set(expected)
    plain = AutoModelForCausalLM.from_pretrained(bases / base, dtype=torch.float32).state_dict()
    changed = 0
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
        changed += name in plain and plain[name].shape == tensor.shape and not torch.equal(plain[name], tensor)
    assert changed


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions(tmp_path: Path, axes: int) -> None:
    """Against PEFT's own merge of a small module: no causal language model has them."""
    conv = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[axes]
    torch.manual_seed(0)
    # PEFT cannot merge a 3d convolution of kernel 1: it takes it for a 2d one.
    point = conv(8, 4, 1 if axes < 3 else 2)
    model = torch.nn.ModuleDict({"conv": conv(12, 16, 3), "point": point, "proj": torch.nn.Linear(4, 5)})
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    (tmp_path / "base").mkdir()
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "base" / "config.json").write_text("{}")
    for name, dora in (("plain", False), ("dora", True)):
        tuned: Any = get_peft_model(
            torch.nn.ModuleDict(dict(model.items())),  # type: ignore[arg-type]
            LoraConfig(r=4, lora_alpha=8, target_modules=["conv", "point", "proj"], use_dora=dora),
        )
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        tuned.save_pretrained(tmp_path / name)
        merge(Checkpoint(tmp_path / "base"), {"a": (Adapter(tmp_path / name), 1.0)}, tmp_path / f"{name}-out")
        ours = load_file(tmp_path / f"{name}-out" / "model.safetensors")
        peft = {k.replace("base_model.model.", ""): v for k, v in tuned.merge_and_unload().state_dict().items()}
        assert set(ours) == set(peft)
        for key, tensor in peft.items():
            torch.testing.assert_close(ours[key], tensor, rtol=1e-5, atol=1e-6)
        base = Checkpoint(tmp_path / "base")
        assert verify(tmp_path / f"{name}-out", base, {"a": (Adapter(tmp_path / name), 1.0)}).verified
        # PEFT changed its module in place.
        model.load_state_dict(tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_stored_in_half_precision(bases: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tune(bases / "llama", tmp_path / "a", target_modules=LINEAR)
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file)
    expected = by_peft(bases / "llama", tmp_path / "a")
    for name, tensor in by_us(bases / "llama", tmp_path / "a", tmp_path / "out").items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-5, atol=2e-6)


def test_a_change_of_one_tied_embedding_does_not_leak(bases: Path, tmp_path: Path) -> None:
    """PEFT's merge adds the output embedding's delta to the input embedding as well; here that has to be asked for."""
    base = bases / "tied"
    tune(base, tmp_path / "a", target_modules=["lm_head", "q_proj"])
    tune(base, tmp_path / "b", target_modules=["embed_tokens", "q_proj"])
    for name in ("a", "b"):
        with pytest.raises(AdapterError, match="--tied untie"):
            merge(Checkpoint(base), {"a": (Adapter(tmp_path / name), 1.0)}, tmp_path / "out")
    embedding = Checkpoint(base)["model.embed_tokens.weight"].double()
    for name, output in (("a", True), ("b", False)):
        found = by_us(base, tmp_path / name, tmp_path / f"untied-{name}", tied="untie")
        fitted = fit(Checkpoint(base), {"a": Adapter(tmp_path / name)}, tied="untie").vectors["a"]
        (delta,) = (dense(d) for n, d in fitted.items() if "q_proj" not in n)
        inside, outside = found["model.embed_tokens.weight"], found["lm_head.weight"]
        torch.testing.assert_close((outside if output else inside).double(), embedding + delta, rtol=0, atol=1e-7)
        assert torch.equal((inside if output else outside).double(), embedding)
        config = json.loads((tmp_path / f"untied-{name}" / "config.json").read_text())
        assert config["tie_word_embeddings"] is False
        found = by_us(base, tmp_path / name, tmp_path / f"kept-{name}", tied="keep")
        torch.testing.assert_close(found["lm_head.weight"].double(), embedding + delta, rtol=0, atol=1e-7)
        assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("target", ["embed_in", "lm_head"])
def test_embeddings_by_the_names_of_their_class(tmp_path: Path, target: str, tied: bool) -> None:
    """GPT-NeoX calls its output embedding embed_out in the file, lm_head in memory."""
    torch.manual_seed(0)
    shape = {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, tie_word_embeddings=tied))
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "neox")
    tune(tmp_path / "neox", tmp_path / "a", target_modules=[target, "query_key_value"])
    found = by_us(tmp_path / "neox", tmp_path / "a", tmp_path / "out", tied="untie")
    for name in ("embed_in", "lm_head"):
        (key,) = (key for key in plain if f".{name}." in f".{key}")
        assert torch.equal(found[key], plain[key]) == (name != target)


def test_both_tied_embeddings_changed_alike_stay_one(bases: Path, tmp_path: Path) -> None:
    tune(bases / "tied", tmp_path / "a", modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    found = by_us(bases / "tied", tmp_path / "a", tmp_path / "out")
    saved = load_file(tmp_path / "a" / "adapter_model.safetensors")["base_model.model.model.embed_tokens.weight"]
    assert torch.equal(found["model.embed_tokens.weight"], saved)
    assert torch.equal(found["lm_head.weight"], saved)
    assert "lm_head.weight" not in Checkpoint(tmp_path / "out")


def test_weights_of_what_depends_on_its_base(bases: Path, tmp_path: Path) -> None:
    """DoRA, saved modules and tokens at other weights: multiples of their whole change, as for any delta."""
    base = Checkpoint(bases / "llama")
    tune(bases / "llama", tmp_path / "dora", use_dora=True, seed=1)
    tune(bases / "llama", tmp_path / "saved", modules_to_save=["norm"], trainable_token_indices=[5, 9], seed=2)
    parts = {"dora": (Adapter(tmp_path / "dora"), 0.5), "saved": (Adapter(tmp_path / "saved"), 0.25)}
    full = {name: by_peft(bases / "llama", tmp_path / name) for name in parts}
    merge(base, parts, tmp_path / "out", proof=WholeProof())
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in found.items():
        plain = base[name].double()
        wanted = plain + 0.5 * (full["dora"][name] - plain) + 0.25 * (full["saved"][name] - plain)
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-5, atol=1e-6)
    assert verify(tmp_path / "out", base, parts).verified


def test_names_that_differ_between_model_and_file(bases: Path, tmp_path: Path) -> None:
    """GPT-2 on the hub leaves out the prefix that its model has."""
    tune(bases / "gpt2", tmp_path / "a", target_modules=["c_attn"], fan_in_fan_out=True)
    base = copy(bases / "gpt2", tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    stripped = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(stripped, base / "model.safetensors", metadata={"format": "pt"})
    expected = by_peft(bases / "gpt2", tmp_path / "a")
    found = by_us(base, tmp_path / "a", tmp_path / "out")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-5, atol=2e-6)
    notes = json.loads((tmp_path / "out" / "crossmatch.json").read_text())["predicate"]["notes"]
    assert notes == [
        "a: 2 tensors go by another name in the base's file, as transformer.h.0.attn.c_attn.weight is h.0.attn.c_attn.weight"
    ]


def test_holes_are_found(bases: Path, tmp_path: Path) -> None:
    tune(bases / "llama", tmp_path / "a", target_modules=LINEAR)
    file = tmp_path / "a" / "adapter_model.safetensors"
    tensors = {k: v for k, v in load_file(file).items() if "layers.1.mlp" not in k}
    save_file(tensors, file)
    message = r"incomplete: its config targets model\.layers\.1\.mlp\.down_proj, .*; it was saved half"
    with pytest.raises(AdapterError, match=message):
        fit(Checkpoint(bases / "llama"), {"a": Adapter(tmp_path / "a")})


def test_what_does_not_fit_is_refused(bases: Path, tmp_path: Path) -> None:
    base = Checkpoint(bases / "llama")
    tune(bases / "llama", tmp_path / "bias", lora_bias=True)
    with pytest.raises(AdapterError, match="lora_bias.*that the base does not have"):
        fit(base, {"a": Adapter(tmp_path / "bias")})
    tune(bases / "llama", tmp_path / "one", grow)
    tune(bases / "llama", tmp_path / "two", grow, seed=2)
    with pytest.raises(AdapterError, match="one and two each added tokens"):
        fit(base, {name: Adapter(tmp_path / name) for name in ("one", "two")})
    tune(bases / "llama", tmp_path / "half", grow, target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(AdapterError, match="must grow together"):
        fit(base, {"a": Adapter(tmp_path / "half")})
    tune(bases / "llama", tmp_path / "tokens", trainable_token_indices=[3])
    config = tmp_path / "tokens" / "adapter_config.json"
    config.write_text(config.read_text().replace("[\n    3\n  ]", "[999]"))
    with pytest.raises(AdapterError, match="token 999 was trained, the vocabulary has 256"):
        fit(base, {"a": Adapter(tmp_path / "tokens")}).vectors["a"]["model.embed_tokens.weight"]


def test_a_grown_vocabulary_beside_another_adapter(bases: Path, tmp_path: Path) -> None:
    """New rows are the growing adapter's own at any weight; the other's embedding delta acts on the old rows."""
    base = Checkpoint(bases / "llama")
    tune(bases / "llama", tmp_path / "new", grow, modules_to_save=["lm_head", "embed_tokens"])
    tune(bases / "llama", tmp_path / "old", target_modules=["embed_tokens", "q_proj"], seed=2)
    parts = {"new": (Adapter(tmp_path / "new"), 0.5), "old": (Adapter(tmp_path / "old"), 0.25)}
    manifest = merge(base, parts, tmp_path / "out", proof=WholeProof())
    assert manifest["predicate"]["tokenizer_from"] == "new"
    with pytest.raises(AdapterError, match="new added tokens, its tokenizer goes with them"):
        merge(base, parts, tmp_path / "other", output=Output(tokenizer="base"))
    (tmp_path / "new" / "tokenizer.json").unlink()
    with pytest.raises(AdapterError, match="new carries no tokenizer"):
        merge(base, parts, tmp_path / "other")
    found = load_file(tmp_path / "out" / "model.safetensors")["model.embed_tokens.weight"].double()
    saved = load_file(tmp_path / "new" / "adapter_model.safetensors")
    theirs = saved["base_model.model.model.embed_tokens.weight"].double()
    plain = base["model.embed_tokens.weight"].double()
    old = dense(fit(base, {"old": Adapter(tmp_path / "old")}).vectors["old"]["model.embed_tokens.weight"])
    torch.testing.assert_close(found[:256], plain + 0.5 * (theirs[:256] - plain) + 0.25 * old, rtol=0, atol=1e-7)
    assert torch.equal(found[256:], theirs[256:])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 260
    assert verify(tmp_path / "out", base, parts).verified
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.get_input_embeddings().weight.shape[0] == 260


def test_a_square_layer_that_is_stored_transposed(bases: Path, tmp_path: Path) -> None:
    """PEFT saves the flag of the last module that it wrapped: here the output embedding's, which is not transposed."""
    tune(bases / "gpt2", tmp_path / "a", target_modules=["attn.c_proj", "c_fc", "lm_head"], fan_in_fan_out=True)
    assert not Adapter(tmp_path / "a").config.fan_in_fan_out
    found = by_us(bases / "gpt2", tmp_path / "a", tmp_path / "out", tied="untie")
    model: Any = AutoModelForCausalLM.from_pretrained(bases / "gpt2", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned: Any = PeftModel.from_pretrained(model, tmp_path / "a")
    for name, module in tuned.named_modules():
        if hasattr(module, "get_delta_weight"):
            key = name.removeprefix("base_model.model.") + ".weight"
            wanted = module.get_base_layer().weight + module.get_delta_weight("default")
            torch.testing.assert_close(found[key], wanted.detach(), rtol=2e-5, atol=2e-6)


def test_a_config_that_leaves_ties_to_the_class(bases: Path, tmp_path: Path) -> None:
    base = copy(bases / "gpt2", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (base / "config.json").write_text(json.dumps(config))
    assert Checkpoint(base).tied
    tune(bases / "gpt2", tmp_path / "a", target_modules=["wte"])
    with pytest.raises(AdapterError, match="--tied untie"):
        fit(Checkpoint(base), {"a": Adapter(tmp_path / "a")})


def test_untying_keeps_every_adapter_s_change_of_both(bases: Path, tmp_path: Path) -> None:
    base = bases / "tied"
    tune(base, tmp_path / "tokens", trainable_token_indices=[3, 5], seed=1)
    tune(base, tmp_path / "both", modules_to_save=["embed_tokens"], ensure_weight_tying=True, seed=2)
    tune(base, tmp_path / "head", target_modules=["lm_head", "q_proj"], seed=3)
    parts = {name: (Adapter(tmp_path / name), 0.5) for name in ("tokens", "both", "head")}
    merge(Checkpoint(base), parts, tmp_path / "out", storage=Storage(tied="untie"), proof=SampledProof())
    found = load_file(tmp_path / "out" / "model.safetensors")
    plain = Checkpoint(base)["model.embed_tokens.weight"].double()
    files = {name: load_file(tmp_path / name / "adapter_model.safetensors") for name in parts}
    saved = files["both"]["base_model.model.model.embed_tokens.weight"].double()
    shared = plain + 0.5 * (saved - plain)
    tokens = files["tokens"]["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"].double()
    shared[[3, 5]] += 0.5 * (tokens - plain[[3, 5]])
    head = fit(Checkpoint(base), {"h": parts["head"][0]}, tied="untie").vectors["h"]["lm_head.weight"]
    torch.testing.assert_close(found["model.embed_tokens.weight"].double(), shared, rtol=0, atol=1e-7)
    torch.testing.assert_close(found["lm_head.weight"].double(), shared + 0.5 * dense(head), rtol=0, atol=1e-7)


def test_a_shared_tensor_that_is_stored_twice_stays_one(bases: Path, tmp_path: Path) -> None:
    base = copy(bases / "tied", tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    twice = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(twice, base / "model.safetensors", metadata={"format": "pt"})
    tune(bases / "tied", tmp_path / "a", trainable_token_indices=[3, 5])
    merge(Checkpoint(base), {"a": (Adapter(tmp_path / "a"), 1.0)}, tmp_path / "out", proof=SampledProof())
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    assert not torch.equal(found["lm_head.weight"], twice["lm_head.weight"])


def test_a_tied_leak_has_a_name(bases: Path, tmp_path: Path) -> None:
    """What PEFT's own merge does with an adapter on a tied output embedding."""
    tune(bases / "tied", tmp_path / "a", target_modules=["lm_head", "q_proj"])
    model: Any = AutoModelForCausalLM.from_pretrained(bases / "tied", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PeftModel.from_pretrained(model, tmp_path / "a").merge_and_unload().save_pretrained(tmp_path / "leaked")
    verdict = verify(tmp_path / "leaked", Checkpoint(bases / "tied"), {"a": (Adapter(tmp_path / "a"), 1.0)})
    assert verdict.verdict == "failed"
    assert verdict.faults[0] == "tied-leak"


@pytest.mark.parametrize(
    ("config", "lost", "message"),
    [
        (
            {"use_dora": True, "target_modules": LINEAR},
            "layers.1.mlp.up_proj.lora_magnitude",
            "declares DoRA magnitudes",
        ),
        ({"modules_to_save": ["input_layernorm"]}, "layers.1.input_layernorm", "model.layers.1.input_layernorm.weight"),
        (
            {"target_modules": r".*\.q_proj"},
            "layers.1.",
            "incomplete: its config targets model.layers.1.self_attn.q_proj",
        ),
    ],
)
def test_half_saved_adapters(bases: Path, tmp_path: Path, config: dict[str, Any], lost: str, message: str) -> None:
    tune(bases / "llama", tmp_path / "a", **config)
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if lost not in k}, file)
    with pytest.raises(AdapterError, match=message):
        fit(Checkpoint(bases / "llama"), {"a": Adapter(tmp_path / "a")})


def test_experts_of_a_layer_that_are_not_there(bases: Path, tmp_path: Path) -> None:
    tune(bases / "qwen", tmp_path / "a", target_parameters=EXPERTS)
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layers.1.mlp.experts." not in k}, file)
    with pytest.raises(AdapterError, match="mlp.experts.down_proj of layer 1"):
        fit(Checkpoint(bases / "qwen"), {"a": Adapter(tmp_path / "a")})
