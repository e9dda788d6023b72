"""crossmatch identify."""

from typing import Annotated

import typer

from crossmatch.cli.options import Adapters, Json
from crossmatch.cli.verdict_output import EXIT, Annotate, Junit, Sarif, Shown, check_files, conclude
from crossmatch.console import Terminal


def identify_command(
    merged: Annotated[str, typer.Argument(help="Merged checkpoint: a directory or a hub id.")],
    base: Annotated[str, typer.Option(help="The base that it is said to stand on.")],
    adapter: Adapters = None,
    detail: Annotated[bool, typer.Option("--detail", help="Also modules that do not agree; --json: all.")] = False,
    as_json: Json = False,
    sarif: Sarif = None,
    junit: Junit = None,
    annotate: Annotate = False,
) -> None:
    """Say which of some adapters are in a checkpoint, and how much of each.

    Exit code 0: they explain the file; 1: something else is in it; 3: the data cannot tell.
    """
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint, split_pairs
    from crossmatch.runtime import keep_heap
    from crossmatch.verification import identify

    keep_heap()
    shown = Shown(as_json, detail, sarif, junit, annotate)
    check_files(shown)
    candidates = {name: open_vector(path) for name, path in split_pairs(adapter, "-a").items()}
    verdict = identify(merged, Checkpoint(base), candidates, progress=Terminal())
    conclude(merged, verdict, shown, {})
    raise typer.Exit(EXIT[verdict.verdict])
