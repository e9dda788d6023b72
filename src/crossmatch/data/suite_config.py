"""The YAML part of a suite: where its data lies, which columns hold what, and how an item is asked."""

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from crossmatch.checkpoint import read_text
from crossmatch.data.reasoning_formats import FORMATS, ReasoningFormat, written
from crossmatch.data.suite_use import check_fields
from crossmatch.data.trace_blocks import find_blocks
from crossmatch.errors import CheckpointError, DataError, pip_line

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Of a YAML file written by hand; its aliases are counted as what they stand for.
MAX_YAML_BYTES = 100_000
MAX_YAML_NODES = 50_000
_SHOWN = 80
# Settings that say how something is asked.
_OF_QUESTIONS = (
    *("prompt", "description", "system", "option_line", "chat", "delimiter", "max_new_tokens", "fewshot"),
    "reasoning",
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _columns(value: Any) -> Any:
    """A column's name, or a list of names, as the mapping that they are short for."""
    if isinstance(value, str):
        return {"columns": (value,)}
    if isinstance(value, Sequence):
        return {"columns": value}
    if isinstance(value, Mapping) and isinstance(value.get("column"), str) and "columns" not in value:
        return {**{k: v for k, v in value.items() if k != "column"}, "columns": (value["column"],)}
    return value


class TextField(_Strict):
    """A text out of columns, joined by `join`; so are the parts of a column that holds a list.

    A name followed by `?` may be missing or empty. strip: white space at both ends is taken away.
    """

    columns: tuple[str, ...] = Field(min_length=1)
    join: str = "\n"
    strip: bool = False


class OptionsField(_Strict):
    """Options out of several columns, or out of one that holds all: a list, letters with texts, or lettered lines.

    values: the same options for every item.
    """

    columns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> "OptionsField":
        if bool(self.columns) == bool(self.values):
            raise ValueError("either columns or values must be given")
        return self


class AnswerField(_Strict):
    """The right option: an index from 0, a number from 1, a letter, or the option's text."""

    columns: tuple[str] = ("answer",)
    form: Literal["index", "number", "letter", "text"] = Field("index", alias="as")


class ChecksField(_Strict):
    """Checks of an instruction: a column of {kind, arguments}, or one of kinds and one of arguments."""

    columns: tuple[str] | tuple[str, str] = ("checks",)


Text = Annotated[TextField, BeforeValidator(_columns)]


class Fields(_Strict):
    """Which columns hold an item; `a.b` is column b inside column a. Without `id` items are numbered by their row."""

    id: Text | None = None
    question: Text = TextField(columns=("question",))
    context: Text | None = None
    text: Text = TextField(columns=("text",))
    reference: Text = TextField(columns=("reference",))
    options: Annotated[OptionsField, BeforeValidator(_columns)] = OptionsField(columns=("options",))
    answer: Annotated[AnswerField, BeforeValidator(_columns)] = AnswerField.model_validate({})
    subject: Text | None = None
    checks: Annotated[ChecksField, BeforeValidator(_columns)] = ChecksField()


# Of a suite that names no columns: those of this project's own JSONL.
OWN_FIELDS = Fields(id=TextField(columns=("id",)))


class Markers(_Strict):
    """A way to mark reasoning that the built-in table does not have, with its markers as they are written.

    answer, end: what stands around the answer; example: an output with a trace and an answer, tried when the suite is
    read.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.:-]*$")
    opening: str
    closing: str
    answer: str = ""
    end: str = ""
    example: str | None = None

    @model_validator(mode="after")
    def _reads_its_example(self) -> "Markers":
        if not self.opening.strip() or not self.closing.strip() or self.opening.strip() == self.closing.strip():
            raise ValueError(f"reasoning format {self.name} needs an opening and a closing that are not the same")
        if self.name in {form.name for form in FORMATS}:
            raise ValueError(f"reasoning format {self.name} is built in; give yours another name")
        if self.example is not None:
            found = find_blocks(self.example, (self.format, *FORMATS))
            answer = "".join(self.example[begin:end] for begin, end in found.kept).strip()
            if (found.state, found.format) != ("closed", self.name) or not answer:
                raise ValueError(f"reasoning format {self.name}: its example has no trace in it followed by an answer")
        return self

    @property
    def format(self) -> ReasoningFormat:
        """As a row of the table."""
        return written(self.name, self.opening, self.closing, self.answer, self.end)


class HubSource(_Strict):
    """A data set of the hub, or a directory that has the form of one (starting with `.` or `/`).

    name: a configuration, or several whose items follow one another, each with its name as subject.
    """

    path: str = Field(min_length=1)
    name: str | tuple[str, ...] | None = None
    split: str = Field("test", min_length=1)
    revision: str | None = None

    @property
    def names(self) -> tuple[str | None, ...]:
        """Every configuration to be read."""
        return self.name if isinstance(self.name, tuple) else (self.name,)


class SuiteSettings(_Strict):
    """The YAML part of a suite.

    data: JSONL, JSON, CSV or parquet file beside the YAML, or hub: a data set; fields: columns of the data; where:
    column -> values of the rows to take; faulty: what to do with a row that cannot be asked (`leave_out` takes at most
    one in a hundred); subjects: subject -> how it is called in the prompt.

    prompt: text with {question} ({options}, {context}, {subject}) to be filled in; description: text before the first
    question; system: system message or None; option_line: one line of {options}; chat: whether the chat template is
    used; form: what is scored of an option, its letter or its text; delimiter: what stands between a prompt and its
    continuation (None: a space without chat template, nothing with one).

    too_long: what is done with a prompt that the model's positions do not hold together with what follows it: refuse,
    or cut (its beginning is left out).

    limit: first items taken (None: all); max_new_tokens: for generation; match: a generated answer is right if its text
    is the reference's, or if its last number is; generative: a choice is also asked by generation; permutations: orders
    of options to try in addition; fewshot: solved examples before each question, from fewshot_data (a file beside the
    YAML, or a split of the hub data set; None: the other items), drawn by seed or the first ones.

    reasoning: ways to mark reasoning in addition to the built-in ones. ignored: columns of the data that change a
    question (system, context, passage, input, history) and are left out on purpose.

    sustain: so many constraints, which an answer meets already, are put below its question, and it is asked again (0:
    none). window, overlap: of text: tokens read at a time at most, and how many of them were read before.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    version: int = Field(ge=1)
    kind: Literal["generation", "choice", "instructions", "text"]
    language: Literal["en", "zh", "ja", "de", "fr", "es", "it", "pt", "nl", "pl", "ru"] = "en"
    data: str | None = None
    hub: HubSource | None = None
    fields: Fields = OWN_FIELDS
    where: dict[str, tuple[str | int | bool, ...]] = {}
    faulty: Literal["refuse", "leave_out"] = "refuse"
    subjects: dict[str, str] = {}
    prompt: str = "{question}"
    description: str = ""
    system: str | None = None
    option_line: str = "{letter}. {text}"
    chat: bool = True
    form: Literal["letters", "texts"] = "texts"
    delimiter: str | None = None
    too_long: Literal["refuse", "cut"] = "refuse"
    limit: int | None = Field(None, ge=1)
    max_new_tokens: int = Field(64, ge=1)
    match: Literal["text", "number"] | None = None
    generative: bool = False
    permutations: int = Field(0, ge=0)
    fewshot: int = Field(0, ge=0)
    fewshot_data: str | None = None
    fewshot_order: Literal["drawn", "first"] = "drawn"
    seed: int = 0
    sustain: int = Field(0, ge=0, le=3)
    window: int = Field(1024, ge=2)
    overlap: int = Field(256, ge=0)
    reasoning: tuple[Markers, ...] = ()
    ignored: tuple[str, ...] = ()

    @field_validator("where", mode="before")
    @classmethod
    def _single_values(cls, where: Any) -> Any:
        if not isinstance(where, Mapping):
            return where
        return {column: v if isinstance(v, list | tuple) else (v,) for column, v in where.items()}

    @field_validator("prompt")
    @classmethod
    def _known_fields(cls, prompt: str) -> str:
        return _placeholders(prompt, ("question", "options", "context", "subject"), "question")

    @field_validator("description")
    @classmethod
    def _subject_only(cls, description: str) -> str:
        return _placeholders(description, ("subject",), None)

    @field_validator("option_line")
    @classmethod
    def _option_parts(cls, line: str) -> str:
        return _placeholders(line, ("letter", "text"), "text")

    @model_validator(mode="after")
    def _belong_together(self) -> "SuiteSettings":
        if (self.data is None) == (self.hub is None):
            raise ValueError("either data (a file) or hub (a data set) must be given")
        if self.language == "ja" and self.kind == "generation" and self.match != "number":
            missing = [name for name in ("MeCab", "ipadic") if find_spec(name) is None]
            if missing:
                raise ValueError(f"language ja: BLEU needs {' and '.join(missing)} to cut words: {pip_line('ja')}")
        if self.kind != "choice":
            for name in ("form", "generative", "permutations"):
                if getattr(self, name) != SuiteSettings.model_fields[name].default:
                    raise ValueError(f"{name} is for choice suites, not for {self.kind}")
        if self.kind == "text":
            for name in _OF_QUESTIONS:
                if getattr(self, name) != SuiteSettings.model_fields[name].default:
                    raise ValueError(f"{name} is for questions; a text is scored as it stands")
        answered = self.kind == "generation" or (self.kind == "choice" and self.generative)
        if self.sustain and not (answered and self.chat):
            raise ValueError(
                "sustain is for generated answers to chat questions: generation, or choice with generative"
            )
        names = [markers.name for markers in self.reasoning]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"reasoning format {twice} is given twice")
        if self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} must be less than window {self.window}")
        if self.match and self.kind != "generation":
            raise ValueError(f"match is for generation suites, not for {self.kind}")
        if self.kind == "choice" and self.form == "letters" and "{options}" not in self.prompt:
            raise ValueError("{options} is missing in the prompt: letters mean nothing without the options")
        if self.fewshot and self.kind == "instructions":
            raise ValueError("fewshot needs answers, which instructions do not have")
        if self.fewshot_data and not self.fewshot:
            raise ValueError("fewshot_data is given, but fewshot is 0")
        named = self.fields.subject is not None or (self.hub is not None and len(self.hub.names) > 1)
        if "{subject}" in self.prompt + self.description and not named:
            raise ValueError("{subject} is asked for, but fields.subject names no column")
        check_fields(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON; what was added later is left out where it is not used, so that digests stay."""
        unused = {name for name in ("match", "reasoning", "ignored") if not getattr(self, name)}
        unused |= {"too_long"} if self.too_long == "refuse" else set()
        return self.model_dump(mode="json", exclude=unused or None)

    @property
    def reasoning_formats(self) -> tuple[ReasoningFormat, ...]:
        """How traces are marked: the suite's own formats, then the built-in ones."""
        return (*(markers.format for markers in self.reasoning), *FORMATS)

    @property
    def between(self) -> str:
        """What stands between a prompt and its continuation."""
        return ("" if self.chat else " ") if self.delimiter is None else self.delimiter


def _placeholders(text: str, known: Sequence[str], needed: str | None) -> str:
    fields = re.findall(r"\{(\w+)\}", text)
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise ValueError(f"{{{shown(unknown[0])}}} is no field of an item; known are {', '.join(known)}")
    if needed is not None and needed not in fields:
        raise ValueError(f"{{{needed}}} is missing")
    return text


def read_yaml(file: Path) -> Any:
    """A YAML 1.2 file. Raises DataError with the place of the first mistake, also for what would be endless to read."""
    try:
        text = read_text(file, MAX_YAML_BYTES)
    except CheckpointError as error:
        raise DataError(f"{error}") from error
    try:
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
        if node is None:
            return None
        if _size(node, {}) > MAX_YAML_NODES:
            raise DataError(f"{file} has more than {MAX_YAML_NODES} values, aliases counted as what they stand for")
        return yaml.constructor.construct_document(node)
    except (YAMLError, RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise DataError(f"{file} is not YAML: {reason}") from error


def _size(node: Node, known: dict[int, int]) -> int:
    """Values that a node stands for. An alias is the same node again; one that holds itself is endless."""
    found = known.get(id(node))
    if found is not None:
        return found
    known[id(node)] = MAX_YAML_NODES + 1
    inside: list[Node] = []
    if isinstance(node, SequenceNode):
        inside = node.value
    elif isinstance(node, MappingNode):
        inside = [part for pair in node.value for part in pair]
    known[id(node)] = 1 + sum(_size(part, known) for part in inside)
    return known[id(node)]


def parse_settings(raw: Any, file: Path) -> SuiteSettings:
    """Check the YAML part. Raises DataError naming the field, with the known one that is closest."""
    if not isinstance(raw, Mapping):
        raise DataError(f"{file} must hold a mapping")
    unknown = [key for key in raw if key not in SuiteSettings.model_fields]
    if unknown:
        raise DataError(f"{file}: unknown field {shown(unknown[0])!r}{closest(unknown[0], SuiteSettings.model_fields)}")
    try:
        return SuiteSettings.model_validate(dict(raw))
    except ValidationError as error:
        # A name that is not known is the reason why the one in its place is missing.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        place = ".".join(shown(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            reason = f"unknown field{closest(first['loc'][-1], _known(first['loc'][:-1]))}"
        raise DataError(f"{file}: {place}: {reason}" if place else f"{file}: {reason}") from error


def _known(place: Sequence[int | str]) -> Sequence[str]:
    """Names that a part of the YAML may have."""
    parts = {"fields": Fields, "hub": HubSource, "reasoning": Markers}
    inner = {"options": OptionsField, "answer": AnswerField, "checks": ChecksField}
    head, *rest = [part for part in place if isinstance(part, str)]
    model = inner.get(rest[0], TextField) if rest else parts[head]
    return [str(field.alias or name) for name, field in model.model_fields.items()]


def closest(name: object, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The end of a message about an unknown name: the known one that is closest, if one is."""
    close = difflib.get_close_matches(shown(name), [str(k) for k in known], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def shown(value: object) -> str:
    """A value from a file as text for a message, cut where it is long."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
