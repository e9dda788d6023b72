"""Documents of the audit: rows of files and hub data sets in every form that training and suites read.

Rooms that load torch are imported where they are needed: the audit's processes do without.

Formats of files are those of `crossmatch.data.row_files`, a `.yaml` file is a suite. Beside the forms of training
(`crossmatch.data.dialogues`) a row may be a suite's item. An `id` field names its documents, else their line does.
`columns` renames other field names to these:

messages, conversations       a document for each answer, learnt or not: its question is what came before it since the
                              last one
prompt, completion            question and answer
instruction[, input], output  question (both, on lines of their own) and answer
question, reference           a suite's item
question, options, answer     a suite's item of choices: options as `A. ...` in its whole text, the right one its answer
text                          the whole text

A row that is both an item and training data gives the documents of both. A thought and the arguments of tool calls are
part of their answer; a context of an item is part of its whole text. System messages and tools are no part of any of
these, since what all examples share would make all of them alike: in a train set they are what stands beside the
document, each text once, and held-out texts are looked for in it; of a held-out set they are not looked for. Fields of
which nothing is read are counted, and `notes` says so.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.data.dialogues import held, refuse_half_characters, renamed, whole_form, whole_row
from crossmatch.data.messages import Dialogue
from crossmatch.data.messages import Document as Passage
from crossmatch.data.rows import hub_name, stream_rows
from crossmatch.errors import DataError
from crossmatch.evaluation.audit.fingerprints import Document

if TYPE_CHECKING:
    from crossmatch.data.suites import Suite

_CHUNK = 1 << 20
_NAMED = 8
_BESIDE = "system messages and tools"
# Different texts beside documents that are known again: system messages are few, or differ in every row.
_REMEMBERED = 100_000
# Fields of an item's row that change its question (those that a suite has to map, or to name as ignored).
_CONTEXTS = ("system", "context", "passage", "input", "history")
_ITEM = ("id", "question", "reference", "options", "answer", *_CONTEXTS)


@dataclass(frozen=True)
class FileCorpus:
    """The documents of a file or a hub data set; columns: known field name -> name in the file.

    Iterating raises DataError with the file, the line and the reason at the first bad line.
    """

    source: str
    columns: Mapping[str, str] = field(default_factory=dict)
    _unread: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __iter__(self) -> Iterator[Document]:
        unread, beside, seen = Counter[str](), 0, set[int]()
        for row in stream_rows(self.source):
            try:
                documents, left = parse_row(row.values, int(row.key), self.columns)
            except DataError as error:
                raise DataError(f"{row.place}: {error}") from error
            unread.update(left)
            beside += any(document.beside is not None for document in documents)
            yield from (_once(document, seen) for document in documents)
        # Only of a file that was read to its end.
        self._unread.clear()
        self._unread.update(unread, **{_BESIDE: beside} if beside else {})

    def notes(self, *, held_out: bool) -> list[str]:
        """What was not looked at, in the last reading of the whole."""
        counts = [(name, times) for name, times in self._unread.most_common() if held_out or name != _BESIDE]
        names = [f"{name} ({times:,} rows)" for name, times in counts[:_NAMED]]
        more = f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else ""
        return [f"not looked at: {', '.join(names)}{more}"] if names else []

    def digest(self) -> str | None:
        """Of the file's bytes; None for a hub data set."""
        from crossmatch.checkpoint import file_digest

        return file_digest(Path(self.source)) if Path(self.source).is_file() else None

    def __length_hint__(self) -> int:
        """Lines of the file, for progress; 0 where they do not tell."""
        path = Path(self.source)
        if path.suffix not in (".jsonl", ".ndjson", ".txt") or not path.is_file():
            return 0
        with path.open("rb") as stream:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(_CHUNK), b""))


@dataclass(frozen=True)
class SuiteCorpus:
    """The items of a suite with their contexts; its prompt and system message, the same for all, are left out."""

    suite: "Suite"

    def __iter__(self) -> Iterator[Document]:
        for item in self.suite.items:
            if self.suite.settings.kind == "text":
                yield Document(item.id, item.question)
                continue
            # A context that the prompt has no place for is not asked.
            context = item.context if "{context}" in self.suite.settings.prompt else ""
            if item.options:
                yield _choice(item.id, item.question, item.options, item.answer, context)
            else:
                yield _exchange(item.id, item.question, item.reference, context)

    def notes(self, *, held_out: bool) -> list[str]:
        """What was not looked at."""
        del held_out
        return [f"not looked at, as the suite does not read it: {', '.join(self.suite.unused)}"] * bool(
            self.suite.unused
        )

    def __len__(self) -> int:
        return len(self.suite.items)

    def digest(self) -> str:
        """Of the suite's YAML file and its data."""
        return self.suite.digest


def open_corpus(source: str | Path, columns: Mapping[str, str] | None = None) -> FileCorpus | SuiteCorpus:
    """A suite's YAML file, a data file or a hub data set. Raises DataError for what cannot be read at all."""
    if Path(source).suffix in (".yaml", ".yml"):
        from crossmatch.data.suites import load_suite

        return SuiteCorpus(load_suite(source))
    if not Path(source).is_file():
        hub_name(str(source))
    return FileCorpus(str(source), columns or {})


def parse_row(row: Any, number: int, columns: Mapping[str, str]) -> tuple[list[Document], list[str]]:
    """The documents of one row, the `number`th of its file, and the names of what was not read of it.

    Raises DataError with the reason.
    """
    named = renamed(row, columns)
    name = str(named["id"]) if held(named.get("id")) else str(number)
    item, form = _item(name, named), whole_form(named)
    if item and not form:
        return _whole([item]), _left(named, _ITEM)
    example = whole_row(named)
    refuse_half_characters([example])
    # Of a row that is an item, too, the example has a name of its own.
    key = f"{name}/{form}" if item else name
    if isinstance(example, Passage):
        documents, beside = [Document(key, example.text)], []
    else:
        documents, beside = list(_dialogue(key, example)), _said_beside(example)
    left = [field for field in example.unused if field not in (_ITEM if item else ("id",))]
    if beside:
        documents[0] = documents[0]._replace(beside="\n".join(beside))
    return _whole([*([item] if item else []), *documents]), left


def _item(name: str, named: Mapping[str, Any]) -> Document | None:
    """A row as an item of a suite; None where it is none. Raises DataError with the reason."""
    if not held(named.get("question")):
        return None
    context = "\n".join(text for field in _CONTEXTS for text in _texts(named.get(field)))
    if held(named.get("reference")):
        return _exchange(name, _text(named, "question"), _text(named, "reference"), context)
    if not held(named.get("options")):
        return None
    options, answer = named["options"], named.get("answer")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError("field 'options' must be a list of texts; give the suite's YAML file for other forms")
    if not isinstance(answer, int) or not 0 <= answer < len(options):
        raise DataError(f"field 'answer' must be an index of the {len(options)} options, not {answer!r}")
    return _choice(name, _text(named, "question"), options, answer, context)


def _left(named: Mapping[str, Any], read: Sequence[str]) -> list[str]:
    return [str(name) for name, value in named.items() if name not in read and held(value)]


def _whole(documents: list[Document]) -> list[Document]:
    """The documents. Raises DataError for half a character, which no suite and no training set may hold."""
    for document in documents:
        try:
            document.text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"half a character (a lone surrogate) behind {error.object[max(0, error.start - 20) : error.start]!r}, "
                "as cut texts have it; remove it, or repair the text"
            ) from error
    return documents


def _once(document: Document, seen: set[int]) -> Document:
    """A document without what stands beside it where that was seen before, as a system message of all rows is."""
    if document.beside is None:
        return document
    key = hash(document.beside)
    if key in seen:
        return document._replace(beside=None)
    if len(seen) < _REMEMBERED:
        seen.add(key)
    return document


def _exchange(name: str, question: str, answer: str, context: str = "") -> Document:
    return Document(name, "\n".join(filter(None, (context, question, answer))), question, answer)


def _choice(name: str, question: str, options: Sequence[str], answer: int, context: str = "") -> Document:
    letters = "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(options))
    return Document(name, "\n".join(filter(None, (context, question, letters))), question, options[answer])


def _dialogue(name: str, dialogue: Dialogue) -> Iterator[Document]:
    """A document for each answer, with its thought and its calls; one that nothing stands before has no question."""
    turns = [(role, _said(dialogue, number)) for number, (role, _) in enumerate(dialogue.turns) if role != "system"]
    answers = [i for i, (role, _) in enumerate(turns) if role == "assistant"]
    for count, (start, stop) in enumerate(zip([-1, *answers], answers, strict=False), 1):
        question = "\n".join(text for _, text in turns[start + 1 : stop])
        key, answer = name if len(answers) == 1 else f"{name}/{count}", turns[stop][1]
        yield _exchange(key, question, answer) if question else Document(key, answer, None, answer)


def _said(dialogue: Dialogue, number: int) -> str:
    """All texts of a message: its thought, its content, and what the tools that it calls are given."""
    parts = [dialogue.thought(number), dialogue.turns[number][1]]
    for call in dialogue.more.get(number, {}).get("tool_calls", ()):
        parts += [call["function"]["name"], *_texts(call["function"]["arguments"])]
    return "\n".join(part for part in parts if part.strip()).strip("\n")


def _said_beside(dialogue: Dialogue) -> list[str]:
    """What a model reads of a dialogue beside its messages: the system's, and the tools."""
    system = [content for role, content in dialogue.turns if role == "system"]
    return [*system, *(text for tool in dialogue.tools for text in _texts(tool))]


def _texts(value: Any) -> list[str]:
    """All texts inside a value, in their order; other values as JSON has them."""
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    if isinstance(value, str):
        return [value] if value.strip() else []
    return [] if value is None else [json.dumps(value)]


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"field {name!r} must be a text that is not empty")
    return value
