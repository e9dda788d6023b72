"""Interference of one adapter of a merge with the other's task, on a suite's questions and references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.suites import Suite
from crossmatch.errors import InputError
from crossmatch.evaluation.variants.measuring import Measuring
from crossmatch.result_kinds import INTERFERENCE
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


def wanted_pair(wanted: Measuring, suites: Sequence[Suite], items: int) -> SuitePair | None:
    """Whose interference is measured, and on which suite; None if it is not asked for. Raises InputError."""
    if not items:
        return None
    if items < 2:
        raise InputError("--interference 1: give 2 items at least; one item has no standard error")
    found = find_pair(wanted.merge or {}, wanted.reference, suites)
    if isinstance(found, str):
        raise InputError(f"--interference: {found}")
    stored = next((name for name in found.names if not isinstance(wanted.adapters[name], Adapter)), None)
    if stored is not None:
        raise InputError(f"--interference: {stored} is a stored vector; it takes adapters")
    return found


def interfere(
    base: Checkpoint, wanted: Measuring, pair: SuitePair, items: int, output: Path, progress: Progress
) -> InterferenceJson:
    """Measure it, and leave it in `output`."""
    adapters = {n: a for n in pair.names if isinstance(a := wanted.adapters[n], Adapter)}
    weights = {name: (wanted.merge or {})[name] for name in pair.names}
    facts = measure_pair(base, adapters, weights, pair.suite, items, progress=progress)
    INTERFERENCE.replace(output / "interference.json", facts)
    return facts
