"""Help: groups, one screen, examples that exist, and where to start."""

import re
import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from crossmatch.cli import app, run
from crossmatch.cli.help import SHOWN

TOP: Any = get_command(app)
COMMANDS = {
    f"{name} {inner}".strip(): one
    for name, command in TOP.commands.items()
    for inner, one in {"": command, **getattr(command, "commands", {})}.items()
}


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert run(list(words)) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *name.split(), "--help")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"Usage: crossmatch {name} ")
    if name in SHOWN:
        assert sum(line.startswith("  crossmatch ") for line in lines[lines.index("Examples:") :]) == 2


def test_the_list_of_commands_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "--help")
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if re.match("  [a-z]", line)} >= set(TOP.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_names_parameters_that_exist(name: str) -> None:
    known = {parameter.name for parameter in COMMANDS[name].params}
    if known and name in SHOWN:
        assert set(SHOWN[name].common) <= known, name


def test_help_all_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in COMMANDS.items():
        text = "\n".join(shown(capsys, *name.split(), "--help-all"))
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in text, (name, parameter.name)
    short = "\n".join(shown(capsys, "merge", "--help"))
    assert "--durable" not in short
    assert "--help-all shows " in short


def test_options_stand_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "merge", "--help")
    places = [lines.index(title) for title in ("What:", "How:", "Output:", "Examples:")]
    assert places == sorted(places)
    assert any("--adapter" in line for line in lines[places[0] : places[1]])
    assert any("--json" in line for line in lines[places[2] : places[3]])


def test_alone_it_says_where_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 80
    named = {line.split()[1] for line in lines if line.startswith("  crossmatch ")}
    assert named <= set(TOP.commands)
    assert {"doctor", "init", "run", "verify"} <= named


def test_examples_have_known_commands_and_options() -> None:
    for name, one in SHOWN.items():
        if name not in COMMANDS:
            continue
        for line in one.examples:
            words = line.split()
            inner = " ".join(words[:2])
            command = COMMANDS.get(inner, COMMANDS[words[0]])
            options = {option for p in command.params for option in [*p.opts, *p.secondary_opts]}
            assert {word for word in words if word.startswith("-")} <= options, line


def test_help_loads_nothing_heavy() -> None:
    """Half a second of a core is all that help may take: benchmarks/start.py measures it, this holds what would break it."""
    code = "import sys; from crossmatch.cli import run; run(['evaluate', '--help']); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {name.partition(".")[0] for name in out.splitlines()[-1].split()}
    assert not loaded & {
        "torch",
        "transformers",
        "peft",
        "numpy",
        "scipy",
        "pandas",
        "datasets",
        "jinja2",
        "httpx",
        "yaml",
    }
