"""Training data: JSONL, JSON or a hub data set, read into documents or dialogues; every line checked before training.

Four forms are known by their fields, in this order:

    messages                      [{"role": ..., "content": ...}, ...], ending with the assistant
    prompt, completion            two texts
    instruction[, input], output  alpaca; `columns` renames other field names to these
    text                          one document
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import value_digest
from crossmatch.errors import DataError

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Document:
    """One text, for the PT stage."""

    text: str


@dataclass(frozen=True)
class Dialogue:
    """A conversation as (role, content) pairs whose last turn, the assistant's, is learnt in the SFT stage."""

    turns: tuple[tuple[str, str], ...]

    def messages(self) -> list[dict[str, str]]:
        """As a chat template takes them."""
        return [{"role": role, "content": content} for role, content in self.turns]


Example = Document | Dialogue


def load_examples(source: str | Path, columns: Mapping[str, str] | None = None) -> list[Example]:
    """Read a `.jsonl` or `.json` file, or a hub data set `org/name[@config][:split]`.

    columns: known field name -> name in the file, as in {"instruction": "question"}. Raises DataError with the file,
    the line and the reason at the first bad line, and how many more there are.
    """
    examples, problems = [], []
    for place, row in _rows(source):
        try:
            examples.append(parse_example(row, columns or {}))
        except DataError as error:
            problems.append(f"{place}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more bad lines)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    if not examples:
        raise DataError(f"{source} holds no examples")
    return examples


def load_sets(sources: Sequence[str | Path], columns: Mapping[str, str] | None, seed: int) -> list[Example]:
    """The examples of several sets as one, shuffled by the seed; of one set as they stand. Raises DataError."""
    examples = [example for source in sources for example in load_examples(source, columns)]
    if len(sources) > 1:
        random.Random(f"sets:{seed}").shuffle(examples)
    return examples


def places_of(sources: Sequence[str | Path], seed: int) -> list[str]:
    """File and line, item or row of each of the examples that `load_sets` gives, in its order."""
    found = [place for source in sources for place, _ in _rows(source)]
    if len(sources) > 1:
        random.Random(f"sets:{seed}").shuffle(found)
    return found


def parse_example(row: Any, columns: Mapping[str, str]) -> Example:
    """One row into a document or a dialogue. Raises DataError with the reason."""
    if not isinstance(row, dict):
        raise DataError(f"an object is needed, not {type(row).__name__}")
    row = {**row, **{known: row[theirs] for known, theirs in columns.items() if theirs in row}}
    if "messages" in row:
        return _dialogue(row["messages"])
    if "prompt" in row or "completion" in row:
        return Dialogue((("user", _text(row, "prompt")), ("assistant", _text(row, "completion"))))
    if "instruction" in row or "output" in row:
        question = _text(row, "instruction")
        if row.get("input"):
            question = f"{question}\n{_text(row, 'input')}"
        system = (("system", _text(row, "system")),) if row.get("system") else ()
        return Dialogue((*system, ("user", question), ("assistant", _text(row, "output"))))
    if "text" in row:
        return Document(_text(row, "text"))
    raise DataError(f"none of messages, prompt/completion, instruction/output, text among its fields {sorted(row)}")


def documents(examples: Sequence[Example]) -> list[str]:
    """The texts for PT; a dialogue becomes its turns in order, without any template."""
    return [e.text if isinstance(e, Document) else "\n".join(content for _, content in e.turns) for e in examples]


def dialogues(examples: Sequence[Example], source: str | Path) -> list[Dialogue]:
    """The dialogues for SFT. Raises DataError for a plain document."""
    for number, example in enumerate(examples, 1):
        if isinstance(example, Document):
            raise DataError(f"{source}, example {number}: a text has no response to learn; SFT needs prompt/completion")
    return [e for e in examples if isinstance(e, Dialogue)]


def examples_digest(examples: Iterable[Example]) -> str:
    """One digest of the examples' content, whatever file form they came in."""
    return value_digest([e.text if isinstance(e, Document) else [list(t) for t in e.turns] for e in examples])


def _rows(source: str | Path) -> Iterator[tuple[str, Any]]:
    path = Path(source)
    if not path.exists():
        yield from _hub_rows(str(source))
    elif path.suffix == ".json":
        rows = _parse(path.read_text(encoding="utf-8-sig"), str(path))
        if not isinstance(rows, list):
            raise DataError(f"{path} must hold a list of objects; for one object a line name it .jsonl")
        yield from ((f"{path}, item {number}", row) for number, row in enumerate(rows, 1))
    else:
        yield from _lines(path)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            place = f"{path}, line {number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{place}: not UTF-8 at byte {error.start}") from error
            if line.strip():
                yield place, _parse(line, place)


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON: {error}") from error


def _hub_rows(source: str) -> Iterator[tuple[str, Any]]:
    path, _, split = source.partition(":")
    name, _, config = path.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise DataError(
            f"{source} does not exist; give a .jsonl or .json file, or a hub data set org/name[@config][:split]"
        )
    from datasets import load_dataset

    try:
        rows = load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # the library raises many kinds, none of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{source} is no local file, and the hub did not give it: {reason}") from error
    yield from ((f"{source}, row {number}", dict(row)) for number, row in enumerate(rows, 1))


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"field {field!r} must be a text that is not empty")
    half = next((place for place, character in enumerate(value) if "\ud800" <= character <= "\udfff"), None)
    if half is not None:
        raise DataError(f"field {field!r} has half a character (a lone surrogate) at place {half}; cut it off")
    return value


def _dialogue(messages: Any) -> Dialogue:
    if not isinstance(messages, list) or not messages:
        raise DataError("field 'messages' must be a list that is not empty")
    turns = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise DataError(f"every message needs a role among {', '.join(ROLES)}")
        turns.append((message["role"], _text(message, "content")))
    if turns[-1][0] != "assistant" or len(turns) < 2:
        raise DataError("the last message must be the assistant's, after at least one other")
    return Dialogue(tuple(turns))
