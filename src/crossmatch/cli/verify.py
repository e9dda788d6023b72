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
    from crossmatch.verification import Claim, Verdict

_EXIT = {"verified": ExitCode.OK, "failed": ExitCode.FAILED, "inconclusive": ExitCode.INCONCLUSIVE}


def verify_command(
    merged: Annotated[str, typer.Argument(help="Merged checkpoint: a directory or a hub id.")],
    base: Annotated[str | None, typer.Option(help="Base checkpoint; default: as the manifest says.")] = None,
    adapter: Adapters = None,
    weight: Weights = None,
    calibration: Annotated[Path | None, typer.Option(help="The calibration file of a merge that used one.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Judge some rows of every tensor, in seconds.")] = False,
    detail: Annotated[bool, typer.Option("--detail", help="With --json: one entry per module.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is inside a merged checkpoint, and whether it is what it is said to be.

    With --base, -a and -w the claim is yours; what is left out comes from the manifest, whose inputs must be unchanged.

    Exit code 0: verified; 1: not; 3: could not be judged.
    """
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.process import keep_heap
    from crossmatch.verification import Claim, Verdict, claim_from_manifest, verify_claim

    keep_heap()

    try:
        checkpoint = Checkpoint(merged)
        if weight and base is not None and adapter:
            claim: Claim = Claim(Checkpoint(base), pair_up(adapter, weight))
        else:
            claim = claim_from_manifest(checkpoint, base, split_pairs(adapter, "-a"), calibration)
            claim = _with_weights(claim, weight)
        verdict = verify_claim(checkpoint, claim, quick=quick, progress=Terminal())
    except InputError as error:
        # What cannot be read may be the very fault.
        if error.fault is None or str(base) in str(error):
            raise
        verdict = Verdict.refused(error.fault, str(error))
    if as_json:
        emit(verdict.to_dict(detail=detail))
    else:
        show(merged, verdict)
    raise typer.Exit(_EXIT[verdict.verdict])


def _with_weights(claim: "Claim", weights: list[str] | None) -> "Claim":
    """A manifest's claim with other weights for some of its adapters."""
    others = {name: parse_weight(text, f"-w {name}") for name, text in split_pairs(weights, "-w").items()}
    for name in others:
        if name not in claim.parts:
            raise InputError(f"-w {name}: the manifest names {', '.join(claim.parts)}")
    return replace(claim, parts={name: (v, others.get(name, w)) for name, (v, w) in claim.parts.items()})


def show(merged: str, verdict: "Verdict") -> None:
    """The verdict for people: one line, the weights, then only what is wrong and what to do about it."""
    from crossmatch.verification.faults import FAULTS, NOTES

    print(f"{verdict.verdict.upper()}  {merged}")
    for name, w in verdict.weights.items():
        found = "not identifiable" if w.recovered is None else f"{w.recovered:.5f} ± {w.stderr:.1g}"
        claimed = "" if w.claimed is None else f"claimed {w.claimed:<8g} "
        print(f"  {plain(name):12} {claimed}recovered {found}")
    for known in verdict.evidence.get("sums", ()):
        terms = " + ".join(name if c == 1 else f"{c:.3g} {name}" for name, c in known["terms"].items())
        print(f"  {terms} = {known['recovered']:.5f} ± {known['stderr']:.1g}")
    modules, tensors, rounding = verdict.modules, verdict.tensors, verdict.rounding
    if modules["adapted"]:
        others = tensors["total"] - modules["adapted"]
        print(f"  {modules['agree']} of {modules['adapted']} adapted modules agree; ", end="")
        print(f"{tensors['untouched_identical']} of {others} other tensors are the base's")
    if rounding.get("violations") is not None:
        replay = (rounding["replay"] or {}).get("route")
        route = replay if replay and rounding["route"] else rounding["route"] or "not explained"
        print(f"  rounding: {route}, {rounding['violations']:.2%} of elements outside it")
    for finding in verdict.findings:
        consequence, remedy = FAULTS[finding.fault]
        print(f"\n{finding.fault}: {consequence}.")
        more = f" and {len(finding.where) - 3} more" if len(finding.where) > 3 else ""
        places = f"{', '.join(finding.where[:3])}{more}" if finding.where else ""
        seen = "; in ".join(text for text in (finding.evidence, places) if text)
        if seen:
            print(f"  Seen: {plain(seen)}.")
        print(f"  {remedy[0].upper()}{remedy[1:]}.")
    for text in verdict.evidence.get("not_checked", ()):
        print(f"\nnot checked: {plain(text)}.")
    for note in verdict.notes:
        print(f"\nnote {note}: {NOTES[note]}.")
