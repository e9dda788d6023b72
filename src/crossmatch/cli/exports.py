"""--tables, --figures and --report-to: a command's result for papers and trackers."""

from collections.abc import Sequence
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


def with_directories(arguments: Sequence[str]) -> list[str]:
    """A command line in which `--tables` and `--figures` without a DIR say so: DIR may be left out, which the parser of
    options does not know."""
    found = []
    for word, following in zip(arguments, [*arguments[1:], "-"], strict=False):
        alone = word in _DIRECTORIES and following.startswith("-")
        found.append(f"{word}=" if alone else word)
    return found
