"""crossmatch verify."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.attest import Attest, Bom, watched, write_statements
from crossmatch.cli.options import Adapters, AllowPartial, Json, Weights, pair_up
from crossmatch.cli.verdict_output import EXIT, Annotate, Junit, Sarif, Shown, Summary, check_files, conclude
from crossmatch.console import Terminal
from crossmatch.errors import InputError, one_of

if TYPE_CHECKING:
    from crossmatch.verification import Claim


# Of a base or an adapter these are no verdict on the merged file.
_UNREADABLE = ("export-incomplete",)


def verify_command(
    merged: Annotated[str, typer.Argument(help="Merged checkpoint: a directory or a hub id.")],
    base: Annotated[str | None, typer.Option(help="Base checkpoint; default: as the manifest says.")] = None,
    adapter: Adapters = None,
    weight: Weights = None,
    calibration: Annotated[Path | None, typer.Option(help="The calibration file of a merge that used one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Claim that it is stored so: float32, bfloat16, float16.")] = None,
    public_key: Annotated[Path | None, typer.Option(help="Check model.sig, too, against this key (PEM).")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Judge some rows of every tensor, in seconds.")] = False,
    partial: AllowPartial = False,
    detail: Annotated[bool, typer.Option("--detail", help="Also modules that do not agree; --json: all.")] = False,
    as_json: Json = False,
    sarif: Sarif = None,
    junit: Junit = None,
    annotate: Annotate = False,
    attest: Attest = None,
    bom: Bom = None,
    summary: Summary = None,
) -> None:
    """Say what is inside a merged checkpoint, and whether it is what it is said to be.

    With --base, -a and -w the claim is yours; what is left out comes from the manifest, whose inputs must be unchanged.
    A GGUF file, and weights of 8 bits, are judged by what their quantisation leaves.

    Exit code 0: verified; 1: not; 3: could not be judged.
    """
    from crossmatch.checkpoint import DTYPE_WORDS, MANIFEST, Checkpoint, is_quantised, locate, split_pairs
    from crossmatch.runtime import keep_heap
    from crossmatch.verification import Claim, Verdict, claim_from_manifest, verify_claim, with_signature

    keep_heap()
    shown = Shown(as_json, detail, sarif, junit, annotate, attest, bom, summary)
    check_files(shown)
    given = weight and base is not None and adapter
    one_of("--dtype", dtype, (None, *DTYPE_WORDS))
    if public_key is not None and not public_key.is_file():
        raise InputError(f"--public-key {public_key}: there is no such file")
    files: dict[str, str] = {}
    claim: Claim | None = None
    watch = watched(merged, shown)
    try:
        # Whether weights of 8 bits are the base's own is known once the base is.
        eight = is_quantised(merged)
        unclaimed = f"{merged} is a quantised export, so the claim must be given: --base, -a and -w"
        if eight and not given and not (Path(merged) / MANIFEST).is_file():
            _refuse_a_part(merged, base, adapter, weight)
            raise InputError(unclaimed)
        if given:
            claim = Claim(Checkpoint(str(base)), pair_up(adapter, weight))
        else:
            if not (Path(merged) / MANIFEST).is_file():
                _refuse_a_part(merged, base, adapter, weight)
            claim = claim_from_manifest(Checkpoint(merged), base, split_pairs(adapter, "-a"), calibration)
            claim = _with_weights(claim, weight)
        quantised = eight and is_quantised(merged, claim.base)
        if quantised and not given:
            raise InputError(unclaimed)
        checkpoint = merged if quantised else Checkpoint(merged)
        if isinstance(checkpoint, Checkpoint):
            files = {name: info.file.name for name, info in checkpoint.tensors.items()}
        claim = replace(claim, dtypes=(DTYPE_WORDS[dtype],)) if dtype else claim
        claim = replace(claim, partial=tuple(claim.parts)) if partial else claim
        verdict = verify_claim(checkpoint, claim, quick=quick, progress=Terminal())
        if public_key is not None:
            verdict = with_signature(verdict, locate(merged).path, public_key)
    except InputError as error:
        # What cannot be read may be the very fault: of the file that is judged, not of what it is held against.
        beside = [base, *(split_pairs(adapter, "-a").values() if error.fault in _UNREADABLE else ())]
        if error.fault is None or any(one in str(error) for one in beside if one):
            raise
        verdict = Verdict.refused(error.fault, str(error))
    conclude(merged, verdict, shown, files)
    write_statements(merged, verdict, claim, shown, watch)
    raise typer.Exit(EXIT[verdict.verdict])


def _refuse_a_part(merged: str, base: str | None, adapters: list[str] | None, weights: list[str] | None) -> None:
    """Raise InputError for a part of a claim on a file beside which no manifest can give the rest."""
    from crossmatch.checkpoint import MANIFEST

    options = {"--base BASE": base, "-a NAME=PATH": adapters, "-w NAME=NUMBER": weights}
    lacking = [option for option, given in options.items() if not given]
    # A hub id may have a manifest there.
    if not 0 < len(lacking) < len(options) or not Path(merged).exists():
        return
    unknown = "; if nobody knows the weights: crossmatch identify" if weights is None else ""
    verb = "is" if len(lacking) == 1 else "are"
    raise InputError(f"{' and '.join(lacking)} {verb} missing ({merged} has no {MANIFEST} that says it){unknown}")


def _with_weights(claim: "Claim", weights: list[str] | None) -> "Claim":
    """A manifest's claim with other weights for some of its adapters."""
    from crossmatch.checkpoint import split_pairs
    from crossmatch.rules.weights import read_weight

    others = {name: read_weight(text, f"-w {name}") for name, text in split_pairs(weights, "-w").items()}
    for name in others:
        if name not in claim.parts:
            raise InputError(f"-w {name}: the manifest names {', '.join(claim.parts)}")
    return replace(claim, parts={name: (v, others.get(name, w)) for name, (v, w) in claim.parts.items()})
