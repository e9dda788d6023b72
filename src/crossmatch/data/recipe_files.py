"""Recipes of studies and sweeps: a YAML file that is a mapping, held to a model; what is not understood is named."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from crossmatch.data.suite_config import read_yaml
from crossmatch.errors import DataError, RecipeError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[int | str, ...]


def read_recipe_file(path: Path, remedy: str) -> Mapping[str, Any]:
    """The mapping in a recipe's YAML file. Raises RecipeError; remedy: what to give where there is no file."""
    if not path.is_file():
        raise RecipeError(f"{path} does not exist; {remedy}")
    try:
        raw = read_yaml(path)
    except DataError as error:
        raise RecipeError(str(error)) from error
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{path} must hold a mapping")
    return raw


def parse_recipe(
    model: type[Model], raw: Mapping[str, Any], file: str, known: Callable[[Place], Sequence[str]]
) -> Model:
    """A recipe from plain values.

    file: what it is called in messages; known: the fields that may stand where an unknown key stands. Raises
    RecipeError with the place, and for an unknown key the closest that is known.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            names = known(first["loc"])
            close = difflib.get_close_matches(str(first["loc"][-1]), names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
            raise RecipeError(f"{file}: unknown key {place}; {hint}") from error
        reason = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{file}: {place or 'recipe'}: {reason}") from error
