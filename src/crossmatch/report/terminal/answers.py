"""The first screen of a terminal: answers, one compact table, what to do next, where the rest is. 15 lines at most."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.report.answer_sentences import WIDTH, next_step, sentences
from crossmatch.report.compact_table import compact
from crossmatch.report.text import columns, padded, plain, shortened, wrapped

Json = Mapping[str, Any]
HEIGHT = 15
# Rows of the table, and where answers would have no room.
_ROWS, _FEWEST = 5, 4
_NAME = 24


@dataclass(frozen=True)
class Rest:
    """Where everything else is: what -> its path."""

    places: Mapping[str, str]
    detail: bool = True

    def lines(self) -> list[str]:
        """page: ...  details: --detail."""
        parts = [f"{what}: {plain(path)}" for what, path in self.places.items()]
        lines = [""]
        for part in [*parts, *(["details: --detail"] if self.detail else [])]:
            fits = columns(lines[-1]) + 2 + columns(part) <= WIDTH
            lines[-1:] = [f"{lines[-1]}  {part}".strip()] if fits or not lines[-1] else [lines[-1], part]
        return (
            [short for line in lines for short in wrapped(line, WIDTH, 2)]
            if max(map(columns, lines)) > WIDTH
            else lines
        )


def show_screen(answers: Sequence[Json], table: Callable[[int], list[str]], rest: Rest) -> None:
    """Print the same."""
    print("\n".join(screen(answers, table, rest)))


def show_all(answers: Sequence[Json]) -> None:
    """Print every answer with its question, its figures and what to do, for --detail."""
    for answer in answers:
        where = f" [{plain(answer['condition'])}]" if answer["condition"] else ""
        print("\n".join(wrapped(plain(answer["question"] + where), WIDTH)))
        texts = [answer["sentence"], *([f"next: {answer['next']}"] if answer["next"] else [])]
        for text in texts:
            print("\n".join(f"  {line}" for line in wrapped(plain(text), WIDTH - 2, 2)))


def screen(answers: Sequence[Json], table: Callable[[int], list[str]], rest: Rest) -> list[str]:
    """Lines of a terminal: the answers as far as they have room, the table, the next step and the other places.

    table: makes the table with so many rows; it has fewer where answers would have no room.
    """
    end = [part for part in (next_step(answers),) if part] + rest.lines()
    told = [wrapped(text, WIDTH, 2) for text in sentences(answers)]
    wanted = sum(map(len, told))
    shown = next((t for rows in (_ROWS, _FEWEST) if len(t := table(rows)) + wanted + len(end) < HEIGHT), table(_FEWEST))
    room = HEIGHT - len(end) - len(shown) - (1 if shown else 0)
    if wanted > room:
        # The last line is kept for the number of those that have no room.
        room -= 1
    lines: list[str] = []
    for text in told:
        lines += text if len(lines) + len(text) <= room else []
    if left := sum(text[0] not in lines for text in told):
        lines.append(f"{left} more {'answer' if left == 1 else 'answers'}: --detail")
    lines += ["", *shown] if shown and lines else shown
    return [*lines, *([""] if lines and len(lines) + len(end) < HEIGHT else []), *end]


def summary_table(summary: Json, answers: Sequence[Json], rows: int) -> list[str]:
    """Variants as rows, the metrics that are read first as columns, a star for what differs beyond chance, n below."""
    found = compact(summary)
    if found is None or not found.columns:
        return []
    told = [a for a in answers if a["condition"] is not None]
    kept = found.rows(rows, [summary["reference"], *(a["about"] for a in told), *(a["against"] for a in told)])
    names = [shortened(plain(name), _NAME) for name in kept]
    width = max(columns(name) for name in names) + 2
    heads = [_head(column.title, column.suite if column.several else "") for column in found.columns]
    cells = [[column.shown(name, " ") for column in found.columns] for name in kept]
    widths = [
        max(max(map(columns, heads[i])), *(columns(row[i]) for row in cells)) + 2 for i in range(len(found.columns))
    ]
    count = next((n for n in range(len(widths), 0, -1) if width + 2 + sum(widths[:n]) <= WIDTH), 1)
    lines = []
    for level in range(2):
        line = " " * (width + 2) + "".join(
            padded(head[level], w - 1, right=True) + " " for head, w in zip(heads[:count], widths, strict=False)
        )
        if line.strip():
            lines.append(line.rstrip())
    for name, row in zip(names, cells, strict=True):
        shown = (padded(cell, w, right=True) for cell, w in zip(row, widths[:count], strict=False))
        lines.append(f"  {padded(name, width)}{''.join(shown)}".rstrip())
    n = ", ".join(str(column.n) for column in found.columns[:count])
    more = len(found.rows()) - len(kept)
    left = f"* differs from {shortened(plain(summary['reference']), _NAME)} (Holm, p < 0.05)"
    notes = [f"n = {n}", *([f"{more} row{'s' if more > 1 else ''} left out"] if more else [])]
    return [*lines, *_ends(f"  {left}", "; ".join(notes))]


def _head(title: str, suite: str) -> tuple[str, str]:
    return (shortened(plain(suite), 12), title) if suite else ("", title)


def _ends(left: str, right: str) -> list[str]:
    """Two texts at both ends of one line, or of two."""
    space = WIDTH - columns(left) - columns(right)
    return [f"{left}{' ' * space}{right}"] if space >= 2 else [left, f"  {right}"]
