"""--tables, --figures and --report-to: a command's result for papers and trackers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Tables = Annotated[
    str | None,
    typer.Option(
        metavar="[DIR]", help="Write every table as CSV, Markdown and LaTeX, too; default: beside the result."
    ),
]
Figures = Annotated[
    str | None,
    typer.Option(metavar="[DIR]", help="Write every figure as SVG, PDF and PNG, too; default: beside the result."),
]
ReportTo = Annotated[
    list[str] | None,
    typer.Option("--report-to", metavar="TRACKER", help="Also log the result to mlflow, wandb or trackio; repeat."),
]
_DIRECTORIES = ("--tables", "--figures")
# Options whose value may be left out.
_OPEN = (*_DIRECTORIES, "--repair")


def with_directories(arguments: Sequence[str]) -> list[str]:
    """A command line in which `--tables`, `--figures` and `--repair` without a value say so: it may be left out, which
    the parser of options does not know."""
    found = []
    for word, following in zip(arguments, [*arguments[1:], "-"], strict=False):
        # A file or directory is no point of a sweep: it is what the command reads.
        study = word == "--repair" and (following.endswith((".yaml", ".yml")) or Path(following).exists())
        alone = word in _OPEN and (following.startswith("-") or study)
        found.append(f"{word}=" if alone else word)
    return found
