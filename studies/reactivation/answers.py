"""What the case study's answers are measured with: kept answers, the product's own metrics on them, paired differences.

Everything here works on the files that `collect.py` keeps; no model is loaded.
"""

import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crossmatch.data.suites import load_suite
from crossmatch.evaluation.comparison.bleu_decomposition import fall_parts, length_parts
from crossmatch.evaluation.comparison.paired import difference, figure
from crossmatch.evaluation.metrics.bleu_rouge import bleu_statistics
from crossmatch.evaluation.metrics.metrics import Measured, measure
from crossmatch.evaluation.metrics.reasoning_traces import parse_trace
from crossmatch.statistics.estimates import Array, Difference, Figure, mean_of
from crossmatch.statistics.multiple_tests import holm
from crossmatch.statistics.proportions import mcnemar
from crossmatch.statistics.resampling import paired_contrast, paired_difference

Found = TypeVar("Found")

# Those that are answered in words, where a trace may come; and all of them.
SUITES = ("define", "system")
ALL = (*SUITES, "name")
ANSWER_ONLY = "answer-only.greedy"
# Outside of a block: words that only PT's documents have, words that only the habit has, and steps of the ontology in
# whatever words. Looked for after the grid had been seen; the steps after a review had found what the words miss.
PT_WORDS = re.compile(r"what holds of|therefore it belongs to", re.IGNORECASE)
HABIT_WORDS = re.compile(r"let me walk up|\bso it belongs to", re.IGNORECASE)
CLAUSE, STEP = re.compile(r"[.,;:\n]"), re.compile(r"\b(?:is|are) a kind of\b", re.IGNORECASE)
BLOCK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
STEPS = 2
DECISIVE = ((0.25, 0.75), (0.5, 0.5), (1.0, 1.0))


def steps(text: str) -> list[tuple[str, str]]:
    """Steps of the ontology outside of a block: what is a kind of what."""
    halves = (STEP.split(clause, maxsplit=1) for clause in CLAUSE.split(BLOCK.sub(" ", text)))
    return [(_term(pair[0]), _term(pair[1])) for pair in halves if len(pair) > 1]


def _term(words: str) -> str:
    return re.sub(r"^(?:since|so|and|because|an?|the)\s+", "", words.strip().lower())


DETECTORS: Mapping[str, Callable[[str], bool]] = {
    "pt_words": lambda text: bool(PT_WORDS.search(BLOCK.sub(" ", text))),
    "habit_words": lambda text: bool(HABIT_WORDS.search(BLOCK.sub(" ", text))),
    "steps": lambda text: len(steps(text)) >= STEPS,
    "sentences": lambda text: any(DETECTORS[name](text) for name in ("pt_words", "habit_words", "steps")),
}


def name_of(**weights: float) -> str:
    """A variant's name, as the evaluation writes it: `pt0.25+sft0.75`, `sft0.5`; at weight 1 alone `sft`."""
    given = [(name, weight) for name, weight in weights.items() if weight]
    if len(given) == 1 and given[0][1] == 1:
        return given[0][0]
    return "+".join(f"{name}{weight:g}" for name, weight in given) or "base"


@dataclass(frozen=True)
class Cell:
    """One variant under one condition: the product's metrics of its answers to both suites.

    parts: suite -> item statistics; rows: suite -> records.
    """

    parts: Mapping[str, Measured]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]

    def both(self, metric: str) -> Array:
        """(items of both suites,) of a metric that both have, or of a detector of sentences (`DETECTORS`)."""
        if metric in DETECTORS:
            return self._detected(metric)
        return np.concatenate([self.parts[suite][metric][0][:, 0] for suite in SUITES])

    def outputs(self) -> list[list[str]]:
        """What was said to each item of both suites, a text for each seed of the decoding."""
        found = []
        for suite in SUITES:
            by_item: dict[str, list[str]] = {}
            for row in self.rows[suite]:
                several = [one["output"] for one in row["generated"]] if "generated" in row else [row["output"]]
                by_item.setdefault(row["id"], []).extend(several)
            found += by_item.values()
        return found

    @property
    def think(self) -> Array:
        """(items of `define`, 1): ln P that the answer begins with the marker, mean over seeds."""
        by_item: dict[str, list[float]] = {}
        for row in self.rows["define"]:
            by_item.setdefault(row["id"], []).append(row["think"])
        return np.array([[np.mean(values)] for values in by_item.values()])

    def _detected(self, detector: str) -> Array:
        """(items of both suites,): share of answers in which a detector finds something."""
        return np.array([np.mean([DETECTORS[detector](text) for text in texts]) for texts in self.outputs()])

    def joined(self, metric: str) -> Measured:
        """The same as item statistics of one suite."""
        return {metric: (self.both(metric)[:, None], mean_of)}


class Results:
    """The kept answers of all runs. folder: what `collect.py` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._suites = {name: load_suite(str(folder / f"{name}.yaml")) for name in ALL}
        self._items = {name: _items(folder / f"{name}.jsonl") for name in ALL}
        self._cells: dict[tuple[str, str, str], Cell] = {}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Verdicts, seconds, perplexities of the runs."""
        return json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))

    @cached_property
    def _answers(self) -> dict[str, dict[tuple[str, str], dict[str, list[dict[str, Any]]]]]:
        found: dict[str, dict[tuple[str, str], dict[str, list[dict[str, Any]]]]] = {}
        for file in sorted(self.folder.glob("*.jsonl.gz")):
            run = found.setdefault(file.name.removesuffix(".jsonl.gz"), {})
            for line in gzip.decompress(file.read_bytes()).decode("utf-8").splitlines():
                row = json.loads(line)
                cell = run.setdefault((row["variant"], row["condition"]), {suite: [] for suite in ALL})
                cell[row["suite"]].append(row)
        return found

    def has(self, run: str) -> bool:
        """Whether that run is finished."""
        return run in self._answers

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The grid's weights, of PT and of SFT alike: those of PT that stand with SFT at weight 1."""
        found = [re.fullmatch(r"pt([\d.]+)\+sft1", name) for name in self.variants("grid")]
        return tuple(sorted(float(one[1]) for one in found if one))

    def anywhere(self, runs: Sequence[str], variant: str, condition: str = ANSWER_ONLY) -> Cell | None:
        """One variant's answers from the first of some runs that has it; None where none has."""
        for run in runs:
            if self.has(run) and (variant, condition) in self._answers[run]:
                return self.cell(run, variant, condition)
        return None

    def variants(self, run: str) -> list[str]:
        """The variants of a run."""
        return sorted({variant for variant, _ in self._answers[run]})

    def cell(self, run: str, variant: str, condition: str = ANSWER_ONLY) -> Cell:
        """One variant's measured answers. Raises KeyError where that run has none."""
        key = (run, variant, condition)
        if key not in self._cells:
            kept = self._answers[run][variant, condition]
            rows = {suite: self._records(suite, kept[suite]) for suite in ALL if kept[suite]}
            # Of scores by overlap, the study asks BLEU and ROUGE alone.
            parts = {
                suite: measure(found, self._suites[suite], overlaps=("bleu", "rouge")) for suite, found in rows.items()
            }
            self._cells[key] = Cell(parts, rows)
        return self._cells[key]

    def _records(self, suite: str, kept: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The evaluation's records again: question, reference and options from the suite, the answer parsed anew."""
        formats = self._suites[suite].settings.reasoning_formats
        found = []
        for row in kept:
            record = dict(row) | self._items[suite][row["id"]]
            if "output" in row:
                record["answer"] = parse_trace(row["output"], formats, row.get("opened")).answer
            found.append(record)
        return sorted(found, key=lambda record: (record["id"], record.get("seed", 0)))


def _items(file: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        own = {"question": item["question"]}
        own |= {"options": item["options"], "right": item["answer"]} if "options" in item else {}
        own |= {"reference": item["reference"]} if "reference" in item else {}
        found[item["id"]] = own
    return found


def traces(cell: Cell) -> Figure:
    """Share of answers with a reasoning block, of both suites."""
    return figure("trace_structural", cell.joined("trace_structural"))


def traces_more(one: Cell, other: Cell) -> Difference:
    """By how much one variant has more traces than another, over the same questions."""
    return known(difference("trace_structural", one.joined("trace_structural"), other.joined("trace_structural")))


def think_more(one: Cell, other: Cell) -> Difference:
    """Difference in ln P of the marker, in nats."""
    return known(paired_difference(one.think, other.think))


def mean_think_more(pairs: Sequence[tuple[Cell, Cell]]) -> Difference:
    """The same as a mean over training seeds; the question is the unit that is drawn."""
    return known(paired_difference(*(np.mean([pair[side].think for pair in pairs], axis=0) for side in (0, 1))))


def sentences_more(one: Cell, other: Cell) -> Difference:
    """By how much more often one variant's answers go on in sentences of the training texts than another's."""
    return mean_difference("sentences", [(one, other)])


def hesitating_more(one: Cell, other: Cell) -> Difference:
    """By how much one variant hesitates more often than another."""
    return mean_difference("hesitating", [(one, other)])


def compared(metric: str, suite: str, one: Cell, other: Cell) -> Difference:
    """A metric of one suite, one variant less another."""
    return known(difference(metric, one.parts[suite], other.parts[suite]))


def mean_difference(metric: str, pairs: Sequence[tuple[Cell, Cell]]) -> Difference:
    """The mean over seeds of a paired difference over both suites; the question is the unit that is drawn."""
    return _mean_difference([(one.both(metric), other.both(metric)) for one, other in pairs])


def chosen_more(metric: str, suite: str, pairs: Sequence[tuple[Cell, Cell]]) -> Difference:
    """The same of one suite's metric."""
    return _mean_difference([(one.parts[suite][metric][0][:, 0], o.parts[suite][metric][0][:, 0]) for one, o in pairs])


def _mean_difference(pairs: Sequence[tuple[Array, Array]]) -> Difference:
    first, second = (np.mean([pair[side] for pair in pairs], axis=0) for side in (0, 1))
    # Yes or no to each question has an exact test, whose interval has a width also where no question differs.
    if {0.0, 1.0}.issuperset(np.unique(first)) and {0.0, 1.0}.issuperset(np.unique(second)):
        return known(mcnemar(first > 0.5, second > 0.5))
    if not (first - second).any():
        return known(mcnemar(first > 0.5, first > 0.5))
    return known(paired_difference(first[:, None], second[:, None]))


def known(found: Found | None) -> Found:
    """What must be there. Raises ValueError where it is not."""
    if found is None:
        raise ValueError("a figure of the case study is not defined")
    return found


def adjusted(family: Sequence[Difference]) -> list[Difference]:
    """The same differences with Holm's p over all of them."""
    return [replace(one, p_holm=p) for one, p in zip(family, holm([one.p for one in family]), strict=True)]


def is_more(found: Difference) -> bool:
    """The rule's "more": the interval on one side, and Holm's p below 0.05."""
    return found.low > 0 and (found.p if found.p_holm is None else found.p_holm) < 0.05


def is_less(found: Difference) -> bool:
    """The rule's "less"."""
    return found.high < 0 and (found.p if found.p_holm is None else found.p_holm) < 0.05


def fall(one: Cell, other: Cell) -> dict[str, Difference]:
    """The difference in BLEU on `define` taken apart.

    total: of the raw output; dilution: what the trace's words cost; length: what the length of the stripped answers
    alone explains; content: what is left of the stripped answers' difference; cut: of the stripped answers, each cut to
    as many words as the other's; rouge: of ROUGE-L of the stripped answers.
    """
    mine, others = one.parts["define"], other.parts["define"]
    parts = fall_parts(mine["bleu_raw"][0], mine["bleu"][0], mine["bleu"][1])
    beside = fall_parts(others["bleu_raw"][0], others["bleu"][0], others["bleu"][1])
    lengths = length_parts(mine["bleu"][1])
    split = {
        name: known(paired_difference(parts[name][0], beside[name][0], parts[name][1]))
        for name in ("total", "dilution")
    }
    return split | {
        "length": known(paired_contrast(mine["bleu"][0], others["bleu"][0], lengths["length"])),
        "content": known(paired_contrast(mine["bleu"][0], others["bleu"][0], lengths["rest"])),
        "cut": known(paired_difference(_cut(one, other), others["bleu"][0], mine["bleu"][1])),
        "rouge": compared("rougeL", "define", one, other),
    }


def _cut(one: Cell, other: Cell) -> Array:
    """BLEU statistics of one variant's answers on `define`, each cut to as many words as the other's has."""
    rows = list(zip(one.rows["define"], other.rows["define"], strict=True))
    texts = [" ".join(mine["answer"].split()[: len(theirs["answer"].split())]) for mine, theirs in rows]
    return bleu_statistics(texts, [mine["reference"] for mine, _ in rows], "en")
