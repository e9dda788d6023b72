"""The table that is read first: variants as rows, few metrics as columns. Terminal, page and model cards share it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.report.metric_text import is_clear
from crossmatch.results.metrics import metric_of

Json = Mapping[str, Any]
# Metrics that a suite of a kind is read by first, in this order; of alternatives in one tuple the first that it has.
_READ: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "generation": (("number", "exact", "bleu"), ("rougeL",)),
    "instructions": (("followed_strict",), ("instructions_strict",)),
    "choice": (("acc", "acc_generated"),),
    "text": (("perplexity", "bits_per_byte"),),
}
_LAST = "trace_structural"
_APART = ("strength", "removal", "null")
_RANKS = {"base": 0, "merge": 2, "checkpoint": 2, "served": 2, "control": 3}


@dataclass(frozen=True)
class Column:
    """One metric of one suite. several: other columns have its title, so that it needs its suite's name; n: items;
    entries: by variant, as the summary has them."""

    suite: str
    metric: str
    title: str
    several: bool
    n: int
    entries: Mapping[str, Json]

    def shown(self, variant: str, blank: str = "") -> str:
        """A variant's value, with * if it differs from the reference beyond chance, else with `blank` in its place."""
        entry = self.entries.get(variant)
        if entry is None or entry["value"] is None:
            return f"–{blank}"
        known, difference = metric_of(self.metric), entry.get("difference")
        mark = "*" if difference and is_clear(difference) else blank
        return f"{entry['value'] * known.unit.scale:{known.form}}{mark}"


@dataclass(frozen=True)
class CompactTable:
    """Columns, and variants with their kinds in the summary's order; condition: under which they were asked."""

    condition: str
    reference: str
    columns: tuple[Column, ...]
    kinds: Mapping[str, str]

    def rows(self, most: int | None = None, first: Sequence[str] = ()) -> list[str]:
        """Variants in the order base, reference, others, merges, controls; of more than `most` those of `first` and the
        base are kept before others."""
        names = [name for name, kind in self.kinds.items() if kind not in _APART]
        wanted = dict.fromkeys([*first, *(n for n in names if self.kinds[n] == "base"), *names])
        kept = set([name for name in wanted if name in names][:most])
        return sorted((name for name in names if name in kept), key=self._rank)

    def _rank(self, name: str) -> float:
        return 0.5 if name == self.reference else _RANKS.get(self.kinds[name], 1)


def compact(summary: Json) -> CompactTable | None:
    """The table of the first condition; None without one."""
    if not summary["conditions"]:
        return None
    condition, facts = next(iter(summary["conditions"].items()))
    chosen = [
        (suite, metric, found)
        for suite, found in facts["suites"].items()
        for group in _READ.get(found["kind"], ())
        if (metric := next((m for m in group if m in found["metrics"]), None)) is not None
    ]
    chosen += [(s, _LAST, found) for s, found in facts["suites"].items() if _LAST in found["metrics"]]
    titles = [metric_of(metric).title for _, metric, _ in chosen]
    columns = tuple(
        Column(
            suite=suite,
            metric=metric,
            title=title,
            several=titles.count(title) > 1,
            n=max((entry["n"] for entry in found["metrics"][metric].values()), default=0),
            entries=found["metrics"][metric],
        )
        for (suite, metric, found), title in zip(chosen, titles, strict=True)
    )
    kinds = {name: variant["kind"] for name, variant in summary["variants"].items()}
    return CompactTable(condition, summary["reference"], columns, kinds)
