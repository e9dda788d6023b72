"""crossmatch vectors inspect."""

from typing import Annotated, Any

import typer

from crossmatch.cli.console import Terminal, emit, plain
from crossmatch.cli.options import Json


def inspect_vector_command(
    path: Annotated[str, typer.Argument(help="A stored vector or an adapter: a directory or a hub id.")],
    as_json: Json = False,
) -> None:
    """Print what a vector is: form, tensors, norm, ranks, digests, and what it was made from."""
    from crossmatch.adapter import CONFIG_FILE
    from crossmatch.checkpoint import locate
    from crossmatch.cli.inspect import adapter_facts, fact_lines

    directory = locate(path).path
    facts = adapter_facts(path, directory) if (directory / CONFIG_FILE).exists() else vector_facts(path)
    if as_json:
        emit({"schema_version": 1, **facts})
        return
    for key, value in facts.items():
        for line in fact_lines(key.replace("_", " "), value):
            print(plain(line))


def vector_facts(path: str) -> dict[str, Any]:
    """What a stored vector is, as plain JSON."""
    from crossmatch.adapter import StoredVector
    from crossmatch.vectors import describe

    return describe(StoredVector(path), Terminal())
