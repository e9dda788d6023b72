"""crossmatch predict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.options import Adapters, Json, Weights, pair_up
from crossmatch.console import Terminal, emit

if TYPE_CHECKING:
    from crossmatch.results.sweep import PredictJson


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
    from crossmatch.sweeping.predict import Evidence, predict

    facts = predict(base, pair_up(adapter, weight), reference, Evidence(swept, suite, items), Terminal())
    if as_json:
        emit(PREDICT, facts)
    else:
        _print(facts)


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
    foretold = (
        "above its published threshold {}: a conflict" if above else "below its published threshold {}: no conflict"
    )
    print(f"PRISM is {foretold.format(format(facts['prism_threshold'], '.4g'))} is foretold by it")
    if facts["agreement"]:
        n = max((row["n"] for row in facts["agreement"]["scores"]), default=0)
        print(printable(f"correlations with the gain in {facts['agreement']['goal']} at {n} points of a sweep"))
    else:
        print("what these scores are worth here is not known: pass --sweep DIR of a finished sweep")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
