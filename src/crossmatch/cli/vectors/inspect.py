"""crossmatch vectors inspect."""

from typing import Annotated

import typer

from crossmatch.cli.facts import vector_facts
from crossmatch.cli.options import Json


def inspect_vector_command(
    path: Annotated[str, typer.Argument(help="A stored vector or an adapter: a directory or a hub id.")],
    as_json: Json = False,
) -> None:
    """Print what a vector is: form, tensors, norm, ranks, digests, and what it was made from."""
    from crossmatch.adapter import CONFIG_FILE
    from crossmatch.checkpoint import locate
    from crossmatch.cli.facts import adapter_facts, show_facts

    directory = locate(path).path
    facts = adapter_facts(path, directory) if (directory / CONFIG_FILE).exists() else vector_facts(path)
    show_facts(facts, as_json)
