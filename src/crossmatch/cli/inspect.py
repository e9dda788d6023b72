"""crossmatch inspect."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.facts import adapter_facts, checkpoint_facts, show_facts, vector_facts
from crossmatch.cli.options import Json
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.cli.facts import Inspected


def inspect_command(
    path: Annotated[str, typer.Argument(help="A checkpoint, an adapter or a vector: a directory or a hub id.")],
    as_json: Json = False,
) -> None:
    """Print what a checkpoint, an adapter or a vector is: tensors, sizes, dtypes, ranks, scales, template, digests."""
    from crossmatch.checkpoint import locate

    directory = locate(path).path
    if not directory.is_dir():
        raise InputError(f"{path} is a file; give the directory that holds it")
    facts = _facts(path, directory)
    show_facts(facts, as_json)


def _facts(path: str, directory: Path) -> "Inspected":
    from crossmatch.adapter import is_vector

    if (directory / "adapter_config.json").exists():
        return adapter_facts(path, directory)
    return vector_facts(path) if is_vector(directory) else checkpoint_facts(path, directory)
