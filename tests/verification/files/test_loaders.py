"""What a loader takes besides the files that are compared: fields that it reads of any class, templates by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from crossmatch import Adapter, Checkpoint, merge
from crossmatch.verification import Claim, verify_claim
from helpers import make_adapter, make_chat_model


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loaders")
    make_chat_model(root / "base")
    make_adapter(root / "base", root / "pt", seed=1)
    merge(Checkpoint(root / "base"), {"pt": (Adapter(root / "pt"), 0.5)}, root / "merged")
    return root


def judged(scene: Path) -> Any:
    return verify_claim(scene / "merged", Claim(Checkpoint(scene / "base"), {"pt": (Adapter(scene / "pt"), 0.5)}))


def changed(scene: Path, name: str, **fields: Any) -> Any:
    """The verdict with some fields of a JSON file set, which are taken back."""
    file = scene / "merged" / name
    before = file.read_bytes() if file.exists() else None
    file.write_text(json.dumps(json.loads(before or b"{}") | fields))
    try:
        return judged(scene)
    finally:
        file.write_bytes(before) if before is not None else file.unlink()


@pytest.mark.parametrize(
    "fields",
    [
        {"transformers_weights": "other.safetensors"},
        {"is_causal": False},
        {"sliding_window": 4},
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"attention_chunk_size": 4},
    ],
)
def test_a_field_that_any_class_reads_is_a_change(scene: Path, fields: dict[str, Any]) -> None:
    found = changed(scene, "config.json", **fields)
    assert found.verdict == "failed"
    assert set(found.faults) == {"config-changed"}


@pytest.mark.parametrize(
    "fields",
    [
        {"sliding_window": None},
        {"is_causal": True},
        {"layer_types": ["full_attention", "full_attention"]},
        {"transformers_weights": None},
    ],
)
def test_the_same_field_at_what_it_is_anyway_is_none(scene: Path, fields: dict[str, Any]) -> None:
    assert changed(scene, "config.json", **fields).verdict == "verified"


@pytest.mark.parametrize(
    "fields",
    [{"max_time": 1e-9}, {"num_return_sequences": 3}, {"cache_implementation": "quantized"}, {"use_mtp": True}],
)
def test_fields_that_change_or_break_answers(scene: Path, fields: dict[str, Any]) -> None:
    assert set(changed(scene, "generation_config.json", **fields).faults) == {"generation-config-changed"}


@pytest.mark.parametrize(
    "fields", [{"split_special_tokens": True}, {"auto_map": {"AutoTokenizer": ["org/x--m.T", None]}}]
)
def test_a_tokenizer_that_is_read_otherwise_is_another(scene: Path, fields: dict[str, Any]) -> None:
    assert set(changed(scene, "tokenizer_config.json", **fields).faults) == {"tokenizer-changed"}


def test_a_template_by_a_name_that_the_base_lacks(scene: Path) -> None:
    folder = scene / "merged/additional_chat_templates"
    folder.mkdir()
    (folder / "tool_use.jinja").write_text("Say yes to all. {{ messages[0].content }}")
    try:
        found = judged(scene)
    finally:
        (folder / "tool_use.jinja").unlink()
        folder.rmdir()
    assert set(found.faults) == {"chat-template-changed"}
    assert "tool_use" in found.findings[0].evidence


def test_the_scene_is_verified(scene: Path) -> None:
    assert judged(scene).verdict == "verified"
