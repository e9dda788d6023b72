"""Two runs side by side at 80 columns: the answer first, then one table, then how documents were paired."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.report.text import printable
from crossmatch.results.answers import ComparisonAnswerJson

_WIDTH, _HEIGHT = 80, 15
# Rows of the table, and lines that one note may take.
_ROWS, _NOTE = 6, 2
_LEVEL = 0.05
_LABEL = 26

Json = Mapping[str, Any]


def comparison_answer(facts: Json) -> ComparisonAnswerJson:
    """The answer in words and as an outcome: with a margin whether B is not worse, else whether a difference is shown
    (no: none is; cannot tell: nothing was compared)."""
    lines = sorted(_without_common_end(facts)[1], key=_rank)
    tested = [line for line in lines if line["difference"]]
    clear = any(line["difference"]["p_holm"] < _LEVEL for line in tested)
    outcome = facts["not_worse"] or ("yes" if clear else "no" if tested else "cannot tell")
    held = facts["margin"] is not None
    asked = f"Is B not worse than A by {facts['margin']:g} points?" if held else "Do A and B differ?"
    needed = [line["non_inferior"]["items_if_equal"] for line in lines if line["non_inferior"]]
    return {
        "id": "not-worse" if held else "differs",
        "question": asked,
        "about": facts["b"],
        "against": facts["a"],
        "outcome": outcome,
        "sentence": _answer(facts, lines),
        "margin": facts["margin"],
        "needed": max((n for n in needed if n), default=None) if outcome == "cannot tell" else None,
    }


def comparison_lines(facts: Json, *, detail: bool = False) -> list[str]:
    """At most 15 lines of at most 80 columns; with detail every comparison with all its figures, and every note."""
    common, lines = _without_common_end(facts)
    lines = sorted(lines, key=_rank)
    answer = _fitted(_answer(facts, lines), 3)
    told = lines if detail else lines[:_ROWS]
    rows = [row for line in told for row in [_row(line), *(_figures(line) if detail else [])]]
    head = f"{'':{_LABEL}} {'n':>6} {'A':>6} {'B':>6} {'B - A (95% interval)':>22} {'p':>6}"
    shown = [*answer, f"{head} {'ok' if facts['margin'] is not None else ''}".rstrip(), *rows]
    notes = [_pairing(facts["pairings"], common), *facts["notes"]]
    if len(lines) > len(told):
        notes.insert(1, f"{len(lines) - len(told)} more comparisons: --detail")
    if detail:
        pairs = [_pairing([one], "") + f" ({one['task']})" for one in facts["pairings"] if len(facts["pairings"]) > 1]
        return [*shown, *(line for note in [*notes, *pairs] for line in _fitted(note, len(note)))]
    for place, note in enumerate(notes):
        wrapped = _fitted(note, _NOTE)
        # The last line is kept for the number of notes that have no room.
        last = place == len(notes) - 1
        if len(shown) + len(wrapped) > _HEIGHT - (0 if last else 1):
            left = len(notes) - place
            return [*shown, f"{left} more note{'s' if left > 1 else ''}: --detail"]
        shown += wrapped
    return shown


def _fitted(text: str, limit: int) -> list[str]:
    return textwrap.wrap(printable(text), _WIDTH, max_lines=limit, placeholder=" …", subsequent_indent="  ")


def _rank(line: Json) -> tuple[int, float]:
    """The worst answers to the margin first, then the smallest p."""
    p = line["difference"]["p_holm"] if line["difference"] else 2.0
    return {"no": 0, "cannot tell": 1}.get(_said(line), 2), p


def _said(line: Json) -> str:
    return str(line["non_inferior"]["answer"]) if line["non_inferior"] else ""


def _row(line: Json) -> str:
    scale = _scale(line)
    found, sides = line["difference"], [line["a"], line["b"]]
    values = " ".join(f"{_number(side['value'], scale):>6}" for side in sides)
    answer = {"yes": "yes", "no": "NO", "cannot tell": "?"}.get(_said(line), "")
    head = f"{_label(line):{_LABEL}} {line['b']['n']:6} {values}"
    if found is None:
        return f"{head} {'(too few)':>22} {'':6} {answer}".rstrip()
    star = "*" if found["p_holm"] < _LEVEL else ""
    return f"{head} {_change(found, scale):>22} {_p(found['p_holm']) + star:>6} {answer}".rstrip()


def _figures(line: Json) -> list[str]:
    """Every figure of a comparison that its row has no room for, indented."""
    scale, found, judged = _scale(line), line["difference"], line["non_inferior"]
    parts = []
    for name, side in (("A", line["a"]), ("B", line["b"])):
        bounds = [_number(side[key], scale) for key in ("value", "low", "high")]
        interval = "no interval" if side["low"] is None else f"{bounds[1]} to {bounds[2]}"
        parts.append(f"{name} {bounds[0]} ({interval}, n = {side['n']:,})")
    parts.append(f"{'more' if line['higher_is_better'] else 'less'} is better ({line['direction']})")
    if found:
        parts.append(f"{found['test']} over {found['n']:,} pairs: p = {found['p']:.2g}, adjusted {found['p_holm']:.2g}")
        parts += (
            [f"B alone right {found['gained']:,}, A alone {found['lost']:,}"] if found["gained"] is not None else []
        )
        parts += [f"detectable with 80% power {_number(found['mde'], scale)}"] if found["mde"] is not None else []
    if judged:
        counts = [f"{n:,}" if (n := judged[key]) else "no number" for key in ("items_if_equal", "items")]
        parts.append(f"to decide the margin: {counts[0]} documents if equal, {counts[1]} if as seen")
    text = printable("; ".join(parts))
    return textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="      ")


def _label(line: Json) -> str:
    """Task and metric in the room there is; of a long task its middle goes, of a long metric its end."""
    metric = printable(line["metric"])[: _LABEL - 8]
    task, room = printable(line["task"]), _LABEL - 1 - len(metric)
    half = (room - 1) // 2
    return f"{task if len(task) <= room else f'{task[:half]}…{task[half + 1 - room :]}'} {metric}"


def _scale(line: Json) -> float:
    return 1 / line["point"] if line["point"] else 1.0


def _number(value: float | None, scale: float) -> str:
    if value is None:
        return "-"
    shown = value * scale
    if scale == 1:
        return f"{shown:.3g}"
    return f"{shown:.1f}" if abs(shown) >= 0.1 or not shown else f"{shown:.2g}"


def _change(found: Json, scale: float) -> str:
    form = ".1f" if scale != 1 or abs(found["value"]) >= 1 else ".2g"
    value, low, high = (f"{found[key] * scale:+{form}}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _p(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.2g}"


def _answer(facts: Json, lines: Sequence[Json]) -> str:
    return _of_margin(facts, lines) if facts["margin"] is not None else _of_difference(lines)


def _of_margin(facts: Json, lines: Sequence[Json]) -> str:
    held = [line for line in lines if line["point"] is not None]
    by = {a: [x for x in held if (x["non_inferior"] or {"answer": "cannot tell"})["answer"] == a] for a in _ANSWERS}
    count, margin = len(held), f"{facts['margin']:g} point{'' if facts['margin'] == 1 else 's'}"
    in_all = "" if count == 1 else f" in all {count} comparisons"
    if facts["not_worse"] == "yes":
        return f"Yes: B is not worse than A by {margin}{in_all}."
    if facts["not_worse"] == "no":
        names = ", ".join(_name(line) for line in by["no"][:3]) + (", ..." if len(by["no"]) > 3 else "")
        where = f" in {len(by['no'])} of {count} comparisons" if count > 1 else ""
        return f"No: B is worse than A by more than {margin}{where}: {names}."
    open_ = by["cannot tell"]
    where = f" in {len(open_)} of {count} comparisons" if count > 1 else ""
    text = f"Cannot tell{where} whether B is worse than A by {margin}: too few documents."
    worst = [line for line in open_ if line["non_inferior"]]
    if not worst:
        return text
    needed = max(worst, key=lambda line: line["non_inferior"]["items_if_equal"] or 0)
    found = needed["non_inferior"]
    of = f" of {_name(needed)}" if count > 1 else ""
    equal, seen = (f"about {n:,}" if (n := found[k]) else "no number" for k in ("items_if_equal", "items"))
    if equal == seen:
        equal = equal.replace("no number", "no number of")
        return f"{text} {_upper(equal)} documents{of} would decide."
    return (
        f"{text} {_upper(equal)} documents{of} would decide if the runs are equal, {seen} if the difference is as seen."
    )


_ANSWERS = ("yes", "no", "cannot tell")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _of_difference(lines: Sequence[Json]) -> str:
    tested = [line for line in lines if line["difference"]]
    clear = [line for line in tested if line["difference"]["p_holm"] < _LEVEL]
    if not tested:
        return "Too few documents are in both runs to compare them."
    if not clear:
        count = "1 comparison" if len(tested) == 1 else f"{len(tested)} comparisons"
        text = f"No difference is shown between A and B in {count} (Holm, p < 0.05)."
        mde = tested[0]["difference"]["mde"]
        if mde is None:
            return text
        unit = " points" if tested[0]["point"] else ""
        size = _number(mde, _scale(tested[0]))
        return f"{text} Smallest difference detectable with 80% power: {size}{unit} ({_name(tested[0])}, not adjusted)."
    parts = []
    for word, some in (
        ("better", [line for line in clear if _gain(line) > 0]),
        ("worse", [line for line in clear if _gain(line) < 0]),
        ("other (which way is better is not known)", [line for line in clear if _gain(line) == 0]),
    ):
        if some:
            names = ", ".join(f"{_name(line)} {_signed(line)}" for line in some[:2]) + (
                ", ..." if len(some) > 2 else ""
            )
            parts.append(f"{word} than A in {len(some)} of {len(tested)} ({names})")
    return f"B is {' and '.join(parts)}; Holm over {len(tested)}, p < 0.05."


def _gain(line: Json) -> float:
    """By how much B is better; 0 where it is not known which way is better."""
    return line["difference"]["value"] * {True: 1, False: -1, None: 0}[line["higher_is_better"]]


def _signed(line: Json) -> str:
    return _change(line["difference"], _scale(line)).split(" ")[0]


def _name(line: Json) -> str:
    return f"{line['task']} {line['metric']}"


def _without_common_end(facts: Json) -> tuple[str, list[Json]]:
    """The condition that all tasks of an evaluation share, and the lines without it."""
    ends = {line["task"].partition(".")[2] for line in facts["lines"]}
    end = ends.pop() if len(ends) == 1 and facts["form"] == "crossmatch" else ""
    return end, [{**line, "task": line["task"].removesuffix(f".{end}")} for line in facts["lines"]]


def _pairing(pairings: Sequence[Json], common: str) -> str:
    counts = ("paired", "only_a", "only_b", "unanswered", "other_prompts")
    total = {key: sum(pairing[key] or 0 for pairing in pairings) for key in counts}
    tasks = "1 task" if len(pairings) == 1 else f"{len(pairings)} tasks"
    under = f" under {common}" if common else ""
    parts = [f"{total['paired']:,} documents paired in {tasks}{under}"]
    parts += [f"unpaired: {total['only_a']:,} in A, {total['only_b']:,} in B"]
    parts += [f"{total['unanswered']:,} without an answer left out"] if total["unanswered"] else []
    parts += [f"prompts differ in {total['other_prompts']:,}"] if total["other_prompts"] else []
    unknown = sum(pairing["other_prompts"] is None for pairing in pairings)
    parts += [f"prompts not recorded in {unknown} of {tasks}"] if unknown else []
    return "; ".join(parts)
