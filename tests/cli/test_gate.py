"""What a pipeline meets: unfetched files, a base that is not there after a green run, a check of some rows."""

import shutil
from pathlib import Path

import pytest

from crossmatch.cli import run
from crossmatch.cli.evaluate.options import exit_unjudged
from helpers import copy

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 614400\n"


@pytest.fixture
def merged(models: Path, tmp_path: Path) -> list[str]:
    """Arguments of a verification of a merge that is right."""
    for name in ("base", "pt"):
        copy(models / name, tmp_path / name)
    base, pt = tmp_path / "base", tmp_path / "pt"
    assert run(["-q", "merge", str(base), "-a", f"pt={pt}", "-w", "pt=0.5", "-o", str(tmp_path / "merged")]) == 0
    return ["verify", str(tmp_path / "merged"), "--base", str(base), "-a", f"pt={pt}", "-w", "pt=0.5"]


@pytest.mark.parametrize("file", ["merged/model.safetensors", "base/model.safetensors", "pt/adapter_model.safetensors"])
def test_a_pointer_of_git_lfs_is_no_verdict(
    merged: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    (tmp_path / file).write_text(POINTER)
    capsys.readouterr()
    assert run(merged) == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"error: {tmp_path / file} is a Git LFS pointer, not the file itself: run git lfs pull where it lies\n",
    )


def test_a_damaged_adapter_is_no_verdict_on_the_merge_and_a_damaged_merge_is(
    merged: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {
        name: (tmp_path / name).read_bytes() for name in ("pt/adapter_model.safetensors", "merged/model.safetensors")
    }
    (tmp_path / "pt/adapter_model.safetensors").write_bytes(whole["pt/adapter_model.safetensors"][:-100])
    capsys.readouterr()
    assert run(merged) == 2
    assert str(tmp_path / "pt/adapter_model.safetensors") in capsys.readouterr().err
    (tmp_path / "pt/adapter_model.safetensors").write_bytes(whole["pt/adapter_model.safetensors"])
    (tmp_path / "merged/model.safetensors").write_bytes(whole["merged/model.safetensors"][:-100])
    assert run(merged) == 1
    assert "export-incomplete" in capsys.readouterr().out


def test_an_earlier_answer_is_gone_where_there_is_none(merged: list[str], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("v.sarif", "v.xml")]
    wanted = [f"--sarif={files[0]}", f"--junit={files[1]}"]
    assert run([*merged, *wanted]) == 0
    assert all(file.is_file() for file in files)
    shutil.rmtree(tmp_path / "base")
    assert run([*merged, *wanted]) == 2
    assert not any(file.exists() for file in files)


def test_the_summary_says_that_some_rows_alone_were_judged(merged: list[str], tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    assert run([*merged, f"--summary={summary}"]) == 0
    assert "Sampled" not in summary.read_text()
    assert run([*merged, "--quick", f"--summary={summary}"]) == 0
    assert "**Sampled rows alone were judged** (`--quick`)" in summary.read_text()


def test_a_public_key_that_is_not_there_is_no_missing_signature(
    merged: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*merged, f"--public-key={tmp_path / 'nokey.pem'}"]) == 2
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("same_as", "verdict", "ends"), [("m", "unknown", True), ("m", "same", False), (None, "unknown", False)]
)
def test_a_server_that_may_run_another_model_is_inconclusive(same_as: str | None, verdict: str, ends: bool) -> None:
    import typer

    summary = {"conditions": {}, "server": {"url": "http://localhost", "same_as": same_as, "verdict": verdict}}
    if not ends:
        exit_unjudged(summary)
        return
    with pytest.raises(typer.Exit) as raised:
        exit_unjudged(summary)
    assert raised.value.exit_code == 3
