"""Texts and questions for what analysis runs through a model: training data, suites and plain text, as tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.token_ids import encode, move_spaces
from crossmatch.errors import DataError, InputError
from crossmatch.positions import fewest_positions
from crossmatch.runtime import SILENT, Progress

if TYPE_CHECKING:
    from crossmatch.data.log_odds_items import Contrasts, Form
    from crossmatch.data.passages import Passage
    from crossmatch.data.suites import Suite

_SUITES = (".yaml", ".yml")


def read_passages(base: Checkpoint, source: str, length: int, progress: Progress = SILENT) -> "list[Passage]":
    """The texts of a source as tokens: documents, dialogues with the base's chat template, items with their answers.

    source: training data (a file, or a hub data set), a suite (`.yaml` or `recipe:NAME`), or a `.txt` file
    with a text on each line. Only the text's own tokens are read: no end is put behind it. length: tokens at which a
    document is cut; dialogues may be as long as the context. What is not read is said. Raises DataError with the source
    and the example.
    """
    from crossmatch.data.passages import read_text
    from crossmatch.data.training_sets import Dialogue

    tokenizer, found, cut = open_tokenizer(base.path), [], 0
    texts = _lines(Path(source)) if source.endswith(".txt") else _examples(source, progress)
    for number, example in enumerate(texts, 1):
        try:
            if isinstance(example, Dialogue):
                passage, rest = _dialogue(base, tokenizer, example)
            else:
                text = example if isinstance(example, str) else example.text
                passage, *rest = read_text(tokenizer, text, length, ended=False)
            found.append(passage)
            cut += bool(rest)
        except DataError as error:
            raise DataError(f"{source}, example {number}: {error}") from error
    if cut:
        progress.say(f"note: {cut:,} of {len(found):,} texts of {source} are read up to their limit of tokens alone")
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


def read_openings(base: Checkpoint, source: str, items: int, progress: Progress = SILENT) -> "Contrasts":
    """Log-odds of `<think>` over the answer's first token for the first dialogues of a source, or items of a suite.
    What is left out is said."""
    from crossmatch.data.log_odds_items import OPENER, read_openers
    from crossmatch.data.row_checks import readable
    from crossmatch.data.training_sets import Dialogue

    tokenizer = open_tokenizer(base.path)
    if tokenizer.chat_template is None:
        raise InputError(f"{base.path} has no chat template, without which there is no place where a trace could open")
    chosen, texts = [], 0
    for number, example in enumerate(_examples(source, progress), 1):
        if not isinstance(example, Dialogue):
            texts += 1
            continue
        try:
            chosen.append(readable(tokenizer, example).messages())
        except DataError as error:
            raise DataError(f"{example.place or f'{source}, example {number}'}: {error}") from error
        if len(chosen) == items:
            break
    found = read_openers(tokenizer, chosen, max_length=_context(base))
    for count, what in (
        (texts, "are no dialogues"),
        (len(chosen) - found.count, f"have an answer that begins with {OPENER}"),
    ):
        if count:
            progress.say(f"note: {count:,} examples of {source} {what}; they are left out of the openings")
    return found


def _examples(source: str, progress: Progress) -> Iterator[Any]:
    """Documents and dialogues; a suite's items are texts, or dialogues with their reference or their right option."""
    from crossmatch.data.suites import load_suite
    from crossmatch.data.training_sets import Dialogue, Document, load_examples, notes

    if not source.endswith(_SUITES) and not source.startswith("recipe:"):
        examples = load_examples(source)
        for note in notes(examples):
            progress.say(note)
        yield from examples
        return
    suite = load_suite(source)
    if suite.unused:
        progress.say(f"note: columns of suite {suite.settings.name} that are not read: {', '.join(suite.unused)}")
    for item in suite.items:
        if suite.settings.kind == "text":
            yield Document(item.question)
            continue
        turns = [*suite.messages(item), {"role": "assistant", "content": _answer(suite, item)}]
        yield Dialogue(tuple((turn["role"], turn["content"]) for turn in turns))


def _answer(suite: "Suite", item: Any) -> str:
    if suite.settings.kind == "choice":
        return suite.continuations(item)[item.answer].strip()
    if not item.reference:
        raise DataError(f"suite {suite.settings.name}, item {item.id}: it has no reference to read on")
    return item.reference


def _dialogue(base: Checkpoint, tokenizer: Any, example: Any) -> "tuple[Passage, tuple[int, ...]]":
    """A dialogue, and the tokens of it that the context has no room for."""
    from crossmatch.data.passages import Passage, read_dialogue
    from crossmatch.data.row_checks import readable

    limit = _context(base)
    if tokenizer.chat_template is None:
        from crossmatch.data.training_sets import documents

        (whole,) = documents([example])
        ids = tuple(encode(tokenizer, [whole])[0])
        return Passage(ids[:limit]), ids[limit:]
    return read_dialogue(tokenizer, readable(tokenizer, example).messages(), None, limit), ()


def _lines(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as text: {error}") from error
    if not any(lines):
        raise DataError(f"{file} holds no text; give one on each line")
    return [line for line in lines if line]


def _context(base: Checkpoint) -> int:
    return fewest_positions([base.path]) or 1024
