"""The summary of an evaluation as tables: what is read first, every figure, every difference, flips, falls."""

from collections.abc import Iterator
from typing import Any

from crossmatch.export.table import Column, Json, Table, columns, data_table, estimate, some, table
from crossmatch.report.metric_text import against_of, names_against, order, telling
from crossmatch.results.metrics import metric_of
from crossmatch.results.summary import AGAINST

_TESTED = (*estimate("value", p="p_holm"), "n", "p", "p_holm", "test", "mde", "gained", "lost")
_FIGURES = columns("condition", "suite", "items", "metric", "variant", *estimate("value"), "n")
_DIFFERENCES = columns("condition", "suite", "items", "metric", "variant", "against", "other", *_TESTED)
_FALLS = columns("condition", "suite", "variant", "against", "other", "part", *_TESTED)
_FLIPS = columns(
    *("condition", "suite", "answers", "variant", "against", "other"),
    *("kept", "gained", "lost", "wrong_alike", "wrong_otherwise"),
)
_TOLD = "Numbers are in the units of summary.json: shares from 0 to 1, scores as they are."
_DIFFER = (
    "value: variant minus other; n: paired items; p_holm: adjusted over the variants and suites of a metric; mde: the "
    f"smallest difference detectable with 80% power. {_TOLD}"
)

_GAINED = "gained: wrong with other, right with variant."


def evaluation_tables(summary: Json) -> list[Table]:
    """Every table of a summary. The first ones are those that a paper shows: a suite each, in percent and points."""
    found = [_overview(c, s, summary) for c, facts in summary["conditions"].items() for s in facts["suites"]]
    conditions = summary["conditions"].items()
    return some(
        *found,
        table("figures", "Every figure with its 95% interval", _figures(summary), _FIGURES, _TOLD),
        table("differences", "Every paired difference, tested", _differences(summary), _DIFFERENCES, _DIFFER),
        table("flips", "Answers that changed", _flips(summary), _FLIPS, _GAINED),
        table("falls", "Differences in BLEU of the whole output, taken apart", _falls(summary), _FALLS, _DIFFER),
        table("divergence", "Divergence of surface and choices", _divergence(summary), _DIVERGENCE, _TOLD),
        table("strengths", "Figures over the strength of a vector", _strengths(summary), _STRENGTHS, _TOLD),
        data_table("critical", "What removing a vector, and its nulls, costs", _critical(summary)),
        table("combination", "Sums of vectors across domains", _combination(summary), _COMBINATION, _TOLD),
        table("variants", "What was measured", _variants(summary), columns("variant", "kind", "weights", "note")),
        table("suites", "On what it was measured", _suites(conditions), _SUITES),
    )


_DIVERGENCE = columns(
    *("condition", "surface", "choices", "variant", "against", "other", "surface_metric", "choices_metric"),
    *(*estimate("value"), "n"),
)
_COMBINATION = columns("condition", "domain", "suite", "metric", "variant", "other", *_TESTED)
_STRENGTHS = columns("condition", "vector", "suite", "metric", "strength", "variant", *estimate("value"), "n")
_SUITES = columns("condition", "suite", "kind", "language", "n", "asked", "left_out", "digest", "signatures")


def _overview(condition: str, suite: str, summary: Json) -> Table | None:
    """A row a variant, a column for each metric that is read first, with interval and mark, scaled as the page has it.

    The p-values are those against the reference.
    """
    facts, variants = summary["conditions"][condition]["suites"][suite], list(summary["variants"])
    shown, lines = telling(facts["metrics"], variants)
    heads: list[str | Column] = ["variant", "n"]
    rows: list[dict[str, Any]] = [{"variant": v, "n": facts["n"]} for v in variants]
    for metric in shown:
        known = metric_of(metric)
        title, form, scale = known.title, known.form, known.unit.scale
        name, unit = (title.removesuffix(" %"), "%") if title.endswith(" %") else (title, "")
        heads += [*estimate(name, unit, form, p=f"{name}_p"), Column(f"{name}_p")]
        for row, entry in zip(rows, (facts["metrics"][metric].get(v, {}) for v in variants), strict=True):
            ends = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
            row |= {key: None if entry.get(end) is None else entry[end] * scale for key, end in ends.items()}
            row[f"{name}_p"] = (entry.get("difference") or {}).get("p_holm")
    under = f" under {condition}" if len(summary["conditions"]) > 1 else ""
    note = f"Marks: against {summary['reference']}." + "".join(f" {line}." for line in lines)
    name = f"{suite}.{condition}" if under else suite
    return table(f"overview.{name}", f"{suite}{under}, n = {facts['n']}", rows, columns(*heads), note)


def _cells(summary: Json) -> Iterator[tuple[dict[str, Any], Json]]:
    """Where a suite's facts stand, and they: all items, then the clean ones."""
    for condition, facts in summary["conditions"].items():
        for suite, found in facts["suites"].items():
            head = {"condition": condition, "suite": suite}
            yield {**head, "items": "all"}, found
            if found.get("clean"):
                yield {**head, "items": "clean"}, found["clean"]


def _figures(summary: Json) -> Iterator[Json]:
    for head, suite in _cells(summary):
        for metric in order(list(suite["metrics"])):
            for variant, entry in suite["metrics"][metric].items():
                yield {**head, "metric": metric, "variant": variant, **entry}


def _differences(summary: Json) -> Iterator[Json]:
    others = names_against(summary)
    words: dict[str, str] = dict(zip(AGAINST, ("reference", "base", "control", "nulls"), strict=True))
    for head, suite in _cells(summary):
        for metric in order(list(suite["metrics"])):
            for variant, entry in suite["metrics"][metric].items():
                for key, other in others.items():
                    if entry.get(key):
                        where = {"metric": metric, "variant": variant, "against": words[key], "other": other}
                        yield {**head, **where, **entry[key]}


def _flips(summary: Json) -> Iterator[Json]:
    for head, suite in _cells(summary):
        for key, answers in (("flips", "scored"), ("flips_generated", "generated")):
            for variant, against, row in against_of(suite.get(key) or {}):
                if head["items"] == "all":
                    other = row.get("other") or summary["reference"]
                    yield {**head, "answers": answers, "variant": variant, **row, "against": against, "other": other}


def _falls(summary: Json) -> Iterator[Json]:
    for head, suite in _cells(summary):
        for variant, against, row in against_of(suite.get("fall") or {}):
            other = row.get("other") or summary["reference"]
            for part, test in row.items():
                if isinstance(test, dict) and head["items"] == "all":
                    yield {**head, "variant": variant, "against": against, "other": other, "part": part, **test}


def _divergence(summary: Json) -> Iterator[Json]:
    for condition, facts in summary["conditions"].items():
        for row in facts.get("divergence") or ():
            yield {"condition": condition, **row}


def _strengths(summary: Json) -> Iterator[Json]:
    for condition, facts in summary["conditions"].items():
        for vector, suites in (facts.get("strengths") or {}).items():
            for suite, metrics in suites.items():
                for metric, points in metrics.items():
                    head = {"condition": condition, "vector": vector, "suite": suite, "metric": metric}
                    yield from ({**head, **point} for point in points)


def _critical(summary: Json) -> Iterator[Json]:
    for condition, facts in summary["conditions"].items():
        for vector, suites in (facts.get("critical") or {}).items():
            for suite, metrics in suites.items():
                for metric, found in metrics.items():
                    yield {"condition": condition, "vector": vector, "suite": suite, "metric": metric, **found}


def _combination(summary: Json) -> Iterator[Json]:
    """Figures, then what the sums differ by from the best single vector and from the joint one."""
    for condition, facts in summary["conditions"].items():
        found = facts.get("combination")
        for row in [*found["suites"], {"domain": "mean", **found["mean"]}] if found else ():
            head = {"condition": condition, **{key: row.get(key) for key in ("domain", "suite", "metric")}}
            for variant, entry in (row.get("figures") or {}).items():
                yield {**head, "variant": variant, "other": None, **entry}
            for key in ("against_single", "against_joint"):
                compared = row.get(key) or {"differences": {}}
                for variant, entry in compared["differences"].items():
                    yield {**head, "variant": variant, "other": compared["other"], **(entry or {})}


def _variants(summary: Json) -> Iterator[Json]:
    for name, facts in summary["variants"].items():
        weights = " + ".join(f"{weight} {vector}" for vector, weight in facts["weights"].items())
        yield {"variant": name, "kind": facts["kind"], "weights": weights or None, "note": facts.get("note")}


def _suites(conditions: Any) -> Iterator[Json]:
    for condition, facts in conditions:
        for name, suite in facts["suites"].items():
            signatures = "; ".join(f"{metric} {text}" for metric, text in suite.get("signatures", {}).items())
            yield {"condition": condition, "suite": name, **suite, "signatures": signatures or None}
