"""--dry-run of train and evaluate: what would be done, every row and prompt rendered, nothing written."""

import json
import re
from pathlib import Path

import pytest

from crossmatch.cli import run
from crossmatch.report.text import columns
from helpers import make_adapter, make_chat_model
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


def long_room(root: Path, **settings: str) -> str:
    """A suite whose second item is too long for a model of 64 positions."""
    rows = [
        {"id": str(n), "question": f"define {'the very old ' * (n * 20)} blood", "reference": "a cell"}
        for n in range(3)
    ]
    (root / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{name}: {value}\n" for name, value in settings.items()]
    (root / "long.yaml").write_text("name: long\nversion: 1\ndata: long.jsonl\n" + "".join(lines))
    return str(root / "long.yaml")


@pytest.fixture(scope="module")
def short_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of 64 positions with an adapter, `sft`."""
    root = tmp_path_factory.mktemp("short")
    make_chat_model(root / "base", max_position_embeddings=64)
    make_adapter(root / "base", root / "sft", seed=1)
    return root


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"kind": "generation", "max_new_tokens": "61"},
            r"line 1: a prompt has 5 tokens, with up to 61 to follow; the model has 64 positions .* \(and 2 more items\)",
        ),
        (
            {"kind": "generation", "max_new_tokens": "8"},
            r"line 2: a prompt has \d\d tokens, with up to 8 to follow; .*`too_long: cut` in the suite \(and 1 more items\)",
        ),
        (
            {"kind": "generation", "max_new_tokens": "80", "too_long": "cut"},
            r"line 1: a prompt has 5 tokens, .* nothing of the prompt is left before what follows",
        ),
    ],
)
def test_prompts_that_do_not_fit_are_refused_before_any_work(
    short_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, str], told: str, dry: bool
) -> None:
    suite, base = long_room(tmp_path, **settings), str(short_base / "base")
    command = ["evaluate", base, "-a", f"sft={short_base / 'sft'}", "-w", "sft=1", "--suite", suite]
    assert run([*command, "-o", str(tmp_path / "out"), *(["--dry-run"] if dry else [])]) == 2
    err = capsys.readouterr().err
    assert re.search(r"suite long, .*long\.jsonl, " + told, err)
    assert "load model" not in err
    assert not list(tmp_path.glob("out/**/*.jsonl"))


def test_a_choice_and_a_reference_must_fit_too(
    short_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "1", "question": "what is blood", "options": ["a cell", "the old " * 40], "answer": 0}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "c.yaml").write_text("name: c\nversion: 1\nkind: choice\ndata: c.jsonl\n")
    (tmp_path / "g.jsonl").write_text(json.dumps({**row, "reference": "the old " * 40}) + "\n")
    (tmp_path / "g.yaml").write_text("name: g\nversion: 1\nkind: generation\nmax_new_tokens: 4\ndata: g.jsonl\n")
    for suite in ("c", "g"):
        command = ["evaluate", str(short_base / "base"), "-a", f"sft={short_base / 'sft'}", "-w", "sft=1"]
        command += ["--suite", str(tmp_path / f"{suite}.yaml"), "-o", str(tmp_path / "out"), "--dry-run"]
        assert run(command) == 2
        assert f"{suite}.jsonl, line 1: a prompt has" in capsys.readouterr().err
        # References are read where models are compared on them.
        assert run([*command, "--kl", "0"]) == (2 if suite == "c" else 0)
        capsys.readouterr()


def test_what_is_cut_is_counted(short_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = long_room(tmp_path, kind="generation", max_new_tokens="8", too_long="cut")
    command = ["evaluate", str(short_base / "base"), "-a", f"sft={short_base / 'sft'}", "-w", "sft=1", "--suite", suite]
    assert run([*command, "-o", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    told = "suite long: 2 of 3 prompts lose their beginning (too_long: cut)"
    assert told in json.loads(capsys.readouterr().out)["rendered"]
    assert run([*command, "-o", str(tmp_path / "out")]) == 0
    assert f"note: {told}" in capsys.readouterr().err


def test_a_study_s_prompts_are_held_against_the_positions(
    short_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "name": "short",
        "base": str(short_base / "base"),
        "adapters": {"sft": {"path": str(short_base / "sft")}},
        "merges": [{"sft": 1}],
        "evaluation": {"suites": [long_room(tmp_path, kind="generation", max_new_tokens="8")], "reference": "sft"},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(recipe))
    assert run(["run", str(tmp_path / "study.yaml"), "--runs", str(tmp_path / "runs"), "--dry-run"]) == 2
    assert "long.jsonl, line 2: a prompt has" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        (
            "sft",
            "t.jsonl, line 1 has 88 tokens with its template, the model has 64 positions; shorten or leave them out",
        ),
        ("pt", "max_length 512: the base has 64 positions; set max_length to 64 at most"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_rows_longer_than_the_models_positions_are_refused(
    short_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, told: str, dry: bool
) -> None:
    row = {"prompt": "what is " + "the old " * 40, "completion": "a cell"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    command = ["train", str(short_base / "base"), "--stage", stage, "--data", str(tmp_path / "t.jsonl"), "-o"]
    assert run([*command, str(tmp_path / "out"), *(["--dry-run"] if dry else [])]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
