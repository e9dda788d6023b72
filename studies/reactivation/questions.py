"""The questions of the case study: each is answered by the rule that was written before the first run.

Every function takes the kept results and gives lines of Markdown: heading, answer, table.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise, product

import numpy as np

from answers import (
    DECISIVE,
    Cell,
    Results,
    adjusted,
    chosen_more,
    compared,
    fall,
    hesitating_more,
    is_less,
    is_more,
    known,
    mean_difference,
    mean_think_more,
    name_of,
    sentences_more,
    steps,
    think_more,
    traces,
    traces_more,
)
from crossmatch.data.suites import load_suite
from crossmatch.evaluation.comparison.paired import figure
from crossmatch.evaluation.metrics.answer_extraction import extract_choice
from crossmatch.statistics.estimates import Array, Difference, Figure
from crossmatch.statistics.non_inferiority import non_inferiority
from crossmatch.statistics.resampling import paired_difference

Point = tuple[float, float]

CONTROLS = ("unrelated", "plain", "shuffled", "null")
# The runs of each training seed.
SEEDS = (("grid", "low", "texts1"), ("seed2", "texts2"), ("seed3", "texts3"))
LOW_PT, LOW_SFT = (0.25, 0.5, 1.0), (0.05, 0.1, 0.15)
# Where all seeds have both PT and every control, and SFT leaves some traces.
LOW_DECISIVE = tuple((a, 0.1) for a in LOW_PT)
MARGIN = 0.05
# Below and above which a threshold is named (rule 3).
QUIET, LOUD = 0.05, 0.20


def percent(found: Figure | float) -> str:
    """A share in percent."""
    value = found.value if isinstance(found, Figure) else found
    return "–" if value is None else f"{100 * value:.0f}"


def span(found: Difference, *, scale: float = 100.0, digits: int = 0) -> str:
    """A difference with its interval; bold where it is decided by the rules."""
    value, low, high = (f"{scale * end:+.{digits}f}" for end in (found.value, found.low, found.high))
    text = f"{value} ({low} to {high})"
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


def beside_control(
    results: Results, run: str, at: Sequence[Point], compare: Callable[[Cell, Cell], Difference]
) -> dict[Point, Difference]:
    """Each merge against SFT at the same weight; p adjusted over the points."""
    found = [compare(results.cell(run, name_of(pt=a, sft=b)), control(results, run, b)) for a, b in at]
    return dict(zip(at, adjusted(found), strict=True))


def beside_null(
    results: Results, run: str, at: Sequence[Point], compare: Callable[[Cell, Cell], Difference]
) -> dict[Point, Difference]:
    """Each merge against the same with a random update of PT's size and spectrum in its place; p adjusted."""
    names = [name_of(pt=a, sft=b) for a, b in at]
    found = [compare(results.cell(run, name), results.cell(run, f"null0-{name}")) for name in names]
    return dict(zip(at, adjusted(found), strict=True))


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
    found = beside_control(results, "grid", points(results), traces_more)
    more = [point for point, one in found.items() if is_more(one)]
    if len(more) >= len(found) / 2:
        answer = f"**Yes**, at {len(more)} of {len(found)} points."
    elif more:
        named = ", ".join(f"{a:g} + {b:g}" for a, b in more)
        answer = f"**At some points** ({len(more)} of {len(found)}: {named})."
    else:
        answer = f"**No**, at none of {len(found)} points."
    if less := sum(map(is_less, found.values())):
        answer += f" At {less} it has fewer."
    largest = max((one.mde or 0.0) for one in found.values())
    answer += f" The least sure of these tests would find {100 * largest:.0f} points in four cases of five."
    lines = ["### 1. Does adding PT raise traces beyond what lowering SFT does?", "", answer, ""]
    lines += _more_traces(results, "grid", found) + _log_odds(results, "grid", list(found))
    return lines + (_log_odds_by_text(results) if results.has("texts1") else [])


def _more_traces(results: Results, run: str, found: dict[Point, Difference]) -> list[str]:
    """Traces of merges less those of SFT at the same weight, in points: SFT's weights down, PT's across."""
    pts, sfts = (sorted(set(side)) for side in zip(*found, strict=True))
    head = ("SFT", "SFT alone, %", *(f"with PT {a:g}: more, points" for a in pts))
    rows = [(f"{b:g}", percent(traces(control(results, run, b))), *(span(found[a, b]) for a in pts)) for b in sfts]
    return table(head, rows)


def _log_odds(results: Results, run: str, at: Sequence[Point]) -> list[str]:
    """The same of ln P(<think>), which has no floor; and of the random updates."""
    merged = beside_control(results, run, at, think_more)
    pts, sfts = (sorted(set(side)) for side in zip(*at, strict=True))
    cells = {}
    for (a, b), one in merged.items():
        null = think_more(results.cell(run, f"null0-{name_of(pt=a, sft=b)}"), control(results, run, b))
        cells[a, b] = f"{span(one, scale=1.0, digits=2)} *{null.value:+.2f}*"
    head = ("SFT", "SFT alone", *(f"with PT {a:g}" for a in pts))
    rows = [(f"{b:g}", f"{control(results, run, b).think.mean():.2f}", *(cells[a, b] for a in pts)) for b in sfts]
    return [
        "The same of ln P(`<think>`) as the answer's beginning, in nats on `define`, which can still fall where no "
        "trace is left (looked at after the floor had been seen); in italics the random update of PT's size:",
        "",
        *table(head, rows),
    ]


def _log_odds_by_text(results: Results) -> list[str]:
    """The same of every text in PT's place, at the points that all were tried at; of unrelated text at all."""
    texts = ("pt", *CONTROLS[:-1])
    pairs = {(text, at): _beside_alone(results, text, at) for text, at in product(texts, DECISIVE)}
    found = dict(zip(pairs, adjusted([mean_think_more(of) for of in pairs.values()]), strict=True))
    unrelated = adjusted([mean_think_more(_beside_alone(results, "unrelated", at)[:1]) for at in points(results)])
    seeds = ", ".join(f"{text} {len(pairs[text, DECISIVE[0]])}" for text in texts)
    rows = [
        (f"{at[0]:g} + {at[1]:g}", *(span(found[text, at], scale=1.0, digits=2) for text in texts)) for at in DECISIVE
    ]
    falls = ", ".join(f"{text} at {sum(is_less(found[text, at]) for at in DECISIVE)}" for text in texts)
    return [
        f"With unrelated text in PT's place it **rises** at {sum(map(is_more, unrelated))} of {len(unrelated)} "
        f"points (one training seed). At the points that decide it falls: {falls} of {len(DECISIVE)} (mean over "
        f"training seeds: {seeds}). A fall that other texts have, too, is not that of PT's reasoning sentences:",
        "",
        *table(("weight + SFT", "PT", *CONTROLS[:-1]), rows),
    ]


def _beside_alone(results: Results, text: str, at: Point) -> list[tuple[Cell, Cell]]:
    """The merge of a text's adapter with SFT, and SFT alone at its weight, of every training seed that has both."""
    a, b = at
    both = [
        (results.anywhere(runs, name_of(**{text: a, "sft": b})), results.anywhere(runs, name_of(sft=b)))
        for runs in SEEDS
    ]
    return [(one, other) for one, other in both if one and other]


def low_weights(results: Results) -> list[str]:
    """Question 1 again where SFT suppresses in part: points that were chosen after the grid had been seen."""
    if not results.has("low"):
        return []
    at = list(product(LOW_PT, LOW_SFT))
    found = beside_control(results, "low", at, traces_more)
    fewer = sum(map(is_less, beside_null(results, "low", at, traces_more).values()))
    return [
        "#### Where SFT suppresses in part",
        "",
        "The grid has no trace wherever SFT is in, so a rise could show there and a fall could not. These points were "
        "chosen after that had been seen, and the same rule was used: more traces at "
        f"{sum(map(is_more, found.values()))} of {len(found)}, **fewer at {sum(map(is_less, found.values()))}**; fewer "
        f"than with a random update of PT's size at {fewer}.",
        "",
        *_more_traces(results, "low", found),
        *_log_odds(results, "low", at),
    ]


def whose_content(results: Results) -> list[str]:
    """Question 2: PT against the other texts and its random nulls, over the training seeds that were run."""
    if not results.has("texts1"):
        return []
    return [
        "### 2. Is it PT's content, or any update of that size?",
        "",
        "Means over training seeds: PT's share less that of the control in its place, in points, and in how many seeds "
        "PT has more. By the rule it is more than a control where the interval lies above zero (Holm over the table) "
        "and all seeds agree in sign.",
        "",
        *_against_texts(results, DECISIVE, "trace_structural", "Traces"),
        *_against_texts(results, LOW_DECISIVE, "trace_structural", "Traces, where a weak SFT leaves some"),
        "Exploratory, by a detector that was made after the grid had been seen (question 10):",
        "",
        *_against_texts(results, DECISIVE, "sentences", "Sentences of the training texts, without a block"),
        "The other texts do not have these words, so that by words no control could have as many; what the controls "
        "show is that length of training or unlike text do not bring them. The random update hardly acts: with it at "
        f"the three points {_unmoved(results)} of the answers are SFT's to the letter (three seeds), so that *more "
        "than the null* says little more than *more than SFT*.",
        "",
    ]


def _unmoved(results: Results) -> str:
    """The share of answers that a random update in PT's place leaves as they are, at the points that decide."""
    same = []
    for (a, b), runs in product(DECISIVE, SEEDS):
        null, alone = (results.anywhere(runs, name) for name in (f"null0-{name_of(pt=a, sft=b)}", name_of(sft=b)))
        if null and alone:
            same += [one == other for one, other in zip(null.outputs(), alone.outputs(), strict=True)]
    return f"{np.mean(same):.0%}"


def _pairs(results: Results, point: Point, text: str) -> list[tuple[Cell, Cell]]:
    """PT's merge and the one with the control in its place, of every seed that has both."""
    a, b = point
    merge = name_of(pt=a, sft=b)
    other = f"null0-{merge}" if text == "null" else name_of(**{text: a, "sft": b})
    both = [(results.anywhere(runs, merge), results.anywhere(runs, other)) for runs in SEEDS]
    return [(one, beside) for one, beside in both if one and beside]


def _against_texts(results: Results, at: Sequence[Point], metric: str, what: str) -> list[str]:
    """One metric of PT's merges against every control at some points: what the rule says, and the table."""
    pairs = {(point, text): _pairs(results, point, text) for point in at for text in CONTROLS}
    found = dict(zip(pairs, adjusted([mean_difference(metric, of) for of in pairs.values()]), strict=True))
    above = {key: sum(bool((a.both(metric) - b.both(metric)).mean() > 0) for a, b in of) for key, of in pairs.items()}
    below = {key: sum(bool((a.both(metric) - b.both(metric)).mean() < 0) for a, b in of) for key, of in pairs.items()}
    said, rows = [], []
    for point in at:
        name = f"{point[0]:g} + {point[1]:g}"
        keys = [(point, text) for text in CONTROLS]
        more = [key[1] for key in keys if is_more(found[key]) and above[key] == len(pairs[key])]
        fewer = [key[1] for key in keys if is_less(found[key]) and below[key] == len(pairs[key])]
        seeds = min(len(pairs[key]) for key in keys)
        said.append(f"{name}: {_exceeds(more, fewer, seeds)}")
        share = np.mean([one.both(metric).mean() for one, _ in pairs[point, "null"]])
        cells = [f"{span(found[key])}, {above[key]} of {len(pairs[key])}" for key in keys]
        rows.append((name, percent(float(share)), *cells))
    head = ("PT + SFT", "PT, %", *(f"less {text}, seeds" for text in CONTROLS))
    return [f"**{what}.** {'; '.join(said)}.", "", *table(head, rows)]


def _exceeds(more: Sequence[str], fewer: Sequence[str], seeds: int) -> str:
    """What rule 2 makes of controls that PT exceeds, or that exceed PT; seeds: that have every control."""
    told = [f"{word} than {' and '.join(texts)}" for word, texts in (("more", more), ("fewer", fewer)) if texts]
    if not told:
        return "no difference shown to any control"
    if len(CONTROLS) not in (len(more), len(fewer)):
        return ", ".join(told)
    every = f"{'more' if more else 'fewer'} than every control"
    if seeds == len(SEEDS):
        return f"PT's content, {every}"
    own = "seed" if seeds == 1 else "seeds"
    return f"{every}, the other texts with {seeds} training {own} of the three that the rule asks for"


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
    flat = all((figures[0].value or 0.0) in (0.0, 1.0) for _, figures in rows)
    answer = f"**Not monotone**: traces fall {fell}." if down else "No step down is significant."
    answer += f" A threshold lies {'; '.join(thresholds)}." if thresholds else " No threshold by the rule."
    if flat and not down:
        answer = (
            "**Cannot be asked on the grid**: without SFT every answer has a trace, with it none has, so that "
            f"nothing can step down.{_low_steps(results)}"
        )
    head = ("SFT", *(f"PT {a:g}" for a in (0.0, *results.weights)))
    return [
        "### 3. Is it monotone in the weight of PT; is there a threshold?",
        "",
        f"{answer} Traces in %:",
        "",
        *table(head, [(name, *(percent(value) for value in values)) for name, values in rows]),
    ]


def _low_steps(results: Results) -> str:
    """Steps down where SFT is weak, in one family; a sentence, or nothing where that was not run."""
    if not results.has("low"):
        return ""
    at = [(b, low, high) for b in LOW_SFT for low, high in pairwise((0.0, *LOW_PT))]
    found = adjusted(
        [
            traces_more(results.cell("low", name_of(pt=high, sft=b)), results.cell("low", name_of(pt=low, sft=b)))
            for b, low, high in at
        ]
    )
    down = [f"{low:g} to {high:g} at SFT {b:g}" for (b, low, high), one in zip(at, found, strict=True) if is_less(one)]
    told = f"traces fall with PT's weight (significant: {', '.join(down)})" if down else "no step down is significant"
    return f" Where SFT is weak (points chosen afterwards) {told}."


def _along(results: Results, a: float, b: float) -> Cell:
    run = "texts1" if b == 0 and 0 < a < 1 else "grid"
    return results.cell(run, name_of(pt=a, sft=b))


def surface(results: Results) -> list[str]:
    """Question 4: the fall in BLEU, taken apart."""
    parts = [fall(results.cell("grid", name_of(pt=a, sft=b)), control(results, "grid", b)) for a, b in points(results)]
    names = ("total", "dilution", "length", "content", "cut", "rouge")
    families = {name: adjusted([one[name] for one in parts]) for name in names}
    worse = [point for point, one in zip(points(results), families["content"], strict=True) if is_less(one)]
    better = [point for point, one in zip(points(results), families["content"], strict=True) if is_more(one)]
    total = sum(is_less(one) for one in families["total"])
    answer = (
        f"Raw BLEU falls at {total} of {len(parts)} points, ROUGE-L at {sum(map(is_less, families['rouge']))}. "
        f"Without traces, at matched length, BLEU falls at **{len(worse)}** and rises at **{len(better)}**; of "
        f"answers cut to as many words as SFT's it falls at {sum(map(is_less, families['cut']))}. With 30 items a "
        f"fall of {max(one.mde or 0.0 for one in families['cut']):.0f} points of the cut answers' BLEU would be found "
        "in four cases of five at the least sure point, so *no fall shown* is not *none*. SFT's own answers are "
        "shorter than the references, so that its BLEU has a penalty which longer answers escape. An interval on one "
        "side without bold type has a permutation test that does not agree; the rule asks for both."
    )
    rows = [
        (
            f"{a:g} + {b:g}",
            *(span(families[name][n], scale=1.0, digits=1) for name in names),
        )
        for n, (a, b) in enumerate(points(results))
    ]
    return [
        "### 4. Do BLEU and ROUGE fall once traces are stripped and length is matched?",
        "",
        f"{answer} Differences on `define` to SFT alone at the same weight, in BLEU and, last, in ROUGE-L:",
        "",
        *table(("PT + SFT", "raw", "the trace's words", "length", "content", "cut to SFT's length", "ROUGE-L"), rows),
    ]


ASKED = (("acc", "name", "names"), ("acc", "system", "letters"), ("acc_generated", "system", "letters written"))


def choices(results: Results) -> list[str]:
    """Question 5: choices by log-likelihood and by the letter written, with a margin; and gibberish."""
    found = {
        how: beside_control(results, "grid", points(results), partial(compared, metric, suite))
        for metric, suite, how in ASKED
    }
    judged = {
        how: {
            point: non_inferiority(one, MARGIN, higher_is_better=True, family=len(family)).answer
            for point, one in family.items()
        }
        for how, family in found.items()
    }
    counts = {how: Counter(answers.values()) for how, answers in judged.items()}
    said = "; ".join(
        f"{how}: hold at {count['yes']}, do not at {count['no']}, cannot tell at {count['cannot tell']}"
        for how, count in counts.items()
    )
    rows = [
        (f"{a:g} + {b:g}", *(f"{span(found[how][a, b])}: {judged[how][a, b]}" for _, _, how in ASKED))
        for a, b in points(results)
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
        "PT has read each definition of `name` with its name, so that a gain there hides what merging costs: the "
        "texts that have not are beside it. Of the points that decide, means over the training seeds that were run, "
        "less SFT alone at the same weight:",
        "",
        *_choices_by_text(results),
    ]


def _choices_by_text(results: Results) -> list[str]:
    """Names and letters written at the points that decide: PT over its seeds, and the other texts."""
    wanted, kinds = ("pt", *CONTROLS[:-1]), (("acc", "name", "names"), ("acc_generated", "system", "letters written"))
    rows = []
    for metric, suite, how in kinds:
        pairs = {}
        for text, at in product(wanted, DECISIVE):
            pairs[text, at] = [
                pair for pair in _beside_alone(results, text, at) if all(suite in cell.parts for cell in pair)
            ]
        told = [text for text in wanted if all(pairs[text, at] for at in DECISIVE)]
        keys = list(product(told, DECISIVE))
        found = dict(zip(keys, adjusted([chosen_more(metric, suite, pairs[key]) for key in keys]), strict=True))
        rows += [
            (f"{how}, {text}", str(len(pairs[text, DECISIVE[0]])), *(span(found[text, at]) for at in DECISIVE))
            for text in told
        ]
    alone = {runs: known(results.anywhere(runs, "pt1+sft1")) for runs in SEEDS if results.anywhere(runs, "pt1+sft1")}
    letters = ", ".join(percent(figure("acc_generated", cell.parts["system"])) for cell in alone.values())
    head = ("what, text", "seeds", *(f"{a:g} + {b:g}" for a, b in DECISIVE))
    return [
        *table(head, rows),
        f"At 1 + 1 the letters written are right in {letters}% by training seed (chance 25%).",
        "",
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
        f"{100 * right / asked:.1f}% right: below chance, since what is not read is wrong, and never above it."
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
    empty = not any((traces(cell).value or 0.0) > 0 for cell in (once, twice))
    first = "**Cannot be asked here**: neither merge has a trace, and choices are at chance. " if empty else ""
    return [
        "### 8. Do weights on both factors reproduce the published pattern?",
        "",
        f"{first}Against the merge that was meant: {says} traces ({span(found)} points), BLEU "
        f"{span(bleu, scale=1.0, digits=1)}, choices {span(acc)} points.",
        "",
        *table(("merge", "traces, %", "BLEU", "choices, %", "letters, %"), rows),
    ]


def unmarked(results: Results) -> list[str]:
    """Question 10: sentences of the training texts, hesitation and length, which markers do not see."""
    at = points(results)
    said = beside_control(results, "grid", at, sentences_more)
    null = beside_null(results, "grid", at, sentences_more)
    hesitating = beside_control(results, "grid", at, hesitating_more)
    lengths = {
        (a, b): _untraced_length(results.cell("grid", name_of(pt=a, sft=b)), control(results, "grid", b)) for a, b in at
    }
    told = [point for point in at if lengths[point] is not None]
    longer = dict(zip(told, adjusted([known(lengths[point]) for point in told]), strict=True))
    middle = {
        (a, b): float(
            np.median(_tokens(results.cell("grid", name_of(pt=a, sft=b))) - _tokens(control(results, "grid", b)))
        )
        for a, b in at
    }
    rows = [
        (
            f"{a:g} + {b:g}",
            _share(control(results, "grid", b), "sentences"),
            *(
                _share(results.cell("grid", name_of(pt=a, sft=b)), detector)
                for detector in ("pt_words", "habit_words", "steps")
            ),
            span(said[a, b]),
            span(null[a, b]),
            span(longer[a, b], scale=1.0) if (a, b) in longer else "–",
            f"{middle[a, b]:+g}",
            span(hesitating[a, b]),
        )
        for a, b in at
    ]
    head = (
        *("PT + SFT", "SFT, %", "PT's words, %", "the habit's words, %", "steps, %", "more, points", "more than null"),
        *("tokens, mean", "median", "hesitate, points"),
    )
    return [
        "### 10. What do markers miss?",
        "",
        f"Hesitation rises at {sum(map(is_more, hesitating.values()))} of {len(at)} points. Answers without a block "
        f"are longer **on average** at {sum(map(is_more, longer.values()))} of {len(longer)}; the typical answer "
        f"(median) is longer by five tokens or more at {sum(one >= 5 for one in middle.values())}.",
        "",
        "**Exploratory: sentences of the training texts, without a block.** Three detectors were made after the grid "
        "had been seen: words that only PT's documents have, words that only the habit has, and two or more steps "
        "(*x is a kind of y*) in whatever words. Together they find more than in SFT's answers at "
        f"{sum(map(is_more, said.values()))} of {len(at)} points, and more than with a random update of PT's size at "
        f"{sum(map(is_more, null.values()))}.",
        "",
        *table(head, rows),
        *_what_they_look_like(results),
    ]


def _what_they_look_like(results: Results) -> list[str]:
    """The answers at full weight of both, by training seed: words, steps, ends, length."""
    rows = []
    for number, runs in enumerate(SEEDS, 1):
        cell, alone = results.anywhere(runs, "pt1+sft1"), results.anywhere(runs, "sft")
        if cell is None or alone is None:
            continue
        texts = [text for several in cell.outputs() for text in several]
        found = [step for text in texts for step in steps(text)]
        same = sum(first == second for first, second in found)
        rows.append(
            (
                str(number),
                *(_share(cell, detector) for detector in ("pt_words", "habit_words", "steps")),
                f"{len(found)}, {same / max(1, len(found)):.0%}",
                f"{np.mean(['therefore it belongs' in text.lower() for text in texts]):.0%}",
                f"{cell.both('truncated').mean():.0%}",
                f"{_tokens(cell).mean():.0f}, {_tokens(alone).mean():.0f}",
            )
        )
    head = (
        *(
            "training seed",
            "PT's words, %",
            "the habit's words, %",
            "steps, %",
            "steps in all, of them x is a kind of x",
        ),
        *("with PT's conclusion", "cut at 160 tokens", "tokens: merge, SFT"),
    )
    return ["What the answers at 1 + 1 look like:", "", *table(head, rows)]


def _share(cell: Cell, detector: str) -> str:
    return percent(float(cell.both(detector).mean()))


def _tokens(cell: Cell) -> Array:
    return cell.both("output_tokens")


def _untraced_length(one: Cell, other: Cell) -> Difference | None:
    """Difference in tokens over the questions that both answer without a block; None for fewer than ten."""
    kept = (one.both("trace_structural") == 0) & (other.both("trace_structural") == 0)
    if kept.sum() < 10:
        return None
    return paired_difference(one.both("output_tokens")[kept][:, None], other.both("output_tokens")[kept][:, None])


def templates_and_temperature(results: Results) -> list[str]:
    """The template and the temperature, each on SFT alone and on the merge, at the point in the middle of the grid and
    where a weak SFT leaves some traces."""
    parts = {"templates": _by_template, "temperature": _by_temperature}
    lines = [line for run, part in parts.items() if results.has(run) for b in (0.5, 0.1) for line in part(results, b)]
    return ["### Templates and temperatures", "", *lines] if lines else []


def _by_template(results: Results, sft: float) -> list[str]:
    """Traces under each template: base, SFT alone, SFT with half of PT."""
    rows, found = [], []
    names = ("base", name_of(sft=sft), name_of(pt=0.5, sft=sft))
    for condition in ("answer-only", "chatml", "chatml-empty"):
        cells = [results.cell("templates", name, f"{condition}.greedy") for name in names]
        found.append(traces_more(cells[2], cells[1]))
        rows.append((f"`{condition}`", *(percent(traces(cell)) for cell in cells)))
    rows = [(*row, span(one)) for row, one in zip(rows, adjusted(found), strict=True)]
    head = ("template", "base, %", f"SFT {sft:g}, %", f"PT 0.5 + SFT {sft:g}, %", "more, points")
    opened = [results.cell("templates", name, "chatml-open.greedy") for name in names]
    told = [
        f"{_name_told(name)} {np.mean(['</think>' in text for several in cell.outputs() for text in several]):.0%}"
        for name, cell in zip(names, opened, strict=True)
    ]
    return [
        *table(head, rows),
        "Where the prompt opens the block (`chatml-open`) every answer counts as a trace, whatever it says, so that "
        f"the share says nothing. The block is closed by the answer in: {', '.join(told)}.",
        "",
    ]


def _name_told(name: str) -> str:
    return " + ".join(re.sub(r"^(pt|sft)", lambda found: f"{found[0].upper()} ", part) for part in name.split("+"))


def _by_temperature(results: Results, sft: float) -> list[str]:
    """Traces and letters at each temperature: what it does to SFT alone is taken from what it does to the merge."""
    names, runs = ("base", name_of(sft=sft), name_of(pt=0.5, sft=sft)), ("temperature", "grid", "low")
    cells = {
        decoding: [known(results.anywhere(runs, name, f"answer-only.{decoding}")) for name in names]
        for decoding in ("greedy", "T0.6", "T1")
    }
    rows = []
    for decoding, (base, alone, merged) in cells.items():
        more = mean_difference("trace_structural", [(merged, alone)])
        shares = [percent(float(cell.both("trace_structural").mean())) for cell in (base, alone, merged)]
        letters = [percent(float(cell.parts["system"]["acc_generated"][0].mean())) for cell in (alone, merged)]
        rows.append((decoding, *shares, span(more), *letters))
    merge = f"PT 0.5 + SFT {sft:g}"
    head = ("decoding", "base, %", f"SFT {sft:g}, %", f"{merge}, %", "more, points", "letters: SFT, %", "merge, %")
    return table(head, rows)
