"""The documents: their code runs, their commands exist, their lists are complete."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from crossmatch.cli import app, run
from crossmatch.results.metrics import CATALOGUE
from crossmatch.rules import RULES
from crossmatch.verification.faults import FAULTS
from helpers import copy, make_tokenizer

ROOT = Path(__file__).parents[2]
DOCUMENTS_BY_NAME = {file.name: file for file in (ROOT / "docs").glob("*.md")}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(file: Path, language: str) -> list[str]:
    """Fenced blocks of one language ("" for none)."""
    found, inside, wanted = [], False, False
    for line in file.read_text().splitlines(keepends=True):
        if line.startswith("```"):
            inside = not inside
            wanted = inside and line.strip("`\n ") == language
            if wanted:
                found.append("")
        elif wanted:
            found[-1] += line
    return found


@pytest.fixture
def laid_out(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directories that the documents speak of."""
    copy(models / "base", tmp_path / "models" / "base")
    for name in ("pt", "sft"):
        copy(models / name, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_of_the_readme_and_of_the_proof_by_hand(laid_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (ten_lines,) = blocks(ROOT / "README.md", "python")
    exec(compile(ten_lines, "README.md", "exec"), {})
    assert "verified" in capsys.readouterr().out
    by_hand, squared = blocks(ROOT / "docs" / "verify.md", "python")
    exec(compile(by_hand, "verify.md", "exec"), {})
    numbers = [float(x) for x in re.findall(r"\d+\.\d+(?:e-\d+)?", capsys.readouterr().out)]
    assert numbers[:2] == pytest.approx([0.3, 0.7], abs=0.005)
    exec(compile(squared, "verify.md", "exec"), {})
    text = capsys.readouterr().out
    assert "failed ('weights-squared',)" in text
    assert [float(line.split()[2]) for line in text.splitlines()[1:]] == pytest.approx([0.09, 0.49], abs=0.005)


def test_commands_of_the_documents_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    seen = set()
    for file in DOCUMENTS:
        for block in [*blocks(file, ""), *blocks(file, "bash")]:
            for line in block.replace("\\\n", " ").splitlines():
                words = line.split("#")[0].replace("[", " ").replace("]", " ").split()
                if words[:1] != ["crossmatch"]:
                    continue
                seen.add(words[1])
                assert words[1] in commands, line
                command = commands[words[1]]
                if inner := getattr(command, "commands", None):
                    command = inner[words[2]]
                known = {option for p in command.params for option in p.opts}
                given = {w for w in words[2:] if w.startswith("-") and not w[1:2].isdigit()}
                assert given <= known | {"--dry-run"}, line
    assert seen == set(commands)


def test_examples_of_the_merge_run(laid_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tokenizer(laid_out / "models" / "base")
    for name, text in (("pt", "blood heart"), ("sft", "lung kidney")):
        (laid_out / f"{name}.jsonl").write_text(
            json.dumps({"prompt": "what is the " + text, "completion": text}) + "\n"
        )
    text = DOCUMENTS_BY_NAME["merge.md"].read_text()
    lines = [line for block in blocks(DOCUMENTS_BY_NAME["merge.md"], "") for line in block.splitlines()]
    assert len(lines) == 11
    for line in lines:
        assert run(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)
    (python,) = blocks(DOCUMENTS_BY_NAME["merge.md"], "python")
    exec(compile(python, "merge.md", "exec"), {})
    rules = set(
        re.findall(r"`([a-z-]+)`", " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `")))
    )
    assert rules == set(RULES)


def test_pages_made_from_the_program_are_complete() -> None:
    specification = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "_generate.py")
    assert specification is not None
    assert specification.loader is not None
    pages = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(pages)
    faults, commands, metrics = ("\n".join(lines()) for lines in (pages.faults, pages.commands, pages.metrics))
    assert {f for f in FAULTS if f"| `{f}` |" not in faults} == set()
    assert {m for m in CATALOGUE if f"| `{m}` |" not in metrics} == set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"\n## {name}\n" in commands
        for parameter in getattr(command, "params", ()):
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in commands


def test_no_placeholder_is_left() -> None:
    for file in [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "LOG.md", ROOT / "BENCHMARKS.md"]:
        assert not re.search(r"@[A-Z]+@|TODO|MINUTES", file.read_text()), file
