"""What no marker counts: answers that run longer than the reference's, and what length and traces take of BLEU."""

from collections.abc import Iterator, Mapping
from typing import Any

from crossmatch.answers.decisions import direction

Json = Mapping[str, Any]
# How many times as long answers are, by the lower end of the interval, before it is said. Of 72 pairs of the case study
# and the sample (three trainings; merges, single adapters, controls, random updates), those beyond chance have it at
# 1.56 to 14, the others at 1.01 and below. Padding by less than a quarter goes unsaid; the figures have it.
LONGER = 1.25
# How the rows of a fall say what it is taken from.
_AGAINST = {"difference": "reference", "difference_control": "control"}


def longer(entry: Json, found: Json | None, other: str) -> str:
    """By how much answers are longer, where it is beyond chance (Holm) and by `LONGER` at least; else nothing.

    entry: tokens of the outputs; found: their difference from `other`.
    """
    if found is None or found["value"] is None or direction(found, higher_is_better=True) <= 0:
        return ""
    theirs = entry["value"] - found["value"]
    if theirs <= 0 or (theirs + found["low"]) / theirs < LONGER:
        return ""
    mine, times = entry["value"], entry["value"] / theirs
    return f"{times:.{0 if times >= 10 else 1}f} times as long as those of {other} ({mine:.0f} and {theirs:.0f} tokens)"


def longest(suites: Mapping[str, Json], variant: str, key: str, other: str) -> str:
    """The same of the first suite where answers are longer, and which one, if there are several."""
    tables = {name: suite["metrics"].get("output_tokens", {}) for name, suite in suites.items()}
    told = {name: table[variant] for name, table in tables.items() if variant in table}
    for name, entry in told.items():
        if text := longer(entry, entry.get(key), other):
            return f"{text} in {name}" if len(told) > 1 else text
    return ""


def fall_text(suites: Mapping[str, Json], variant: str, key: str) -> str:
    """Of the largest fall in BLEU beyond chance: what length alone, and what traces cost; nothing without one."""
    rows = [(name, row) for name, row in _rows(suites, variant, key) if row["total"]]
    falls = [(name, row) for name, row in rows if direction(row["total"], higher_is_better=True) < 0]
    if not falls:
        return ""
    name, row = min(falls, key=lambda one: one[1]["total"]["value"])
    length, dilution = row["length"], row["dilution"]
    text = f"BLEU of {name} falls by {-row['total']['value']:.1f}"
    if length:
        text += f", and length alone would cost {-length['value']:.1f}" if length["high"] < 0 else ", not by length"
    if dilution and dilution["high"] < 0:
        text += f"; without the traces it would fall by {max(0.0, -row['content']['value']):.1f}"
    return text


def _rows(suites: Mapping[str, Json], variant: str, key: str) -> Iterator[tuple[str, Json]]:
    for name, suite in suites.items():
        found = suite.get("fall", {}).get(variant)
        for row in found if isinstance(found, list) else [found] if found else []:
            if row.get("against", "reference") == _AGAINST.get(key):
                yield name, row
