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

# What the second paper's claims are asked of, and the types of modules that they name.
KINDS = {"lora": "adapter", "full": "full fine-tune"}
MLP, ATTENTION = ("gate_proj", "up_proj", "down_proj"), ("q_proj", "k_proj", "v_proj", "o_proj")
# Of a merge: what the scores are held against.
WEIGHTS = ("its weight", "SFT's weight")
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
            alone = float(name.rpartition("sft")[2] or 1)
            found.append(
                dict(zip(WEIGHTS, (weight, alone), strict=True))
                | {key: value for key, value in values.items() if key != "other"}
            )
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
        if name not in WEIGHTS and _strength(one)[0] > _strength(size)[1]
    ]
    return [
        f"Over {len(found)} merges of SFT with {len(of)} other adapters (PT's, and of other texts), scores that "
        "`crossmatch predict` gives before a merge is made. The rule asks for traces, which change only where SFT is "
        f"weak ({int(sum(value > 0 for value in traced))} of these merges); the size of the change in ln P(`<think>`) "
        "and the rise in sentences without a block (question 10) stand beside them. "
        + (
            f"By the rule {', '.join(better)} {'predict' if len(better) > 1 else 'predicts'}, {_beside_sft(figures)}."
            if better
            else "**Cannot tell**: none beats the update's size by the rule."
        )
        + " Weights are no scores (first two rows), but whether traces are left at all hangs on SFT's, so that a score "
        "which orders merges by it predicts them, whatever else it knows.",
        "",
        *table(("score", *sides), [(f"`{name}`", *map(_correlation, pair)) for name, pair in figures.items()]),
    ]


def _beside_sft(figures: dict[str, list[Figure]]) -> str:
    """Whether any score tells more of traces than SFT's weight does."""
    known = _strength(figures[WEIGHTS[1]][0])[1]
    above = [f"`{name}`" for name, found in figures.items() if name not in WEIGHTS and _strength(found[0])[0] > known]
    return f"and {', '.join(above)} more than SFT's weight does" if above else "but none more than SFT's weight does"


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
    if not all(kind in results.facts for kind in KINDS):
        return []
    rows = [
        (one["statement"], f"{one['vector']}, {what}", one["verdict"], *_parts(one))
        for kind, what in KINDS.items()
        for one in results.facts[kind]["claims"]
        if one["vector"] in ("pt", "sft")
    ]
    return [
        "### The claims of arXiv 2510.09359",
        "",
        "Asked of both adapters and of full fine-tunes on the same data; one training seed, intervals over layers (of "
        "activations: over texts). A claim has parts, each with its figure and the figure of no effect or the largest "
        "that counts as small, and a verdict is of its parts: a part may hold where the other does not. By the rule of "
        "this page a claim is contradicted only where every way of measuring it says so.",
        "",
        f"- **MLP modules write new directions**: {_said(results, 'mlp-writes')}. **Attention amplifies existing "
        f"ones**: {_said(results, 'attention-amplifies')}.",
        "- **Small subspace**, of full fine-tunes (an adapter of rank 16 lies in one by construction), has three ways: "
        f"the directions in which activations move: {_said(results, 'small-subspace-directions')}, since they are more "
        f"than a quarter of the base's, though fewer than a random vector's; the base's principal subspace: "
        f"{_said(results, 'small-subspace-subspace')}; the effective ranks of what changes in the weights: "
        f"{_ranks(results)}, which is few. Where these three do not agree the claim is neither supported nor "
        "contradicted by the rule.",
        f"- **Combination helps**: {_combined(results)}",
        "",
        *table(("claim", "of", "verdict", "measured"), rows),
    ]


def _said(results: Results, claim: str) -> str:
    """The verdicts on a claim, by what it was asked of; of a small subspace, full fine-tunes alone."""
    kinds = {"full": KINDS["full"]} if claim.startswith("small") else KINDS
    told = defaultdict(list)
    for kind, what in kinds.items():
        for one in results.facts[kind]["claims"]:
            if one["id"] == claim:
                told[one["verdict"]].append(f"{one['vector']}, {what}")
    return "; ".join(verdict if len(told) == 1 else f"{verdict} ({'; '.join(of)})" for verdict, of in told.items())


def _ranks(results: Results) -> str:
    """The effective rank of a full fine-tune's changes, over the smaller side of a matrix, by types of modules."""
    told = []
    for vector, types in results.facts["full"]["ranks"].items():
        for what, modules in (("MLP modules", MLP), ("attention", ATTENTION)):
            shares = [types[name] for name in modules]
            told.append(f"{vector} {min(shares):.0%} to {max(shares):.0%} in {what}")
    return (
        f"{'; '.join(told)} of the smaller side (medians over layers by type of module; a Gaussian matrix of these "
        "shapes has 61 to 85%)"
    )


def _combined(results: Results) -> str:
    """What both do together that PT alone does not, of adapters and of full fine-tunes."""
    told = []
    for kind, what in KINDS.items():
        both = results.facts[kind]["both"]
        lost, chosen = (both[suite]["pt1+sft1"]["difference"] for suite in ("documents", "name"))
        merged, alone = (both["documents"][name]["value"] for name in ("pt1+sft1", "sft"))
        told.append(
            f"{what}s, both at 1: perplexity of unread documents {merged:.1f} (SFT alone {alone:.1f}), "
            f"{_signed(lost, 1.0, 1)} against PT alone; names "
            f"{_signed(chosen, 100.0, 0)} points against PT alone"
        )
    return "; ".join(told) + "."


def _signed(found: dict[str, Any], scale: float, digits: int) -> str:
    value, low, high = (f"{found[key] * scale:+.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _parts(claim: dict[str, Any]) -> tuple[str]:
    told = [
        f"{part['what']}: {part['value']:.3g} ({part['low']:.3g} to {part['high']:.3g}; no effect: {part['null']:g})"
        for part in claim["parts"]
        if part["value"] is not None
    ]
    return ("; ".join(told),)
