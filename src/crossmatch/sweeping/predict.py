"""What `crossmatch predict` says of a merge that is not made: its scores, and what a finished sweep says of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import Recorded, fit
from crossmatch.analysis.interference.weight_scores import PRISM_THRESHOLD, WeightScores
from crossmatch.checkpoint import Checkpoint
from crossmatch.errors import InputError
from crossmatch.result_kinds import SWEEP
from crossmatch.results.sweep import PredictJson, SweepJson
from crossmatch.rules import Weight, weight_json
from crossmatch.runtime import Progress


@dataclass(frozen=True)
class Evidence:
    """What is looked at beside the factors. swept: directory of a finished sweep, which says what each score is worth;
    suite: a generation suite, on `items` of which hidden states and gates are scored."""

    swept: Path | None = None
    suite: str | None = None
    items: int = 8


def predict(
    base: str | Path,
    parts: Mapping[str, tuple[Recorded, Weight]],
    reference: str | None,
    evidence: Evidence,
    progress: Progress,
) -> PredictJson:
    """The scores of one merge of parts (name -> vector, weight). Raises InputError for fewer than two parts, a
    reference that is none of them, and a directory without a finished sweep."""
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


def _read(swept: Path) -> SweepJson:
    """A finished sweep with predictions. Raises InputError for a directory that has none."""
    file = swept / "sweep.json"
    found = SWEEP.read(file) if file.is_file() else None
    if found is None or not found.get("prediction"):
        raise InputError(f"--sweep {swept}: no finished sweep with predictions; run crossmatch sweep first")
    return found
