"""Interference of one adapter of a merge with the other's task, on a suite's questions and references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.suites import Suite
from crossmatch.results.interference import InterferenceJson
from crossmatch.rules import Weight
from crossmatch.runtime import SILENT, Progress


@dataclass(frozen=True)
class SuitePair:
    """Guest and host by name, and the suite that asks for the host's task."""

    names: tuple[str, str]
    suite: Suite


def find_pair(weights: Mapping[str, Weight], reference: str, suites: Sequence[Suite]) -> SuitePair | str:
    """The adapter beside the reference, the reference, and the first generation suite; or in words what is missing."""
    guests = [name for name in weights if name != reference]
    if reference not in weights or len(guests) != 1:
        return f"it takes a merge of the reference, {reference}, with one other adapter; this one is of " + (
            ", ".join(weights) or "none"
        )
    suite = next((s for s in suites if s.settings.kind == "generation"), None)
    return (
        SuitePair((guests[0], reference), suite)
        if suite
        else "it takes a generation suite, whose references are scored"
    )


def measure_pair(
    base: Checkpoint,
    pair: Mapping[str, Adapter],
    weights: Mapping[str, Weight],
    suite: Suite,
    measured: int,
    *,
    progress: Progress = SILENT,
) -> InterferenceJson:
    """Facts of `predict_and_measure` for a pair (guest first) on a suite's items; `measured` of them are ablated.

    Raises DataError for an item that renders to nothing that can be scored.
    """
    from crossmatch.analysis.interference.predict import Scope, predict_and_measure
    from crossmatch.data.token_classes import read_texts

    tokenizer = open_tokenizer(base.path)
    answers = [[*suite.messages(i), {"role": "assistant", "content": i.reference}] for i in suite.items]
    texts = read_texts(tokenizer, answers)
    return predict_and_measure(base, pair, weights, texts, Scope(measured=measured), progress=progress)
