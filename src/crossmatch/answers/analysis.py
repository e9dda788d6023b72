"""Answers of an analysis: what the literature says of fine-tunes, and whether two updates interfere."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.answers.answer import CANNOT_TELL, NO, YES, Answer, Evidence, Outcome
from crossmatch.answers.decisions import MARGIN
from crossmatch.report.statements import answer_of, negligible, side
from crossmatch.report.text import plain

Json = Mapping[str, Any]
# The smallest cosine of two updates that matters, as for the statements of the literature.
EFFECT = 0.05
_Z = 1.959963984540054
_NONE = "no difference that matters"
_OUTCOMES: Mapping[str, Outcome] = {"supported": YES, "contradicted": NO, _NONE: NO}
# Beginning of a statement's id, or the statement itself in files of earlier versions -> question, its short form.
_QUESTIONS: Mapping[str, tuple[str, str]] = {
    "mlp-writes": ("Does {} write new directions into MLPs, more than into attention?", "MLPs write new directions"),
    "attention-amplifies": (
        "Does {} amplify existing directions in attention, more than in MLPs?",
        "attention amplifies existing directions",
    ),
    "small-subspace-directions": ("Does {} move activations in few directions?", "activations move in few directions"),
    "small-subspace-subspace": (
        "Does {} leave the principal subspace of activations in place?",
        "the principal subspace stays in place",
    ),
}
_FORMER = {
    "MLP modules write new directions, more than attention": "mlp-writes",
    "attention amplifies existing directions, more than MLP modules": "attention-amplifies",
}


def analysis_answers(facts: Json) -> list[Answer]:
    """Whether updates interfere, pair by pair, then every statement at the k that is read first."""
    pairs = [found for pair in facts["overlap"] if (found := _overlap_answer(pair)) is not None]
    return [*pairs, *(_claim_answer(claim) for claim in facts["claims"] if claim["primary"])]


def interference_answer(facts: Json, margin: float = MARGIN) -> Answer:
    """Does one adapter raise the loss of the other's task in the merge? margin: percent of perplexity, and so
    hundredths of a nat per token. yes: the 95% interval of the change lies above 0; no: it ends below the margin."""
    guest, host, loss = plain(facts["guest"]), plain(facts["host"]), facts["attribution"]["loss"]
    change, error = loss["change"]["value"], loss["change"]["stderr"]
    n = facts.get("texts", {}).get("items")
    question = f"Does {guest} interfere with {host}'s task?"
    where = "interference.json: attribution/loss/change"
    names: dict[str, Any] = {"about": guest, "against": host, "good": NO, "margin": margin}
    if error is None or change is None:
        text = f"Cannot tell: the change of {host}'s loss has no standard error."
        step = "measure on more items (--interference)"
        return Answer("interferes", question, CANNOT_TELL, text, text, next=step, **names)
    low, high = change - _Z * error, change + _Z * error
    figure = f"loss {change:+.3f} nats per token, {low:+.3f} to {high:+.3f}"
    evidence = (Evidence(where, figure, n),)
    if low > 0:
        text, outcome = f"Yes: {guest} raises the loss of {host}'s task ({figure}).", YES
        step = f"lower {guest}'s weight"
    elif high < margin / 100:
        less = "lowers" if high < 0 else "does not raise"
        text, outcome, step = f"No: {guest} {less} the loss of {host}'s task ({figure}).", NO, None
    else:
        text, outcome = f"Cannot tell whether {guest} raises the loss of {host}'s task ({figure}).", CANNOT_TELL
        step = "measure on more items (--interference)"
    return Answer("interferes", question, outcome, text, text, evidence=evidence, next=step, **names)


def _overlap_answer(pair: Json) -> Answer | None:
    """Do two updates pull in one direction, or against each other? By the cosine over all modules together.

    yes: its size, less 1.96 standard deviations of its null, is above `EFFECT`; no: with them it is below.
    """
    whole = next((row for row in pair["rows"] if row["level"] == "all"), None)
    if whole is None or whole["cosine"]["value"] is None:
        return None
    first, second = plain(pair["first"]), plain(pair["second"])
    cosine, spread = whole["cosine"]["value"], _Z * (whole["cosine"]["null_sd"] or 0.0)
    size = abs(cosine)
    outcome: Outcome = YES if size - spread > EFFECT else NO if size + spread < EFFECT else CANNOT_TELL
    figure = f"cosine {cosine:+.3f}, by chance within {spread:.2g}"
    shared = whole["columns"]["overlap"] if whole.get("columns") else None
    spaces = ""
    if shared and shared["lift"] is not None:
        spaces = f" They share output directions {shared['lift']:.3g} times as much as random updates."
    opens = {YES: "Yes", NO: "No", CANNOT_TELL: "Cannot tell"}[outcome]
    how = "pull in one direction" if cosine > 0 else "work against each other"
    words = {
        YES: f"the updates of {first} and {second} {how}",
        NO: f"the updates of {first} and {second} are nearly orthogonal",
        CANNOT_TELL: f"too few tensors show how the updates of {first} and {second} relate",
    }[outcome]
    sentence = f"{opens}: {words} ({figure}).{spaces}"
    line = sentence.removeprefix(f"{opens}: ")
    place = f"analysis.json: overlap/{first}-{second}/all/cosine"
    return Answer(
        "updates-interfere",
        f"Do the updates of {first} and {second} interfere?",
        outcome,
        sentence,
        line[:1].upper() + line[1:],
        about=first,
        against=second,
        good=NO,
        margin=EFFECT,
        evidence=(Evidence(place, figure, whole["n"]),),
        next="measure it on a task: crossmatch evaluate --interference N",
    )


def _claim_answer(claim: Json) -> Answer:
    """A statement of the literature: supported, contradicted, no difference that matters, or not decided."""
    vector = plain(claim["vector"])
    key = claim.get("id") or _FORMER.get(claim["statement"], "statement")
    question, short = _QUESTIONS.get(key, (claim["statement"] + " ({})?", claim["statement"]))
    said = answer_of(claim)
    outcome = _OUTCOMES.get(said, CANNOT_TELL)
    opens = {YES: "Yes", NO: "No", CANNOT_TELL: "Cannot tell"}[outcome]
    parts = _named(claim["parts"])
    wanted = {YES: True, NO: False, CANNOT_TELL: None}[outcome]
    if said == _NONE:
        telling = next((part for part in parts if negligible(part)), None)
    else:
        telling = next((part for part in parts if part["holds"] is wanted), None)
    why = claim["why"] or (_figure(telling).removesuffix(f": {_NONE}") if telling else "no figure is defined")
    evidence = tuple(
        Evidence(f"analysis.json: claims/{key}/{vector}", _figure(part), part.get("layers")) for part in parts
    )
    line = f"in {vector}, “{short}” {'makes' if said == _NONE else 'is'} {said} ({why})."
    sentence, line = f"{opens}: {line}", f"I{line[1:]}"
    return Answer(
        key,
        question.format(vector),
        outcome,
        sentence,
        line,
        about=vector,
        good=outcome if outcome != CANNOT_TELL else YES,
        margin=EFFECT,
        evidence=evidence,
    )


def _named(parts: Sequence[Json]) -> list[Json]:
    """The parts that have a value, each with a name of its own: one that refers to the first names it."""
    found = []
    for part in parts:
        what = part["what"]
        if what.startswith("the same, "):
            stem = parts[0]["what"].split(" in ")[0]
            what = f"{stem}, {what.removeprefix('the same, ').replace(' less ', ' minus ')}"
        if part["value"] is not None:
            found.append({**part, "what": what})
    return found


def _figure(part: Json) -> str:
    if part["low"] is None or part["high"] is None or not math.isfinite(part["value"]):
        return f"{part['what']} {part['value']:.3g}, no interval"
    return f"{part['what']} {part['value']:.3g} ({part['low']:.3g} to {part['high']:.3g}), {side(part)}"
