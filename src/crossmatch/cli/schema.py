"""crossmatch schema."""

import json
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.options import Json
from crossmatch.console import print_json
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.result_kinds import Kind


def schema_command(
    name: Annotated[str | None, typer.Argument(help="A kind of result; without it all are listed.")] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON Schema (draft 2020-12) of a kind of result, or list the kinds with a sentence each."""
    kinds = all_kinds()
    if name is not None:
        if name not in kinds:
            raise InputError(f"{name} is no kind of result; there are {', '.join(sorted(kinds))}")
        print_json(json.dumps(kinds[name].schema(), indent=2, ensure_ascii=False))
        return
    if as_json:
        rows = [{"name": kind.name, "version": kind.version, "says": kind.says} for kind in kinds.values()]
        print_json(json.dumps({"schema_version": 1, "schemas": rows}, indent=2, ensure_ascii=False))
        return
    for kind in kinds.values():
        print(textwrap.fill(f"{kind.name:16} {kind.says}", 79, subsequent_indent=" " * 17))


def all_kinds() -> "dict[str, Kind[Any]]":
    """Every kind by name: all results, and a study's resolved recipe."""
    from crossmatch.result_kinds import KINDS, Kind
    from crossmatch.study import Recipe

    recipe: Kind[Any] = Kind("recipe", Recipe, "A study's recipe: its YAML file, and recipe.json.", "mend the recipe")
    return {**KINDS, recipe.name: recipe}
