"""A finished run as its scored documents: what two runs are paired by, whoever wrote them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from crossmatch.evaluation.metrics.metrics import Measured

Form = Literal["lm-eval", "crossmatch"]


@dataclass(frozen=True)
class Document:
    """One document of a task.

    place: for messages; ids: what may identify it, the surest first (a digest of the document as the run recorded it, a
    digest of what was recorded of it, its number or name), None for what was not recorded; prompt, target: digests of
    what the model read and of the right answer, None if unknown.
    """

    place: str
    ids: tuple[str | None, ...]
    prompt: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class Task:
    """The scored documents of one task (of one filter, or under one condition).

    measure: item statistics of every metric for some of the documents, by their places in `documents`; a row of NaN
    where a document does not have the metric. higher_is_better: of the metrics of which the run recorded it. version:
    of the task, with its number of solved examples. unanswered: documents left out because they have no answer.
    uncompared: metric -> why it has no figure for each document. defaults: metrics that are compared if none is named
    (None: all).
    """

    name: str
    documents: tuple[Document, ...]
    measure: Callable[[Sequence[int]], Measured]
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    version: str = ""
    unanswered: int = 0
    uncompared: Mapping[str, str] = field(default_factory=dict)
    defaults: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Run:
    """A finished run: its name, who wrote it, its tasks by name, and what a reader of its figures must know.

    named: whether the tasks' names were recorded, or only follow from a file that somebody renamed.
    """

    name: str
    form: Form
    tasks: Mapping[str, Task]
    notes: tuple[str, ...] = ()
    named: bool = True
