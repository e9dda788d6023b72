"""The table of an audit that is read first."""

from collections.abc import Mapping
from typing import Any

from crossmatch.report.text import columns, padded, plain, shortened

_LEVELS = {"exact": "exact", "normalised": "normalised", "ngram": "n-grams", "near": "near"}
_NAME = 28


def audit_table(facts: Mapping[str, Any], rows: int) -> list[str]:
    """Pairs of sets as rows, held-out ones first and those with most in common before others; levels as columns."""
    pairs = sorted(facts["pairs"], key=lambda pair: (not pair["held_out"], -pair["found"]))
    if not pairs:
        return []
    heads = ("found", "of", *_LEVELS.values())
    lines = []
    names = [shortened(plain(f"{pair['against']} in {pair['train']}"), _NAME) for pair in pairs[:rows]]
    width = max(map(columns, names)) + 1
    for name, pair in zip(names, pairs, strict=False):
        whole = {one["level"]: one for one in pair["overlaps"] if one["scope"] == "whole"}
        counts = [whole[level]["found"] if level in whole else 0 for level in _LEVELS]
        cells = [pair["found"], pair["documents"], *counts]
        shown = (padded(f"{c:,}", max(len(h), 6) + 2, right=True) for c, h in zip(cells, heads, strict=True))
        lines.append(f"  {padded(name, width)}{''.join(shown)}")
    head = "".join(padded(h, max(len(h), 6) + 2, right=True) for h in heads)
    left = f"; {len(pairs) - rows} rows left out" if len(pairs) > rows else ""
    note = f"  found: by any level, in question or answer alone, too; levels: whole items{left}"
    return [f"  {' ' * width}{head}", *lines, note]
