"""Whether adapters were trained with the template under which they are asked, and where answers end under it."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import MANIFEST, Checkpoint, read_json
from crossmatch.data.chat_templates import frozen, open_tokenizer, switch_of
from crossmatch.data.responses import Reading, before_response
from crossmatch.data.token_ids import encode
from crossmatch.data.turn_ends import Stops, TurnEnd, declared_eos, turn_end
from crossmatch.errors import DataError
from crossmatch.evaluation.conditions import Condition
from crossmatch.results.summary import TurnEndJson


def trained_with(
    base: Checkpoint, adapters: Mapping[str, Recorded], conditions: Sequence[Condition]
) -> dict[str, dict[str, bool | None]]:
    """condition -> adapter -> whether the probe question reads as it did in training; None where no record tells.

    What training leaves beside an adapter holds the token ids that stood before the response to the probe. One that was
    trained on plain text has seen no template, and is left out. Records of earlier versions hold the prompt of an
    evaluation; of these, a template that renders it otherwise once an answer follows was not what training saw.
    """
    tokenizer = open_tokenizer(base.path)
    records = {name: _record(adapter) for name, adapter in adapters.items()}
    seen = {n: r.get("template") or {} for n, r in records.items() if r.get("template", "unknown") is not None}
    found: dict[str, dict[str, bool | None]] = {}
    for condition in conditions:
        try:
            text = condition.template.probe(tokenizer)
        except DataError:
            # Items may be rendered, or have no template: of the probe nothing is known.
            found[condition.name] = dict.fromkeys(seen)
            continue
        (ids,) = encode(tokenizer, [text])
        found[condition.name] = {}
        for name, template in seen.items():
            alike = _alike(template if isinstance(template, dict) else {}, text, ids)
            if alike and "asked" not in template:
                alike = _as_asked(tokenizer, condition)
            found[condition.name][name] = alike
    return found


def ends_by_condition(
    tokenizer: Any, conditions: Sequence[Condition], eos: frozenset[int], adapters: Mapping[str, Recorded]
) -> dict[str, Stops]:
    """condition -> where an answer ends: at what its template ends a turn with, at any end of sequence, and at any
    token that the training of an adapter put there; the same for all variants."""
    every = eos.union(taught_ends(adapters))
    return {c.name: end_of(tokenizer, c).stops(tokenizer, every) for c in conditions}


def taught_ends(adapters: Mapping[str, Recorded]) -> list[int]:
    """Ids that the training of adapters put after responses, where their templates have nothing there."""
    return sorted({number for adapter in adapters.values() for number in _taught(_record(adapter))})


def stated_ends(
    base: Checkpoint, adapters: Mapping[str, Recorded], conditions: Sequence[Condition]
) -> dict[str, TurnEndJson]:
    """The same as plain JSON, for the summary; `closing`: what the template puts after the last answer (null: it has
    no template, or none was found)."""
    tokenizer = open_tokenizer(base.path)
    stops = ends_by_condition(tokenizer, conditions, declared_eos(base.path, tokenizer), adapters)
    return {c.name: {**stops[c.name].to_dict(), "closing": end_of(tokenizer, c).closing} for c in conditions}


def end_of(tokenizer: Any, condition: Condition) -> TurnEnd:
    """How the template of a condition ends the assistant's turn."""
    template = condition.template
    if template.source is None and tokenizer.chat_template is None:
        return TurnEnd(None)
    switch = switch_of(tokenizer, template.thinking, template.text(tokenizer))
    return turn_end(tokenizer, frozen(template.text(tokenizer)), switch.variables)


def _alike(template: Mapping[str, Any], text: str, ids: Sequence[int]) -> bool | None:
    own, tokens = template.get("text"), template.get("token_ids")
    if isinstance(tokens, list):
        return tokens == list(ids)
    return own == text if isinstance(own, str) else None


def _as_asked(tokenizer: Any, condition: Condition) -> bool:
    """Whether training on dialogues of this template sees what an evaluation asks."""
    template = condition.template
    try:
        source = frozen(template.text(tokenizer))
        return before_response(Reading(tokenizer, template.thinking, source)).as_asked
    except DataError:
        return False


def _taught(record: Mapping[str, Any]) -> list[int]:
    """Ids that training put after responses."""
    template = record.get("template")
    added = (template.get("turn_end") or {}).get("added", []) if isinstance(template, Mapping) else []
    return [token["id"] for token in added]


def _record(adapter: Recorded) -> dict[str, Any]:
    file = adapter.path / MANIFEST
    return read_json(file) if file.exists() else {}
