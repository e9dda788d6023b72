"""Two finished runs, document by document: differences of every task and metric, tested, adjusted, held to a margin."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossmatch.errors import DataError, InputError
from crossmatch.evaluation.comparison.foreign_metrics import Direction, direction, point_of
from crossmatch.evaluation.comparison.pooled_tasks import Both, pooled_tasks
from crossmatch.evaluation.comparison.scored_run import Document, Form, Run, Task
from crossmatch.export.results import Tabled, by_name
from crossmatch.export.table import Table
from crossmatch.export.tables.others import comparison_tables
from crossmatch.results.comparison import LineJson, PairingJson, RunComparisonJson
from crossmatch.statistics.estimates import Difference, Figure, mean_of
from crossmatch.statistics.multiple_tests import holm
from crossmatch.statistics.non_inferiority import Answer, NonInferiority, non_inferiority
from crossmatch.statistics.proportions import mcnemar, proportion
from crossmatch.statistics.resampling import bootstrap, paired_difference

POOLED = "all tasks"


@dataclass(frozen=True)
class Wanted:
    """What is to be compared.

    margin: of non-inferiority in points, or None; metrics, tasks: names (none: all that are compared by default);
    pooled: the documents of all tasks as one set; higher, lower: metrics of which more is better, or less.
    """

    margin: float | None = None
    metrics: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    pooled: bool = False
    higher: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One metric of one task: both figures and B - A.

    point: what one point is in the metric's unit (0.01 of a share), None where points are not defined; direction:
    `recorded`, `given` by the user, `known` by the metric's name, or `unknown` (higher_is_better is None); difference:
    None for fewer than two documents.
    """

    task: str
    metric: str
    a: Figure
    b: Figure
    difference: Difference | None
    higher_is_better: bool | None
    direction: Direction
    point: float | None
    non_inferior: NonInferiority | None = None

    def to_dict(self) -> LineJson:
        """As plain JSON."""
        return {
            "task": self.task,
            "metric": self.metric,
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "difference": self.difference.to_dict() if self.difference else None,
            "higher_is_better": self.higher_is_better,
            "direction": self.direction,
            "point": self.point,
            "non_inferior": self.non_inferior.to_dict() if self.non_inferior else None,
        }


@dataclass(frozen=True)
class Pairing:
    """How the documents of a task were paired.

    paired: documents in both; only_a, only_b: in one alone; unanswered: left out since a run has no answer to them;
    other_prompts: pairs of which the models read different prompts, None where prompts were not recorded.
    """

    task: str
    paired: int
    only_a: int
    only_b: int
    unanswered: int
    other_prompts: int | None

    def to_dict(self) -> PairingJson:
        """As plain JSON."""
        return {
            "task": self.task,
            "paired": self.paired,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "unanswered": self.unanswered,
            "other_prompts": self.other_prompts,
        }


@dataclass(frozen=True)
class RunComparison(Tabled):
    """The comparison of runs A and B; form: who wrote them; notes: what a reader of the figures must know."""

    a: str
    b: str
    form: Form
    lines: tuple[Line, ...]
    pairings: tuple[Pairing, ...]
    notes: tuple[str, ...]
    margin: float | None = None

    @property
    def not_worse(self) -> Answer | None:
        """Over all lines that have points: yes (all are), no (one is worse by more than the margin), or cannot tell."""
        if self.margin is None:
            return None
        held = [line for line in self.lines if line.point is not None]
        answers = {line.non_inferior.answer if line.non_inferior else "cannot tell" for line in held}
        return "no" if "no" in answers else "cannot tell" if "cannot tell" in answers else "yes"

    def __repr__(self) -> str:
        answer = "" if self.not_worse is None else f"; B not worse by {self.margin:g} points: {self.not_worse}"
        return f"RunComparison(B {self.b} with A {self.a}: {len(self.lines)} lines{answer})"

    def tables(self) -> dict[str, Table]:
        """`comparison`, a row a task and metric, and `pairings`."""
        return by_name(comparison_tables(self.to_dict()))

    def to_dict(self) -> RunComparisonJson:
        """As plain JSON."""
        return {
            "schema_version": 1,
            "a": self.a,
            "b": self.b,
            "form": self.form,
            "lines": [line.to_dict() for line in self.lines],
            "pairings": [pairing.to_dict() for pairing in self.pairings],
            "notes": list(self.notes),
            "margin": self.margin,
            "not_worse": self.not_worse,
        }


def compare_runs(a: Run, b: Run, wanted: Wanted | None = None) -> RunComparison:
    """Pair the documents of two runs and compare every metric that both have.

    Each difference is B - A over the same documents: McNemar's exact test and Newcombe's interval where documents are
    right or wrong, else randomisation and the bootstrap; p-values adjusted (Holm) over all lines. Raises InputError for
    tasks or metrics that are not there, DataError where runs cannot be paired.
    """
    wanted = wanted or Wanted()
    if a.form != b.form:
        raise InputError(f"{a.name} is of {a.form}, {b.name} of {b.form}; give two runs of one kind")
    both = sorted(set(wanted.higher) & set(wanted.lower))
    if both:
        raise InputError(f"--higher and --lower both name {both[0]}; say one")
    pairs, notes = _tasks(a, b, wanted), [*a.notes, *b.notes]
    notes += [f"only in {side}: {', '.join(names)}" for side, names in _alone(a, b, pairs).items() if names]
    pairings, tables, documents = [], {}, {}
    for name, (first, second) in pairs.items():
        places, pairing = _paired(first, second)
        pairings.append(pairing)
        documents[name] = [first.documents[place] for place, _ in places]
        if first.version != second.version:
            notes.append(f"{name}: {first.version or 'not recorded'} in A, {second.version or 'not recorded'} in B")
        tables[name] = _tables(name, (first, second), places, wanted.metrics, notes)
    if wanted.pooled:
        tables = {POOLED: pooled_tasks(tables, documents, notes)}
    measured = {name: pairs.get(name) or [task for pair in pairs.values() for task in pair] for name in tables}
    lines = [
        _line(name, m, both, measured[name], wanted) for name, found in tables.items() for m, both in found.items()
    ]
    if not lines:
        asked = f"; --metric asks for {', '.join(wanted.metrics)}" if wanted.metrics else ""
        raise InputError(f"no metric is in both runs{asked}; {'; '.join(notes) or 'see what they measured'}")
    _check_directions(lines, wanted, notes)
    judged = _judged(_adjusted(lines), wanted.margin, notes)
    return RunComparison(a.name, b.name, a.form, tuple(judged), tuple(pairings), tuple(notes), wanted.margin)


def _tasks(a: Run, b: Run, wanted: Wanted) -> dict[str, tuple[Task, Task]]:
    """Tasks of both runs. Two files whose names tell no task are compared whatever they are called."""
    if len(a.tasks) == len(b.tasks) == 1 and not (a.named and b.named):
        name, first = next(iter(a.tasks.items()))
        return {name: (first, next(iter(b.tasks.values())))}
    common = [name for name in a.tasks if name in b.tasks]
    for name in wanted.tasks:
        if not any(name in (task, task.split("/")[0], task.split(".")[0]) for task in common):
            raise InputError(f"--task {name}: not in both runs; in both are {', '.join(common) or 'none'}")
    if not common:
        raise InputError(f"no task is in both runs: A has {', '.join(a.tasks)}; B has {', '.join(b.tasks)}")
    kept = [t for t in common if not wanted.tasks or {t, t.split("/")[0], t.split(".")[0]} & set(wanted.tasks)]
    return {name: (a.tasks[name], b.tasks[name]) for name in kept}


def _alone(a: Run, b: Run, pairs: Mapping[str, Any]) -> dict[str, list[str]]:
    if not set(pairs) <= set(b.tasks):
        return {}
    return {"A": [t for t in a.tasks if t not in b.tasks], "B": [t for t in b.tasks if t not in a.tasks]}


def _paired(first: Task, second: Task) -> tuple[list[tuple[int, int]], Pairing]:
    """Places of the documents that are in both, in A's order. Raises DataError for a document that a run holds twice,
    for other right answers, and if none is in both."""
    kinds = range(len(first.documents[0].ids)) if first.documents and second.documents else range(0)
    both = (*first.documents, *second.documents)
    kind = next((k for k in kinds if all(document.ids[k] is not None for document in both)), None)
    if kind is None:
        raise DataError(f"task {first.name}: nothing identifies the documents in both runs; log them again")
    repeated = _repeated(first.documents, kind) | _repeated(second.documents, kind)
    mine, others = (_keys(task, kind, repeated) for task in (first, second))
    places = [(place, others[key]) for key, place in mine.items() if key in others]
    if not places:
        advice = "the runs are of other data, or of other parts of it (--limit)"
        raise DataError(f"task {first.name}: no document is in both runs; {advice}")
    prompts: list[bool] = []
    for one, other in ((first.documents[i], second.documents[j]) for i, j in places):
        if one.target is not None and other.target is not None and one.target != other.target:
            raise DataError(
                f"{one.place} and {other.place}: the same document has other right answers; compare runs "
                "of one version of the task"
            )
        if one.prompt is not None and other.prompt is not None:
            prompts.append(one.prompt != other.prompt)
    unanswered, n = first.unanswered + second.unanswered, len(places)
    return places, Pairing(first.name, n, len(mine) - n, len(others) - n, unanswered, sum(prompts) if prompts else None)


def _repeated(documents: Sequence[Document], kind: int) -> set[str | None]:
    """What identifies more than one document: data sets hold some questions twice."""
    return {key for key, count in Counter(document.ids[kind] for document in documents).items() if count > 1}


def _keys(task: Task, kind: int, repeated: set[str | None]) -> dict[tuple[str | None, ...], int]:
    found: dict[tuple[str | None, ...], int] = {}
    for place, document in enumerate(task.documents):
        key = (document.ids[kind], document.ids[-1]) if document.ids[kind] in repeated else (document.ids[kind],)
        if key in found:
            other = task.documents[found[key]].place
            raise DataError(f"{document.place}: the document of {other} once more; give the samples of one run")
        found[key] = place
    return found


def _tables(
    name: str, tasks: tuple[Task, Task], places: Sequence[tuple[int, int]], metrics: Sequence[str], notes: list[str]
) -> dict[str, Both]:
    """Metric -> item statistics of both runs over the same documents, of the metrics that are wanted."""
    first, second = (task.measure([pair[side] for pair in places]) for side, task in enumerate(tasks))
    default = tasks[0].defaults
    wanted = metrics or [m for m in first if default is None or m in default]
    found = {}
    for metric in wanted:
        reasons = [f"{task.name}, {metric}: {task.uncompared[metric]}" for task in tasks if metric in task.uncompared]
        if reasons:
            notes.append(f"not compared: {reasons[0]}")
        elif metric in first and metric in second:
            both = _known(f"{name}, {metric}", first[metric], second[metric], notes)
            found |= {metric: both} if both else {}
    if not metrics:
        skipped = {
            m: f"{t.name}, {m}: {reason}" for t in tasks for m, reason in t.uncompared.items() if m not in wanted
        }
        notes += [f"not compared: {reason}" for reason in skipped.values()]
        one = [m for m in {**first, **second} if (m in first) != (m in second) and (default is None or m in default)]
        one = [m for m in one if not any(m in task.uncompared for task in tasks)]
        if one:
            notes.append(f"{name}: in one run alone: {', '.join(one)}")
    return found


def _known(label: str, first: Any, second: Any, notes: list[str]) -> Both | None:
    """Both tables without the documents of which one run has no value."""
    (one, statistic), (other, _) = first, second
    if one.shape != other.shape:
        notes.append(f"not compared: {label}: its values have other forms in the two runs")
        return None
    has = ~np.isnan(one).any(1), ~np.isnan(other).any(1)
    kept = has[0] & has[1]
    dropped = int((has[0] ^ has[1]).sum())
    if dropped:
        notes.append(f"{label}: {dropped} documents with a value in one run alone were left out")
    return (one[kept], other[kept], statistic) if kept.any() else None


def _line(name: str, metric: str, both: Both, tasks: Sequence[Task], wanted: Wanted) -> Line:
    first, second, statistic = both
    share = statistic is mean_of and all(bool(np.isin(rows, (0.0, 1.0)).all()) for rows in (first, second))
    if share:
        a, b = (proportion(int(rows.sum()), len(rows)) for rows in (first, second))
        found = mcnemar(second[:, 0] > 0.5, first[:, 0] > 0.5)
    else:
        a, b = (bootstrap(rows, statistic) for rows in (first, second))
        found = paired_difference(second, first, statistic)
    higher, known = direction(metric, tasks, wanted.higher, wanted.lower)
    return Line(name, metric, a, b, found, higher, known, point_of(metric, first, second, statistic))


def _check_directions(lines: Sequence[Line], wanted: Wanted, notes: list[str]) -> None:
    """Raise InputError for a metric of --higher or --lower that is not compared, and for one that is held to a margin
    while nobody knows which way is better; note those of which it is not known."""
    compared = {line.metric for line in lines}
    for metric in (*wanted.higher, *wanted.lower):
        if metric not in compared:
            raise InputError(
                f"--higher or --lower names {metric}, which is not compared; {', '.join(sorted(compared))} are"
            )
    unknown = sorted({line.metric for line in lines if line.direction == "unknown"})
    advice = "say --higher METRIC or --lower METRIC"
    held = sorted({line.metric for line in lines if line.direction == "unknown" and line.point is not None})
    if held and wanted.margin is not None:
        raise InputError(
            f"--margin {wanted.margin:g}: it is not known whether more or less is better of {', '.join(held)}; "
            f"{advice}, or --metric for others"
        )
    if unknown:
        notes.append(f"it is not known whether more or less is better of {', '.join(unknown)}; {advice}")


def _adjusted(lines: Sequence[Line]) -> list[Line]:
    """The same with p-values adjusted over all of them."""
    p = iter(holm([line.difference.p for line in lines if line.difference]))
    return [replace(x, difference=replace(x.difference, p_holm=next(p))) if x.difference else x for x in lines]


def _judged(lines: Sequence[Line], margin: float | None, notes: list[str]) -> list[Line]:
    """The same with the margin's answers; lines without points are left out of them, which a note says."""
    if margin is None:
        return list(lines)
    without = sorted({line.metric for line in lines if line.point is None})
    kept = [line for line in lines if line.point is not None]
    if not kept:
        raise InputError(f"--margin {margin:g}: {', '.join(without)} have no points; give --metric one that is a share")
    if without:
        notes.append(f"not held to the margin, as points are not defined for them: {', '.join(without)}")
    family, found = len(kept), []
    for line in lines:
        if line.point is not None and line.difference is not None and line.higher_is_better is not None:
            size = margin * line.point
            answer = non_inferiority(line.difference, size, higher_is_better=line.higher_is_better, family=family)
            found.append(replace(line, non_inferior=answer))
        else:
            found.append(line)
    return found
