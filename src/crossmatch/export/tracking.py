"""A result told to an experiment tracker: figures with their intervals, tables, the page. MLflow, W&B, trackio.

Where a tracker stores things is its own affair: its variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME,
WANDB_PROJECT, WANDB_MODE, TRACKIO_DIR, TRACKIO_SPACE_ID and so on) are read by it.
"""

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmatch.errors import InputError, OutputError, pip_line
from crossmatch.export.formats import to_csv
from crossmatch.export.results import tables_of
from crossmatch.export.table import Json, Table

PROJECT = "crossmatch"
# MLflow takes these characters in a metric's name; the others take them, too.
_STRANGE = re.compile(r"[^\w\-. /]+")
# Rows of a table by module are for files: trackers show tables.
_MOST_ROWS = 2000


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told. config: plain settings; metrics: name -> number; tables: by name; page: an HTML file."""

    name: str
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    tables: Mapping[str, Table] = field(default_factory=dict)
    page: Path | None = None


def check_tracker(name: str) -> None:
    """Raise InputError for a tracker that is not known, or whose package is not installed."""
    if name not in _TRACKERS:
        raise InputError(f"--report-to {name}: give one of {', '.join(_TRACKERS)}")
    _library(name)


def tracked(facts: Json, name: str, page: Path | None = None) -> Tracked:
    """What there is to tell of a study's, an evaluation's or a sweep's facts (report.json, summary.json, sweep.json).

    Metrics: `suite/metric/variant/value`, `/low` and `/high`, and of the difference from the reference `/difference`
    and `/p_holm`; of a study `verify/merge/adapter/recovered` with `/stderr`, and `verify/merge/verified`
    (1 or 0). Of a sweep `suite/metric/point/value`, `/low`, `/high` and `/gain` on the search items, and the same of
    confirmed points under `confirmed/`. Suites stand under their condition where there are several. Names keep letters,
    digits and `_ - . /`.
    """
    if "recommendation" in facts:
        return _swept(facts, name, page)
    summary = facts["summary"] if "verdicts" in facts else facts
    told = dict(_verdicts(facts.get("verdicts") or {}))
    told |= dict(_figures(summary)) if summary else {}
    config = {"reference": summary["reference"], "variants": list(summary["variants"])} if summary else {}
    config |= {key: facts[key] for key in ("study", "question", "base") if key in facts}
    tables = {key: one for key, one in tables_of(facts).items() if not one.by_module and len(one.rows) <= _MOST_ROWS}
    return Tracked(name or PROJECT, config, _spelt(told), tables, page)


def _swept(facts: Json, name: str, page: Path | None) -> Tracked:
    tables, told = tables_of(facts), {}
    for place, head in (("search", ""), ("confirmation", "confirmed/")):
        for row in tables[place].rows if place in tables else ():
            for key in ("value", "low", "high", "gain"):
                value = row[key]
                told[f"{head}{row['suite']}/{row['metric']}/{row['name']}/{key}"] = value
    chosen = facts["recommendation"]
    config = {"reference": facts["reference"], "base": facts["study"]["base"], "recommended": chosen["name"]}
    return Tracked(name or PROJECT, {**config, "sentence": chosen["sentence"]}, _spelt(told), tables, page)


def track(tracker: str, told: Tracked) -> str:
    """Log it as one run; returns where it went. Raises InputError without the package, OutputError if it refuses."""
    check_tracker(tracker)
    try:
        # They print; stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            return _TRACKERS[tracker](_library(tracker), told)
    except Exception as error:  # what these libraries raise is not one family
        raise OutputError(f"{tracker} did not take the result: {' '.join(str(error).split())[:300]}") from error


def _mlflow(mlflow: Any, told: Tracked) -> str:
    if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
        mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=told.name) as run:
        mlflow.log_params({key: str(value)[:500] for key, value in told.config.items()})
        mlflow.log_metrics(dict(told.metrics))
        for name, table in told.tables.items():
            mlflow.log_text(to_csv(table), f"tables/{name}.csv")
        if told.page is not None:
            mlflow.log_artifact(str(told.page))
        return f"run {run.info.run_id} at {mlflow.get_tracking_uri()}"


def _wandb(wandb: Any, told: Tracked) -> str:
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    run = wandb.init(project=project, name=told.name, config=dict(told.config), job_type="evaluation")
    run.log(dict(told.metrics))
    for name, table in told.tables.items():
        run.log({f"tables/{name}": wandb.Table(columns=[c.name for c in table.columns], data=_rows(table))})
    if told.page is not None:
        page = wandb.Artifact(f"page-{run.id}", type="report")
        page.add_file(str(told.page))
        run.log_artifact(page)
    place = run.url or run.dir
    run.finish()
    return f"run {run.id}, {place}"


def _trackio(trackio: Any, told: Tracked) -> str:
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    run = trackio.init(project=project, name=told.name, config=dict(told.config), embed=False)
    trackio.log(dict(told.metrics))
    for name, table in told.tables.items():
        trackio.log({f"tables/{name}": trackio.Table(columns=[c.name for c in table.columns], data=_rows(table))})
    if told.page is not None:
        page = trackio.Artifact(f"page-{_spelling(told.name).replace('/', '-')}", type="report")
        page.add_file(str(told.page))
        trackio.log_artifact(page)
    trackio.finish()
    return f"run {run.name} of project {project}"


_TRACKERS: dict[str, Callable[[Any, Tracked], str]] = {"mlflow": _mlflow, "wandb": _wandb, "trackio": _trackio}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"--report-to {name} needs its package: {pip_line(name)} ({error})") from error


def _figures(summary: Json) -> Iterator[tuple[str, float | None]]:
    several = len(summary["conditions"]) > 1
    for condition, facts in summary["conditions"].items():
        for suite, found in facts["suites"].items():
            head = f"{condition}/{suite}" if several else suite
            for metric, entries in found["metrics"].items():
                for variant, entry in entries.items():
                    yield f"{head}/{metric}/{variant}/value", entry["value"]
                    tested = entry.get("difference") or {}
                    ends = {"low": entry["low"], "high": entry["high"], "difference": tested.get("value")}
                    for key, value in {**ends, "p_holm": tested.get("p_holm")}.items():
                        yield f"{head}/{metric}/{variant}/{key}", value


def _verdicts(verdicts: Mapping[str, Json]) -> Iterator[tuple[str, float | None]]:
    for merge, verdict in verdicts.items():
        yield f"verify/{merge}/verified", float(verdict["verdict"] == "verified")
        for name, weight in verdict["weights"].items():
            yield f"verify/{merge}/{name}/recovered", weight["recovered"]
            yield f"verify/{merge}/{name}/stderr", weight["stderr"]


def _spelt(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Numbers that are known, under names that every tracker takes; two that would be one are told apart."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if value is None:
            continue
        spelt, count = _spelling(name), 1
        while spelt in found:
            count += 1
            spelt = f"{_spelling(name)}-{count}"
        found[spelt] = float(value)
    return found


def _spelling(name: str) -> str:
    return _STRANGE.sub("_", name)


def _rows(table: Table) -> list[list[Any]]:
    """Rows as these trackers take them: every column of one type."""
    columns = [[row[column.name] for row in table.rows] for column in table.columns]
    worded = [any(isinstance(value, str | bool) for value in column) for column in columns]
    kept = [
        [None if value is None else str(value) for value in column] if words else column
        for words, column in zip(worded, columns, strict=True)
    ]
    return [list(row) for row in zip(*kept, strict=True)]
