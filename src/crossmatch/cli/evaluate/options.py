"""Options of evaluate: what is measured, what is compared beside it, and a model on a server."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from crossmatch.errors import ExitCode
from crossmatch.report.text import printable

Strengths = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=A:B:STEP", help="Measure it at these strengths, as in v=-0.5:1.5:0.25; repeat."),
]
Nulls = Annotated[
    int,
    typer.Option(
        min=0,
        max=16,
        help="Random stand-ins by so many seeds: for a merge's partners of the reference; with --strengths, deltas of "
        "equal norm, and the layers' in another order, whose removal is compared with the adapter's.",
    ),
]

Clean = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What audit -o wrote: figures of the items that it found clean are added."),
]


Checkpoints = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", metavar="NAME=PATH", help="A written checkpoint to ask the same prompts; repeat."),
]
Kl = Annotated[
    int,
    typer.Option(min=0, max=1024, help="Items of each generation suite for KL to the reference and to the base."),
]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory for batches, as in 4GB; default: a quarter of what is free.")
]


Interference = Annotated[
    int,
    typer.Option(
        min=0,
        max=1024,
        metavar="N",
        help="Predict and measure what the merge's other adapter does to the reference's task, on N items (2 or more) "
        "of the first generation suite.",
    ),
]
Server = Annotated[str | None, typer.Option(help="Ask a server's model: URL of its completions API.")]
Model = Annotated[str | None, typer.Option(help="The model's name on that server.")]
SameAs = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Checkpoint that the server is said to run: their answers are compared first."),
]


def exit_unjudged(summary: Mapping[str, Any]) -> None:
    """Say of which suites no item was answered by all, and that a server may run another model than it is said to; end
    as inconclusive where there is either."""
    server = summary.get("server") or {}
    found = bool(server.get("same_as")) and server.get("verdict") == "unknown"
    if found:
        line = (
            f"error: whether {server['url']} runs {server['same_as']} could not be told; the figures are the server's"
        )
        print(printable(line), file=sys.stderr)
    for condition, facts in summary["conditions"].items():
        for name, suite in facts["suites"].items():
            if suite["asked"] and not suite["n"]:
                variant, fault = next(iter(suite["incomplete"].items()))
                line = f"{variant}: {fault['failed']} of {suite['asked']} failed; {fault['reason']}"
                line = f"suite {name} under {condition} could not be judged: no item was answered by all ({line})"
                print(f"error: {printable(line)}", file=sys.stderr)
                found = True
    if found:
        raise typer.Exit(ExitCode.INCONCLUSIVE)
