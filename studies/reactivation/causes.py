"""The questions of the case study that look inside: where it comes from, what predicts it, what mends it, and the
claims of arXiv 2510.09359. Like `questions.py`, from the kept results alone."""

import json
from collections import defaultdict
from typing import Any

import numpy as np
from questions import control, percent, span, table

from answers import (
    Results,
    adjusted,
    compared,
    is_less,
    mean_difference,
    sentences_more,
    think_more,
    traces,
    traces_more,
)
from crossmatch.evaluation.comparison.paired import figure
from crossmatch.statistics.estimates import Figure
from crossmatch.statistics.rank_correlation import spearman

# By how much integrated gates may miss the change that they explain (rule 6).
COMPLETE = 0.1
BAND = 5
TITLES = {
    "gradient": "gates' gradients",
    "integrated": "integrated gates",
    "activation_ratio": "activations, PT's over SFT's",
    "activation_size": "size of PT's activations",
    "activation_reversed": "activations taken back",
    "overlap_cosine": "cosine of the two updates",
    "overlap_energy": "shared energy of the two updates",
}


def where(results: Results) -> list[str]:
    """Question 6: layers and module types, by integrated gates that are complete and confirmed by ablation."""
    found = results.facts["grid"]["interference"]
    of = found["targets"]["odds"]
    change, complete = of["change"]["value"], of["completeness"]
    confirmed = of["agreement"]["integrated"]["mean"]["change"]
    valid = abs(complete - 1) <= COMPLETE and confirmed["low"] > 0
    bands: dict[int, float] = defaultdict(float)
    kinds: dict[str, float] = defaultdict(float)
    for one in of["modules"]:
        bands[one["layer"] // BAND] += one["value"]
        kinds[one["module"]] += one["value"]
    weights = " + ".join(f"{weight:g}" for weight in found["weights"].values())
    largest = max(bands, key=lambda band: abs(bands[band]))
    answer = (
        f"At {weights} PT changes the log-odds of a trace's first token by {change:+.2f} nats "
        f"(standard error {of['change']['stderr']:.2f}). Integrated gates explain {100 * complete:.1f}% of it, and "
        f"agree with taking modules out (rank correlation {confirmed['value']:.2f}, {confirmed['low']:.2f} to "
        f"{confirmed['high']:.2f}, {confirmed['n']} groups of modules)"
    )
    answer += (
        f": **layers {largest * BAND} to {largest * BAND + BAND - 1} carry {bands[largest]:+.2f} of it**; no module "
        "type stands out. It is a fall, at a point where no answer has a trace, from one training seed; completeness "
        "holds by construction, and the correlation says that the change is small enough to be additive. It does not "
        "say where the sentences of question 10 come from."
        if valid
        else ", which is not enough by the rule: no place is named."
    )
    return [
        "### 6. Which layers and module types carry it?",
        "",
        answer,
        "",
        *table(
            ("layers", "nats"),
            [(f"{band * BAND} to {band * BAND + BAND - 1}", f"{bands[band]:+.3f}") for band in sorted(bands)],
        ),
        *table(("module type", "nats"), [(kind, f"{value:+.3f}") for kind, value in kinds.items()]),
    ]


def predictors(results: Results) -> list[str]:
    """Question 7: rank correlations, over groups of modules at one point, and over the points of the grid."""
    agreement = results.facts["grid"]["interference"]["targets"]["odds"]["agreement"]
    rows = [
        (TITLES[name], _correlation(found["mean"]["change"]), _correlation(found["mean"]["size"]))
        for name, found in agreement.items()
    ]
    lines = [
        "### 7. What predicts it?",
        "",
        "Rank correlation over groups of modules, of what each predictor says and of what taking the group out does to "
        "the log-odds of a trace; with its sign, and in size alone.",
        "",
        *table(("predictor", "with its sign", "size"), rows),
    ]
    file = results.folder / "scores.json"
    return lines + (_over_points(results, json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else [])


def _over_points(results: Results, scores: dict[str, dict[str, Any]]) -> list[str]:
    """The same over merges: the change in ln P(<think>) and in sentences without a block, by scores made before."""
    changes, said, traced, found, of = [], [], [], [], set()
    for run, merges in scores.items():
        for name, values in merges.items():
            if not results.has(run) or name not in results.variants(run):
                continue
            beside = control(results, run, float(name.rpartition("sft")[2] or 1))
            merged = results.cell(run, name)
            traced.append(abs(traces_more(merged, beside).value))
            changes.append(abs(think_more(merged, beside).value))
            said.append(float((merged.both("sentences") - beside.both("sentences")).mean()))
            weight = float(name.partition("+")[0].removeprefix(values["other"]) or 1)
            found.append({"the weight": weight} | {key: value for key, value in values.items() if key != "other"})
            of.add((run, values["other"]))
    sides = {
        "change in traces": np.array(traced),
        "change in ln P": np.array(changes),
        "sentences without a block": np.array(said),
    }
    figures = {
        name: [
            spearman(np.array([one[name] if one[name] is not None else np.nan for one in found], float), side)
            for side in sides.values()
        ]
        for name in found[0]
    }
    better = [
        f"`{name}` ({what})"
        for name, pair in figures.items()
        for what, one, size in zip(sides, pair, figures["size"], strict=True)
        if _strength(one)[0] > _strength(size)[1]
    ]
    return [
        f"Over {len(found)} merges of {len(of)} adapters with SFT, PT's and those of other texts, scores that "
        "`crossmatch predict` gives before a merge is made. The rule asks for traces, which change only where SFT is "
        f"weak ({int(sum(value > 0 for value in traced))} of these merges); the size of the change in ln P(`<think>`) "
        "and the rise in sentences without a block (question 10) stand beside them. "
        + (
            f"By the rule {', '.join(better)} predicts."
            if better
            else "**Cannot tell**: none beats the update's size by the rule."
        )
        + " What a score says beyond the adapter's weight (first row) is the difference to that row.",
        "",
        *table(("score", *sides), [(f"`{name}`", *map(_correlation, pair)) for name, pair in figures.items()]),
    ]


def _strength(found: Figure) -> tuple[float, float]:
    """The interval of a correlation's size, whatever its sign."""
    low, high = found.low or 0.0, found.high or 0.0
    return (low, high) if low > 0 else (-high, -low) if high < 0 else (0.0, max(-low, high))


def _correlation(found: Any) -> str:
    one = found.to_dict() if isinstance(found, Figure) else found
    if one["value"] is None:
        return "–"
    text = f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"
    return f"**{text}**" if one["low"] > 0 or one["high"] < 0 else text


def mended(results: Results) -> list[str]:
    """Question 9: every repair at the worst point, by a detector that does not look at banned tokens, with its cost."""
    if not results.has("repairs"):
        return []
    facts = json.loads((results.folder / "repairs.json").read_text(encoding="utf-8"))
    a, b = facts["point"]
    cells = {name: results.cell("repairs", name) for name in facts["repairs"]}
    merged, names = cells["merge"], [name for name in facts["repairs"] if name not in ("merge", "sft")]
    said = dict(zip(names, adjusted([sentences_more(cells[name], merged) for name in names]), strict=True))
    spoilt = dict(zip(names, adjusted([compared("bleu", "define", cells[n], merged) for n in names]), strict=True))
    longer = adjusted([mean_difference("output_tokens", [(cells[name], merged)]) for name in names])
    shorter = {name for name, one in zip(names, longer, strict=True) if is_less(one)}
    rows = []
    for name, what in facts["repairs"].items():
        cell = cells[name]
        rows.append(
            (
                what,
                percent(traces(cell)),
                percent(float(cell.both("sentences").mean())),
                span(said[name]) if name in said else "",
                f"{cell.both('output_tokens').mean():.0f}",
                f"{figure('bleu', cell.parts['define']).value or 0.0:.1f}",
                span(spoilt[name], scale=1.0, digits=1) if name in spoilt else "",
            )
        )
    # A change that swaps the sentences for others as long mends nothing.
    working = [name for name in names if name in shorter and is_less(said[name]) and not is_less(spoilt[name])]
    hollow = [name for name in names if name not in shorter and is_less(said[name])]
    # Of those that take away as much, the one with the best answers.
    best = min(working, key=lambda name: (said[name].value, -spoilt[name].value), default=None)
    answer = (
        f"At {a:g} + {b:g}, the point with most sentences without a block (question 10), {len(working)} of "
        f"{len(names)} changes take them away, with shorter answers and without a fall in BLEU that can be shown; **"
        f"{facts['repairs'][best]}** takes most ({span(said[best])} points). Halving PT is a point of the grid, and "
        "says again that the sentences need PT's full weight; none of the changes of layers or modules is shown to "
        "do more than less PT does, and they have no random counterpart here."
        if best
        else f"At {a:g} + {b:g}, none takes it away with shorter answers and without a fall in BLEU."
    )
    for name in hollow:
        answer += (
            f" **No repair: {facts['repairs'][name]}** ({span(said[name])} points): the answers stay as long "
            f"({cells[name].both('output_tokens').mean():.0f} tokens), {cells[name].both('truncated').mean():.0%} of "
            "them run into the limit of tokens."
        )
    circular = traces_more(cells["ban"], merged)
    answer += (
        f" The ban on the trace's tokens finds no trace to take away here ({span(circular)} points), and leaves the "
        f"sentences ({span(said['ban'])}). What a repair costs of PT's knowledge was not asked."
    )
    head = ("repair", "traces, %", "in sentences, %", "change, points", "tokens", "BLEU", "change")
    return ["### 9. Which repair works best at what cost?", "", answer, "", *table(head, rows)]


def claims(results: Results) -> list[str]:
    """The claims of the second paper, on the adapters and on full fine-tunes."""
    rows = [
        (one["statement"], f"{one['vector']}, {what}", one["verdict"], *_parts(one))
        for run, what in (("grid", "adapter"), ("full", "full fine-tune"))
        for one in results.facts.get(run, {}).get("claims", [])
        if one["vector"] in ("pt", "sft") and one["primary"]
    ]
    return [
        "### The claims of arXiv 2510.09359",
        "",
        "Asked of both adapters are the claims on where updates write; one training seed, intervals over layers. A "
        "claim has parts, each with its figure and the figure of no effect, and the verdict is of the whole: a part "
        "may hold where the other makes no difference. *Small subspace* is not asked: an adapter of rank 16 lies in "
        "one by construction, so that it needs the full fine-tunes. *Combination helps* is not decided: "
        f"{_combined(results)}",
        "",
        *table(("claim", "of", "verdict", "measured"), rows),
    ]


def _combined(results: Results) -> str:
    """Perplexity of unread documents and names chosen, of each alone and of both, as far as it was kept."""
    names = ("sft", "pt", "pt1+sft1")
    kept = results.facts["grid"]["perplexity"]
    documents = ", ".join(f"{kept[name]['value']:.1f}" for name in names)
    chosen = ", ".join(percent(figure("acc", results.cell("grid", name).parts["name"])) for name in names)
    return (
        f"of SFT, PT, and both at 1 the perplexity of unread documents is {documents}, and of names {chosen}% are "
        "chosen rightly; differences from PT alone were not kept."
    )


def _parts(claim: dict[str, Any]) -> tuple[str]:
    told = [
        f"{part['what']}: {part['value']:.3g} ({part['low']:.3g} to {part['high']:.3g}; no effect: {part['null']:g})"
        for part in claim["parts"]
        if part["value"] is not None
    ]
    return ("; ".join(told),)
