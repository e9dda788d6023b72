"""What lm-evaluation-harness 0.4 writes with --log_samples: one JSON line a document and filter.

`OUT/<model>/samples_<task>_<date>.jsonl` beside `results_<date>.json`, which holds the versions of the tasks, and of
which metrics more is better. A line holds doc_id, doc, target, arguments, resps, filtered_resps, filter, metrics
(names), doc_hash, prompt_hash, target_hash, and the value of each metric under its name. Releases before 0.4.3 have no
hashes, those before 0.4.6 neither filter nor metrics.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossmatch.checkpoint import value_digest
from crossmatch.errors import DataError, InputError
from crossmatch.evaluation.comparison.scored_run import Document, Run, Task
from crossmatch.evaluation.metrics.metrics import Measured
from crossmatch.evaluation.metrics.perplexity import mean_of_known
from crossmatch.statistics.estimates import Array, Ratio, Statistic, mean_of

_FIELDS = frozenset(
    (
        *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
        *("doc_hash", "prompt_hash", "target_hash", "scores_per_repeat", "extra_fields", "bypass"),
    )
)
_DATE = r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d+)?"
_SAMPLES = re.compile(rf"^samples_(?P<task>.+)_(?P<date>{_DATE})\.jsonl$")
_NO_FILTER = ("none", "")


# Of a document: (log-likelihood, words or bytes); of the corpus: exp(-sum / sum), or bits.
_perplexity, _bits_per_byte = Ratio(0, 1, lambda r: np.exp(-r)), Ratio(0, 1, lambda r: -r / math.log(2.0))
_WEIGHTED = {"word_perplexity": _perplexity, "byte_perplexity": _perplexity, "bits_per_byte": _bits_per_byte}


# Metrics of one number a document of which the task's figure is not the mean.
_OF_ONE: dict[str, Statistic] = {"perplexity": lambda columns: np.exp(-columns[:, 0])}


@dataclass(frozen=True)
class _Row:
    """One line: its document and the numbers of each metric, None for one that gives no numbers for a document."""

    document: Document
    values: Mapping[str, tuple[float, ...] | None]


def is_samples(path: Path) -> bool:
    """Whether a path is a samples file, or a directory in which there are some."""
    return path.suffix == ".jsonl" if path.is_file() else next(path.rglob("samples_*.jsonl"), None) is not None


def read_samples(path: Path) -> Run:
    """A samples file, or all of a directory; of several runs of one task in it the newest, which a note says.

    Raises InputError for a directory with the samples of several models, DataError for a line that cannot be read, with
    file and line.
    """
    notes: list[str] = []
    files = {_task_name(path): path} if path.is_file() else _newest(path, notes)
    recorded = _results(next(iter(files.values())).parent, [file.name for file in files.values()])
    tasks: dict[str, Task] = {}
    for name, file in files.items():
        for label, rows in _by_filter(name, file).items():
            tasks[label] = _task(label, rows, recorded, name)
    named = any(_SAMPLES.match(file.name) for file in files.values())
    return Run(str(recorded.get("model_name") or path), "lm-eval", tasks, tuple(notes), named)


def _task_name(file: Path) -> str:
    match = _SAMPLES.match(file.name)
    return match["task"] if match else file.stem


def _newest(directory: Path, notes: list[str]) -> dict[str, Path]:
    """Task -> its newest file."""
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for file in sorted(directory.rglob("samples_*.jsonl")):
        match = _SAMPLES.match(file.name)
        found[_task_name(file)].append((match["date"] if match else "", file))
    homes = sorted({str(file.parent) for files in found.values() for _, file in files})
    if len(homes) > 1:
        raise InputError(f"{directory} holds samples in {len(homes)} directories; give one of {', '.join(homes)}")
    older = sum(len(files) - 1 for files in found.values())
    if older:
        notes.append(f"{directory}: {older} older samples files of the same tasks were not read")
    return {name: max(files)[1] for name, files in found.items()}


def _results(directory: Path, samples: Sequence[str]) -> dict[str, Any]:
    """The results file of the same date as the samples, or none."""
    dates = sorted({match["date"] for match in map(_SAMPLES.match, samples) if match}, reverse=True)
    file = next((f for date in dates for f in directory.glob(f"*_{date}.json")), None)
    if file is None:
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}; delete it if it is damaged") from error
    return value if isinstance(value, dict) else {}


def _part(recorded: Mapping[str, Any], key: str, task: str) -> Any:
    part = recorded.get(key)
    return part.get(task) if isinstance(part, dict) else None


def _by_filter(name: str, file: Path) -> dict[str, list[_Row]]:
    """Rows by task and filter; the filter `none` is not named."""
    found: dict[str, list[_Row]] = defaultdict(list)
    for place, raw in _lines(file):
        kept = str(raw.get("filter") or "")
        found[name if kept in _NO_FILTER else f"{name}/{kept}"].append(_row(place, raw))
    if not found:
        raise DataError(f"{file} is empty; give a file that lm-eval wrote with --log_samples")
    return found


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines one after the other: such files hold every prompt and can be large."""
    number = 0
    try:
        with file.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    # NaN and Infinity are written by the harness, and judged where they are used.
                    yield f"{file}, line {number}", _object(json.loads(line), f"{file}, line {number}")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, after line {number}: not UTF-8: {error.reason}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file}, line {number}: not JSON ({error}); the run may have been cut off") from error


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict) or ("doc_id" not in value and "doc_hash" not in value):
        raise DataError(f"{place}: no doc_id and no doc_hash; give what lm-eval wrote with --log_samples")
    return value


def _row(place: str, raw: Mapping[str, Any]) -> _Row:
    named = raw.get("metrics")
    names = [str(n) for n in named] if isinstance(named, list) else [key for key in raw if key not in _FIELDS]
    doc = value_digest(raw["doc"]) if raw.get("doc") is not None else None
    number = None if raw.get("doc_id") is None else str(raw["doc_id"])
    # Hashes of the harness come last: releases that do not write them are compared with others that do.
    target = value_digest(str(raw["target"])) if "target" in raw else _text(raw.get("target_hash"))
    ids = (_text(raw.get("doc_hash")), doc, number)
    document = Document(place, ids, _prompt(raw.get("arguments")) or _text(raw.get("prompt_hash")), target)
    known = [name for name in names if name not in _FIELDS and raw.get(name) is not None]
    return _Row(document, {name: _numbers(name, raw[name]) for name in known})


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _prompt(arguments: Any) -> str | None:
    """The first request's prompt, as the harness stores arguments: {"gen_args_0": {"arg_0": ...}}, or lists."""
    for key, other in (("gen_args_0", "arg_0"), (0, 0)):
        try:
            return value_digest(arguments[key][other])
        except (KeyError, IndexError, TypeError):
            continue
    return None


def _numbers(name: str, value: Any) -> tuple[float, ...] | None:
    """A document's value of a metric as the numbers that its figure is made of; None if there are none.

    A number or truth value (also as text, as the harness writes those of NumPy); (log-likelihood, words or bytes); a
    list of truth values, of which the figure is the share over all lists (ifeval); (right option, probabilities).
    """
    if isinstance(value, str):
        value = {"True": 1.0, "False": 0.0}.get(value, value)
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool | int | float):
        return (float(value),)
    if not isinstance(value, list):
        return None
    numeric = all(isinstance(v, bool | int | float) for v in value)
    if name in _WEIGHTED and len(value) == 2 and numeric:
        return float(value[0]), float(value[1])
    if name == "brier_score" and len(value) == 2 and isinstance(value[1], list) and isinstance(value[0], int):
        return (sum((float(p) - (i == value[0])) ** 2 for i, p in enumerate(value[1])),)
    return (float(sum(value)), float(len(value))) if value and all(isinstance(v, bool) for v in value) else None


def _task(label: str, rows: list[_Row], recorded: Mapping[str, Any], name: str) -> Task:
    tables: dict[str, tuple[Array, Statistic]] = {}
    uncompared: dict[str, str] = {}
    for metric in dict.fromkeys(m for row in rows for m in row.values):
        reason = _table(metric, rows, tables)
        if reason:
            uncompared[metric] = reason

    def measure(places: Sequence[int]) -> Measured:
        return {metric: (table[list(places)], statistic) for metric, (table, statistic) in tables.items()}

    better = _part(recorded, "higher_is_better", name)
    version, shots = _part(recorded, "versions", name), _part(recorded, "n-shot", name)
    facts = [f"version {version}"] if version is not None else []
    facts += [f"{shots}-shot"] if shots is not None else []
    known = {m: bool(v) for m, v in better.items() if v is not None} if isinstance(better, dict) else {}
    documents = tuple(row.document for row in rows)
    return Task(label, documents, measure, known, ", ".join(facts), uncompared=uncompared)


def _table(metric: str, rows: list[_Row], tables: dict[str, tuple[Array, Statistic]]) -> str:
    """Add the table of one metric; or say why there is none."""
    found = [row.values.get(metric, ()) for row in rows]
    if any(numbers is None for numbers in found):
        return "its figure is not made of a number for each document"
    kept = [numbers or () for numbers in found]
    widths = {len(numbers) for numbers in kept} - {0}
    if len(widths) != 1:
        return "its values have different forms in different documents"
    (width,) = widths
    faulty = next((i for i, numbers in enumerate(kept) if not all(map(math.isfinite, numbers))), None)
    if faulty is not None:
        return f"{rows[faulty].document.place}: its value is NaN or infinite"
    table = np.array([numbers or (math.nan,) * width for numbers in kept], dtype=float)
    weighted = _WEIGHTED.get(metric, mean_of_known)
    tables[metric] = table, (_OF_ONE.get(metric, mean_of) if width == 1 else weighted)
    return ""
