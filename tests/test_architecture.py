"""The shape of the house: who imports whom, how large things grow, what starting costs."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "crossmatch"
FLOORS = {
    "errors": 0,
    "runtime": 0,
    "limits": 0,
    "statistics": 0,
    "delta": 0,
    "checkpoint": 0,
    "causal": 0,
    "positions": 0,
    "results": 0,
    "result_kinds": 0,
    "executors": 0,
    "report": 0,
    "answers": 1,
    "export": 0,
    "data": 1,
    "adapter": 1,
    "rules": 1,
    "merging": 2,
    "verification": 2,
    "training": 2,
    "evaluation": 2,
    "vectors": 2,
    "analysis": 3,
    "sweeping": 4,
    "study": 4,
    "console": 4,
    "api": 5,
    "cli": 6,
    "__main__": 7,
    "__init__": 7,
}
# The ground floor has an order of its own: whom each may use there.
GROUND = {
    "checkpoint": {"errors", "results"},
    "delta": {"errors", "export"},
    "report": {"errors", "results"},
    "export": {"errors", "report", "results", "runtime"},
    "results": set(),
    "result_kinds": {"checkpoint", "errors", "results"},
    "statistics": {"errors", "results"},
    "causal": {"errors"},
    "positions": {"errors"},
    "executors": {"errors"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            names = [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "crossmatch":
                found.add(parts[1] if len(parts) > 1 else "__init__")
    return found


def test_a_room_imports_only_from_below() -> None:
    wrong = []
    for file in FILES:
        room = room_of(file)
        for other in imported_rooms(file) - {room}:
            below = other in GROUND.get(room, set()) if FLOORS[room] == 0 else FLOORS[other] < FLOORS[room]
            if not below:
                wrong.append(f"{file.relative_to(SOURCE)} imports {other}")
    assert not wrong


def test_the_prover_shares_nothing_with_the_maker() -> None:
    for file in (SOURCE / "verification").rglob("*.py"):
        assert "merging" not in imported_rooms(file)
        # The rounding of the maker is not used to judge the maker.
        assert not re.search(r"\b(summed_rows|round_once|merged_rows)\b", file.read_text())


def test_no_work_hides_in_the_command_line() -> None:
    users = {str(f.relative_to(SOURCE)) for f in FILES if room_of(f) != "cli" and "cli" in imported_rooms(f)}
    assert users == {"__main__.py"}


def test_delta_knows_no_files() -> None:
    for file in (SOURCE / "delta").glob("*.py"):
        modules = {n.module for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)}
        assert not modules & {"pathlib", "os", "logging", "transformers", "pydantic"}


def too_large(file: Path) -> Iterator[str]:
    """What of a file is beyond its size: lines of files, functions and classes, parameters, methods."""
    text, cli = file.read_text(), room_of(file) in ("cli", "api")
    if text.count("\n") > 400:
        yield f"{text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            count = len([a for a in node.args.args + node.args.kwonlyargs if a.arg not in ("self", "cls")])
            hidden = node.args.kwarg is not None and node.args.kwarg.arg != "_"
            # A function is one story; a command's parameters are its options, each documented where it stands.
            if lines > 100:
                yield f"{node.name} has {lines} lines"
            if count > (30 if cli else 7):
                yield f"{node.name} takes {count} parameters"
            if hidden and not node.name.startswith("_"):
                yield f"{node.name} takes **kwargs"
        if isinstance(node, ast.ClassDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("__")]
            if lines > 200:
                yield f"{node.name} has {lines} lines"
            if len(methods) > 12:
                yield f"{node.name} has {len(methods)} methods"


def test_sizes() -> None:
    assert not [f"{file.relative_to(SOURCE)}: {what}" for file in FILES for what in too_large(file)]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_help_loads_nothing_heavy() -> None:
    out = run(
        "import sys; from crossmatch.cli import run; code = run(['--help']);"
        "heavy = {'torch', 'transformers', 'peft', 'trl', 'pydantic', 'numpy'} & set(sys.modules);"
        "print('HEAVY', sorted(heavy), code)"
    )
    assert "HEAVY [] 0" in out.stdout


@pytest.mark.parametrize("command", ["merge", "verify", "inspect", "vectors", "analyse"])
def test_light_commands_do_not_load_transformers(command: str, models: Path, tmp_path: Path) -> None:
    arguments = {
        "merge": [str(models / "base"), "-a", f"pt={models / 'pt'}", "-w", "pt=1", "-o", str(tmp_path / "out")],
        "verify": [str(models / "base"), "--base", str(models / "base"), "-a", f"pt={models / 'pt'}", "-w", "pt=1"],
        "inspect": [str(models / "base")],
        "analyse": [str(models / "base"), str(models / "pt"), str(models / "sft"), "--cache", str(tmp_path)],
        "vectors": ["add", "-a", f"pt={models / 'pt'}", "-a", f"sft={models / 'sft'}", "-o", str(tmp_path / "out")],
    }[command]
    out = run(
        f"import sys; from crossmatch.cli import run; run({[command, *arguments]!r});"
        "print('HEAVY', sorted({'transformers', 'peft', 'trl', 'datasets'} & set(sys.modules)))"
    )
    assert "HEAVY []" in out.stdout


def test_every_command_has_help() -> None:
    from typer.main import get_command

    from crossmatch.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) == {
        "run",
        "doctor",
        "init",
        "train",
        "merge",
        "verify",
        "identify",
        "evaluate",
        "sweep",
        "predict",
        "compare",
        "audit",
        "calibrate",
        "inspect",
        "analyse",
        "report",
        "schema",
        "vectors",
    }
    inner = commands["vectors"].commands  # type: ignore[attr-defined]
    assert set(inner) == {"extract", "add", "scale", "apply", "remove", "inspect"}
    for name, command in [*commands.items(), *inner.items()]:
        assert command.help, name
        for parameter in command.params:
            assert parameter.name == "help" or parameter.help, f"{name} {parameter.name}"


def test_public_names_are_there() -> None:
    import crossmatch

    assert all(callable(getattr(crossmatch, name)) for name in crossmatch.__all__ if name != "vectors")
    assert all(map(callable, (crossmatch.vectors.extract, crossmatch.vectors.add, crossmatch.vectors.apply)))
    with pytest.raises(AttributeError):
        crossmatch.no_such_name  # noqa: B018
