"""A difference, a sum and multiples of vectors, written as the command and the Python entry ask for them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import open_vector
from crossmatch.checkpoint import Checkpoint
from crossmatch.errors import InputError, one_of
from crossmatch.results.vectors import StrengthNormJson, VectorManifestJson
from crossmatch.rules.weights import read_weight
from crossmatch.runtime import Progress
from crossmatch.vectors.add import Summing, add
from crossmatch.vectors.extract import extract
from crossmatch.vectors.lowrank import LowRankForm, extract_adapter
from crossmatch.vectors.strengths import grid, strengths


def write_difference(
    pair: tuple[Checkpoint, Checkpoint],
    output: Path,
    form: LowRankForm | None,
    dtype: str | None,
    overwrite: bool,
    progress: Progress,
) -> VectorManifestJson:
    """Write the difference of a base and what was tuned from it, dense (None) or of low rank. Raises InputError for a
    dtype that is none of a dense vector."""
    one_of("--dtype", dtype, (None, "float32", "float64"))
    if form is None:
        return extract(*pair, output, dtype=dtype or "float32", overwrite=overwrite, progress=progress)
    if dtype is not None:
        raise InputError("--dtype is for dense vectors; the factors of an adapter are float32")
    return extract_adapter(*pair, output, form=form, overwrite=overwrite, progress=progress)


@dataclass(frozen=True)
class SumRequest:
    """Vectors and weights by name, and how they are summed."""

    paths: Mapping[str, str | Path]
    weights: Mapping[str, float | str]
    match_norm: str | None
    base: str | Path | None
    dtype: str | None
    any_base: bool
    overwrite: bool


def write_sum(asked: SumRequest, output: Path, progress: Progress) -> VectorManifestJson:
    """Write the sum. Raises InputError for a weight without a vector, and for no vector at all."""
    unknown = next((name for name in asked.weights if name not in asked.paths), None)
    if not asked.paths or unknown is not None:
        raise InputError(f"weight {unknown} has no vector; add -a {unknown}=PATH" if unknown else "add -a NAME=PATH")
    one_of("--dtype", asked.dtype, (None, "float32", "float64"))
    weights = {name: read_weight(str(value), f"-w {name}") for name, value in asked.weights.items()}
    parts = {name: (open_vector(path), weights.get(name, 1.0)) for name, path in asked.paths.items()}
    base = Checkpoint(asked.base) if asked.base else None
    summing = Summing(base, asked.match_norm, asked.dtype, asked.overwrite, asked.any_base)
    return add(parts, output, summing=summing, progress=progress)


def write_multiples(
    vector: str | Path,
    output: Path,
    strength: Sequence[str],
    base: str | Path | None,
    overwrite: bool,
    progress: Progress,
) -> list[StrengthNormJson]:
    """Write a vector times each strength; the strengths with their norms."""
    numbers = strengths(strength)
    found, made = open_vector(vector), {}
    below = Checkpoint(base) if base else None
    with ExitStack() as stack:
        places = stack.enter_context(grid(output, numbers, overwrite=overwrite))
        for number, place in places.items():
            summing = Summing(below, made_by="scale", overwrite=place == output and overwrite)
            made[number] = add({"vector": (found, number)}, place, summing=summing, progress=progress)["predicate"]
    return [{"strength": number, "norm": facts["norm"]} for number, facts in made.items()]
