"""crossmatch predict."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import emit
from crossmatch.cli.options import Adapters, Json, Weights, pair_up
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.delta import TuningVector
    from crossmatch.results.sweep import PredictJson, SweptAgreementJson
    from crossmatch.rules import Weight


def predict_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    adapter: Adapters = None,
    weight: Weights = None,
    reference: Annotated[str | None, typer.Option(help="Adapter to compare with; default: the last.")] = None,
    swept: Annotated[
        Path | None,
        typer.Option(
            "--sweep", metavar="DIR", help="A finished sweep, which says how well each score put it in order."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a merge from the adapters' factors alone: sizes, cosine, shared subspaces, PRISM. No model is run.

    What a score is worth is said by --sweep: its rank correlation with the measured gain, beside that of size alone.
    """
    from crossmatch.result_kinds import PREDICT

    facts = predicted(base, pair_up(adapter, weight), reference, swept)
    if as_json:
        emit(PREDICT, facts)
    else:
        _print(facts)


def predicted(
    base: str | Path, parts: "Mapping[str, tuple[TuningVector, Weight]]", reference: str | None, swept: Path | None
) -> "PredictJson":
    """The scores of one merge of parts (name -> vector, weight). Raises InputError for fewer than two parts, a
    reference that is none of them, and a directory without a finished sweep."""
    from crossmatch.adapter import fit
    from crossmatch.analysis.interference.weight_scores import PRISM_THRESHOLD, WeightScores
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.rules import weight_json

    if len(parts) < 2:
        raise InputError("one adapter meets no other; give two with -a and -w")
    against = reference or list(parts)[-1]
    if against not in parts:
        raise InputError(f"--reference {against}: give one of {', '.join(parts)}")
    found = fit(Checkpoint(base), {name: vector for name, (vector, _) in parts.items()})
    scores, weights = WeightScores(found.vectors, against), {name: value for name, (_, value) in parts.items()}
    return {
        "schema_version": 1,
        "reference": against,
        "weights": {name: weight_json(value) for name, value in weights.items()},
        "sizes": scores.sizes(),
        "pairs": [pair.to_dict() for pair in scores.overlaps()],
        "scores": scores.scores(weights),
        "prism_threshold": PRISM_THRESHOLD,
        "agreement": _agreement(swept) if swept else None,
    }


def _agreement(swept: Path) -> "SweptAgreementJson":
    """Goal and rank correlations of a sweep. Raises InputError for a directory that has none."""
    from crossmatch.result_kinds import SWEEP

    file = swept / "sweep.json"
    found = SWEEP.read(file).get("prediction") if file.is_file() else None
    if not found:
        raise InputError(f"--sweep {swept}: no finished sweep with predictions; run crossmatch sweep first")
    return {"sweep": str(swept), "goal": found["goal"], "scores": found["agreement"]}


def _print(facts: "PredictJson") -> None:
    from crossmatch.analysis.interference.weight_scores import SCORES
    from crossmatch.report.text import printable

    known = {row["score"]: row for row in (facts["agreement"] or {"scores": []})["scores"]}
    for name, size in facts["sizes"].items():
        print(printable(f"{name}: norm {size:.4g} at weight 1, merge weight {facts['weights'][name]}"))
    for pair in facts["pairs"]:
        cosine, columns, rows = (_number(pair[key]) for key in ("cosine", "columns", "rows"))
        where = f"shared column space {columns}, row space {rows}"
        print(printable(f"{pair['first']}, {pair['second']}: cosine {cosine}, {where}"))
    for name, value in facts["scores"].items():
        row = known.get(name)
        said = ""
        if row is not None:
            low = row["low"] is not None
            said = (
                f"rank correlation {row['value']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
                if low
                else "not defined"
            )
        print(f"{SCORES[name][0]:28} {value:10.4g}  {said}".rstrip())
    above = facts["scores"]["prism"] > facts["prism_threshold"]
    print(f"PRISM is {'above' if above else 'below'} its published threshold {facts['prism_threshold']:.4g}")
    if facts["agreement"]:
        print(
            printable(f"correlations with the gain in {facts['agreement']['goal']} at the points of a finished sweep")
        )
    else:
        print("what these scores are worth here is not known: pass --sweep DIR of a finished sweep")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
