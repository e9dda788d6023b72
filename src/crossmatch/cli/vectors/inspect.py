"""crossmatch vectors inspect."""

from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.facts import show_facts, vector_facts
from crossmatch.cli.options import Json

if TYPE_CHECKING:
    from crossmatch.results.inspection import InspectedAdapterJson, InspectedVectorJson


def inspect_vector_command(
    path: Annotated[str, typer.Argument(help="A stored vector or an adapter: a directory or a hub id.")],
    as_json: Json = False,
) -> None:
    """Print what a vector is: form, tensors, norm, ranks, digests, and what it was made from."""
    show_facts(inspected(path), as_json)


def inspected(path: str) -> "InspectedAdapterJson | InspectedVectorJson":
    """What a stored vector or an adapter is, as plain JSON."""
    from crossmatch.adapter import CONFIG_FILE
    from crossmatch.checkpoint import locate
    from crossmatch.cli.facts import adapter_facts

    directory = locate(path).path
    return adapter_facts(path, directory) if (directory / CONFIG_FILE).exists() else vector_facts(path)
