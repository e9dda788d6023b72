"""Texts and questions for what analysis runs through a model: training data, suites and plain text, as tokens."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.token_ids import encode, move_spaces
from crossmatch.errors import DataError, InputError

if TYPE_CHECKING:
    from crossmatch.data.log_odds_items import Contrasts, Form
    from crossmatch.data.passages import Passage
    from crossmatch.data.suites import Suite

_SUITES = (".yaml", ".yml")


def read_passages(base: Checkpoint, source: str, length: int) -> "list[Passage]":
    """The texts of a source as tokens: documents, dialogues with the base's chat template, items with their answers.

    source: training data (a file, or a hub data set), a suite (`.yaml` or `recipe:NAME`), or a `.txt` file
    with a text on each line. Only the text's own tokens are read: no end is put behind it. length: tokens at which a
    document is cut; dialogues may be as long as the context. Raises
    DataError with the source and the example.
    """
    from crossmatch.data.passages import read_text

    tokenizer, found = open_tokenizer(base.path), []
    if source.endswith(".txt"):
        lines = _lines(Path(source))
        return [passage for line in lines for passage in read_text(tokenizer, line, length, ended=False)[:1]]
    from crossmatch.data.training_sets import Document

    for number, example in enumerate(_examples(source), 1):
        try:
            if isinstance(example, Document):
                found += read_text(tokenizer, example.text, length, ended=False)[:1]
            else:
                found.append(_dialogue(base, tokenizer, example))
        except DataError as error:
            raise DataError(f"{source}, example {number}: {error}") from error
    return found


def read_choices(base: Checkpoint, source: str, items: int, form: "Form" = "first") -> "Contrasts":
    """Log-odds of the right answer over the option that follows it (the first follows the last) for the first items of
    a choice suite. Raises DataError for a suite of another kind."""
    from crossmatch.data.chat_templates import render
    from crossmatch.data.log_odds_items import Question, read_contrasts
    from crossmatch.data.suites import load_suite

    suite, tokenizer, questions = load_suite(source), open_tokenizer(base.path), []
    if suite.settings.kind != "choice":
        raise DataError(f"{source} is a {suite.settings.kind} suite; a right and a wrong answer need one of choices")
    for item in suite.items[:items]:
        plain = tokenizer.chat_template is None or not suite.settings.chat
        prompt = suite.prompt_text(item) if plain else render(tokenizer, suite.messages(item), None)
        prompt, moved = move_spaces(prompt, chat=not plain)
        options = [moved + option for option in suite.continuations(item)]
        questions.append(Question(prompt, options[item.answer], options[(item.answer + 1) % len(options)]))
    return read_contrasts(tokenizer, questions, form, max_length=_context(base))


def read_openings(base: Checkpoint, source: str, items: int) -> "Contrasts":
    """Log-odds of `<think>` over the answer's first token for the first dialogues of a source, or items of a suite."""
    from crossmatch.data.log_odds_items import read_openers
    from crossmatch.data.row_checks import readable
    from crossmatch.data.training_sets import Dialogue

    tokenizer = open_tokenizer(base.path)
    if tokenizer.chat_template is None:
        raise InputError(f"{base.path} has no chat template, without which there is no place where a trace could open")
    examples = (example for example in _examples(source) if isinstance(example, Dialogue))
    chosen = [readable(tokenizer, example).messages() for example in islice(examples, items)]
    return read_openers(tokenizer, chosen, max_length=_context(base))


def _examples(source: str) -> Iterator[Any]:
    """Documents and dialogues; a suite's items are dialogues with their reference, or their right option."""
    from crossmatch.data.suites import load_suite
    from crossmatch.data.training_sets import Dialogue, load_examples

    if not source.endswith(_SUITES) and not source.startswith("recipe:"):
        yield from load_examples(source)
        return
    suite = load_suite(source)
    for item in suite.items:
        turns = [*suite.messages(item), {"role": "assistant", "content": _answer(suite, item)}]
        yield Dialogue(tuple((turn["role"], turn["content"]) for turn in turns))


def _answer(suite: "Suite", item: Any) -> str:
    if suite.settings.kind == "choice":
        return suite.continuations(item)[item.answer].strip()
    if not item.reference:
        raise DataError(f"suite {suite.settings.name}, item {item.id}: it has no reference to read on")
    return item.reference


def _dialogue(base: Checkpoint, tokenizer: Any, example: Any) -> "Passage":
    from crossmatch.data.passages import Passage, read_dialogue
    from crossmatch.data.row_checks import readable

    if tokenizer.chat_template is None:
        from crossmatch.data.training_sets import documents

        (whole,) = documents([example])
        return Passage(tuple(encode(tokenizer, [whole])[0][: _context(base)]))
    return read_dialogue(tokenizer, readable(tokenizer, example).messages(), None, _context(base))


def _lines(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as text: {error}") from error
    if not any(lines):
        raise DataError(f"{file} holds no text; give one on each line")
    return [line for line in lines if line]


def _context(base: Checkpoint) -> int:
    text = base.config.get("text_config")
    config = text if isinstance(text, dict) else base.config
    return int(config.get("max_position_embeddings") or config.get("n_positions") or 1024)
