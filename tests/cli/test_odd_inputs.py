"""Odd inputs of vectors, analyse and evaluate: one clear line each, and nothing in the wrong place."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossmatch import Checkpoint
from crossmatch.cli import run
from crossmatch.errors import AdapterError
from crossmatch.vectors import describe
from helpers import make_adapter, make_chat_model


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    make_chat_model(root / "base")
    make_adapter(root / "base", root / "sft", seed=1, size=0.5)
    assert (
        run(["merge", str(root / "base"), "-a", f"sft={root / 'sft'}", "-w", "sft=1", "-o", str(root / "tuned")]) == 0
    )
    assert run(["vectors", "extract", str(root / "base"), str(root / "tuned"), "-o", str(root / "v")]) == 0
    rows = [{"id": str(i), "question": f"name {'the ' * i}disease", "options": ["heart", "blood"], "answer": i % 2}
            for i in range(4)]  # fmt: skip
    (root / "pick.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "pick.yaml").write_text("name: pick\nversion: 1\nkind: choice\ndata: pick.jsonl\n")
    (root / "texts.txt").write_text("what is the old blood of the heart\n" * 3)
    return root


def evaluated(room: Path, out: Path, *more: str) -> int:
    return run(["evaluate", str(room / "base"), "--suite", str(room / "pick.yaml"), "-o", str(out), *more])


def test_a_checkpoint_without_tokenizer_reads_the_bases(room: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(room / "tuned" / name, bare)
    whole, other = tmp_path / "whole", tmp_path / "other"
    assert evaluated(room, whole, "--checkpoint", f"t={room / 'tuned'}") == 0
    assert evaluated(room, other, "--checkpoint", f"t={bare}") == 0
    first, second = (json.loads((d / "summary.json").read_text())["conditions"] for d in (whole, other))
    assert first["own.greedy"]["suites"]["pick"]["metrics"] == second["own.greedy"]["suites"]["pick"]["metrics"]


def test_a_base_without_tokenizer_is_said(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(room / "base" / name, bare)
    command = ["evaluate", str(bare), "--suite", str(room / "pick.yaml"), "-o", str(tmp_path / "o")]
    assert run([*command, "-a", f"sft={room / 'sft'}", "-w", "sft=1"]) == 2
    assert "has no tokenizer that can be read" in capsys.readouterr().err


def test_weights_that_are_no_numbers_are_named(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(room / "tuned", broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    assert evaluated(room, tmp_path / "o", "--checkpoint", f"bad={broken}") == 2
    assert "variant bad" in capsys.readouterr().err


def test_a_page_without_nulls_and_with_few_positions(room: Path, tmp_path: Path) -> None:
    command = ["analyse", str(room / "base"), str(room / "sft"), "--texts", str(room / "texts.txt"), "--k", "4"]
    command += ["--no-alignment", "--positions", "20"]
    assert run([*command, "--nulls", "0", "-o", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o" / "analysis.html").exists()
    assert run([*command, "--nulls", "1"]) == 0


def test_nothing_is_written_into_what_is_analysed(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyse", str(room / "base"), str(room / "sft"), "--no-alignment", "-o", str(room / "sft")]) == 2
    assert "which is analysed" in capsys.readouterr().err
    assert not (room / "sft" / "analysis.json").exists()


def test_a_vector_on_another_base_is_noted(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["analyse", str(room / "tuned"), str(room / "v"), "--k", "4", "--cache", str(tmp_path), "--json"]
    assert run(command) == 0
    said = capsys.readouterr()
    assert "was made on other weights" in said.err
    assert json.loads(said.out)["vectors"]["v"]["on_its_base"] is False
    command = ["evaluate", "--suite", str(room / "pick.yaml"), "-a", f"v={room / 'v'}", "-w", "v=1", "--json"]
    for base, own in (("tuned", False), ("base", True)):
        assert run([*command, str(room / base), "-o", str(tmp_path / base)]) == 0
        said = capsys.readouterr()
        assert ("v was made on other weights" in said.err) is not own
        assert json.loads(said.out)["on_its_base"] == {"v": own}


def test_a_path_with_a_slip_names_what_lies_beside_it(
    room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(room)
    assert run(["inspect", "./bsae"]) == 2
    assert run(["analyse", "base", "-a", "sft=stf"]) == 2
    assert run(["analyse", "base"]) == 2
    said = capsys.readouterr().err
    assert "did you mean base?" in said
    assert "did you mean sft?" in said
    assert "nothing to analyse: give adapters" in said


def test_analyse_takes_adapters_as_other_commands_do(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--no-alignment", "--json"]
    assert run(["analyse", str(room / "base"), "-a", f"sft={room / 'sft'}", *given]) == 0
    assert list(json.loads(capsys.readouterr().out)["vectors"]) == ["sft"]


def test_vectors_of_absurd_size_are_refused(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["scale", str(room / "v"), "-g", "1e308"],
        ["scale", str(room / "v"), "-g", "1e400"],
        ["add", "-a", f"a={room / 'v'}", "-w", "a=1e308"],
    ):
        assert run(["vectors", *command, "-o", str(tmp_path / "out")]) == 2
        assert "at most 1e+30" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rows_behind_a_billion_of_others_are_refused(room: Path, tmp_path: Path) -> None:
    from crossmatch import StoredVector

    hostile = tmp_path / "hostile"
    shutil.copytree(room / "v", hostile)
    tensors = load_file(hostile / "vector.safetensors")
    tensors["first/model.embed_tokens.weight"] = torch.tensor(10**18)
    tensors["added/model.embed_tokens.weight"] = torch.zeros(4, 64)
    save_file(tensors, hostile / "vector.safetensors")
    with pytest.raises(AdapterError, match="rows added to model.embed_tokens.weight do not fit"):
        describe(StoredVector(hostile))
    assert Checkpoint(room / "base").tensors
