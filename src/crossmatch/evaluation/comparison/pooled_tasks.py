"""The documents of several tasks as one set, each counted once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from crossmatch.errors import InputError
from crossmatch.evaluation.comparison.scored_run import Document
from crossmatch.statistics.estimates import Array, Ratio, Statistic, mean_of

Both = tuple[Array, Array, Statistic]
"""Item statistics of one metric, of two runs over the same documents, and what makes the figure of them."""

# Tasks that have this share of their documents in common are one task, read in several ways.
_ONE_TASK = 0.5


def pooled_tasks(
    tables: Mapping[str, Mapping[str, Both]], documents: Mapping[str, Sequence[Document]], notes: list[str]
) -> dict[str, Both]:
    """Metric -> the documents of all tasks as one set. Raises InputError for tasks that are one, read in several ways:
    each of their documents would count more than once."""
    found: dict[str, Both] = {}
    for metric in dict.fromkeys(m for table in tables.values() for m in table):
        names = [name for name, table in tables.items() if metric in table]
        parts = [tables[name][metric] for name in names]
        statistic = parts[0][2]
        if len(parts) > 1 and not (statistic is mean_of or isinstance(statistic, Ratio)):
            notes.append(f"not pooled: {metric}, which is no mean over documents")
        elif any(part[2] != statistic or part[0].shape[1] != parts[0][0].shape[1] for part in parts):
            notes.append(f"not pooled: {metric}, which tasks measure in different ways")
        else:
            repeated = _check_apart(metric, {name: documents[name] for name in names})
            found[metric] = *(np.concatenate([part[side] for part in parts]) for side in (0, 1)), statistic  # type: ignore[assignment]
            if repeated:
                notes.append(f"{metric}: {repeated} documents are in several of the tasks, and count in each")
            if len(parts) < len(tables):
                notes.append(f"{metric}: pooled over the {len(parts)} of {len(tables)} tasks that have it")
    return found


def _check_apart(metric: str, tasks: Mapping[str, Sequence[Document]]) -> int:
    """How many documents are in several tasks. Raises InputError for two tasks of which one is most of the other."""
    homes: dict[str, list[str]] = {}
    for name, documents in tasks.items():
        # The last identifies a document within its task alone: a number. Where there is no other, filters of one task
        # are told by the task's name.
        for key in {
            next((i for i in d.ids[:-1] if i is not None), f"{name.split('/')[0]} {d.ids[-1]}") for d in documents
        }:
            homes.setdefault(key, []).append(name)
    shared = Counter(pair for names in homes.values() for pair in combinations(names, 2))
    for (one, other), count in shared.items():
        if count >= _ONE_TASK * min(len(tasks[one]), len(tasks[other])):
            same = [
                n
                for n in tasks
                if n in (one, other) or shared[one, n] >= _ONE_TASK * min(len(tasks[one]), len(tasks[n]))
            ]
            raise InputError(
                f"--pooled: {' and '.join(same)} hold the same documents, {count} of them, which would count "
                f"{len(same)} times for {metric}; choose one filter or condition of each task, as in --task {one}"
            )
    return sum(len(names) > 1 for names in homes.values())
