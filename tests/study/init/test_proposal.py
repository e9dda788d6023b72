"""A first recipe from what lies in a directory: found, guessed, left out, and never overwritten."""

import json
from pathlib import Path

import pytest

from crossmatch.cli import run
from crossmatch.errors import InputError, OutputError
from crossmatch.study import load_recipe
from crossmatch.study.init import init
from helpers import copy, make_chat_room

DIALOGUES = [{"prompt": "what is blood", "completion": "a cell"}, {"prompt": "what is bone", "completion": "a system"}]
DOCUMENTS = [{"text": "blood is a name"}, {"text": "heart disease is old"}]
CHOICES = [
    {"id": "a", "question": "what is blood ?", "options": ["heart", "cell"], "answer": 1},
    {"id": "b", "question": "what is bone ?", "options": ["heart", "system"], "answer": 1},
]


def write_rows(file: Path, rows: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_room(tmp_path_factory.mktemp("init"))


@pytest.fixture
def laid(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a base."""
    copy(built / "base", tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_adapters_and_questions(built: Path, laid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pt", "sft"):
        copy(built / name, laid / "runs" / name)
    write_rows(laid / "choice.jsonl", CHOICES)
    assert run(["init"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    recipe = load_recipe("study.yaml")
    assert recipe.base == "models/base"
    assert {name: one.path for name, one in recipe.adapters.items()} == {"pt": "runs/pt", "sft": "runs/sft"}
    assert recipe.merges == ({"pt": 0.3, "sft": 0.7},)
    assert recipe.evaluation is not None
    assert (recipe.evaluation.suites, recipe.evaluation.reference) == (("choice.suite.yaml",), "sft")
    assert run(["run", "study.yaml", "--dry-run"]) == 0
    assert "suite choice: 2 prompts rendered" in capsys.readouterr().out


def test_data_without_adapters_is_trained_on(laid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(laid / "articles.jsonl", DOCUMENTS)
    write_rows(laid / "questions.jsonl", DIALOGUES)
    write_rows(laid / "questions-test.jsonl", DIALOGUES)
    proposal = init(laid)
    recipe = load_recipe(proposal.output)
    stages = {name: (one.stage, one.data) for name, one in recipe.adapters.items()}
    assert stages == {"pt": ("pt", "articles.jsonl"), "sft": ("sft", "questions.jsonl")}
    assert recipe.evaluation is None
    assert any("questions-test.jsonl: its name says that it is held out" in line for line in proposal.left)
    assert run(["run", str(proposal.output), "--dry-run"]) == 0
    assert "2 dialogues of questions.jsonl rendered" in capsys.readouterr().out


def test_adapters_of_another_base_and_bad_data_are_left_out(built: Path, laid: Path) -> None:
    for name in ("sft", "foreign"):
        copy(built / name, laid / "runs" / name)
    (laid / "notes.jsonl").write_text('{"nothing": "known"}\n')
    (laid / "own.yaml").write_text("name: own\nversion: 1\nkind: choice\ndata: choice.jsonl\n")
    write_rows(laid / "choice.jsonl", CHOICES)
    proposal = init(laid, "mine.yaml")
    recipe = load_recipe("mine.yaml")
    assert list(recipe.adapters) == ["sft"]
    assert recipe.evaluation is not None
    assert recipe.evaluation.suites == ("own.yaml",)
    assert any("foreign" in line and "a delta of" in line for line in proposal.left)
    assert any(line.startswith("notes.jsonl: ") for line in proposal.left)


def test_checkpoints_of_a_trainer_are_called_as_their_training(built: Path, laid: Path) -> None:
    for folder, name in (("one/checkpoint-10", "pt"), ("one/checkpoint-9", "sft"), ("two/checkpoint-10", "sft")):
        copy(built / name, laid / folder)
    proposal = init(laid)
    found = {name: one.path for name, one in load_recipe("study.yaml").adapters.items()}
    assert found == {"one": "one/checkpoint-10", "two": "two/checkpoint-10"}
    assert "one/checkpoint-9: an earlier checkpoint of the same training" in proposal.left


def test_adapters_of_one_name_keep_apart(built: Path, laid: Path) -> None:
    for folder, name in (("one", "pt"), ("two", "sft")):
        copy(built / name, laid / folder / "lora")
    init(laid)
    assert list(load_recipe("study.yaml").adapters) == ["one-lora", "two-lora"]


def test_questions_without_ids_and_questions_that_cannot_be_asked(built: Path, laid: Path) -> None:
    copy(built / "sft", laid / "sft")
    (laid / "test.csv").write_text("question,reference\nwhat is blood,cell\nwhat is bone,system\n")
    write_rows(laid / "bad.jsonl", [{**CHOICES[0], "answer": 9}])
    (laid / "README.txt").write_text("notes of mine\n")
    proposal = init(laid)
    recipe = load_recipe("study.yaml")
    assert recipe.evaluation is not None
    assert recipe.evaluation.suites == ("test.suite.yaml",)
    assert any("bad.jsonl, line 1: answer must be an index from 0 to 1" in line for line in proposal.left)
    assert not (laid / "bad.suite.yaml").exists()
    assert not any("README.txt" in line for line in (*proposal.found, *proposal.left))


def test_a_merge_is_asked_as_well(built: Path, laid: Path) -> None:
    copy(built / "sft", laid / "sft")
    write_rows(laid / "choice.jsonl", CHOICES)
    assert run(["merge", "models/base", "-a", "sft=sft", "-w", "sft=1", "-o", "merged"]) == 0
    init(laid)
    recipe = load_recipe("study.yaml")
    assert (recipe.base, recipe.evaluation and recipe.evaluation.checkpoints) == ("models/base", {"merged": "merged"})


def test_links_are_named_as_found_and_a_colleagues_file_is_offered(built: Path, laid: Path, tmp_path: Path) -> None:
    store = tmp_path / "store-elsewhere"
    work = tmp_path / "work"
    work.mkdir()
    for name in ("base", "sft"):
        copy(built / name, store / name)
    copy(built / "base", store / "theirs")
    for name in ("base", "sft", "theirs"):
        (work / name).symlink_to(store / name)
    write_rows(store / "choice.jsonl", CHOICES)
    (work / "choice.jsonl").symlink_to(store / "choice.jsonl")
    write_rows(work / "a.jsonl", DOCUMENTS)
    write_rows(work / "b.jsonl", DIALOGUES)
    proposal = init("work")
    text = Path("work/study.yaml").read_text()
    recipe = load_recipe("work/study.yaml")
    assert recipe.base == "work/base"
    assert {name: one.path for name, one in recipe.adapters.items()} == {"sft": "work/sft"}
    assert "elsewhere" not in text + Path("work/choice.suite.yaml").read_text()
    assert "  # checkpoints:" in text
    assert "  #   theirs: work/theirs" in text
    assert any(line.startswith("work/theirs: neither the base nor") for line in proposal.left)
    # What stands there as a comment is a recipe, too, when the marks are taken away.
    kept = [line for line in text.splitlines() if "Not trained on" not in line and "templates:" not in line]
    Path("all.yaml").write_text("\n".join(line.replace("  # ", "  ", 1) for line in kept if "decodings:" not in line))
    whole = load_recipe("all.yaml")
    assert {n: (o.stage, o.data) for n, o in whole.adapters.items() if o.stage} == {
        "mine-1": ("pt", "work/a.jsonl"),
        "mine-2": ("sft", "work/b.jsonl"),
    }
    assert whole.evaluation is not None
    assert whole.evaluation.checkpoints == {"theirs": "work/theirs"}


def test_a_plan_with_long_paths_fits_a_terminal(built: Path, laid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = laid / "a-folder-with-a-long-name" / "and-another-one-below-it" / "and-a-third-one"
    home.mkdir(parents=True)
    copy(built / "sft", home / "sft")
    write_rows(home / "choice.jsonl", CHOICES)
    (laid / "study.yaml").write_text(
        f"name: long\nquestion: q\nbase: {laid / 'models/base'}\nadapters:\n  sft: {{path: {home / 'sft'}}}\n"
        f"  mine: {{stage: sft, data: {write_rows(home / 'dialogues.jsonl', DIALOGUES)}}}\nmerges: [{{sft: 1.0}}]\n"
    )
    assert run(["run", "study.yaml", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("…" in line and line.endswith("sft") for line in lines)


def test_nothing_is_overwritten(built: Path, laid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(built / "sft", laid / "sft")
    (laid / "study.yaml").write_text("mine")
    assert run(["init"]) == 2
    assert "study.yaml exists and is not overwritten; give another name with -o" in capsys.readouterr().err
    assert (laid / "study.yaml").read_text() == "mine"
    write_rows(laid / "choice.jsonl", CHOICES)
    (laid / "choice.suite.yaml").write_text("mine, too")
    with pytest.raises(OutputError, match="not overwritten"):
        init(laid, "other.yaml")
    assert not (laid / "other.yaml").exists()


def test_without_a_base_or_anything_to_merge(laid: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no adapter and no training data"):
        init(laid)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no base was found"):
        init(tmp_path / "empty")
    with pytest.raises(InputError, match="is no directory"):
        init(tmp_path / "nothing")
