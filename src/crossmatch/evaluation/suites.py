"""Suites: what is asked, as versioned data. A YAML file names the JSONL that holds the items.

generation   {"id": "...", "question": "...", "reference": "..."}
choice       {"id": "...", "question": "...", "options": ["...", "..."], "answer": 0}
"""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from crossmatch.checkpoint import file_digest
from crossmatch.errors import DataError


class SuiteSettings(BaseModel):
    """The YAML part of a suite.

    data: JSONL file beside the YAML; prompt: text with {question} (and {options}) to be filled in; system: system
    message or None; limit: first items taken (None: all); max_new_tokens: for generation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    version: int = Field(ge=1)
    kind: Literal["generation", "choice"]
    language: Literal["en", "zh"] = "en"
    data: str
    prompt: str = "{question}"
    system: str | None = None
    limit: int | None = Field(None, ge=1)
    max_new_tokens: int = Field(64, ge=1)

    @field_validator("prompt")
    @classmethod
    def _known_fields(cls, prompt: str) -> str:
        fields = re.findall(r"\{(\w+)\}", prompt)
        unknown = [field for field in fields if field not in ("question", "options")]
        if unknown or "question" not in fields:
            raise ValueError(f"{{{unknown[0]}}} is no field of an item" if unknown else "{question} is missing")
        return prompt


@dataclass(frozen=True)
class Item:
    """One question: with a reference (generation) or with options and the index of the right one (choice)."""

    id: str
    question: str
    reference: str = ""
    options: tuple[str, ...] = ()
    answer: int = -1


@dataclass(frozen=True)
class Suite:
    """A suite ready to run; digest: of its YAML fields and its data."""

    settings: SuiteSettings
    items: tuple[Item, ...]
    digest: str

    def messages(self, item: Item) -> list[dict[str, str]]:
        """The dialogue that asks an item."""
        letters = "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(item.options))
        text = self.settings.prompt.replace("{options}", letters).replace("{question}", item.question)
        system = [{"role": "system", "content": self.settings.system}] if self.settings.system else []
        return [*system, {"role": "user", "content": text}]


def load_suite(file: str | Path) -> Suite:
    """Read a suite. Raises DataError with file, line and reason for whatever cannot be asked."""
    path = Path(file)
    if path.suffix == ".jsonl":
        raise DataError(f"{path} is a suite's data; give the YAML file that names it")
    settings = parse_settings(read_yaml(path), path)
    data = path.parent / settings.data
    if not data.is_file():
        raise DataError(f"{path}: its data {data} does not exist")
    items: dict[str, Item] = {}
    for number, line in enumerate(data.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            item = _item(json.loads(line), settings.kind)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{data}, line {number}: {error if str(error) else type(error).__name__}") from error
        if item.id in items:
            raise DataError(f"{data}, line {number}: id {item.id!r} appears twice")
        items[item.id] = item
    if not items:
        raise DataError(f"{data} holds no items")
    return Suite(settings, tuple(items.values())[: settings.limit], f"{file_digest(path)}:{file_digest(data)}")


def read_yaml(file: Path) -> Any:
    """A YAML 1.2 file. Raises DataError with the place of the first mistake."""
    try:
        return YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not YAML: {' '.join(str(error).split())}") from error


def parse_settings(raw: Any, file: Path) -> SuiteSettings:
    """Check the YAML part. Raises DataError naming the field, with the known one that is closest."""
    if not isinstance(raw, Mapping):
        raise DataError(f"{file} must hold a mapping")
    unknown = [key for key in raw if key not in SuiteSettings.model_fields]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), SuiteSettings.model_fields, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DataError(f"{file}: unknown field {unknown[0]!r}{hint}")
    try:
        return SuiteSettings.model_validate(dict(raw))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _item(row: Any, kind: str) -> Item:
    if not isinstance(row, dict):
        raise ValueError("an object is needed")
    question = _filled(row, "question")
    if kind == "generation":
        return Item(str(row["id"]), question, reference=_filled(row, "reference"))
    options, answer = row["options"], row["answer"]
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o.strip() for o in options):
        raise ValueError("options must be at least two texts that are not empty")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        raise ValueError(f"answer must be an index from 0 to {len(options) - 1}, not {answer!r}")
    return Item(str(row["id"]), question, options=tuple(options), answer=answer)


def _filled(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field {field!r} must be a text that is not empty")
    return value
