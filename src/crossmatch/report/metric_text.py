"""Metrics for readers: which are read first, how a difference is said. No number is made."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.results.metrics import CATALOGUE, metric_of
from crossmatch.results.summary import AGAINST

Json = Mapping[str, Any]
LEVEL = 0.05
# A probability below this, for all variants, is told in a line.
_RARE = 1e-4
_ROUNDING = 1e-12


def seeds_note(metric: str, seeds: int) -> str:
    """Which seeds a metric is of, where it is not the mean over all."""
    return f"first of {seeds} seeds" if metric_of(metric).one_seed and seeds > 1 else ""


def order(present: Sequence[str]) -> list[str]:
    """All of these metrics: those of the catalogue in its order, then the others."""
    return [*(m for m in CATALOGUE if m in present), *(m for m in present if m not in CATALOGUE)]


def telling(metrics: Json, variants: Sequence[str], *, every: bool = False) -> tuple[list[str], list[str]]:
    """Which metrics of a suite are read first (every: all that it has), and a line for each of these that has nothing
    to tell: why not."""
    shown, lines = [], []
    for metric in order(list(metrics)):
        facts = metric_of(metric)
        if not (facts.first or every):
            continue
        title, form, scale = facts.title, facts.form, facts.unit.scale
        entries = [metrics[metric][variant] for variant in variants if variant in metrics[metric]]
        if metric.endswith("_raw") and metrics[metric] == metrics.get(metric.removesuffix("_raw")):
            lines.append(f"{title}: the same, no output has a trace")
        elif entries and all(entry["value"] == 0 for entry in entries):
            highest = max((entry["high"] for entry in entries if entry["high"] is not None), default=None)
            bound = "" if highest is None else f" (the intervals end at {highest * scale:{form}} at most)"
            lines.append(f"{title}: 0 for all{bound}")
        elif metric == "think_probability" and all((entry["high"] or 0) < _RARE for entry in entries):
            lines.append(f"{title}: {max(entry['high'] or 0 for entry in entries):.0e} at most, for all")
        else:
            shown.append(metric)
    return shown, lines


def names_against(summary: Json) -> dict[str, str]:
    """What differences are taken from, by key: of those that some figure of the summary has."""
    base = next((name for name, facts in summary["variants"].items() if facts["kind"] == "base"), "base")
    names = dict(zip(AGAINST, (summary["reference"], base, "its own control", "its random nulls"), strict=True))
    entries = [
        entry
        for condition in summary["conditions"].values()
        for suite in condition["suites"].values()
        for table in suite["metrics"].values()
        for entry in table.values()
    ]
    found = {key: name for key, name in names.items() if any(entry.get(key) for entry in entries)}
    if summary["reference"] == base:
        found.pop("difference_base", None)
    return found


def against_of(found: Any) -> list[tuple[str, str, Json]]:
    """(variant, `reference` or `control`, facts) of a table by variant (a row, or several), or of a list of rows."""
    pairs = [(row["variant"], row) for row in found] if isinstance(found, list) else list(found.items())
    return [
        (variant, row.get("against") or "reference", row)
        for variant, value in pairs
        for row in (value if isinstance(value, list) else [value])
    ]


def distinct(rows: Sequence[Json]) -> Iterator[Json]:
    """Rows of a divergence, but for those of raw outputs where these are the answers, since none has a trace."""
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        metric = str(row.get("surface_metric", "")).removesuffix("_raw")
        key = *(row.get(k) for k in ("variant", "against", "surface", "choices", "choices_metric")), metric
        figures = (row["value"], row["low"], row["high"])
        if found.setdefault(key, figures) != figures or metric == row.get("surface_metric", ""):
            yield row


def is_clear(difference: Json) -> bool:
    """Whether a difference is to stand out: its p, adjusted for its family, is below 0.05."""
    return difference.get("p_holm") is not None and difference["p_holm"] < LEVEL


def mde_of(difference: Json) -> float | None:
    """What the test would find; None where nothing varies, so that a difference of nothing but rounding would do."""
    mde = difference.get("mde")
    return mde if mde is not None and mde > _ROUNDING * abs(difference["value"]) else None


def p_text(difference: Json) -> str:
    """The adjusted p; one that is not adjusted says so."""
    adjusted = difference.get("p_holm")
    p = difference.get("p") if adjusted is None else adjusted
    if p is None:
        return ""
    text = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    return text if adjusted is not None else f"{text} (not adjusted)"


def test_name(entries: Json) -> str:
    """How the differences of one metric were tested, where all were in one way."""
    tests = {entry[key]["test"] for entry in entries.values() for key in AGAINST if entry.get(key)}
    return min(tests).replace("-", " ").replace("mcnemar", "McNemar") if len(tests) == 1 else ""
