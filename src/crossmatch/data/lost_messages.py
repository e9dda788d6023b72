"""Whether a chat template shows all that is said in a dialogue.

Templates are known to drop system messages, all turns but the last, or what goes beyond a length. A model is then asked
something else than the data say, and nothing tells.
"""

from collections.abc import Callable, Sequence
from typing import Any

Messages = Sequence[dict[str, Any]]
Render = Callable[[Messages], tuple[str, ...] | None]
"""A dialogue in all ways in which it reaches a model; None where the template refuses it."""

# A word that no data have.
_ELSE = "zqxj"
# A text this short may well stand in a template, or in another message, too.
_SHORT = 32
# Of an earlier answer, thoughts are left out on purpose; these open them.
_MARKUP = frozenset("<[|")


def lost_message(messages: Messages, render: Render, roles: Sequence[str] = ("system", "user")) -> int | None:
    """Number, from 0, of the first message of these roles that is not shown as it is; None if all are.

    Shown is what stands, white space at its ends aside, in one of the texts that `render` gives. An earlier answer with
    markup may be shown in another form, as long as it is shown.
    """
    shown = render(messages)
    if shown is None:
        return None
    for number, message in enumerate(messages):
        content = message.get("content")
        if message["role"] not in roles or not isinstance(content, str) or not content.strip():
            continue
        own = content.strip()
        there = any(own in text for text in shown)
        formed = message["role"] == "assistant" and not _MARKUP.isdisjoint(own)
        if not there and not formed:
            return number
        unique = len(own) >= _SHORT and all(text.count(own) < 2 for text in shown)
        # A system message may be a template's own words, which it writes when it is given none.
        if there and unique and message["role"] != "system":
            continue
        other = [*messages[:number], {**message, "content": f"{content} {_ELSE}"}, *messages[number + 1 :]]
        if render(other) == shown:
            return number
    return None
