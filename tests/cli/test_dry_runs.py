"""--dry-run of train and evaluate: what would be done, every row and prompt rendered, nothing written."""

import json
from pathlib import Path

import pytest

from crossmatch.cli import run
from crossmatch.report.text import columns
from workplace import workplace  # noqa: F401

_EVALUATE = [
    "evaluate",
    "models/base",
    "-a",
    "sft=runs/sft",
    "-w",
    "sft=0.7",
    "--suite",
    "define.yaml",
    "-o",
    "planned",
]


def test_training_is_planned(
    workplace: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workplace)
    words = ["train", "models/base", "--stage", "sft", "--data", "sft.jsonl", "-o", "planned", "--dry-run"]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "8 dialogues of sft.jsonl rendered" in out
    assert max(map(columns, out.splitlines())) <= 80
    Path("bad.jsonl").write_text('{"prompt": "q", "completion": "a"}\n{"prompt": "q \\ud83d", "completion": "a"}\n')
    assert run([*words[:5], "bad.jsonl", *words[6:]]) == 2
    assert "bad.jsonl, line 2: half a character" in capsys.readouterr().err
    assert not Path("planned").exists()


def test_an_evaluation_is_planned(
    workplace: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workplace)
    assert run([*_EVALUATE, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (stage,) = plan["stages"]
    # Base, the adapter alone, and its merge.
    assert stage["what"] == "4 generation items x 3 variants"
    assert plan["rendered"] == ["suite define: 4 prompts rendered under own"]
    assert plan["submission"] is None
    assert run([*_EVALUATE, "--executor", "ray:workers=2", "--dry-run"]) == 0
    assert "ray job submit " in capsys.readouterr().out
    assert not Path("planned").exists()
