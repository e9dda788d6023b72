"""Pages that are made from the program when the site is built: commands, faults, metrics. A hook of mkdocs."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer import Context
from typer.main import get_command

from crossmatch.cli import app
from crossmatch.cli.help import SHOWN, example, grouped
from crossmatch.results.metrics import CATALOGUE
from crossmatch.verification.faults import FAULTS

_RECORD = "BENCHMARKS.md"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file holds."""
    from mkdocs.structure.files import File

    pages = {"commands": commands(), "faults": faults(), "metrics": metrics()}
    for name, lines in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines) + "\n"))
    record = (Path(__file__).parents[1] / _RECORD).read_text(encoding="utf-8")
    files.append(File.generated(config, "benchmarks.md", content=record.replace("(docs/", "(")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link that leaves the documents, as it is right in the repository, to the page of the site."""
    return markdown.replace(f"(../{_RECORD}", "(benchmarks.md")


def commands() -> Iterator[str]:
    """Every command with its options, as its help has them."""
    yield "# Commands"
    yield "\nMade from the program. `crossmatch COMMAND --help` shows the common options, `--help-all` all of them.\n"
    yield "Exit codes: 0 done or verified, 1 a gate failed, 2 usage or unreadable input, 3 could not be judged, 4 "
    yield "internal error, 130 interrupted.\n"
    top: Any = get_command(app)
    root = Context(top, info_name="crossmatch")
    for name, command in top.commands.items():
        inner = getattr(command, "commands", None)
        yield from _command(f"{name}", command, Context(command, info_name=name, parent=root))
        parent = Context(command, info_name=name, parent=root)
        for below, one in (inner or {}).items():
            yield from _command(f"{name} {below}", one, Context(one, info_name=below, parent=parent))


def _command(name: str, command: Any, context: Any) -> Iterator[str]:
    yield f"## {name}\n"
    yield " ".join((command.help or "").split("\n\n")[0].split()) + "\n"
    yield from (" ".join(part.split()) + "\n" for part in (command.help or "").split("\n\n")[1:])
    if name in SHOWN:
        yield "```bash"
        yield from (example(line).rstrip().removeprefix("  ") for line in SHOWN[name].examples)
        yield "```\n"
    if hasattr(command, "commands"):
        return
    for group, rows in grouped(command, context, everything=True).items():
        if rows:
            yield from _table((group, "meaning"), ((f"`{written}`", said) for written, said in rows))


def faults() -> Iterator[str]:
    """Every fault that a verdict may name."""
    yield "# Faults"
    yield "\nWhat a verdict may name, with what it means for whoever ships the file, and what to do. How each is"
    yield "made and found in the tests: [The proof](../verify.md#every-fault-and-every-honest-route).\n"
    yield from _table(("fault", "meaning", "what to do"), ((f"`{k}`", *both) for k, both in FAULTS.items()))


def metrics() -> Iterator[str]:
    """Every metric of an evaluation."""
    yield "# Metrics"
    yield "\nNames as in `summary.json`; [Figures](../evaluate.md#figures) says how intervals and tests are made.\n"
    yield from _table(("metric", "title", "what it is"), ((f"`{m.name}`", m.title, m.says) for m in CATALOGUE.values()))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    titles = list(head)
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"
    yield ""


def _cell(text: str) -> str:
    """A text that Markdown neither splits nor takes for HTML."""
    escaped = " ".join(text.split()).replace("|", "\\|")
    return escaped if escaped.startswith("`") else escaped.replace("<", "&lt;")
