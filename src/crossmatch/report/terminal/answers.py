"""The first screen of a terminal: answers, one compact table, what to do next, where the rest is. 15 lines at most."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.report.compact_table import compact
from crossmatch.report.metric_text import is_clear
from crossmatch.report.text import columns, padded, plain, shortened, wrapped
from crossmatch.results.metrics import metric_of

Json = Mapping[str, Any]
WIDTH, HEIGHT = 80, 15
# Rows of the table, and where answers would have no room.
_ROWS, _FEWEST = 5, 4
_NAME = 24
# Of more variants than this it is told how many have an answer.
_FEW = 2


@dataclass(frozen=True)
class Rest:
    """Where everything else is: what -> its path."""

    places: Mapping[str, str]
    detail: bool = True

    def lines(self) -> list[str]:
        """page: ...  details: --detail."""
        parts = [f"{what}: {plain(path)}" for what, path in self.places.items()]
        line = "  ".join([*parts, *(["details: --detail"] if self.detail else [])])
        return [line] if columns(line) <= WIDTH else wrapped(line, WIDTH, 2)


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
    end = [part for part in (_next(answers),) if part] + rest.lines()
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


def sentences(answers: Sequence[Json]) -> Iterator[str]:
    """The answers as few sentences: is it what it claims to be, how it compares, what cannot be told, is the test
    clean, then all others."""
    yield from _claims([a for a in answers if a["id"] == "is-as-claimed"])
    compared = [a for a in answers if a["against"] is not None and a["condition"] is not None]
    conditions = list(dict.fromkeys(a["condition"] for a in compared))
    first = [a for a in compared if a["condition"] == conditions[0]] if conditions else []
    several = len({a["about"] for a in first}) > _FEW
    blocks = [[a for a in first if a["against"] == other] for other in dict.fromkeys(a["against"] for a in first)]
    told = [list(_counted(block) if several else _against(block)) for block in blocks]
    clean = [a["sentence"] for a in answers if a["id"] == "test-set-clean"]
    yield from (told[0] if told else [])
    yield from clean
    if len(conditions) > 1:
        yield _otherwise(compared, conditions)
    for more in told[1:]:
        yield from more
    apart = ("is-as-claimed", "test-set-clean")
    yield from (a["short"] for a in answers if a["condition"] is None and a["id"] not in apart)


def _against(block: Sequence[Json]) -> Iterator[str]:
    """Of each variant what is decided, then what is not."""
    variants, other = list(dict.fromkeys(a["about"] for a in block)), plain(block[0]["against"])
    for variant in variants:
        it = "it" if len(variants) == 1 else plain(variant)
        decided = [a["short"] for a in block if a["about"] == variant and a["outcome"] != "cannot tell"]
        open_ = [a["short"] for a in block if a["about"] == variant and a["outcome"] == "cannot tell"]
        if decided:
            yield f"Against {other} {it} {_list(decided)}."
        if open_:
            yield f"Too few items (asked of needed) to tell whether, against {other}, {it} {_list(open_)}."


def _counted(block: Sequence[Json]) -> Iterator[str]:
    """Of many variants how many have each answer, and which, if they are few."""
    count, groups = len({a["about"] for a in block}), {}
    for answer in block:
        verb = answer["short"].partition(" (")[0]
        groups.setdefault((answer["outcome"] == "cannot tell", verb), []).append(plain(answer["about"]))
    other = plain(block[0]["against"])
    for undecided, head in ((False, f"Against {other}"), (True, f"Too few items to tell against {other}")):
        parts = [
            f"{verb} {len(names)} of {count}{f' ({_list(names)})' if len(names) <= _FEW < count else ''}"
            for (open_, verb), names in groups.items()
            if open_ is undecided
        ]
        if parts:
            yield f"{head}: {', '.join(parts)}."


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _claims(answers: Sequence[Json]) -> Iterator[str]:
    """One sentence each of what is not so; of several that are, one for all."""
    fine = [a for a in answers if a["outcome"] == "yes"]
    yield from (a["sentence"] for a in answers if a["outcome"] != "yes")
    if len(fine) > _FEW:
        yield (
            f"All {len(fine)} merges are what they claim to be."
            if len(fine) == len(answers)
            else (f"{len(fine)} of {len(answers)} merges are what they claim to be.")
        )
    elif len(fine) > 1:
        yield f"{_list([plain(a['about']) for a in fine])} are what they claim to be."
    else:
        yield from (a["sentence"] for a in fine)


def _otherwise(answers: Sequence[Json], conditions: Sequence[str]) -> str:
    """Under how many other conditions an answer is another one."""
    by: dict[str, dict[tuple[str, str, str], str]] = {name: {} for name in conditions}
    for a in answers:
        by[a["condition"]][a["id"], a["about"], a["against"]] = a["outcome"]
    first, others = by[conditions[0]], conditions[1:]
    differ = [c for c in others if any(first.get(key, outcome) != outcome for key, outcome in by[c].items())]
    text = f"This is under {plain(conditions[0])}"
    if not differ:
        return f"{text}; under {len(others)} other condition{'s' if len(others) > 1 else ''} the answers are the same."
    return f"{text}; answers differ under {', '.join(map(plain, differ))}."


def _next(answers: Sequence[Json]) -> str | None:
    """What to do about what is not as it should be; else what would decide. One line."""
    wrong = [a["next"] for a in answers if a["next"] and a["outcome"] not in (a["good"], "cannot tell")]
    open_ = [a["next"] for a in answers if a["next"] and a["outcome"] == "cannot tell"]
    fine = [a["next"] for a in answers if a["next"] and a["outcome"] == a["good"]]
    steps = list(dict.fromkeys(wrong or _largest(open_, answers) or fine))
    if not steps:
        return None
    line = f"next: {steps[0]}"
    for step in steps[1:]:
        if columns(line) + 2 + columns(step) <= WIDTH:
            line += f"; {step}"
    return line if columns(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _largest(steps: Sequence[str], answers: Sequence[Json]) -> list[str]:
    """Of several numbers of items of one suite the largest."""
    by_suite: dict[str, tuple[int, str]] = {}
    for answer in answers:
        if answer["next"] in steps and answer["outcome"] == "cannot tell":
            suite = answer["next"].rsplit(" ", 1)[-1]
            needed = answer["needed"] or 0
            if needed >= by_suite.get(suite, (0, ""))[0]:
                by_suite[suite] = needed, answer["next"]
    return [step for _, step in by_suite.values()]


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
    cells = [[_cell(column, name) for column in found.columns] for name in kept]
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


def _cell(column: Any, variant: str) -> str:
    entry = column.entries.get(variant)
    if entry is None or entry["value"] is None:
        return "– "
    known = metric_of(column.metric)
    form, scale = known.form, known.unit.scale
    difference = entry.get("difference")
    return f"{entry['value'] * scale:{form}}{'*' if difference and is_clear(difference) else ' '}"


def _ends(left: str, right: str) -> list[str]:
    """Two texts at both ends of one line, or of two."""
    space = WIDTH - columns(left) - columns(right)
    return [f"{left}{' ' * space}{right}"] if space >= 2 else [left, f"  {right}"]
