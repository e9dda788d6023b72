"""crossmatch vectors extract."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.options import Json, Overwrite
from crossmatch.console import Terminal, emit, say

if TYPE_CHECKING:
    from crossmatch.results.vectors import VectorPredicateJson


def extract_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    tuned: Annotated[str, typer.Argument(help="The checkpoint that was made from it by training or merging.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for the vector.")],
    rank: Annotated[int | None, typer.Option(min=1, help="Write a PEFT adapter: the best one of this rank.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Write a PEFT adapter: this share of each matrix's squared norm, as in 0.99.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of a dense vector: float32 (default) or float64.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random sketches of --rank and --energy.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Take tau = tuned - base: dense and exact to one rounding, or of low rank as an adapter with its error stated.

    Exit code 1: the tuned checkpoint equals its base.
    """
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.runtime import keep_heap
    from crossmatch.vectors import LowRankForm
    from crossmatch.vectors.requests import write_difference

    keep_heap()
    pair = Checkpoint(base), Checkpoint(tuned)
    form = None if rank is None and energy is None else LowRankForm(rank, energy, seed)
    manifest = write_difference(pair, output, form, dtype, overwrite, Terminal())
    _show(base, output, manifest["predicate"], as_json, _exactness if form is None else _errors)


# A smaller share of rounding is not worth a line.
_TELLING = 0.005
Lines = Callable[["VectorPredicateJson"], list[str]]


def _show(base: str, output: Path, facts: "VectorPredicateJson", as_json: bool, lines: Lines) -> None:
    if as_json:
        from crossmatch.result_kinds import VECTOR

        emit(VECTOR, {"output": str(output), **facts})
    else:
        for line in lines(facts):
            print(line)
        for line in _rounding(facts):
            print(line)
    for note in facts.get("notes", ()):
        say(f"note: {note}")
    say(f"to put it on a model: crossmatch vectors apply {base} {output} -o OUT")


def _rounding(facts: "VectorPredicateJson") -> list[str]:
    share = facts.get("rounding")
    if share is None or share < _TELLING:
        return []
    lines = [f"the base's rounding to 16 bits alone is {share:.0%} of the difference's energy, of full rank"]
    lines += ["  so the error says little about adapters: try crossmatch identify"] if "form" in facts else []
    return lines


def _exactness(facts: "VectorPredicateJson") -> list[str]:
    found = facts["exactness"]
    lines = [f"{facts['changed']} tensors changed, {facts['unchanged']} are the base's; stored in {facts['dtype']}"]
    if not found["differ"]:
        return [*lines, f"base + vector gives all {found['elements']:,} changed elements back, bit for bit"]
    lines.append(f"base + vector does not give back {found['differ']:,} of {found['elements']:,} elements:")
    if found["sign_of_zero"]:
        lines.append(f"  {found['sign_of_zero']:,} are zeros of the other sign")
    if found["rounded"]:
        why = "; --dtype float64 holds more" if facts["dtype"] == "float32" else ""
        lines.append(f"  {found['rounded']:,} differ by more digits than {facts['dtype']} has{why}")
    return lines


def _errors(facts: "VectorPredicateJson") -> list[str]:
    form = facts["form"]
    low, high = form["ranks"]
    ranks = f"rank {high}" if low == high else f"ranks {low} to {high}"
    lines = [f"{form['matrices']} matrices as factors of {ranks}: relative error {form['relative_error']:.3g} in all"]
    if form["worst"]:
        lines.append(f"  most in {form['worst']['tensor']}: {form['worst']['relative_error']:.3g}")
    kept = form["exact"]
    lines += [f"carried exactly: {len(kept)} tensors, {form['exact_energy']:.2%} of the energy"] if kept else []
    for name, share in form["left_out"].items():
        lines.append(f"LEFT OUT, an adapter cannot hold it: {name}, {share:.2%} of the energy")
    return lines
