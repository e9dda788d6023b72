"""Options that several commands share, and their parsing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossmatch.adapter import Recorded
    from crossmatch.rules import Weight

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Detail = Annotated[bool, typer.Option("--detail", help="Print every figure, not the answers alone.")]
Margin = Annotated[
    float | None,
    typer.Option(metavar="POINTS", help="Loss within which a variant is as good; points, or percent of a perplexity."),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option("-a", "--adapter", metavar="NAME=PATH", help="Adapter or vector, by name; repeat."),
]
Weights = Annotated[
    list[str] | None,
    typer.Option("-w", "--weight", metavar="NAME=NUMBER", help="Its merge weight; by module: docs/merge.md."),
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial-adapter", help="Take truncated or untrained adapters as they are.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output of ours.")]
Strengths = Annotated[
    list[str] | None,
    typer.Option("-g", "--strength", metavar="NUMBER", help="Default 1; repeat, or a grid as in -0.5:1.5:0.25."),
]

Executor = Annotated[
    str | None,
    typer.Option(help="Where questions are asked: local, ray:workers=4,gpus=1 or slurm:partition=P,minutes=60."),
]


def resubmitted(given: Sequence[str]) -> list[str]:
    """The arguments of a dry run as those of the run that it plans."""
    return [argument for argument in given if argument not in ("--dry-run", "--json")]


def pair_up(adapters: Sequence[str] | None, weights: Sequence[str] | None) -> dict[str, tuple["Recorded", "Weight"]]:
    """Adapters, opened, with their weights."""
    from crossmatch.adapter import open_vector
    from crossmatch.rules.weights import read_pairs

    return {name: (open_vector(path), weight) for name, (path, weight) in read_pairs(adapters, weights).items()}
