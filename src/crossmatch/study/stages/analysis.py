"""The study's last stage: what each adapter changed in the base's weights, and how they lie to each other."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from crossmatch.adapter import Adapter
from crossmatch.analysis import Wanted, assemble, independent, open_vectors, overlap
from crossmatch.checkpoint import Checkpoint
from crossmatch.result_kinds import ANALYSIS, OVERLAP
from crossmatch.results.analysis import AnalysisJson
from crossmatch.results.study import OverlapJson
from crossmatch.rules import weight_json
from crossmatch.study.ledger import Ledger
from crossmatch.study.recipe import Recipe

# A large k needs many of the base's directions; `crossmatch analyse` has more.
KS = ("64", "r")


def explain(base: Checkpoint, adapters: Mapping[str, Adapter], root: Path, ledger: Ledger) -> AnalysisJson:
    """The facts of `crossmatch analyse` for all adapters of a study, in `root/analysis.json`."""
    out = root / "analysis.json"

    def work() -> None:
        opened = open_vectors(base.path, {name: adapter.path for name, adapter in adapters.items()})
        # A killed run finds those it had; once the result is there, they would only be hundreds of megabytes.
        directions = root / "directions"
        directions.mkdir(exist_ok=True)
        ANALYSIS.replace(out, assemble(opened, Wanted(KS, cache=directions), progress=ledger.progress))
        shutil.rmtree(directions, ignore_errors=True)

    inputs = [base.digest, {name: adapter.digest for name, adapter in adapters.items()}, list(KS)]
    ledger.run("explain", inputs, lambda: [out], work)
    return ANALYSIS.read(out, ledger.progress.say)


def overlap_of_pair(recipe: Recipe, adapters: Mapping[str, Adapter], root: Path, ledger: Ledger) -> OverlapJson | None:
    """Overlap of the first two adapters of the first merge, at its weights."""
    pair = list(recipe.measured[0].items())[:2]
    if len(pair) < 2:
        return None
    (first, w1), (second, w2) = pair
    out = root / "overlap.json"

    def compare_pair() -> None:
        """Measure how the two adapters relate, tensor by tensor."""
        x, y = independent(adapters[first]), independent(adapters[second])
        rows = [o.to_dict() for o in overlap(x, y, (w1, w2))]
        total = x.cosine(y) if len(x) and len(y) else None
        facts: OverlapJson = {
            "schema_version": 1,
            "first": first,
            "second": second,
            "weights": [weight_json(w1), weight_json(w2)],
            "cosine": total,
            "modules": rows,
        }
        OVERLAP.replace(out, facts)

    inputs = [adapters[first].digest, adapters[second].digest, weight_json(w1), weight_json(w2)]
    ledger.run("analyse", inputs, lambda: [out], compare_pair)
    return OVERLAP.read(out, ledger.progress.say)
