"""Whether adapters were trained with the template under which they are asked."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import MANIFEST, Checkpoint, read_json
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.evaluation.conditions import Condition


def trained_with(
    base: Checkpoint, adapters: Mapping[str, Recorded], conditions: Sequence[Condition]
) -> dict[str, dict[str, bool | None]]:
    """condition -> adapter -> whether the probe question reads as it did in training; None where no record tells.

    What training leaves beside an adapter holds the probe as its own template rendered it. One that was trained on
    plain text has seen no template, and is left out.
    """
    tokenizer = open_tokenizer(base.path)
    records = {name: _record(adapter) for name, adapter in adapters.items()}
    texts = {name: _probe(record) for name, record in records.items() if record.get("template", "unknown") is not None}
    found: dict[str, dict[str, bool | None]] = {}
    for condition in conditions:
        text = condition.template.probe(tokenizer)
        found[condition.name] = {name: None if own is None else own == text for name, own in texts.items()}
    return found


def _record(adapter: Recorded) -> dict[str, Any]:
    file = adapter.path / MANIFEST
    return read_json(file) if file.exists() else {}


def _probe(record: Mapping[str, Any]) -> str | None:
    template = record.get("template")
    text = template.get("text") if isinstance(template, dict) else None
    return text if isinstance(text, str) else None
