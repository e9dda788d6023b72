"""What lies in a directory: bases, adapters, training data, suites, questions that no suite names yet."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from crossmatch.adapter import CONFIG_FILE, Adapter
from crossmatch.checkpoint import MANIFEST, Checkpoint
from crossmatch.data.messages import Dialogue
from crossmatch.data.row_files import file_rows, format_of
from crossmatch.data.suites import load_suite, parse_settings, read_yaml
from crossmatch.data.training_sets import load_examples
from crossmatch.errors import CrossmatchError, DataError, InputError

_DEPTH = 4
_SKIPPED = {"node_modules", "__pycache__", "venv", "wandb", "mlruns"}
# A name that says that a set is held out is no training data.
HELD_OUT = re.compile(r"(^|[._-])(test|valid|validation|eval|dev|held[_-]?out)([._-]|$)")
# Texts about a project are none of its data.
_ABOUT = re.compile(r"(readme|license|licence|notice|changelog|requirements|constraints|package|tokenizer|config)\b")
_QUESTIONS = {"choice": {"question", "options", "answer"}, "generation": {"question", "reference"}}


@dataclass(frozen=True)
class DataSet:
    """A file of training data: documents (stage pt) or dialogues (stage sft), and how many."""

    path: Path
    stage: str
    rows: int


@dataclass(frozen=True)
class Questions:
    """A file of questions: of which kind of suite, and whether they have ids of their own."""

    kind: str
    ids: bool


@dataclass(frozen=True)
class Findings:
    """What was found, by path.

    checkpoints: whole models; adapters: with what their config names as base; data: training sets; suites: with their
    names; questions: files of questions in this project's own form; merged: checkpoints that a manifest
    calls merged; left: what was looked at and not used, with the reason.
    """

    checkpoints: Mapping[Path, Checkpoint] = field(default_factory=dict)
    adapters: Mapping[Path, Adapter] = field(default_factory=dict)
    data: tuple[DataSet, ...] = ()
    suites: Mapping[Path, str] = field(default_factory=dict)
    questions: Mapping[Path, Questions] = field(default_factory=dict)
    merged: tuple[Path, ...] = ()
    left: Mapping[Path, str] = field(default_factory=dict)


def find(directory: Path) -> Findings:
    """Look through a directory, four folders deep; hidden folders and environments are passed over.

    Raises InputError for what is no directory.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is no directory; give the one that holds models, adapters and data")
    left: dict[Path, str] = {}
    checkpoints: dict[Path, Checkpoint] = {}
    adapters: dict[Path, Adapter] = {}
    files: list[Path] = []
    for folder, names in _folders(directory, 0):
        try:
            if CONFIG_FILE in names:
                adapters[folder] = Adapter(str(folder))
            elif "config.json" in names and any(name.endswith(".safetensors") for name in names):
                checkpoints[folder] = Checkpoint(str(folder))
            else:
                files += [folder / name for name in names]
        except CrossmatchError as error:
            left[folder] = str(error)
    suites, named = _suites(files, left)
    data, questions = _data([file for file in files if file.resolve() not in named], left)
    merged = tuple(path for path in checkpoints if (path / MANIFEST).is_file())
    return Findings(checkpoints, adapters, tuple(data), suites, questions, merged, left)


def _folders(directory: Path, depth: int) -> Iterator[tuple[Path, list[str]]]:
    """Folders with the names of their files; a model's own folder is not looked into."""
    entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    names = [entry.name for entry in entries if entry.is_file()]
    yield directory, names
    if CONFIG_FILE in names or "config.json" in names or depth == _DEPTH:
        return
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in _SKIPPED:
            yield from _folders(Path(entry.path), depth + 1)


def _suites(files: list[Path], left: dict[Path, str]) -> tuple[dict[Path, str], set[Path]]:
    """Suites with their names, and the data files that they name."""
    suites: dict[Path, str] = {}
    named: set[Path] = set()
    for file in files:
        if file.suffix not in (".yaml", ".yml"):
            continue
        try:
            raw = read_yaml(file)
            if not isinstance(raw, Mapping) or "kind" not in raw:
                continue
            settings = parse_settings(raw, file)
            named |= {(file.parent / name).resolve() for name in (settings.data, settings.fewshot_data) if name}
            load_suite(file)
            if settings.name in suites.values():
                left[file] = f"another suite is called {settings.name}, too"
            else:
                suites[file] = settings.name
        except DataError as error:
            left[file] = str(error)
    return suites, named


def _data(files: list[Path], left: dict[Path, str]) -> tuple[list[DataSet], dict[Path, Questions]]:
    """Training sets, and files of questions."""
    found: list[DataSet] = []
    questions: dict[Path, Questions] = {}
    for file in files:
        if format_of(file) is None or _ABOUT.match(file.name.lower()):
            continue
        try:
            fields = _fields(file)
            kind = next((kind for kind, needed in _QUESTIONS.items() if needed <= fields), None)
            if kind is not None:
                questions[file] = Questions(kind, "id" in fields)
                continue
            examples = load_examples(file)
        except DataError as error:
            left[file] = str(error)
            continue
        if HELD_OUT.search(file.name.lower()):
            left[file] = "its name says that it is held out, so nothing is trained on it; name it in a suite"
            continue
        stages = {"sft" if isinstance(example, Dialogue) else "pt" for example in examples}
        if len(stages) > 1:
            left[file] = "it holds documents and dialogues; give each a file of its own"
        else:
            found.append(DataSet(file, stages.pop(), len(examples)))
    return found, questions


def _fields(file: Path) -> set[str]:
    """Names of the fields of the first rows."""
    rows: list[Any] = [value for _, value in islice(file_rows(file), 3)]
    return set.intersection(*(set(row) if isinstance(row, dict) else set() for row in rows)) if rows else set()
