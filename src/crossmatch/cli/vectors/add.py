"""crossmatch vectors add and scale."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.options import Adapters, Json, Overwrite, Strengths, Weights, one_of, split_pairs
from crossmatch.cli.options import weight as parse_weight
from crossmatch.errors import InputError
from crossmatch.runtime import Progress

if TYPE_CHECKING:
    from crossmatch.results.vectors import StrengthNormJson, VectorManifestJson, VectorPredicateJson


def add_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for the vector.")],
    vector: Adapters = None,
    weight: Weights = None,
    match_norm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Bring the others to this one's norm before they are weighted.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="For DoRA, saved modules, tokens; for the number of heads.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of dense results: float32 or float64; default: as the parts.")
    ] = None,
    any_base: Annotated[bool, typer.Option("--any-base", help="Add vectors of different bases.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Add vectors and adapters, each times its weight (default 1): by layer, module type and head, if you like.

    Factors stay factors, exactly; the base is not loaded.
    """
    asked = Asked(split_pairs(vector, "-a"), split_pairs(weight, "-w"), match_norm, base, dtype, any_base, overwrite)
    facts = added(asked, output, Terminal())["predicate"]
    if as_json:
        from crossmatch.result_kinds import VECTOR

        emit(VECTOR, {"output": str(output), **facts})
        return
    _show(facts)
    say(f"to see it: crossmatch vectors inspect {output}")


@dataclass(frozen=True)
class Asked:
    """Vectors and weights by name, and how they are summed."""

    paths: Mapping[str, str | Path]
    weights: Mapping[str, float | str]
    match_norm: str | None
    base: str | Path | None
    dtype: str | None
    any_base: bool
    overwrite: bool


def added(asked: Asked, output: Path, progress: Progress) -> "VectorManifestJson":
    """Write the sum. Raises InputError for a weight without a vector, and for no vector at all."""
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.vectors import Summing, add

    unknown = next((name for name in asked.weights if name not in asked.paths), None)
    if not asked.paths or unknown is not None:
        raise InputError(f"weight {unknown} has no vector; add -a {unknown}=PATH" if unknown else "add -a NAME=PATH")
    one_of("--dtype", asked.dtype, (None, "float32", "float64"))
    weights = {name: parse_weight(str(value), f"-w {name}") for name, value in asked.weights.items()}
    parts = {name: (open_vector(path), weights.get(name, 1.0)) for name, path in asked.paths.items()}
    base = Checkpoint(asked.base) if asked.base else None
    summing = Summing(base, asked.match_norm, asked.dtype, asked.overwrite, asked.any_base)
    return add(parts, output, summing=summing, progress=progress)


def _show(facts: "VectorPredicateJson") -> None:
    print(f"{'part':16} {'norm':>10} {'factor':>8} {'used':>10}  weight")
    for name, part in facts["parts"].items():
        sizes = f"{part['norm']:>10.5g} {part['factor']:>8.4g} {part['norm_used']:>10.5g}"
        print(f"{name:16.16} {sizes}  {part['weight']}")
    for pair in facts["cosines"]:
        value = "not defined, one is zero" if pair["cosine"] is None else f"{pair['cosine']:+.4f}"
        print(f"cosine of {pair['first']} and {pair['second']} as used: {value}")
    print(f"norm of the sum: {facts['norm']:.5g}")
    files = facts["text_files"]
    if isinstance(files, dict) and files["disagree"]:
        say("note: the parts have different tokenizers or templates; none was taken along")


def scale_command(
    vector: Annotated[str, typer.Argument(help="A vector or an adapter.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory; of several strengths one in it for each.")],
    strength: Strengths = None,
    base: Annotated[str | None, typer.Option(help="For DoRA, saved modules and tokens.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Multiply a vector by a number, or by several: nothing is rounded, the number is kept beside the tensors."""
    results = scaled(vector, output, strength or ["1"], base, overwrite, Terminal())
    if as_json:
        from crossmatch.result_kinds import SCALED

        emit(SCALED, {"schema_version": 1, "output": str(output), "strengths": results})
        return
    for result in results:
        print(f"strength {result['strength']:g}: norm {result['norm']:.5g}")


def scaled(
    vector: str | Path,
    output: Path,
    strength: Sequence[str],
    base: str | Path | None,
    overwrite: bool,
    progress: Progress,
) -> "list[StrengthNormJson]":
    """Write a vector times each strength; the strengths with their norms."""
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.vectors import Summing, add, grid, strengths

    numbers = strengths(strength)
    found, made = open_vector(vector), {}
    below = Checkpoint(base) if base else None
    with ExitStack() as stack:
        places = stack.enter_context(grid(output, numbers, overwrite=overwrite))
        for number, place in places.items():
            summing = Summing(below, made_by="scale", overwrite=place == output and overwrite)
            made[number] = add({"vector": (found, number)}, place, summing=summing, progress=progress)["predicate"]
    return [{"strength": number, "norm": facts["norm"]} for number, facts in made.items()]
