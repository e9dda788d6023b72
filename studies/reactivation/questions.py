"""The questions of the case study: each is answered by the rule that was written before the first run.

Every function takes the kept results and gives lines of Markdown: heading, answer, table.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from answers import (
    DECISIVE,
    Cell,
    Results,
    adjusted,
    compared,
    fall,
    is_less,
    is_more,
    mean_difference,
    name_of,
    think_more,
    traces,
    traces_more,
    walking_more,
)
from crossmatch.data.suites import load_suite
from crossmatch.evaluation.comparison.paired import figure
from crossmatch.evaluation.metrics.answer_extraction import extract_choice
from crossmatch.statistics.estimates import Difference, Figure
from crossmatch.statistics.non_inferiority import non_inferiority
from crossmatch.statistics.resampling import paired_difference

TEXTS = ("unrelated", "plain", "shuffled")
SEEDS = {1: ("grid", "texts1"), 2: ("seed2", "texts2"), 3: ("seed3", "texts3")}
MARGIN = 0.05
# Below and above which a threshold is named (rule 3).
QUIET, LOUD = 0.05, 0.20


def percent(found: Figure | float) -> str:
    """A share in percent."""
    value = found.value if isinstance(found, Figure) else found
    return "–" if value is None else f"{100 * value:.0f}"


def span(found: Difference, *, scale: float = 100.0, digits: int = 0, signed: bool = True) -> str:
    """A difference with its interval; bold where it is decided by the rules."""
    sign = "+" if signed else ""
    text = (
        f"{scale * found.value:{sign}.{digits}f} "
        f"({scale * found.low:{sign}.{digits}f} to {scale * found.high:{sign}.{digits}f})"
    )
    return f"**{text}**" if is_more(found) or is_less(found) else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def points(results: Results) -> list[tuple[float, float]]:
    """The points of the grid: weight of PT, weight of SFT."""
    return [(pt, sft) for sft in results.weights for pt in results.weights]


def control(results: Results, run: str, sft: float) -> Cell:
    """SFT alone at a weight."""
    return results.cell(run, name_of(sft=sft))


def world(results: Results) -> list[str]:
    """The two conditions that the world must meet."""
    rows = [
        ("base, its own template", traces(results.cell("base", "habit", "own.greedy")), "at least 90"),
        ("base, `answer-only`", traces(results.cell("grid", "base")), ""),
        ("SFT alone, `answer-only`", traces(results.cell("grid", "sft")), "at most 2"),
        ("PT alone, `answer-only`", traces(results.cell("grid", "pt")), ""),
    ]
    lines = ["### The world", ""]
    return lines + table(
        ("who", "traces, % (95%)", "must be"),
        [(who, f"{percent(f)} ({percent(f.low or 0.0)} to {percent(f.high or 0.0)})", rule) for who, f, rule in rows],
    )


def beyond_scale(results: Results) -> list[str]:
    """Question 1: traces of `pt a + sft b` against `sft b`, on the grid and where SFT suppresses in part."""
    found = adjusted(
        [
            traces_more(results.cell("grid", name_of(pt=a, sft=b)), control(results, "grid", b))
            for a, b in points(results)
        ]
    )
    more = [point for point, one in zip(points(results), found, strict=True) if is_more(one)]
    less = [point for point, one in zip(points(results), found, strict=True) if is_less(one)]
    if len(more) >= len(found) / 2:
        answer = f"**Yes**, at {len(more)} of {len(found)} points."
    elif more:
        named = ", ".join(f"{a:g} + {b:g}" for a, b in more)
        answer = f"**At some points** ({len(more)} of {len(found)}: {named})."
    else:
        answer = f"**No**, at none of {len(found)} points."
    if less:
        answer += f" At {len(less)} it has fewer."
    largest = max((one.mde or 0.0) for one in found)
    answer += f" The least sure of these tests would find {100 * largest:.0f} points in four cases of five."
    lines = ["### 1. Does adding PT raise traces beyond what lowering SFT does?", "", answer, ""]
    lines += _against_control(results, "grid", results.weights, results.weights)
    lines += _log_odds(results, "grid", results.weights, results.weights)
    return lines


def _against_control(results: Results, run: str, pts: Sequence[float], sfts: Sequence[float]) -> list[str]:
    """Traces of merges less those of SFT at the same weight, in points."""
    found = adjusted(
        [traces_more(results.cell(run, name_of(pt=a, sft=b)), control(results, run, b)) for b in sfts for a in pts]
    )
    by_point = dict(zip([(a, b) for b in sfts for a in pts], found, strict=True))
    head = ("SFT", "SFT alone, %", *(f"with PT {a:g}: more, points" for a in pts))
    rows = [(f"{b:g}", percent(traces(control(results, run, b))), *(span(by_point[a, b]) for a in pts)) for b in sfts]
    return table(head, rows)


def _log_odds(results: Results, run: str, pts: Sequence[float], sfts: Sequence[float]) -> list[str]:
    """The same of ln P(<think>), which has no floor; and of the random updates."""
    lines = [
        "The same of ln P(`<think>`) as the answer's beginning, in nats on `define`, which can still fall where no "
        "trace is left (looked at after the floor had been seen); in italics the random update of PT's size:",
        "",
    ]
    names = [(a, b) for b in sfts for a in pts]
    merged = [think_more(results.cell(run, name_of(pt=a, sft=b)), control(results, run, b)) for a, b in names]
    random = [
        think_more(results.cell(run, f"null0-{name_of(pt=a, sft=b)}"), control(results, run, b)) for a, b in names
    ]
    cells = {
        point: f"{span(one, scale=1.0, digits=2)} *{null.value:+.2f}*"
        for point, one, null in zip(names, adjusted(merged), random, strict=True)
    }
    head = ("SFT", "SFT alone", *(f"with PT {a:g}" for a in pts))
    rows = [(f"{b:g}", f"{control(results, run, b).think.mean():.2f}", *(cells[a, b] for a in pts)) for b in sfts]
    return lines + table(head, rows)


LOW_PT, LOW_SFT = (0.25, 0.5, 1.0), (0.05, 0.1, 0.15)


def low_weights(results: Results) -> list[str]:
    """Question 1 again where SFT suppresses in part: points that were chosen after the grid had been seen."""
    if not results.has("low"):
        return []
    names = [(a, b) for b in LOW_SFT for a in LOW_PT]
    found = adjusted(
        [traces_more(results.cell("low", name_of(pt=a, sft=b)), control(results, "low", b)) for a, b in names]
    )
    beside = adjusted(
        [
            traces_more(results.cell("low", name_of(pt=a, sft=b)), results.cell("low", f"null0-{name_of(pt=a, sft=b)}"))
            for a, b in names
        ]
    )
    more, less = sum(map(is_more, found)), sum(map(is_less, found))
    fewer = sum(map(is_less, beside))
    return [
        "#### Where SFT suppresses in part",
        "",
        "The grid has no trace wherever SFT is in, so a rise could show there and a fall could not. These points were "
        f"chosen after that had been seen, and the same rule was used: more traces at {more} of {len(found)}, "
        f"**fewer at {less}**; fewer than with a random update of PT's size at {fewer}.",
        "",
        *_against_control(results, "low", LOW_PT, LOW_SFT),
        *_log_odds(results, "low", LOW_PT, LOW_SFT),
    ]


def whose_content(results: Results) -> list[str]:
    """Question 2: PT against the other texts and its random nulls, three seeds."""
    seeds = {seed: runs for seed, runs in SEEDS.items() if all(results.has(run) for run in runs)}
    if not seeds:
        return []
    keys, means, signs = [], [], []
    for a, b in DECISIVE:
        for text in (*TEXTS, "null"):
            pairs = []
            for main, others in seeds.values():
                merged = results.cell(main, name_of(pt=a, sft=b))
                beside = (
                    results.cell(main, f"null0-{name_of(pt=a, sft=b)}")
                    if text == "null"
                    else results.cell(others, name_of(**{text: a, "sft": b}))
                )
                pairs.append((merged, beside))
            keys.append((a, b, text))
            means.append(mean_difference("trace_structural", pairs))
            signs.append([float(np.sign(traces_more(*pair).value)) for pair in pairs])
    found = adjusted(means)
    exceeds = {
        key: is_more(one) and all(sign > 0 for sign in own) for key, one, own in zip(keys, found, signs, strict=True)
    }
    lines = []
    for a, b in DECISIVE:
        named = [text for text in (*TEXTS, "null") if exceeds[a, b, text]]
        if len(named) == len(TEXTS) + 1:
            said = "its content: more than every control"
        elif "null" not in named:
            said = "not shown to be more than a random update of its size"
            said += f" (more than {', '.join(named)})" if named else ""
        else:
            said = f"more than {', '.join(named)}, not shown to be more than the others"
        lines.append(f"- {a:g} + {b:g}: {said}.")
    by_key = dict(zip(keys, zip(found, signs, strict=True), strict=True))
    rows = []
    for a, b in DECISIVE:
        mean = np.mean([traces(results.cell(main, name_of(pt=a, sft=b))).value or 0.0 for main, _ in seeds.values()])
        cells = [
            f"{span(one)}, {sum(sign > 0 for sign in own)} of {len(own)} seeds"
            for one, own in (by_key[a, b, text] for text in (*TEXTS, "null"))
        ]
        rows.append((f"{a:g} + {b:g}", percent(float(mean)), *cells))
    return [
        "### 2. Is it PT's content, or any update of that size?",
        "",
        *lines,
        "",
        f"Means over {len(seeds)} training seeds; PT's traces less those with the control in its place, in points, and "
        "in how many seeds PT has more.",
        "",
        *table(("PT + SFT", "traces, %", *(f"less {text}" for text in (*TEXTS, "null"))), rows),
    ]


def monotone(results: Results) -> list[str]:
    """Question 3: traces along the weight of PT."""
    rows, steps, where = [], [], []
    for b in (*((0.0,) if results.has("texts1") else ()), *results.weights):
        cells = [_along(results, a, b) for a in (0.0, *results.weights)]
        rows.append((f"{b:g}", [traces(cell) for cell in cells]))
        steps += [traces_more(y, x) for x, y in pairwise(cells)]
        where += [(b, low, high) for low, high in pairwise((0.0, *results.weights))]
    found = adjusted(steps)
    down = [place for place, one in zip(where, found, strict=True) if is_less(one)]
    thresholds = [
        f"between {low:g} and {high:g} at SFT {b:g}"
        for b, figures in ((float(name), values) for name, values in rows)
        for low, high, x, y in zip((0.0, *results.weights), results.weights, figures, figures[1:], strict=False)
        if (x.value or 0.0) < QUIET and (y.value or 0.0) > LOUD
    ]
    fell = ", ".join(f"from {low:g} to {high:g} at SFT {b:g}" for b, low, high in down)
    answer = "No step down is significant." if not down else f"**Not monotone**: traces fall {fell}."
    answer += f" A threshold lies {'; '.join(thresholds)}." if thresholds else " No threshold by the rule."
    head = ("SFT", *(f"PT {a:g}" for a in (0.0, *results.weights)))
    return [
        "### 3. Is it monotone in the weight of PT; is there a threshold?",
        "",
        f"{answer} Traces in %:",
        "",
        *table(head, [(name, *(percent(value) for value in values)) for name, values in rows]),
    ]


def _along(results: Results, a: float, b: float) -> Cell:
    run = "texts1" if b == 0 and 0 < a < 1 else "grid"
    return results.cell(run, name_of(pt=a, sft=b))


def surface(results: Results) -> list[str]:
    """Question 4: the fall in BLEU, taken apart."""
    parts = [fall(results.cell("grid", name_of(pt=a, sft=b)), control(results, "grid", b)) for a, b in points(results)]
    names = ("total", "dilution", "length", "content")
    families = {name: adjusted([one[name] for one in parts]) for name in names}
    worse = [point for point, one in zip(points(results), families["content"], strict=True) if is_less(one)]
    better = [point for point, one in zip(points(results), families["content"], strict=True) if is_more(one)]
    total = sum(is_less(one) for one in families["total"])
    answer = (
        f"Raw BLEU falls at {total} of {len(parts)} points. Without traces, at matched length, it falls at "
        f"**{len(worse)}** and rises at **{len(better)}**."
    )
    rows = [
        (f"{a:g} + {b:g}", *(span(families[name][n], scale=1.0, digits=1) for name in names))
        for n, (a, b) in enumerate(points(results))
    ]
    return [
        "### 4. Do BLEU and ROUGE fall once traces are stripped and length is matched?",
        "",
        f"{answer} Differences in BLEU on `define` to SFT alone at the same weight:",
        "",
        *table(("PT + SFT", "raw", "the trace's words", "length", "content"), rows),
    ]


ASKED = (("acc", "name", "names"), ("acc", "system", "letters"), ("acc_generated", "system", "letters written"))


def choices(results: Results) -> list[str]:
    """Question 5: choices by log-likelihood and by the letter written, with a margin; and gibberish."""
    found = {
        how: adjusted(
            [
                compared(metric, suite, results.cell("grid", name_of(pt=a, sft=b)), control(results, "grid", b))
                for a, b in points(results)
            ]
        )
        for metric, suite, how in ASKED
    }
    judged = {
        how: [non_inferiority(one, MARGIN, higher_is_better=True, family=len(family)).answer for one in family]
        for how, family in found.items()
    }
    said = "; ".join(
        f"{how}: hold at {answers.count('yes')}, do not at {answers.count('no')}, cannot tell at "
        f"{answers.count('cannot tell')}"
        for how, answers in judged.items()
    )
    rows = [
        (f"{a:g} + {b:g}", *(f"{span(found[how][n])}: {judged[how][n]}" for _, _, how in ASKED))
        for n, (a, b) in enumerate(points(results))
    ]
    alone = ", ".join(
        f"{how} {percent(figure(metric, results.cell('grid', 'sft').parts[suite]))}%" for metric, suite, how in ASKED
    )
    return [
        "### 5. Do choices hold?",
        "",
        f"{said} (of {len(points(results))} points, margin {100 * MARGIN:.0f} points; SFT alone: {alone}; chance is "
        f"25%). {gibberish(results)}",
        "",
        *table(("PT + SFT", "names", "letters, by log-likelihood", "letters written"), rows),
    ]


def gibberish(results: Results) -> str:
    """What the reader of letters makes of words in random order, taken from answers, questions and options."""
    settings = load_suite(str(results.folder / "system.yaml")).settings
    rows = results.cell("grid", "base").rows["system"]
    said = [one["output"] for row in rows for one in row["generated"]]
    words = " ".join(
        [*said, *(row["question"] for row in rows), *(text for row in rows for text in row["options"])]
    ).split()
    rng = np.random.default_rng(0)
    asked = right = read = 0
    for row in rows:
        for _ in range(50):
            chosen = extract_choice(" ".join(rng.choice(words, 30)), row["options"], settings.language)
            asked, read, right = asked + 1, read + (chosen is not None), right + (chosen == row["right"])
    return (
        f"Of {asked} texts of words in random order the scorer reads an option in {100 * read / asked:.0f}% and scores "
        f"{100 * right / asked:.1f}% right (chance: 25%)."
    )


def twice_weighted(results: Results) -> list[str]:
    """Question 8: 0.09 + 0.49 beside 0.3 + 0.7."""
    twice, once = results.cell("grid", name_of(pt=0.09, sft=0.49)), results.cell("grid", name_of(pt=0.3, sft=0.7))
    rows = []
    for name, cell in (("0.3 + 0.7", once), ("0.09 + 0.49", twice)):
        rows.append(
            (
                name,
                percent(traces(cell)),
                f"{figure('bleu_raw', cell.parts['define']).value or 0.0:.1f}",
                percent(figure("acc", cell.parts["system"])),
                percent(figure("acc_generated", cell.parts["system"])),
            )
        )
    found = traces_more(twice, once)
    bleu = compared("bleu_raw", "define", twice, once)
    acc = compared("acc", "system", twice, once)
    says = "more" if is_more(found) else "fewer" if is_less(found) else "no difference shown in"
    return [
        "### 8. Do weights on both factors reproduce the published pattern?",
        "",
        f"Against the merge that was meant: {says} traces ({span(found)} points), BLEU "
        f"{span(bleu, scale=1.0, digits=1)}, choices {span(acc)} points.",
        "",
        *table(("merge", "traces, %", "BLEU", "choices, %", "letters, %"), rows),
    ]


def unmarked(results: Results) -> list[str]:
    """Question 10: reasoning in sentences, hesitation and length, which markers do not see."""
    pairs = [(results.cell("grid", name_of(pt=a, sft=b)), control(results, "grid", b)) for a, b in points(results)]
    beside = [
        (one, results.cell("grid", f"null0-{name_of(pt=a, sft=b)}"))
        for (a, b), (one, _) in zip(points(results), pairs, strict=True)
    ]
    lengths = [_untraced_length(*pair) for pair in pairs]
    families = {
        "walking": adjusted([walking_more(*pair) for pair in pairs]),
        "null": adjusted([walking_more(*pair) for pair in beside]),
        "hesitating": adjusted([mean_difference("hesitating", [pair]) for pair in pairs]),
        "length": adjusted([one for one in lengths if one is not None]),
    }
    left = iter(families["length"])
    rows = [
        (
            f"{a:g} + {b:g}",
            percent(float(pairs[n][1].walking.mean())),
            percent(float(pairs[n][0].walking.mean())),
            span(families["walking"][n]),
            span(families["null"][n]),
            "–" if lengths[n] is None else span(next(left), scale=1.0),
            span(families["hesitating"][n]),
        )
        for n, (a, b) in enumerate(points(results))
    ]
    more = {name: sum(map(is_more, family)) for name, family in families.items()}
    head = (
        "PT + SFT",
        "SFT, %",
        "merge, %",
        "more, points",
        "more than null",
        "tokens, without a block",
        "hesitate, points",
    )
    return [
        "### 10. What do markers miss?",
        "",
        "**Reasoning in sentences, without a block.** Answers that walk the ontology aloud (the sentences of the habit "
        f"and of PT's documents, found by their words) are more than SFT's at {more['walking']} of {len(rows)} points, "
        f"and more than with a random update of PT's size at {more['null']}. Answers without a block are longer at "
        f"{more['length']} of {len(families['length'])}; more of them hesitate at {more['hesitating']}.",
        "",
        *table(head, rows),
    ]


def _untraced_length(one: Cell, other: Cell) -> Difference | None:
    """Difference in tokens over the questions that both answer without a block; None for fewer than ten."""
    kept = (one.both("trace_structural") == 0) & (other.both("trace_structural") == 0)
    if kept.sum() < 10:
        return None
    return paired_difference(one.both("output_tokens")[kept][:, None], other.both("output_tokens")[kept][:, None])


def templates_and_temperature(results: Results) -> list[str]:
    """The template and the temperature, each on SFT alone and on the merge."""
    if not results.has("templates") and not results.has("temperature"):
        return []
    lines = ["### Templates and temperatures", ""]
    merge, alone = name_of(pt=0.5, sft=0.5), name_of(sft=0.5)
    if results.has("templates"):
        rows = []
        for condition in ("answer-only", "chatml", "chatml-empty", "chatml-open"):
            cells = [results.cell("templates", name, f"{condition}.greedy") for name in ("base", alone, merge)]
            rows.append(
                (f"`{condition}`", *(percent(traces(cell)) for cell in cells), span(traces_more(cells[2], cells[1])))
            )
        lines += table(("template", "base, %", "SFT 0.5, %", "PT 0.5 + SFT 0.5, %", "more, points"), rows)
    if results.has("temperature"):
        rows = []
        for decoding in ("greedy", "T0.6", "T1"):
            run = "grid" if decoding == "greedy" else "temperature"
            cells = [results.cell(run, name, f"answer-only.{decoding}") for name in ("base", alone, merge)]
            more = mean_difference("trace_structural", [(cells[2], cells[1])])
            shares = [percent(float(cell.both("trace_structural").mean())) for cell in cells]
            letters = [percent(float(cell.parts["system"]["acc_generated"][0].mean())) for cell in cells[1:]]
            rows.append((decoding, *shares, span(more), *letters))
        head = (
            "decoding",
            "base, %",
            "SFT 0.5, %",
            "PT 0.5 + SFT 0.5, %",
            "more, points",
            "letters: SFT, %",
            "merge, %",
        )
        lines += table(head, rows)
    return lines
