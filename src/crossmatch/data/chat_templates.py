"""Chat templates as the model will really see them: rendered text, token ids, and a probe dialogue.

Takes tokenizers of transformers; loads it only to open one. A template that writes today's date (`strftime_now`) is
given one and the same day, in training and evaluation alike: what is asked today can be compared with what was asked
yesterday.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from crossmatch.checkpoint import bytes_digest
from crossmatch.data.lost_messages import lost_message
from crossmatch.data.probe_dialogues import QUESTION, Probe, probes
from crossmatch.data.thinking_switches import Switch, find_switch
from crossmatch.data.token_ids import encode
from crossmatch.errors import DataError, InputError

OWN = "own:"
"""Before the name of one of a tokenizer's several templates."""
DAY = datetime(2026, 1, 1)
"""The day that templates are given as today."""

_CLOCK = "strftime_now"
_DIRECTIVES = (
    *("%-d", "%-m", "%-I", "%-H", "%-M", "%-S", "%-j", "%-y"),
    *("%" + letter for letter in "aAwdbBmyYHIpMSfjUWcxXGuVeFTDhRzZ"),
)


def _clock() -> str:
    """A Jinja macro that stands for `strftime_now`, and gives DAY by any format."""
    steps = "".join(f"|replace({directive!r},{DAY.strftime(directive)!r})" for directive in _DIRECTIVES)
    # Two percent signs are one, whatever follows.
    return (
        f"{{%- macro {_CLOCK}(format) -%}}{{{{ format|replace('%%','\\x00'){steps}|replace('\\x00','%') }}}}"
        "{%- endmacro +%}"
    )


_FROZEN = _clock()


def open_tokenizer(path: Path) -> Any:
    """The tokenizer of a model's directory. Raises InputError if there is none that can be read."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
        # Where multimodal models keep the template of their processor.
        file = Path(path) / "chat_template.json"
        if tokenizer.chat_template is None and file.is_file():
            tokenizer.chat_template = json.loads(file.read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:300]
        raise InputError(f"{path} has no tokenizer that can be read; save one there ({why})") from error
    return tokenizer


def differing_files(path: Path, tokenizer: Any) -> str | None:
    """A note where a model's directory holds two chat templates that differ: which of them is used; None where not.

    Takes the tokenizer as `open_tokenizer` gives it: what it uses is seen, not known from a rule.
    """
    own, used = tokenizer.chat_template, None
    if own is not None:
        used = own if isinstance(own, str) else own.get("default")
    found = {name: text for name, text in _written(path).items() if text is not None}
    if used is None or len({text.strip() for text in found.values()}) < 2:
        return None
    taken = [name for name, text in found.items() if text.strip() == used.strip()]
    others = [name for name in found if name not in taken]
    return (
        f"note: {path} holds chat templates that differ: {' and '.join(taken) or 'another file'} is used, "
        f"{' and '.join(others)} is not; give the other as a Jinja file if it is the right one"
    )


def _written(path: Path) -> dict[str, str | None]:
    """The chat template in each file that may hold one; of several named ones `default`."""
    found: dict[str, str | None] = {}
    file = Path(path) / "chat_template.jinja"
    if file.is_file():
        found[file.name] = file.read_text(encoding="utf-8", errors="replace")
    for name in ("tokenizer_config.json", "chat_template.json"):
        file = Path(path) / name
        config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        own = config.get("chat_template") if isinstance(config, dict) else None
        if isinstance(own, list):
            own = next((one.get("template") for one in own if one.get("name") == "default"), None)
        found[name] = own if isinstance(own, str) else None
    return found


def own_template(tokenizer: Any, name: str | None = None) -> str:
    """The Jinja text of a tokenizer's own template; of several named ones that called `name` (None: `default`).

    Raises DataError if there is none, or none of that name.
    """
    own = tokenizer.chat_template
    if own is None:
        raise DataError("the tokenizer has no chat template of its own; give chatml or a Jinja file")
    if isinstance(own, str):
        if name is not None:
            raise DataError(f"the tokenizer has one chat template, and none called {name!r}; leave the name out")
        return own
    wanted = name or "default"
    if wanted not in own:
        raise DataError(
            f"the tokenizer has the chat templates {', '.join(sorted(own))}, and none called {wanted!r}; choose one as "
            f"in own:{min(own)}, or give a Jinja file"
        )
    return own[wanted]


def apply_template(tokenizer: Any, template: str | None) -> None:
    """Give the tokenizer one chat template, of a file or its own (`own:NAME` of several), with the day at rest.
    `restore_template` takes it back. Raises DataError if there is none at all, or none of that name."""
    # What the files have: a tokenizer that was given a template before holds that one.
    before, name = getattr(tokenizer, "crossmatch_template", tokenizer.chat_template), None
    if template is not None and template.startswith(OWN):
        name = template.removeprefix(OWN)
    elif template is not None:
        path = Path(template)
        if not path.is_file():
            raise DataError(f"template {path} does not exist; give a Jinja file, or own:NAME")
        before = path.read_text(encoding="utf-8")
    if before is None:
        raise DataError("the base has no chat template, which SFT needs; give one with `template: FILE.jinja`")
    tokenizer.crossmatch_template = tokenizer.chat_template = before
    tokenizer.chat_template = frozen(own_template(tokenizer, name))


def restore_template(tokenizer: Any) -> None:
    """Before a tokenizer is saved: the template, or templates, as they are in its files."""
    tokenizer.chat_template = getattr(tokenizer, "crossmatch_template", tokenizer.chat_template)


def frozen(source: str) -> str:
    """A template whose clock, if it asks one, stands at DAY."""
    return _FROZEN + source if is_dated(source) and not source.startswith(_FROZEN) else source


def is_dated(source: str) -> bool:
    """Whether a template writes the date of the day."""
    return _CLOCK in source


def check_training(path: Path, template: str | None, thinking: bool | None) -> None:
    """Raise DataError, before anything is loaded, where a base's template is not one that training can use."""
    tokenizer = open_tokenizer(path)
    apply_template(tokenizer, template)
    probe(tokenizer, thinking)


def switch_of(tokenizer: Any, thinking: bool | None, source: str | None = None, system: bool = False) -> Switch:
    """What turns thinking on or off in a template (None: the tokenizer's own); system: in dialogues with a system
    message. Raises DataError if nothing does."""
    text = frozen(source if source is not None else own_template(tokenizer))
    return find_switch(tokenizer, text, thinking, system)


def render(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    thinking: bool | None,
    source: str | None = None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """The text of a dialogue up to where the assistant begins.

    source: a template's Jinja text (None: the tokenizer's own); given: what it is given beside the messages. Raises
    DataError if the template cannot render it, has no switch for thinking that acts, or does not show each message as
    it is.
    """
    text = frozen(source if source is not None else own_template(tokenizer))
    switch = find_switch(tokenizer, text, thinking, any(turn["role"] == "system" for turn in messages))

    def shown(turns: Sequence[dict[str, Any]]) -> tuple[str, ...] | None:
        try:
            return (_rendered(tokenizer, turns, text, switch, given),)
        except DataError:
            return None

    found = _rendered(tokenizer, messages, text, switch, given)
    lost = lost_message(messages, shown, ("system", "user", "assistant"))
    if lost is not None:
        raise DataError(
            f"the chat template leaves out or changes message {lost + 1}, of role {messages[lost]['role']}; give "
            "another template, or none"
        )
    return found


def _rendered(
    tokenizer: Any, messages: Sequence[dict[str, Any]], text: str, switch: Switch, given: Mapping[str, Any]
) -> str:
    try:
        return tokenizer.apply_chat_template(
            switch.apply(messages),
            chat_template=text,
            tokenize=False,
            add_generation_prompt=True,
            **given,
            **switch.variables,
        )
    except Exception as error:  # Jinja's own errors, and whatever a template raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the chat template cannot render a dialogue: {reason}") from error


def probe_of(tokenizer: Any, thinking: bool | None, source: str | None = None) -> tuple[Probe, str]:
    """The first form of the probe that a template renders, and its text up to where the assistant begins.

    Raises DataError, as `render` does for the first of all, if it renders none.
    """
    refused: DataError | None = None
    for form in probes():
        try:
            return form, render(tokenizer, form.messages, thinking, source, form.given)
        except DataError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def probe(tokenizer: Any, thinking: bool | None) -> dict[str, Any]:
    """How the probe question reaches the model: text, token ids, the digest of the template, and the day that it was
    given (None: it writes none)."""
    source = own_template(tokenizer).removeprefix(_FROZEN)
    _, text = probe_of(tokenizer, thinking)
    return {
        "digest": bytes_digest(source.encode()),
        "thinking": thinking,
        "day": DAY.date().isoformat() if is_dated(source) else None,
        "probe": QUESTION,
        "text": text,
        "token_ids": encode(tokenizer, [text])[0],
    }
