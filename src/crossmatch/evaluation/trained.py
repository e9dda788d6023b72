"""Whether adapters were trained with the template under which they are asked."""

from collections.abc import Mapping, Sequence

from crossmatch.adapter import Recorded
from crossmatch.chat import open_tokenizer
from crossmatch.checkpoint import MANIFEST, Checkpoint, read_json
from crossmatch.evaluation.conditions import Condition


def trained_with(
    base: Checkpoint, adapters: Mapping[str, Recorded], conditions: Sequence[Condition]
) -> dict[str, dict[str, bool | None]]:
    """condition -> adapter -> whether the probe question reads as it did in training; None where no record tells.

    What training leaves beside an adapter holds the probe as its own template rendered it.
    """
    tokenizer = open_tokenizer(base.path)
    texts = {name: _recorded(adapter) for name, adapter in adapters.items()}
    found: dict[str, dict[str, bool | None]] = {}
    for condition in conditions:
        text = condition.template.probe(tokenizer)
        found[condition.name] = {name: None if own is None else own == text for name, own in texts.items()}
    return found


def _recorded(adapter: Recorded) -> str | None:
    file = adapter.path / MANIFEST
    template = read_json(file).get("template") if file.exists() else None
    text = template.get("text") if isinstance(template, dict) else None
    return text if isinstance(text, str) else None
