"""crossmatch verify."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import Terminal, emit, plain
from crossmatch.cli.options import Adapters, Json, Weights, pair_up, split_pairs
from crossmatch.cli.options import weight as parse_weight
from crossmatch.errors import ExitCode, InputError

if TYPE_CHECKING:
    from crossmatch.verification import Verdict

_EXIT = {"verified": ExitCode.OK, "failed": ExitCode.FAILED, "inconclusive": ExitCode.INCONCLUSIVE}


def verify_command(
    merged: Annotated[str, typer.Argument(help="Merged checkpoint: a directory or a hub id.")],
    base: Annotated[str | None, typer.Option(help="Base checkpoint; default: as the manifest says.")] = None,
    adapter: Adapters = None,
    weight: Weights = None,
    calibration: Annotated[Path | None, typer.Option(help="The calibration file of a merge that used one.")] = None,
    detail: Annotated[bool, typer.Option("--detail", help="With --json: one entry per module.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is inside a merged checkpoint, and whether it is what it is said to be.

    With --base, -a and -w the claim is yours; what is left out comes from the manifest, whose inputs must be unchanged.

    Exit code 0: verified; 1: not; 3: could not be judged.
    """
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.process import keep_heap
    from crossmatch.verification import Claim, claim_from_manifest, verify_claim

    keep_heap()

    checkpoint = Checkpoint(merged)
    if weight and base is not None and adapter:
        claim: Claim = Claim(Checkpoint(base), pair_up(adapter, weight))
    else:
        claim = claim_from_manifest(checkpoint, base, split_pairs(adapter, "-a"), calibration)
        others = {name: parse_weight(text, f"-w {name}") for name, text in split_pairs(weight, "-w").items()}
        for name in others:
            if name not in claim.parts:
                raise InputError(f"-w {name}: the manifest names {', '.join(claim.parts)}")
        claim = replace(claim, parts={name: (v, others.get(name, w)) for name, (v, w) in claim.parts.items()})
    verdict = verify_claim(checkpoint, claim, progress=Terminal())
    if as_json:
        emit(verdict.to_dict(detail=detail))
    else:
        _print(merged, verdict)
    raise typer.Exit(_EXIT[verdict.verdict])


def _print(merged: str, verdict: "Verdict") -> None:
    from crossmatch.verification.faults import FAULTS, NOTES

    print(f"{verdict.verdict.upper()}  {merged}")
    for name, w in verdict.weights.items():
        found = "not identifiable" if w.recovered is None else f"{w.recovered:.5f} ± {w.stderr:.1g}"
        print(f"  {plain(name):12} claimed {w.claimed:<8g} recovered {found}")
    modules, tensors, rounding = verdict.modules, verdict.tensors, verdict.rounding
    others = tensors["total"] - modules["adapted"]
    print(f"  {modules['agree']} of {modules['adapted']} adapted modules agree; ", end="")
    print(f"{tensors['untouched_identical']} of {others} other tensors are the base's")
    if rounding["violations"] is not None:
        route = rounding["route"] or "not explained"
        print(f"  rounding: {route}, {rounding['violations']:.2%} of elements outside it")
    for fault in verdict.faults:
        consequence, remedy = FAULTS[fault]
        print(f"\n{fault}: {consequence}.\n  {remedy[0].upper()}{remedy[1:]}.")
    named = verdict.evidence["modules_in_question"]
    elsewhere = [*tensors["missing"], *tensors["extra"], *tensors["untouched_changed"]]
    places = [*elsewhere, *verdict.evidence["config_changed"]] or named
    if verdict.faults and places:
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        print(f"  Seen in {plain(', '.join(places[:3]))}{more}.")
    unchecked = ", ".join(verdict.evidence["not_checked"]).replace("_", " ")
    print(f"\nnot checked: {unchecked}.")
    for note in verdict.notes:
        print(f"\nnote {note}: {NOTES[note]}.")
