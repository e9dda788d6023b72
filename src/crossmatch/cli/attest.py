"""verify --attest and --bom: the verdict as files for supply chains."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.console import Terminal, say

if TYPE_CHECKING:
    from crossmatch.checkpoint import Source, Unchanged
    from crossmatch.cli.verdict_output import Shown
    from crossmatch.export.judged import JudgedModel, Part
    from crossmatch.verification import Claim, Verdict

Attest = Annotated[
    Path | None, typer.Option("--attest", metavar="FILE", help="Write the verdict as an in-toto statement, too.")
]
Bom = Annotated[
    Path | None, typer.Option("--bom", metavar="FILE", help="Write a CycloneDX 1.7 bill of materials, too.")
]


def watched(merged: str, shown: "Shown") -> "Unchanged":
    """Watches the model from before it is judged till it is attested, if it is to be: what was judged must be what the
    digest is of."""
    from crossmatch.checkpoint import Unchanged, locate

    model = locate(merged).path if shown.attest or shown.bom else None
    if model is None:
        return Unchanged(())
    return Unchanged(sorted(model.rglob("*")) if model.is_dir() else [model])


def write_statements(
    merged: str, verdict: "Verdict", claim: "Claim | None", shown: "Shown", watch: "Unchanged | None" = None
) -> None:
    """Write what is wanted. A verdict that could not be reached is no statement: nothing is written, and an earlier
    statement of ours at that place, which would be taken for this one, is removed.

    Raises CheckpointError if the model changes meanwhile, OutputError for a file that cannot be written.
    """
    from crossmatch.cli.verdict_output import replace_text
    from crossmatch.export.judged import attestation, bill_of_materials
    from crossmatch.result_kinds import STATEMENT

    wanted = {shown.attest: attestation, shown.bom: bill_of_materials}
    places = {file: make for file, make in wanted.items() if file is not None}
    if not places:
        return
    if verdict.verdict == "inconclusive":
        for file in places:
            stale = _is_ours(file)
            if stale:
                file.unlink()
            say(f"{file} was not written: nothing was judged{', and an earlier one was removed' if stale else ''}")
        return
    model = _judged(merged, verdict, claim)
    if watch is not None:
        watch.check()
    for file, make in places.items():
        text = json.dumps(make(model), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if make is attestation:
            STATEMENT.check(text)
        replace_text(file, text)
        say(f"written: {file}")


def _judged(merged: str, verdict: "Verdict", claim: "Claim | None") -> "JudgedModel":
    from crossmatch.adapter import Recorded
    from crossmatch.checkpoint import locate, root_digest
    from crossmatch.export.judged import JudgedModel
    from crossmatch.rules import weight_json

    source = locate(merged)
    with Terminal().task("sha256 of the model"):
        digest = root_digest(source.path)
    facts: dict[str, Any] = {}
    if claim is not None:
        vectors: dict[str, tuple[Recorded, Any]] = {
            name: (vector, weight) for name, (vector, weight) in claim.parts.items() if isinstance(vector, Recorded)
        }
        known = verdict.digests
        facts["base"] = _part("base", claim.base.source, known.get("base"))
        facts["adapters"] = tuple(
            _part(name, vector.source, known.get("adapters", {}).get(name) or vector.digest, weight_json(weight))
            for name, (vector, weight) in vectors.items()
        )
        facts["recipe"] = claim.recipe.to_dict()
    name = source.hub_id or source.path.resolve().name
    return JudgedModel(name, digest.sha256, digest.method, digest.files, verdict.to_dict(), **facts)


def _part(name: str, source: "Source", digest: str | None, weight: float | str | None = None) -> "Part":
    from crossmatch.export.judged import Part

    return Part(name, source.hub_id, source.revision, digest, weight)


def _is_ours(file: Path) -> bool:
    """Whether a file is a statement or a bill that crossmatch wrote."""
    from crossmatch.export.judged import PREDICATE

    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    tools = found.get("metadata", {}).get("tools", {}) if isinstance(found, dict) else {}
    return isinstance(found, dict) and (found.get("predicateType") == PREDICATE or '"crossmatch"' in json.dumps(tools))
