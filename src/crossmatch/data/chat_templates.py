"""Chat templates as the model will really see them: rendered text, token ids, and a probe dialogue.

Takes tokenizers of transformers; loads it only to open one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import bytes_digest
from crossmatch.data.token_ids import encode
from crossmatch.errors import DataError, InputError

PROBE = ({"role": "user", "content": "What is anaemia?"},)


def open_tokenizer(path: Path) -> Any:
    """The tokenizer of a model's directory. Raises InputError if there is none that can be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:300]
        raise InputError(f"{path} has no tokenizer that can be read; save one there ({why})") from error


def apply_template(tokenizer: Any, template: str | None) -> None:
    """Give the tokenizer the chat template of a file. Raises DataError if there is none at all."""
    if template is not None:
        path = Path(template)
        if not path.is_file():
            raise DataError(f"template {path} does not exist; give a Jinja file")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    if tokenizer.chat_template is None:
        raise DataError("the base has no chat template, which SFT needs; give one with `template: FILE.jinja`")


def template_kwargs(thinking: bool | None) -> dict[str, Any]:
    """Switches for the template; nothing is passed that was not asked for."""
    return {} if thinking is None else {"enable_thinking": thinking}


def render(tokenizer: Any, messages: Sequence[dict[str, str]], thinking: bool | None) -> str:
    """The text of a dialogue up to where the assistant begins. Raises DataError if the template cannot render it."""
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **template_kwargs(thinking)
        )
    except Exception as error:  # Jinja's own errors, and whatever a template raises
        raise DataError(f"the chat template cannot render a dialogue: {error}") from error


def probe(tokenizer: Any, thinking: bool | None) -> dict[str, Any]:
    """How the probe question reaches the model: text, token ids, and the digest of the template."""
    text = render(tokenizer, PROBE, thinking)
    return {
        "digest": bytes_digest(tokenizer.chat_template.encode()),
        "thinking": thinking,
        "probe": PROBE[0]["content"],
        "text": text,
        "token_ids": encode(tokenizer, [text])[0],
    }
