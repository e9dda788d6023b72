"""crossmatch predict."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import Terminal, emit
from crossmatch.cli.options import Adapters, Json, Weights, pair_up
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.adapter import Recorded
    from crossmatch.results.sweep import PredictJson, SweepJson
    from crossmatch.rules import Weight
    from crossmatch.runtime import Progress


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
    suite: Annotated[
        str | None,
        typer.Option(
            help="A generation suite: load the model, and score hidden states and gates' gradients on a few items."
        ),
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="Items of the suite; with --sweep none that its search asked.")] = 8,
    as_json: Json = False,
) -> None:
    """Score a merge before it is made, from the adapters' factors alone: sizes, cosine, shared subspaces, PRISM.

    With --suite also from passes of the model: how far hidden states move, and the change of the loss that the
    gradients of the adapters' gates foretell.

    What a score is worth is said by --sweep: its rank correlation with the measured gain, beside that of size alone.
    """
    from crossmatch.result_kinds import PREDICT

    facts = predicted(base, pair_up(adapter, weight), reference, Evidence(swept, suite, items), Terminal())
    if as_json:
        emit(PREDICT, facts)
    else:
        _print(facts)


@dataclass(frozen=True)
class Evidence:
    """What is looked at beside the factors. swept: directory of a finished sweep, which says what each score is worth;
    suite: a generation suite, on `items` of which hidden states and gates are scored."""

    swept: Path | None = None
    suite: str | None = None
    items: int = 8


def predicted(
    base: str | Path,
    parts: "Mapping[str, tuple[Recorded, Weight]]",
    reference: str | None,
    evidence: Evidence,
    progress: "Progress",
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
    checkpoint, adapters = Checkpoint(base), {name: vector for name, (vector, _) in parts.items()}
    scores = WeightScores(fit(checkpoint, adapters).vectors, against)
    weights = {name: value for name, (_, value) in parts.items()}
    known = _read(evidence.swept) if evidence.swept else None
    facts: PredictJson = {
        "schema_version": 1,
        "reference": against,
        "weights": {name: weight_json(value) for name, value in weights.items()},
        "sizes": scores.sizes(),
        "pairs": [pair.to_dict() for pair in scores.overlaps()],
        "scores": {**scores.scores(weights)},
        "prism_threshold": PRISM_THRESHOLD,
        "agreement": None,
    }
    found = known["prediction"] if known is not None else None
    if found is not None:
        facts["agreement"] = {"sweep": str(evidence.swept), "goal": found["goal"], "scores": list(found["agreement"])}
    if evidence.suite is not None:
        from crossmatch.sweeping.passes import Pair, predict_by_passes

        pair = Pair(checkpoint, adapters, against)
        more = predict_by_passes(pair, weights, evidence.suite, evidence.items, known, progress)
        facts["scores"] = {**facts["scores"], **more.scores}
        facts["texts"] = more.texts
        if facts["agreement"] is not None:
            facts["agreement"]["scores"] += more.agreement
    return facts


def _read(swept: Path) -> "SweepJson":
    """A finished sweep with predictions. Raises InputError for a directory that has none."""
    from crossmatch.result_kinds import SWEEP

    file = swept / "sweep.json"
    found = SWEEP.read(file) if file.is_file() else None
    if found is None or not found.get("prediction"):
        raise InputError(f"--sweep {swept}: no finished sweep with predictions; run crossmatch sweep first")
    return found


def _print(facts: "PredictJson") -> None:
    from crossmatch.analysis.interference.weight_scores import SCORES
    from crossmatch.report.text import printable

    titles = {name: title for name, (title, _) in SCORES.items()}
    if texts := facts.get("texts"):
        from crossmatch.analysis.interference.model_scores import MODEL_SCORES

        titles |= {name: title for name, (title, _) in MODEL_SCORES.items()}
        print(printable(f"hidden states and gates: on {texts['items']} items of {texts['suite']}"))
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
        print(f"{titles[name]:28} {value:10.4g}  {said}".rstrip())
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
