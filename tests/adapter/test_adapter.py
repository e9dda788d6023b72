"""Adapters against PEFT itself: the delta that PEFT would merge is the delta that we read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from crossmatch import Adapter
from crossmatch.adapter import pattern_key
from crossmatch.delta import dense
from crossmatch.errors import AdapterError
from helpers import LINEAR, copy, make_adapter, make_gpt2

PATTERNS = {
    "rank_pattern": {"q_proj": 4, r"layers\.1\..*up_proj": 2, "model.layers.0.mlp.down_proj": 12},
    "alpha_pattern": {r"layers\.[01]\.self_attn\.v_proj": 64, "o_proj": 3},
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": PATTERNS,
    "rslora patterns": {"use_rslora": True, **PATTERNS},
    "attention only": {"target_modules": ["q_proj", "v_proj"], "r": 3, "lora_alpha": 7},
    "all-linear": {"target_modules": "all-linear"},
    "regex targets": {"target_modules": r".*\.0\.mlp\..*_proj"},
    "gaussian": {"init_lora_weights": "gaussian"},
}


def peft_deltas(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter)
    prefix = "base_model.model."
    return {
        f"{name.removeprefix(prefix)}.weight": module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and "default" in module.lora_A
    }


@pytest.mark.parametrize("case", CASES)
def test_deltas_are_those_of_peft(models: Path, tmp_path: Path, case: str) -> None:
    make_adapter(models / "base", tmp_path / "a", seed=5, **CASES[case])
    adapter = Adapter(tmp_path / "a")
    expected = peft_deltas(models / "base", tmp_path / "a")
    assert set(adapter) == set(expected)
    for name, delta in expected.items():
        torch.testing.assert_close(dense(adapter[name], torch.float32), delta, rtol=1e-5, atol=1e-6)
        assert adapter[name].shape == tuple(delta.shape)


def test_transposed_weights_of_gpt2(tmp_path: Path) -> None:
    make_gpt2(tmp_path / "base")
    make_adapter(tmp_path / "base", tmp_path / "a", seed=5, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    adapter = Adapter(tmp_path / "a")
    assert adapter.config.fan_in_fan_out
    weights = load_file(tmp_path / "base" / "model.safetensors")
    for name, delta in peft_deltas(tmp_path / "base", tmp_path / "a").items():
        torch.testing.assert_close(dense(adapter[name], torch.float32), delta, rtol=1e-5, atol=1e-6)
        assert adapter[name].shape == tuple(weights[name].shape)


def test_old_key_layout_and_half_precision(models: Path, tmp_path: Path) -> None:
    copy(models / "pt", tmp_path / "a")
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    old = {k.replace(".weight", ".default.weight"): v.bfloat16() for k, v in tensors.items()}
    save_file(old, tmp_path / "a" / "adapter_model.safetensors")
    adapter, plain = Adapter(tmp_path / "a"), Adapter(models / "pt")
    assert list(adapter) == list(plain)
    for name in plain:
        torch.testing.assert_close(dense(adapter[name]), dense(plain[name]), rtol=0.05, atol=0.02)


def change(directory: Path, **fields: Any) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "LOHA"}, "type LOHA"),
        ({"peft_type": "ADALORA"}, "type ADALORA"),
        ({"peft_type": "LOKR"}, "type LOKR"),
        ({"peft_type": "IA3"}, "type IA3"),
        ({"peft_type": "VERA"}, "type VERA"),
        ({"use_dora": True}, "declares DoRA magnitudes .*, which the file does not hold"),
        ({"lora_bias": True}, "declares LoRA biases"),
        ({"modules_to_save": ["score"], "task_type": "SEQ_CLS"}, "declares modules_to_save score"),
        ({"target_parameters": ["experts"]}, "declares targeted parameters"),
        ({"trainable_token_indices": [1]}, "declares trainable tokens"),
        ({"use_qalora": True}, "use_qalora = True is not supported"),
        ({"init_lora_weights": "corda"}, "'corda' moved part of the base"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "'pissa' moved part of the base"),
        ({"init_lora_weights": "olora"}, "'olora' moved part of the base"),
        ({"invented_next_year": 3}, "invented_next_year = 3 is not supported"),
        ({"r": "many"}, "wrong type"),
        ({"r": 0}, "rank must be at least 1"),
        ({"r": 5}, "has rank 8 in the file"),
        ({"lora_alpha": None}, "wrong type"),
        ({"rank_pattern": {"(": 3}}, "no regular expression"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    models: Path, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    copy(models / "pt", tmp_path / "a")
    change(tmp_path / "a", **fields)
    with pytest.raises(AdapterError, match=message):
        next(iter(Adapter(tmp_path / "a").values()))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if "layers.0.mlp.up_proj.lora_B" not in k}, "has no lora_B"),
        (lambda t: {**t, "extra.lora_E": torch.zeros(1)}, "no tensor that a LoRA adapter holds"),
        (lambda t: {}, "holds no tensors"),
        (lambda t: {k: v * float("nan") for k, v in t.items()}, "NaN or infinite"),
        (
            lambda t: {**t, **{k.replace("lora_A", "lora_A.second"): v for k, v in t.items() if "lora_A" in k}},
            "same factor",
        ),
    ],
)
def test_damaged_factors_are_refused(models: Path, tmp_path: Path, edit: Any, message: str) -> None:
    copy(models / "pt", tmp_path / "a")
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file({k: v.clone() for k, v in edit(load_file(file)).items()}, file)
    with pytest.raises(AdapterError, match=message):
        next(iter(Adapter(tmp_path / "a").values()))


def test_missing_and_pickled_files(models: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        Adapter(models / "base")
    copy(models / "pt", tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").rename(tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(AdapterError, match="pickle that can run code"):
        Adapter(tmp_path / "a")


@pytest.mark.parametrize("module", ["model.layers.1.mlp.up_proj", "up_proj", "xup_proj", "a.b.up_proj.c"])
@pytest.mark.parametrize("patterns", [["up_proj"], [r"layers\.\d+\.mlp\.up_proj"], ["mlp", "up_proj"], [r".*up_proj"]])
def test_pattern_rule_is_that_of_peft(module: str, patterns: list[str]) -> None:
    from peft.utils.other import get_pattern_key

    assert pattern_key(dict.fromkeys(patterns), module) == get_pattern_key(patterns, module)


def test_digest_is_of_content(models: Path, tmp_path: Path) -> None:
    copy(models / "pt", tmp_path / "a")
    assert Adapter(tmp_path / "a").digest == Adapter(models / "pt").digest
    assert Adapter(models / "sft").digest != Adapter(models / "pt").digest
    assert set(LINEAR) == set(Adapter(models / "pt").config.targets)


def test_adapter_is_a_vector(models: Path) -> None:
    pt, sft = Adapter(models / "pt"), Adapter(models / "sft")
    merged = 0.3 * pt + 0.7 * sft
    name = next(iter(pt))
    torch.testing.assert_close(dense(merged[name]), 0.3 * dense(pt[name]) + 0.7 * dense(sft[name]))
    assert merged[name].rank == 16  # type: ignore[union-attr]
