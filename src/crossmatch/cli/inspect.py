"""crossmatch inspect."""

from typing import Annotated

import typer

from crossmatch.cli.facts import show_facts
from crossmatch.cli.options import Json
from crossmatch.console import Terminal


def inspect_command(
    path: Annotated[str, typer.Argument(help="A checkpoint, an adapter or a vector: a directory or a hub id.")],
    as_json: Json = False,
) -> None:
    """Print what a checkpoint, an adapter or a vector is: tensors, sizes, dtypes, ranks, scales, template, digests."""
    from crossmatch.vectors.facts import inspect_path

    show_facts(inspect_path(path, Terminal()), as_json)
