"""crossmatch vectors add and scale."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.options import Adapters, Json, Overwrite, Strengths, Weights
from crossmatch.console import Terminal, emit, say

if TYPE_CHECKING:
    from crossmatch.results.vectors import VectorPredicateJson


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
    from crossmatch.checkpoint import split_pairs
    from crossmatch.vectors.requests import SumRequest, write_sum

    paths, weights = split_pairs(vector, "-a"), split_pairs(weight, "-w")
    asked = SumRequest(paths, weights, match_norm, base, dtype, any_base, overwrite)
    facts = write_sum(asked, output, Terminal())["predicate"]
    if as_json:
        from crossmatch.result_kinds import VECTOR

        emit(VECTOR, {"output": str(output), **facts})
        return
    _show(facts)
    say(f"to see it: crossmatch vectors inspect {output}")


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
    from crossmatch.vectors.requests import write_multiples

    results = write_multiples(vector, output, strength or ["1"], base, overwrite, Terminal())
    if as_json:
        from crossmatch.result_kinds import SCALED

        emit(SCALED, {"schema_version": 1, "output": str(output), "strengths": results})
        return
    for result in results:
        print(f"strength {result['strength']:g}: norm {result['norm']:.5g}")
