"""Documents of the audit: rows of files and hub data sets in every form that training and suites read.

Rooms that load torch are imported where they are needed: the audit's processes do without.

Formats of files are those of `crossmatch.data.row_files`, a `.yaml` file is a suite. Beside the forms of training
(`crossmatch.data.dialogues`) a row may be a suite's item. An `id` field names its documents, else their line does.
`columns` renames other field names to these:

messages, conversations       a document for each answer: its question is what came before it since the last one
prompt, completion            question and answer
instruction[, input], output  question (both, on lines of their own) and answer
question, reference           a suite's item
question, options, answer     a suite's item of choices: options as `A. ...` in its whole text, the right one its answer
text                          the whole text

System messages are left out: what all examples share would make all of them alike. A thought is part of its answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.data.dialogues import parse_row as parse_rows
from crossmatch.data.messages import Dialogue
from crossmatch.data.rows import hub_name, stream_rows
from crossmatch.errors import DataError
from crossmatch.evaluation.audit.fingerprints import Document

if TYPE_CHECKING:
    from crossmatch.data.suites import Suite

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileCorpus:
    """The documents of a file or a hub data set; columns: known field name -> name in the file.

    Iterating raises DataError with the file, the line and the reason at the first bad line.
    """

    source: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Document]:
        for row in stream_rows(self.source):
            try:
                yield from parse_row(row.values, int(row.key), self.columns)
            except DataError as error:
                raise DataError(f"{row.place}: {error}") from error

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
    """The items of a suite; its prompt and system message, the same for all items, are left out."""

    suite: "Suite"

    def __iter__(self) -> Iterator[Document]:
        for item in self.suite.items:
            if self.suite.settings.kind == "text":
                yield Document(item.id, item.question)
            elif item.options:
                yield _choice(item.id, item.question, item.options, item.answer)
            else:
                yield _exchange(item.id, item.question, item.reference)

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


def parse_row(row: Any, number: int, columns: Mapping[str, str]) -> Iterator[Document]:
    """The documents of one row, the `number`th of its file. Raises DataError with the reason."""
    if not isinstance(row, dict):
        raise DataError(f"an object is needed, not {type(row).__name__}")
    named = row | {known: row[theirs] for known, theirs in columns.items() if theirs in row}
    name = str(number) if named.get("id") is None else str(named["id"])
    if "question" in named and "reference" in named:
        yield _exchange(name, _text(named, "question"), _text(named, "reference"))
    elif "question" in named and "options" in named:
        options, answer = named["options"], named.get("answer")
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise DataError("field 'options' must be a list of texts; give the suite's YAML file for other forms")
        if not isinstance(answer, int) or not 0 <= answer < len(options):
            raise DataError(f"field 'answer' must be an index of the {len(options)} options, not {answer!r}")
        yield _choice(name, _text(named, "question"), options, answer)
    else:
        example = parse_rows(row, columns)[-1]
        if isinstance(example, Dialogue):
            yield from _dialogue(name, example)
        else:
            yield Document(name, example.text)


def _exchange(name: str, question: str, answer: str) -> Document:
    return Document(name, f"{question}\n{answer}", question, answer)


def _choice(name: str, question: str, options: Sequence[str], answer: int) -> Document:
    letters = "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(options))
    return Document(name, f"{question}\n{letters}", question, options[answer])


def _dialogue(name: str, dialogue: Dialogue) -> Iterator[Document]:
    """A document for each answer, with its thought; whose tools are called is no text."""
    turns = [
        (role, f"{dialogue.thought(number)}\n{content}".strip("\n") if dialogue.thought(number) else content)
        for number, (role, content) in enumerate(dialogue.turns)
        if role != "system"
    ]
    answers = [i for i, (role, _) in enumerate(turns) if role == "assistant"]
    if answers[0] == 0 and len(answers) == 1:
        raise DataError("there must be an assistant's message after another one, which is not the system's")
    for count, (start, stop) in enumerate(zip([-1, *answers], answers, strict=False), 1):
        question = "\n".join(text for _, text in turns[start + 1 : stop])
        key = name if len(answers) == 1 else f"{name}/{count}"
        if question:
            yield _exchange(key, question, turns[stop][1])


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"field {name!r} must be a text that is not empty")
    return value
