"""Documents from files, one at a time, in the forms that training and suites read.

Rooms that load torch are imported where they are needed: the audit's processes do without.

.jsonl    an object a line
.json     a list of objects, read piece by piece
.txt      a document a line; empty lines are left out
.parquet  a row a document, as are the rows of a hub data set `org/name[@config][:split]`
.yaml     a suite

An object has one of these forms, looked for in this order; an `id` field names its documents, else their line does.
`columns` renames other field names to these:

messages                      a document for each answer: its question is what came before it since the last one
prompt, completion            question and answer
instruction[, input], output  question (both, on lines of their own) and answer
question, reference           a suite's item
question, options, answer     a suite's item of choices: options as `A. ...` in its whole text, the right one its answer
text                          the whole text

System messages are left out: what all examples share would make all of them alike.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from crossmatch.errors import DataError
from crossmatch.evaluation.audit.fingerprints import Document

if TYPE_CHECKING:
    from crossmatch.data.suites import Suite

_CHUNK = 1 << 20
_GAP = re.compile(r"[ \t\r\n]*")
_FORMS = "messages, prompt/completion, instruction/output, question/reference, question/options, text"


@dataclass(frozen=True)
class FileCorpus:
    """The documents of a file or a hub data set; columns: known field name -> name in the file.

    Iterating raises DataError with the file, the line and the reason at the first bad line.
    """

    source: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Document]:
        for place, number, row in _rows(self.source):
            try:
                yield from parse_row(row, number, self.columns)
            except DataError as error:
                raise DataError(f"{place}: {error}") from error

    def digest(self) -> str | None:
        """Of the file's bytes; None for a hub data set."""
        from crossmatch.checkpoint import file_digest

        return file_digest(Path(self.source)) if Path(self.source).is_file() else None

    def __length_hint__(self) -> int:
        """Lines of the file, for progress; 0 where they do not tell."""
        path = Path(self.source)
        if path.suffix not in (".jsonl", ".txt") or not path.is_file():
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
        _hub_name(str(source))
    return FileCorpus(str(source), columns or {})


def parse_row(row: Any, number: int, columns: Mapping[str, str]) -> Iterator[Document]:
    """The documents of one row, the `number`th of its file. Raises DataError with the reason."""
    if not isinstance(row, dict):
        raise DataError(f"an object is needed, not {type(row).__name__}")
    row = {**row, **{known: row[theirs] for known, theirs in columns.items() if theirs in row}}
    name = str(number) if row.get("id") is None else str(row["id"])
    if "messages" in row:
        yield from _dialogue(name, row["messages"])
    elif "prompt" in row or "completion" in row:
        yield _exchange(name, _text(row, "prompt"), _text(row, "completion"))
    elif "instruction" in row or "output" in row:
        question = _text(row, "instruction")
        if row.get("input"):
            question = f"{question}\n{_text(row, 'input')}"
        yield _exchange(name, question, _text(row, "output"))
    elif "question" in row and "reference" in row:
        yield _exchange(name, _text(row, "question"), _text(row, "reference"))
    elif "question" in row and "options" in row:
        options, answer = row["options"], row.get("answer")
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise DataError("field 'options' must be a list of texts")
        if not isinstance(answer, int) or not 0 <= answer < len(options):
            raise DataError(f"field 'answer' must be an index of the {len(options)} options, not {answer!r}")
        yield _choice(name, _text(row, "question"), options, answer)
    elif "text" in row:
        yield Document(name, _text(row, "text"))
    else:
        raise DataError(f"none of {_FORMS} among its fields {sorted(map(str, row))}")


def _exchange(name: str, question: str, answer: str) -> Document:
    return Document(name, f"{question}\n{answer}", question, answer)


def _choice(name: str, question: str, options: Sequence[str], answer: int) -> Document:
    letters = "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(options))
    return Document(name, f"{question}\n{letters}", question, options[answer])


def _dialogue(name: str, messages: Any) -> Iterator[Document]:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise DataError("field 'messages' must be a list of objects")
    turns = [(message.get("role"), _text(message, "content")) for message in messages]
    turns = [(role, text) for role, text in turns if role != "system"]
    answers = [i for i, (role, _) in enumerate(turns) if role == "assistant"]
    if not answers or answers[0] == 0:
        raise DataError("field 'messages' must hold an assistant's message after another one")
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


def _rows(source: str) -> Iterator[tuple[str, int, Any]]:
    """(place, number, row) of whatever the source is."""
    path = Path(source)
    if not path.is_file():
        yield from _hub_rows(source)
    elif path.suffix == ".json":
        for number, row in enumerate(_items(path), 1):
            yield f"{path}, item {number}", number, row
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path)
    else:
        for number, line in _lines(path):
            place = f"{path}, line {number}"
            yield place, number, {"text": line} if path.suffix == ".txt" else _parse(line, place)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number}: not UTF-8 at byte {error.start}") from error
            if line.strip():
                yield number, line


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON: {error}") from error


def _items(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as stream:
        text = _Json(stream, path)
        if text.next() != "[":
            raise DataError(f"{path} must hold a list of objects; for one object a line name it .jsonl")
        text.at += 1
        if text.next() == "]":
            return
        while True:
            yield text.value()
            if (mark := text.next()) not in (",", "]"):
                raise DataError(f"{path}, after item {text.items}: a comma or the end of the list is missing")
            text.at += 1
            if mark == "]":
                return


class _Json:
    """JSON text of which no more is in memory than a chunk and the value under way."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self.stream, self.path = stream, path
        self.buffer, self.at, self.items = "", 0, 0
        self.decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            gap = _GAP.match(self.buffer, self.at)
            self.at = gap.end() if gap else self.at
            if self.at < len(self.buffer) or not self._more():
                return self.buffer[self.at : self.at + 1]

    def value(self) -> Any:
        """The value that begins next. Raises DataError."""
        self.next()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                # An error near the end, or a text without one, is what a chunk's end looks like.
                open_end = error.pos > len(self.buffer) - 16 or error.msg.startswith("Unterminated")
                if open_end and self._more():
                    continue
                raise DataError(f"{self.path}, item {self.items + 1}: not JSON: {error.msg}") from error
            except RecursionError as error:
                raise DataError(f"{self.path}, item {self.items + 1}: not JSON: nested too deeply") from error
            # A number may go on in the next chunk.
            if end < len(self.buffer) or not self._more():
                self.items, self.at = self.items + 1, end
                return value

    def _more(self) -> bool:
        rest = self.buffer[self.at :]
        try:
            # As much again as is there: a value of many chunks is not parsed from its start for each.
            chunk = self.stream.read(max(_CHUNK, len(rest)))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}, after item {self.items}: not UTF-8") from error
        if chunk:
            self.buffer, self.at = rest + chunk, 0
        return bool(chunk)


def _hub_name(source: str) -> tuple[str, str | None, str]:
    """Name, configuration and split of a hub data set. Raises DataError for what can be none."""
    path, _, split = source.partition(":")
    name, _, config = path.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/")) or Path(source).exists():
        wrong = "is no file" if Path(source).exists() else "does not exist"
        raise DataError(
            f"{source} {wrong}; give a .jsonl, .json, .txt, .parquet or .yaml file, or a hub data set "
            "org/name[@config][:split]"
        )
    return name, config or None, split or "train"


def _hub_rows(source: str) -> Iterator[tuple[str, int, Any]]:
    name, config, split = _hub_name(source)
    from datasets import load_dataset

    with _library_errors(f"{source} is no local file, and the hub did not give it"):
        rows = load_dataset(name, config, split=split)
    yield from ((f"{source}, row {number}", number, dict(row)) for number, row in enumerate(rows, 1))


def _parquet_rows(path: Path) -> Iterator[tuple[str, int, Any]]:
    from datasets import load_dataset

    with _library_errors(f"{path} cannot be read"):
        # Streamed: else the library would first copy all of it into its cache.
        rows = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        yield from ((f"{path}, row {number}", number, dict(row)) for number, row in enumerate(rows, 1))


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the library raises many kinds, none of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{what}: {reason}") from error
