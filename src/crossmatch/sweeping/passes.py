"""Predictions that take passes of the model over a few texts, and what they were worth at a finished sweep's points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossmatch.adapter import Recorded
from crossmatch.analysis.interference.model_scores import MODEL_SCORES, ModelScores
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.suites import Item, Suite, load_suite
from crossmatch.data.token_classes import read_texts
from crossmatch.errors import InputError
from crossmatch.results.sweep import ModelScoresJson, PromptsJson, ScoreAgreementJson
from crossmatch.rules import Weight, parse_weight
from crossmatch.runtime import SILENT, Progress
from crossmatch.statistics.rank_correlation import spearman
from crossmatch.sweeping.parts import split


@dataclass(frozen=True)
class Passes:
    """Scores of one merge; of what texts; rank correlations with the gains of a sweep (none without one)."""

    scores: ModelScoresJson
    texts: PromptsJson
    agreement: list[ScoreAgreementJson]


@dataclass(frozen=True)
class Pair:
    """What is merged, and the adapter with which merges are compared."""

    base: Checkpoint
    adapters: Mapping[str, Recorded]
    reference: str


def predict_by_passes(
    pair: Pair,
    weights: Mapping[str, Weight],
    suite: str,
    items: int,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> Passes:
    """Score a merge on the first items of a generation suite; facts: `sweep.json`, whose search asked none of them.

    Raises InputError for another kind of suite, without references, and for a sweep of another base or other adapters;
    what `ModelScores` raises.
    """
    opened = load_suite(suite)
    if opened.settings.kind != "generation":
        raise InputError(f"--suite {suite}: gates need answers to learn from; give a suite of kind generation")
    if facts is not None:
        _same_models(pair, facts)
    chosen = _unsearched(opened, facts)[:items]
    if not chosen or any(not item.reference for item in chosen):
        raise InputError(f"--suite {suite}: {'an item has no reference' if chosen else 'no item is left'} to score")
    tokenizer = open_tokenizer(pair.base.path)
    answers = [[*opened.messages(i), {"role": "assistant", "content": i.reference}] for i in chosen]
    texts = [text for text in read_texts(tokenizer, answers) if not text.is_probe]
    with progress.task("gates' gradients") as task:
        scores = ModelScores(pair.base, pair.adapters, pair.reference, texts)
        task.advance()
    agreement = _agreement(scores, facts, progress) if facts is not None else []
    return Passes(scores.scores(weights), {"suite": opened.settings.name, "items": len(chosen)}, agreement)


def _same_models(pair: Pair, facts: Mapping[str, Any]) -> None:
    known = facts["study"]["digests"]
    mine = {name: adapter.digest for name, adapter in pair.adapters.items()}
    if known["base"] != pair.base.digest or known["adapters"] != mine:
        raise InputError(
            "--sweep with --suite: the sweep is of another base, or of other adapters or names; what a score was worth "
            "there is known of its own models alone"
        )


def _unsearched(suite: Suite, facts: Mapping[str, Any] | None) -> Sequence[Item]:
    """Items that no figure of a sweep's search holds: those of its confirmation part."""
    if facts is None:
        return suite.items
    by_id = {item.id: item for item in suite.items}
    kept = split([suite], facts["study"]["confirm"]).confirmation.ids[suite.settings.name]
    return [by_id[key] for key in kept]


def _agreement(scores: ModelScores, facts: Mapping[str, Any], progress: Progress) -> list[ScoreAgreementJson]:
    """Rank correlation of each score with the measured gain, at the points of a sweep that are sums."""
    goal = facts["prediction"]["goal"]
    points = [p for p in facts["points"] if p["rule"] == "linear" and p["search"][goal]["gain"] is not None]
    made = []
    with progress.task("scores of the sweep's points", len(points)) as task:
        for point in points:
            made.append(scores.scores({name: parse_weight(weight) for name, weight in point["weights"].items()}))
            task.advance()
    measured = np.array([point["search"][goal]["gain"]["value"] for point in points], dtype=float)
    found: list[ScoreAgreementJson] = []
    for name, (title, what) in MODEL_SCORES.items():
        figure = spearman(np.array([one[name] for one in made], dtype=float), measured)
        found.append({"score": name, "title": title, "what": what, **figure.to_dict()})
    return found
