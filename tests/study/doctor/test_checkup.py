"""The checkup: what is well, what is doubtful, what is wrong, each with what to do."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossmatch.cli import run
from crossmatch.errors import InputError
from crossmatch.study.doctor import Checkup, Line, doctor
from crossmatch.study.doctor.environment import environment
from helpers import copy, make_adapter, make_chat_room, make_llama


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model, two adapters on it, and one of a narrower model."""
    return make_chat_room(tmp_path_factory.mktemp("doctor"))


def lines(found: Checkup, topic: str) -> list[Line]:
    return [line for line in found.lines if line.topic == topic]


def test_a_base_and_its_adapters_are_well(laid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", str(laid / "base"), "-a", f"pt={laid / 'pt'}", "-a", f"sft={laid / 'sft'}"]
    assert run([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fault"] == 0
    topics = [line["topic"] for line in facts["lines"]]
    assert {"packages", "memory", "GPU", "base", "vocabulary", "turn end", "adapter pt", "together"} <= set(topics)
    assert run(arguments) == 0
    text = capsys.readouterr().out
    assert "whole; fits 14 tensors of the base, rank 8" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_base_alone(laid: Path) -> None:
    found = doctor(str(laid / "base"))
    assert found.worst in ("ok", "warning")
    assert not [line for line in found.lines if line.topic.startswith("adapter")]


def test_an_adapter_of_another_base_is_a_fault(laid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(laid / "base"), "-a", f"x={laid / 'foreign'}"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "a delta of [176, 32], the base a tensor of [64, 176]" in text
    assert "-> it was trained on another base; give that one" in text


def test_an_adapter_that_names_another_base_is_a_warning(laid: Path, tmp_path: Path) -> None:
    moved = copy(laid / "pt", tmp_path / "pt")
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/elsewhere"}))
    (line,) = [
        one for one in lines(doctor(str(laid / "base"), {"pt": str(moved)}), "adapter pt") if "names" in one.seen
    ]
    assert (line.state, "org/elsewhere" in line.seen) == ("warning", True)


def test_an_untrained_adapter_is_a_fault(laid: Path, tmp_path: Path) -> None:
    flat = copy(laid / "pt", tmp_path / "pt")
    file = flat / "adapter_model.safetensors"
    save_file({k: torch.zeros_like(v) if "lora_B" in k else v for k, v in load_file(file).items()}, file)
    (line,) = lines(doctor(str(laid / "base"), {"pt": str(flat)}), "adapter pt")
    assert line.state == "fault"
    assert "not trained" in line.seen
    assert "--allow-partial-adapter" in line.remedy


def test_a_change_of_one_of_two_tied_embeddings_is_a_fault(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "tied", tied=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapter = make_adapter(base, tmp_path / "head", seed=1, target_modules=["lm_head"])
    found = doctor(str(base), {"head": str(adapter)})
    assert lines(found, "tokenizer")[0].state == "warning"
    assert any(line.state == "fault" and "tied" in line.seen for line in lines(found, "adapter head"))


def test_tokens_without_a_row_and_a_missing_template(laid: Path, tmp_path: Path) -> None:
    base = copy(laid / "base", tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["beyond"] = 64
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = doctor(str(base))
    assert (lines(found, "vocabulary")[0].state, lines(found, "chat template")[0].state) == ("fault", "warning")


def test_a_turn_end_that_is_no_end_of_sequence(laid: Path, tmp_path: Path) -> None:
    base = copy(laid / "base", tmp_path / "base")
    for name in ("config.json", "generation_config.json"):
        config = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps({**config, "eos_token_id": 1}))
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<unk>"}))
    (line,) = lines(doctor(str(base)), "turn end")
    assert line.state == "warning"
    assert "'<|end|>', which is no declared end of sequence" in line.seen


def test_what_is_not_there_is_bad_input(laid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="give the base as well"):
        doctor(None, {"pt": str(laid / "pt")})
    assert run(["doctor", str(laid / "nothing-here")]) == 2
    assert run(["doctor", str(laid / "base"), "-a", f"pt={laid / 'no'}"]) == 2
    assert capsys.readouterr().err.count("error:") == 2


def test_what_is_no_checkpoint_is_a_fault(laid: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (line,) = lines(doctor(str(tmp_path / "empty")), "base")
    assert line.state == "fault"
    assert line.remedy


def test_packages_and_machine() -> None:
    found = {line.topic: line for line in environment()}
    assert "torch" in found["packages"].seen
    assert found["packages"].state == "ok"
    assert {"system", "packages", "extras", "memory", "disk", "GPU"} == set(found)


def test_a_package_of_another_version_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossmatch.study.doctor.environment._version", lambda name: "0.0.1")
    (line,) = [one for one in environment() if one.topic == "packages"]
    assert line.state == "fault"
    assert "pip install" in line.remedy
    assert "torch 0.0.1 (needed <3,>=2.6)" in line.seen
