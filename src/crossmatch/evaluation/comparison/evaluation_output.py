"""What `crossmatch evaluate -o DIR` and `crossmatch run` leave, as a run that can be compared with another."""

import json
from collections.abc import Sequence
from pathlib import Path

from crossmatch.checkpoint import value_digest
from crossmatch.data.suites import Suite, SuiteSettings
from crossmatch.errors import CheckpointError, DataError, InputError
from crossmatch.evaluation.comparison.scored_run import Document, Run, Task
from crossmatch.evaluation.metrics.metrics import Measured, measure
from crossmatch.result_kinds import RECORD, SUMMARY
from crossmatch.results.metrics import STANDING
from crossmatch.results.record import RecordJson
from crossmatch.results.summary import SuiteResultJson

# Compared unless other metrics are asked for: a family of forty metrics would find nothing in any.
_DEFAULTS = (*STANDING, "bits_per_byte")
_AGAIN = "evaluate again into another directory"


def is_output(path: Path) -> bool:
    """Whether a directory is the output of an evaluation, or a run's."""
    return (path / "summary.json").is_file()


def read_output(path: Path, variant: str | None) -> Run:
    """The answers of one variant to every suite under every condition.

    Raises InputError if there are several variants and none is named, or the named one is not there; DataError for
    answers that cannot be read.
    """
    try:
        summary = SUMMARY.read(path / "summary.json")
    except CheckpointError as error:
        raise DataError(str(error)) from error
    names = list(summary["variants"])
    if variant is None and len(names) > 1:
        raise InputError(f"{path} holds several variants; write {path}:NAME, with one of {', '.join(names)}")
    chosen = names[0] if variant is None else variant
    if chosen not in names:
        raise InputError(f"{path} has no variant {chosen}; there are {', '.join(names)}")
    home = path / "evaluate" if (path / "evaluate").is_dir() else path
    tasks = {
        f"{suite}.{condition}": _task(home / chosen, suite, condition, suite_facts)
        for condition, facts in summary["conditions"].items()
        for suite, suite_facts in facts["suites"].items()
    }
    return Run(f"{path}:{chosen}", "crossmatch", tasks)


def _task(home: Path, name: str, condition: str, facts: SuiteResultJson) -> Task:
    file = home / f"{name}.{condition}.jsonl"
    rows = _records(file)
    failed = {row["id"] for row in rows if "failed" in row}
    answers: dict[str, list[RecordJson]] = {}
    for row in rows:
        if row["id"] not in failed:
            answers.setdefault(row["id"], []).append(row)
    groups = list(answers.values())
    seeds = {len(group) for group in groups}
    if len(seeds) > 1:
        raise DataError(f"{file}: documents have different numbers of answers ({sorted(seeds)}); {_AGAIN}")
    suite = _suite(name, facts)

    def measured(places: Sequence[int]) -> Measured:
        try:
            found = measure([row for place in places for row in groups[place]], suite)
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"{file}: answers of another version of crossmatch ({error!r}); {_AGAIN}") from error
        # What only some documents were asked for cannot be paired by place.
        return {metric: value for metric, value in found.items() if len(value[0]) == len(places)}

    documents = tuple(_document(file, key, group[0]) for key, group in answers.items())
    version = f"version {facts['version']}"
    return Task(f"{name}.{condition}", documents, measured, {}, version, len(failed), defaults=_DEFAULTS)


def _records(file: Path) -> list[RecordJson]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}; {_AGAIN}") from error
    return [RECORD.known(row, f"{file}, line {number}") for number, row in enumerate(rows, 1)]


def _document(file: Path, key: str, record: RecordJson) -> Document:
    content = value_digest([record.get(name) for name in ("question", "options", "bytes")])
    target = value_digest([record.get(name) for name in ("reference", "right", "checks")])
    return Document(f"{file}, item {key}", (content, key), record.get("prompt_digest"), target)


def _suite(name: str, facts: SuiteResultJson) -> Suite:
    """The settings that scores depend on, from the summary."""
    match = facts.get("match") or next((v for m, v in _MATCHES.items() if m in facts["metrics"]), None)
    language = facts.get("language") or ("zh" if "tok:zh" in facts["signatures"].get("bleu", "") else "en")
    fields = {"name": name, "version": facts["version"], "kind": facts["kind"], "language": language, "data": "answers"}
    return Suite(SuiteSettings.model_validate({**fields, "match": match}), (), facts["digest"])


# By which metric a summary that does not state it tells how answers were matched.
_MATCHES = {"number": "number", "exact": "text"}
