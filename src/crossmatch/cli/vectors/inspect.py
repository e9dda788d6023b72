"""crossmatch vectors inspect."""

from typing import Annotated

import typer

from crossmatch.cli.console import emit
from crossmatch.cli.facts import vector_facts
from crossmatch.cli.options import Json
from crossmatch.report.text import printable


def inspect_vector_command(
    path: Annotated[str, typer.Argument(help="A stored vector or an adapter: a directory or a hub id.")],
    as_json: Json = False,
) -> None:
    """Print what a vector is: form, tensors, norm, ranks, digests, and what it was made from."""
    from crossmatch.adapter import CONFIG_FILE
    from crossmatch.checkpoint import locate
    from crossmatch.cli.facts import adapter_facts, fact_lines

    directory = locate(path).path
    facts = adapter_facts(path, directory) if (directory / CONFIG_FILE).exists() else vector_facts(path)
    if as_json:
        emit({"schema_version": 1, **facts})
        return
    for key, value in facts.items():
        for line in fact_lines(key.replace("_", " "), value):
            print(printable(line))
