"""Configs by what transformers resolves them to: families saved again are the same, a field that computes is not."""

import json
from typing import Any

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from crossmatch.verification.files import config as configs
from crossmatch.verification.files.config import compare_configs
from one_child import OneChild

FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 100}
OLD_ROPE = {"rope_theta": 500000.0}
NEW_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
SOFT = {"final_logit_softcapping": 30.0}
MULTIPLIERS = ("attention_multiplier", "residual_multiplier", "embedding_multiplier", "logits_scaling")
QWEN = {"model_type": "qwen2", "num_hidden_layers": 2, "max_window_layers": 1}


def older(config: dict[str, Any]) -> dict[str, Any]:
    """A config as transformers 4 wrote it: rotary settings apart, torch_dtype, defaults of the library left out."""
    old = {
        key: older(value) if isinstance(value, dict) and key != "rope_parameters" else value
        for key, value in config.items()
    }
    rope = old.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        del old["rope_parameters"]
        old["rope_theta"] = rope["rope_theta"]
        rest = {("type" if key == "rope_type" else key): v for key, v in rope.items() if key != "rope_theta"}
        old["rope_scaling"] = rest if rest.get("type", "default") != "default" else None
    if "dtype" in old:
        old["torch_dtype"] = old.pop("dtype")
    old.pop("_name_or_path", None)
    return old


def usual() -> list[dict[str, Any]]:
    """The configs of most tests below."""
    bases = [{**LLAMA, **rope} for rope in ({}, OLD_ROPE, NEW_ROPE)]
    return [
        *bases,
        *({**base, field: value} for base in bases[1:] for field, value in CHANGES.items()),
        {**LLAMA, "rms_norm_eps": 1e-6, "hidden_act": "swish"},
        *({"model_type": "gemma2", **more} for more in ({}, SOFT, dict.fromkeys(SOFT))),
        *({"model_type": "granite", **more} for more in ({}, *({name: 0.5} for name in MULTIPLIERS))),
        *({**QWEN, **more} for more in ({}, {"use_sliding_window": True})),
    ]


@pytest.fixture(scope="module")
def child() -> OneChild:
    return OneChild(usual)


@pytest.fixture(autouse=True)
def one_child(monkeypatch: pytest.MonkeyPatch, child: OneChild) -> None:
    monkeypatch.setattr(configs, "resolve", child)


def saved(family: str) -> dict[str, Any] | None:
    try:
        return json.loads(CONFIG_MAPPING[family]().to_json_string())
    except Exception:  # some defaults do not pass the library's own checks
        return None


@pytest.mark.slow
def test_every_family_saved_by_another_version_is_the_same() -> None:
    pairs = {
        name: (old, config)
        for name in FAMILIES
        if (config := saved(name)) and (old := {**older(config), "transformers_version": "4.46.0"})
    }
    assert len(pairs) > 100
    configs.resolve([config for pair in pairs.values() for config in pair])  # type: ignore[arg-type]
    wrong = {}
    for name, (old, config) in pairs.items():
        for first, second in ((old, config), (config, old)):
            found = compare_configs(first, second)
            if found.changed:
                wrong[name] = [str(change) for change in found.changed]
    assert wrong == {}


@pytest.mark.parametrize(("ours", "theirs"), [(OLD_ROPE, NEW_ROPE), (NEW_ROPE, OLD_ROPE)])
def test_rotary_settings_in_either_form(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert compare_configs({**LLAMA, **ours}, {**LLAMA, **theirs}).changed == ()


CHANGES: dict[str, Any] = {
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "head_dim": 32,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "attention_bias": True,
    "max_position_embeddings": 4096,
}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("rope", [OLD_ROPE, NEW_ROPE], ids=["old", "new"])
def test_a_field_that_computes(field: str, rope: dict[str, Any]) -> None:
    base = {**LLAMA, **rope}
    merged = {**base, field: CHANGES[field]}
    if field == "rope_theta" and rope is NEW_ROPE:
        # The settings in rope_parameters hold before it.
        assert compare_configs(merged, base).changed == ()
        return
    found = compare_configs(merged, base)
    assert any(field in (c.field, f"rope_parameters.{c.field}") or field.startswith("rope") for c in found.changed)
    assert all(c.ours != c.theirs for c in found.changed)


def test_absent_fields_have_their_class_s_default() -> None:
    assert compare_configs({**LLAMA, "rms_norm_eps": 1e-6, "hidden_act": "swish"}, LLAMA).changed == ()
    gemma = {"model_type": "gemma2", **SOFT}
    assert compare_configs(gemma, {"model_type": "gemma2"}).changed == ()
    found = compare_configs({"model_type": "gemma2", "final_logit_softcapping": None}, gemma)
    assert [c.field for c in found.changed] == ["final_logit_softcapping"]
    granite = {"model_type": "granite"}
    for name in MULTIPLIERS:
        assert [c.field for c in compare_configs({**granite, name: 0.5}, granite).changed] == [name]
    layers = compare_configs({**QWEN, "use_sliding_window": True}, QWEN).changed
    assert {"layer_types", "use_sliding_window"} <= {c.field for c in layers}


def test_what_does_not_compute_is_said_and_no_fault() -> None:
    found = compare_configs({**LLAMA, "attention_dropout": 0.1, "somebody_s_field": 3}, LLAMA)
    assert (found.changed, [c.field for c in found.other]) == ((), ["attention_dropout", "somebody_s_field"])
    both = compare_configs({**LLAMA, "somebody_s_field": 3}, {**LLAMA, "somebody_s_field": 4})
    assert [c.field for c in both.changed] == ["somebody_s_field"]


def test_models_that_transformers_does_not_know() -> None:
    base = {**LLAMA, **OLD_ROPE, "model_type": "of_nobody"}
    assert compare_configs({**LLAMA, **NEW_ROPE, "model_type": "of_nobody"}, base).changed == ()
    found = compare_configs({**base, "rope_scaling": {"type": "yarn", "factor": 4.0}}, base)
    assert "rope_parameters.factor" in [c.field for c in found.changed]
    assert found.unresolved is not None
    renamed = {**{k: v for k, v in base.items() if k != "hidden_size"}, "n_embd": 64}
    assert compare_configs(renamed, base).changed == ()


def test_a_config_that_no_loader_takes() -> None:
    found = compare_configs({**LLAMA, "num_hidden_layers": "two"}, LLAMA)
    assert found.changed
    assert found.unresolved is not None
