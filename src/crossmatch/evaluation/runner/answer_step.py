"""The answer step: how sure a model is where its answer begins, which is behind its trace if it has one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.data.reasoning_formats import FORMATS, ReasoningFormat
from crossmatch.data.suites import Item
from crossmatch.data.trace_blocks import opened_by
from crossmatch.evaluation.inference.protocol import Failed, FirstToken, Model
from crossmatch.evaluation.metrics.reasoning_traces import parse_trace
from crossmatch.evaluation.record import Record
from crossmatch.evaluation.runner.answer_log import Answers

# Parts of an answer that tell of the first token behind the prompt.
_FIRST = ("opening", "options")


@dataclass(frozen=True)
class Asked:
    """Items that were answered: their prompts as rendered, by the item's id; the seeds of their answers; how traces are
    marked."""

    prompts: Mapping[str, str]
    items: Sequence[Item]
    seeds: Sequence[int]
    formats: tuple[ReasoningFormat, ...] = FORMATS


def ask_steps(model: Model, of: Asked, sheet: Answers, keep: Callable[[int, Record], None]) -> None:
    """Entropy and margin of the first token of every item's answers, by seed: `keep` gets {"steps": [...]}.

    Where an answer stands behind a closed trace, the prompt goes through the
    model once more with that trace behind it, tokenised anew; without a trace its first token is the one that follows
    the prompt. None for an answer that never begins, and for all of a model that tells no distributions.
    """
    asked: list[tuple[int, str]] = []
    begun: dict[int, list[str | None]] = {}
    known: dict[tuple[int, str], Record] = {}
    prompts, items, seeds = of.prompts, of.items, of.seeds
    for place, item in enumerate(items):
        parts = [f"answer {seed}" for seed in seeds]
        parts += [part for part in _FIRST if not sheet.missing(part, [item.id])]
        found = [sheet.get(part, item.id) for part in parts]
        reason = next((part["failed"] for part in found if "failed" in part), None)
        if reason is not None:
            keep(place, {"failed": reason})
            continue
        opened = opened_by(prompts[item.id], of.formats)
        begun[place] = [_before(part["output"], of.formats, opened) for part in found[: len(seeds)]]
        if model.tells_distributions:
            for part in found[len(seeds) :]:
                known[place, ""] = _step(part)
            asked += [(place, text) for text in dict.fromkeys(begun[place]) if text is not None]
    asked = [one for one in asked if one not in known]
    left = {place: sum(at == place for at, _ in asked) for place in begun}

    def finish(place: int) -> None:
        keep(place, {"steps": [None if text is None else known.get((place, text)) for text in begun[place]]})

    def done(index: int, _: list[float] | Failed, first: FirstToken | None) -> None:
        place = asked[index][0]
        known[asked[index]] = _step(vars(first)) if first is not None else {}
        left[place] -= 1
        if not left[place]:
            finish(place)

    for place in [place for place, count in left.items() if not count]:
        finish(place)
    texts = [prompts[items[place].id] + text for place, text in asked]
    model.openings(texts, [()] * len(texts), done)


def step_fields(step: Record | None) -> Record:
    """What a record holds of an answer step; null where there is none, or the model does not tell."""
    return {f"answer_{name}": (step or {}).get(name) for name in ("entropy", "margin")}


def _step(found: Mapping[str, Any]) -> Record:
    return {"entropy": found["entropy"], "margin": found["margin"]}


def _before(output: str, formats: tuple[ReasoningFormat, ...], opened: str | None) -> str | None:
    """What of an output stands before its answer."""
    step = parse_trace(output, formats, opened).step
    return None if step is None else output[:step]
