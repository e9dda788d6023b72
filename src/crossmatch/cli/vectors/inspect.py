"""crossmatch vectors inspect."""

from typing import Annotated

import typer

from crossmatch.cli.facts import show_facts
from crossmatch.cli.options import Json
from crossmatch.console import Terminal


def inspect_vector_command(
    path: Annotated[str, typer.Argument(help="A stored vector or an adapter: a directory or a hub id.")],
    as_json: Json = False,
) -> None:
    """Print what a vector is: form, tensors, norm, ranks, digests, and what it was made from."""
    from crossmatch.vectors.facts import inspect_vector

    show_facts(inspect_vector(path, Terminal()), as_json)
