"""Names: what transformers loads as one tensor is one, in merge, verify, identify and extract, against PEFT's own merges.

Every base is built and saved by transformers, every adapter by PEFT; what differs from these is said in the test.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import VeloraConfig
from safetensors.torch import load_file, save_file
from test_kinds import SHAPE
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SiglipVisionConfig,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, apply_renamings

from crossmatch import Adapter, Checkpoint, merge, verify
from crossmatch.adapter import fit
from crossmatch.checkpoint import namings
from crossmatch.errors import AdapterError, CheckpointError
from crossmatch.vectors import extract
from crossmatch.verification import Verdict, WholeProof, identify
from naming_table import FILE, build, classes, tables

SMALL = SHAPE | {"pad_token_id": 0}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LINEAR_ATTENTION = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=32))


def bloom() -> Any:
    return BloomForCausalLM(BloomConfig(vocab_size=128, hidden_size=32, n_layer=2, n_head=4))


def llama(*, tied: bool = False) -> Any:
    return LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=tied))


def llava() -> Any:
    vision = CLIPVisionConfig(**VISION, image_size=28, patch_size=14)
    text = LlamaConfig(**SMALL)
    return LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=120))


def gemma3() -> Any:
    text = SMALL | {"head_dim": 8, "model_type": "gemma3_text"}
    vision = SiglipVisionConfig(**VISION, image_size=28, patch_size=14)
    config = Gemma3Config(text_config=text, vision_config=vision.to_dict(), mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)


def qwen35() -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25}
    text = SMALL | LINEAR_ATTENTION | {"head_dim": 16, "full_attention_interval": 2, "rope_parameters": rope}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 4, "num_position_embeddings": 16, "deepstack_visual_indexes": []}
    return Qwen3_5ForConditionalGeneration(Qwen3_5Config(text_config=text, vision_config=vision))


def save(model: Any, out: Path) -> Path:
    """A model saved in single precision, its weights drawn anew so that none is zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.05)
    model.save_pretrained(out)
    return out


def tune(cls: Any, base: Path, out: Path, **config: Any) -> Path:
    """An adapter of random factors as PEFT saves it, on a base that a class loads."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        # PEFT warns of ranks that it wrote itself, for the experts.
        warnings.simplefilter("ignore")
        model: Any = get_peft_model(cls.from_pretrained(base), LoraConfig(**{"r": 4, "lora_alpha": 8, **config}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(out)
    return out


def by_peft(cls: Any, base: Path, adapter: Path, out: Path) -> Path:
    """PEFT's own merge, saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = PeftModel.from_pretrained(cls.from_pretrained(base), adapter).merge_and_unload()
    merged.save_pretrained(out)
    return out


def rewrite(directory: Path, rename: Callable[[str], str], file: str = "model.safetensors", **more: Any) -> None:
    """The tensors of a file under other names, and some more of them."""
    tensors = {rename(name): tensor for name, tensor in load_file(directory / file).items()}
    tensors |= {name: tensor.clone().contiguous() for name, tensor in more.items()}
    save_file(tensors, directory / file, metadata={"format": "pt"})


def declare(directory: Path, file: str = "config.json", **fields: Any) -> None:
    config = json.loads((directory / file).read_text())
    config = {k: v for k, v in (config | fields).items() if v is not ...}
    (directory / file).write_text(json.dumps(config))


def judged(merged: Path, base: Path, adapter: Path) -> Verdict:
    return verify(merged, Checkpoint(base), {"a": (Adapter(adapter), 1.0)})


def faults(verdict: Verdict) -> set[str]:
    return {finding.fault for finding in verdict.findings}


def check_merges(cls: Any, base: Path, adapter: Path, root: Path) -> None:
    """PEFT's merge is verified, and ours loads as the same weights."""
    theirs = by_peft(cls, base, adapter, root / "peft")
    verdict = judged(theirs, base, adapter)
    assert verdict.verified, verdict.findings
    merge(Checkpoint(base), {"a": (Adapter(adapter), 1.0)}, root / "ours", proof=WholeProof())
    ours, expected = (cls.from_pretrained(path).state_dict() for path in (root / "ours", theirs))
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


OF_TRANSFORMERS = (
    ("LlavaForConditionalGeneration", "llava"),
    ("Gemma3ForConditionalGeneration", "gemma3"),
    ("Qwen2VLForConditionalGeneration", "qwen2_vl"),
    ("Qwen3_5ForCausalLM", "qwen3_5_text"),
    ("GraniteMoeForCausalLM", "granitemoe"),
    ("NemotronHForCausalLM", "nemotron_h"),
    ("MiniMaxM3SparseForConditionalGeneration", "minimax_m3_vl"),
    ("DeepseekV4ForCausalLM", "deepseek_v4"),
)


@pytest.mark.slow
def test_the_whole_table_is_what_the_installed_transformers_says() -> None:
    """Every sixteenth class by name, and all that are built in this file; with CROSSMATCH_EVERY_CELL=1, as `make models`
    has it, every class."""
    table = json.loads(FILE.read_text())
    if table["transformers"] != transformers.__version__:
        pytest.skip(f"the table was made from {table['transformers']}")
    if os.environ.get("CROSSMATCH_EVERY_CELL"):
        assert tables() == table, "run: python tests/naming_table.py"
        return
    every = sorted({name for names in classes().values() for name in names})
    here = {name for name, value in globals().items() if isinstance(value, type) and name in every}
    some = {*every[::16], *here, *(name for name, _ in OF_TRANSFORMERS), "MixtralForCausalLM", "LlavaModel"}
    kept = {kind: [name for name in names if name in some] for kind, names in table["types"].items()}
    expected = {
        **table,
        "types": {kind: names for kind, names in kept.items() if names},
        "ties": [kind for kind in table["ties"] if kept[kind]],
        "classes": {name: facts for name, facts in table["classes"].items() if name in some},
    }
    assert tables(some) == expected, "run: python tests/naming_table.py"


@pytest.mark.parametrize(("name", "kind"), OF_TRANSFORMERS)
def test_names_are_renamed_as_transformers_does(name: str, kind: str) -> None:
    """Each name of the model, and the layouts of former versions, by our copy and by transformers itself."""
    model = build(name, kind)
    (naming,) = [n for n in namings({"architectures": [name], "model_type": kind}) if n.name == name and not n.outer]
    transforms: list[Any] = [t for t in get_model_conversion_mapping(model) if not isinstance(t, WeightConverter)]
    names = list(model.state_dict())
    former = [re.sub(r"^model\.", "", n) for n in names] + [f"language_model.{n}" for n in names]
    former += [n.replace(".mlp.", ".block_sparse_moe.").replace("model.layers", "backbone.layers") for n in names]
    for tensor in {*names, *former}:
        assert naming.model_name(tensor) == apply_renamings(tensor, transforms), tensor


@pytest.mark.parametrize(("make", "targets"), [(gpt2, ["c_attn", "c_proj"]), (bloom, ["query_key_value", "dense"])])
def test_files_of_the_base_model_alone(tmp_path: Path, make: Callable[[], Any], targets: list[str]) -> None:
    """GPT-2 and BLOOM lie on the hub without `transformer.`; GPT-2 with its masks, which transformers passes over."""
    model = make()
    base = save(model, tmp_path / "base")
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril().to(torch.uint8) for i in (0, 1)}
    more = masks | {"h.0.attn.masked_bias": torch.tensor(-1e4)} if make is gpt2 else {}
    rewrite(base, lambda name: name.removeprefix("transformer."), **more)
    adapter = tune(type(model), base, tmp_path / "a", target_modules=targets, fan_in_fan_out=make is gpt2)
    check_merges(type(model), base, adapter, tmp_path)
    found = identify(tmp_path / "peft", Checkpoint(base), {"a": Adapter(adapter)})
    assert found.verdict == "identified"
    assert found.weights["a"].recovered == pytest.approx(1.0)
    note = extract(Checkpoint(base), Checkpoint(tmp_path / "peft"), tmp_path / "tau")["predicate"]["notes"][0]
    assert "go by another name in the base's file" in note


def test_a_tensor_that_is_gone_is_missing_under_any_name(tmp_path: Path) -> None:
    base = save(gpt2(), tmp_path / "base")
    adapter = tune(GPT2LMHeadModel, base, tmp_path / "a", target_modules=["c_attn"], fan_in_fan_out=True)
    merged = by_peft(GPT2LMHeadModel, base, adapter, tmp_path / "peft")
    rewrite(base, lambda name: name.removeprefix("transformer."))
    tensors = load_file(merged / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    tensors["transformer.h.2.mlp.c_fc.weight"] = torch.zeros(2, 2)
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    found = {finding.fault: finding.where for finding in judged(merged, base, adapter).findings}
    assert found == {
        "tensors-missing": ("h.1.mlp.c_fc.weight",),
        "tensors-extra": ("transformer.h.2.mlp.c_fc.weight",),
    }


@pytest.mark.parametrize("where", ["merged", "base"])
@pytest.mark.parametrize("kind", ["declared", "by its class", "all of T5"])
def test_a_second_copy_of_tied_embeddings(tmp_path: Path, where: str, kind: str) -> None:
    model = {"declared": lambda: llama(tied=True), "by its class": gpt2, "all of T5": t5}[kind]()
    targets = {"declared": ["q_proj"], "by its class": ["c_attn"], "all of T5": ["q"]}[kind]
    base = save(model, tmp_path / "base")
    adapter = tune(type(model), base, tmp_path / "a", target_modules=targets, fan_in_fan_out=kind == "by its class")
    merged = by_peft(type(model), base, adapter, tmp_path / "merged")
    for path in (base, merged):
        declare(path, tie_word_embeddings=... if kind == "by its class" else True)
    shared = load_file(base / "model.safetensors")
    first = next(n for n in shared if n.endswith(("embed_tokens.weight", "wte.weight", "shared.weight")))
    copies = ["lm_head.weight"] + ["encoder.embed_tokens.weight"] * (kind == "all of T5")
    rewrite(tmp_path / where, str, **dict.fromkeys(copies, shared[first]))
    assert judged(merged, base, adapter).verified
    rewrite(tmp_path / where, str, **{"lm_head.weight": shared[first] + 0.01})
    assert faults(judged(merged, base, adapter)) >= {"tensors-extra" if where == "merged" else "tensors-missing"}


def t5() -> Any:
    return T5ForConditionalGeneration(T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4))


def test_what_older_versions_stored(tmp_path: Path) -> None:
    """`gamma` and `beta`, positions and frequencies, a decoder beside the embeddings that it shares."""
    model = BertForMaskedLM(BertConfig(**{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}))
    base = save(model, tmp_path / "bert")
    adapter = tune(BertForMaskedLM, base, tmp_path / "a", target_modules=["query"])
    merged = by_peft(BertForMaskedLM, base, adapter, tmp_path / "merged")
    words = load_file(base / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    more = {"cls.predictions.decoder.weight": words, "bert.embeddings.position_ids": torch.arange(512)[None]}
    rewrite(base, lambda n: n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"), **more)
    assert judged(merged, base, adapter).verified
    base = save(llama(), tmp_path / "llama")
    rewrite(base, str, **{f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in (0, 1)})
    adapter = tune(LlamaForCausalLM, base, tmp_path / "b", target_modules=["q_proj"])
    assert judged(by_peft(LlamaForCausalLM, base, adapter, tmp_path / "c"), base, adapter).verified


def test_layers_that_the_class_passes_over(tmp_path: Path) -> None:
    """Layers that predict several tokens ahead: copied by a merge, missed if they are lost, no hole of an adapter."""
    base = save(qwen35(), tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    ahead = {"mtp.layers.0." + n.split("layers.1.")[1]: t + 0.01 for n, t in tensors.items() if ".layers.1." in n}
    rewrite(base, str, **ahead)
    adapter = tune(Qwen3_5ForConditionalGeneration, base, tmp_path / "a", target_modules=["q_proj", "up_proj"])
    merged = by_peft(Qwen3_5ForConditionalGeneration, base, adapter, tmp_path / "peft")
    found = {finding.fault: set(finding.where) for finding in judged(merged, base, adapter).findings}
    assert found == {"tensors-missing": set(ahead)}
    merge(Checkpoint(base), {"a": (Adapter(adapter), 1.0)}, tmp_path / "ours", proof=WholeProof())
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    assert all(torch.equal(ours[name], tensor) for name, tensor in ahead.items())


def text_of(model: Any, cls: Any, out: Path) -> Path:
    """The text model of a larger one, saved by its own class."""
    text = cls(model.config.get_text_config())
    text.model.load_state_dict(model.model.language_model.state_dict())
    text.save_pretrained(out)
    return out


@pytest.mark.parametrize(
    ("make", "cls"),
    [(qwen35, Qwen3_5ForCausalLM), (gemma3, Gemma3ForCausalLM), (llava, LlamaForCausalLM)],
    ids=["qwen3.5", "gemma3", "llava"],
)
def test_text_classes_of_larger_models(tmp_path: Path, make: Callable[[], Any], cls: Any) -> None:
    """`model.layers` of the adapter is `model.language_model.layers`, or `language_model.model.layers`, of the file."""
    model = make()
    base = save(model, tmp_path / "base")
    adapter = tune(cls, text_of(model, cls, tmp_path / "text"), tmp_path / "a", target_modules=["q_proj", "up_proj"])
    found = fit(Checkpoint(base), {"a": Adapter(adapter)})
    assert len(found.vectors["a"]) == len(Adapter(adapter))
    assert all("language_model." in name and "vision" not in name for name in found.vectors["a"])
    assert "go by another name" in found.notes[0]
    merge(Checkpoint(base), {"a": (Adapter(adapter), 1.0)}, tmp_path / "ours", proof=WholeProof())
    expected = PeftModel.from_pretrained(cls.from_pretrained(tmp_path / "text"), adapter).merge_and_unload()
    ours = type(model).from_pretrained(tmp_path / "ours").model.language_model.state_dict()
    for name, tensor in expected.model.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-6)
    # The text model alone lacks the tower, which is true; its weights are found all the same.
    expected.save_pretrained(tmp_path / "peft")
    verdict = judged(tmp_path / "peft", base, adapter)
    assert verdict.weights["a"].recovered == pytest.approx(1.0)
    assert "tensors-missing" in faults(verdict)


@pytest.mark.parametrize("layout", ["model.language_model.", "language_model.model.", "model.language_model.model."])
@pytest.mark.parametrize("make", [llava, gemma3], ids=["llava", "gemma3"])
def test_keys_of_former_versions(tmp_path: Path, make: Callable[[], Any], layout: str) -> None:
    """An adapter's keys as transformers 4 called the modules, towers included, are those of today."""
    model = make()
    base = save(model, tmp_path / "base")
    # As the hub has it; what transformers builds anew it saves without `vision_model.`
    rewrite(base, lambda name: name.replace("vision_tower.", "vision_tower.vision_model."))
    adapter = tune(type(model), base, tmp_path / "a", target_modules=["q_proj", "v_proj"])
    check_merges(type(model), base, adapter, tmp_path)
    expected = fit(Checkpoint(base), {"a": Adapter(adapter)}).vectors["a"]
    tower = "vision_tower.vision_model." if layout == "language_model.model." else "model.vision_tower."

    def former(key: str) -> str:
        key = key.replace("model.model.language_model.", f"model.{layout}")
        return key.replace("model.model.vision_tower.", f"model.{tower}")

    rewrite(adapter, former, "adapter_model.safetensors")
    found = fit(Checkpoint(base), {"a": Adapter(adapter)}).vectors["a"]
    assert set(found) == set(expected)
    assert any("vision_tower" in name for name in found)


RENAMED: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "granitemoe": (
        lambda: GraniteMoeForCausalLM(GraniteMoeConfig(**SMALL, num_local_experts=4)),
        {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
    ),
    "phimoe": (lambda: PhimoeForCausalLM(PhimoeConfig(**SMALL, num_local_experts=4)), {"target_modules": "all-linear"}),
    "nemotron-h": (
        lambda: NemotronHForCausalLM(
            NemotronHConfig(
                hidden_size=32,
                layer_types=["mamba", "attention"],
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=16,
                mamba_num_heads=4,
                mamba_head_dim=16,
                ssm_state_size=8,
                n_groups=1,
                chunk_size=16,
                intermediate_size=48,
                vocab_size=128,
            )
        ),
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "mixtral": (
        lambda: MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4)),
        {"target_modules": "all-linear"},
    ),
    "qwen2-moe": (
        lambda: Qwen2MoeForCausalLM(
            Qwen2MoeConfig(
                **SMALL,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=24,
                shared_expert_intermediate_size=24,
            )
        ),
        {"target_modules": "all-linear"},
    ),
    "qwen3-moe": (
        lambda: Qwen3MoeForCausalLM(
            Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=8)
        ),
        {"target_modules": "all-linear"},
    ),
    "one parameter": (
        lambda: OlmoeForCausalLM(OlmoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2)),
        {"target_modules": ["q_proj"], "target_parameters": ["down_proj"]},
    ),
}


@pytest.mark.parametrize("kind", RENAMED)
def test_modules_and_experts_that_files_call_otherwise(tmp_path: Path, kind: str) -> None:
    make, config = RENAMED[kind]
    model = make()
    base = save(model, tmp_path / "base")
    adapter = tune(type(model), base, tmp_path / "a", **config)
    check_merges(type(model), base, adapter, tmp_path)


def test_experts_that_are_left_out_of_one_layer(tmp_path: Path) -> None:
    model = RENAMED["mixtral"][0]()
    base = save(model, tmp_path / "base")
    adapter = tune(type(model), base, tmp_path / "a", target_modules="all-linear")
    file = adapter / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layers.1.mlp.experts" not in k}, file)
    with pytest.raises(AdapterError, match="gate_up_proj of layer 1") as caught:
        fit(Checkpoint(base), {"a": Adapter(adapter)})
    assert caught.value.fault == "adapter-incomplete"


def test_heads_that_are_declared_and_not_there(tmp_path: Path) -> None:
    """PEFT declares `classifier` and `score` for every classifier, which has one of them."""
    config = LlamaConfig(**SMALL, num_labels=1)
    base = save(LlamaForSequenceClassification(config), tmp_path / "base")
    options: dict[str, Any] = {"target_modules": ["q_proj"], "task_type": "SEQ_CLS"}
    adapter = tune(LlamaForSequenceClassification, base, tmp_path / "a", **options)
    assert set(Adapter(adapter).config.saved) == {"classifier", "score"}
    check_merges(LlamaForSequenceClassification, base, adapter, tmp_path)
    # A base without a head cannot take it.
    save(llama(), tmp_path / "llama")
    with pytest.raises(AdapterError, match="score.weight; it saved a layer that the base does not have"):
        fit(Checkpoint(tmp_path / "llama"), {"a": Adapter(adapter)})
    file = adapter / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "score" not in k}, file)
    with pytest.raises(AdapterError, match="declares modules_to_save classifier, score"):
        Adapter(adapter)
    options = {"target_modules": ["q_proj"], "modules_to_save": ["norm", "no_such_module"]}
    adapter = tune(LlamaForCausalLM, tmp_path / "llama", tmp_path / "b", **options)
    fit(Checkpoint(tmp_path / "llama"), {"b": Adapter(adapter)})
    declare(adapter, "adapter_config.json", modules_to_save=["norm", "lm_head"])
    with pytest.raises(AdapterError, match=r"its config targets lm_head\.weight"):
        fit(Checkpoint(tmp_path / "llama"), {"b": Adapter(adapter)})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_velora_changes_training_alone(tmp_path: Path) -> None:
    base = save(llama(), tmp_path / "base")
    adapter = tune(LlamaForCausalLM, base, tmp_path / "a", target_modules=["q_proj"], velora_config=VeloraConfig())
    assert any("velora" in key for key in load_file(adapter / "adapter_model.safetensors"))
    check_merges(LlamaForCausalLM, base, adapter, tmp_path)


def test_targets_without_case(tmp_path: Path) -> None:
    base = save(llama(), tmp_path / "base")
    adapter = tune(LlamaForCausalLM, base, tmp_path / "a", target_modules="(?i).*Q_PROJ")
    check_merges(LlamaForCausalLM, base, adapter, tmp_path)


def test_brackets_in_the_texts_of_a_header(tmp_path: Path) -> None:
    base = save(llama(), tmp_path / "base")
    file = base / "model.safetensors"
    nests = json.dumps([[[i, [i]], [[i], '"']] for i in range(500)])
    save_file(load_file(file), file, metadata={"format": "pt", "shapes": nests})
    assert len(Checkpoint(base).tensors) == len(load_file(file))
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].replace(b'"__metadata__"', b'"x":' + b"[" * 9000 + b',"__metadata__"', 1)
    file.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])
    with pytest.raises(CheckpointError, match="full of brackets"):
        Checkpoint(base)


def test_a_class_of_somebody_else_is_taken_by_its_names(tmp_path: Path) -> None:
    base = save(llama(), tmp_path / "base")
    adapter = tune(LlamaForCausalLM, base, tmp_path / "a", target_modules=["q_proj"])
    declare(base, architectures=["TheirLlama"], model_type="their_llama")
    shutil.copytree(base, tmp_path / "other")
    rewrite(tmp_path / "other", lambda name: f"language_model.{name}")
    assert not namings(Checkpoint(base).config)
    for path in (base, tmp_path / "other"):
        assert len(fit(Checkpoint(path), {"a": Adapter(adapter)}).vectors["a"]) == 2
