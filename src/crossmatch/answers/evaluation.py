"""Answers of an evaluation: is a variant as good as what it would replace, does it know more, do traces return."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crossmatch.answers.answer import (
    CANNOT_TELL,
    NO,
    YES,
    Answer,
    Evidence,
    Outcome,
    all_of,
    change_text,
    joined,
)
from crossmatch.answers.decisions import MARGIN, TRACES, Decision, as_good, better, more_traces
from crossmatch.answers.form import fall_text, longest
from crossmatch.results.metrics import metric_of

Json = Mapping[str, Any]
# Kinds of variants that somebody may ship, and those that are asked about if there are none of them.
_SHIPPED = ("merge", "checkpoint", "served")
_ALONE = ("adapter",)
# Of a suite's metrics the first that it has stands for it, by the suite's kind. Of overlaps with a reference this is
# ROUGE-L: a mean of F-scores over items, so that it has an interval below 40 items, where BLEU has none.
_SCORES: Mapping[str, tuple[str, ...]] = {
    "generation": ("number", "exact", "rougeL", "bleu", "chrf"),
    "instructions": ("followed_strict", "followed_loose"),
    "choice": ("acc", "acc_generated"),
    "text": ("perplexity", "bits_per_byte"),
}
_TRACES = ("trace_structural", "trace_untagged")


@dataclass(frozen=True)
class _Asked:
    """What one answer is about. key: which difference of an entry; other: the variant that it is taken from;
    audited: of suites that an audit looked at, how many items there are (n), and are in training data (found)."""

    summary: Json
    condition: str
    variant: str
    key: str
    other: str
    margin: float
    audited: Mapping[str, Json]

    @property
    def suites(self) -> Mapping[str, Json]:
        """Suites under this condition."""
        return self.summary["conditions"][self.condition]["suites"]

    @property
    def names(self) -> dict[str, Any]:
        """The fields that all answers have."""
        return {"about": self.variant, "against": self.other, "condition": self.condition}

    def where(self, suite: str, metric: str) -> str:
        """The place of a difference in the summary."""
        place = f"conditions/{self.condition}/suites/{suite}/metrics/{metric}/{self.variant}/{self.key}"
        return f"summary.json: {place}"


_NOTHING = "no variant gets anything right"


@dataclass(frozen=True)
class _Part:
    """One suite's figure in an answer: its decision, the figure in words, why there is none; what an audit found."""

    suite: str
    decision: Decision
    evidence: Evidence
    title: str
    why: str = ""
    trained: str = ""

    @property
    def figure(self) -> str:
        """The figure, and how many of its items are in training data, if any are."""
        return f"{self.evidence.text}; {self.trained}" if self.trained else self.evidence.text


def evaluation_answers(
    summary: Json, *, margin: float = MARGIN, audited: Mapping[str, Json] | None = None
) -> list[Answer]:
    """Every question that the summary can answer, of each variant that somebody may ship and under each condition.

    margin: points of a score, or percent of a perplexity; audited: `held_out` of an audit, by suite.
    """
    found: list[Answer] = []
    for condition in summary["conditions"]:
        for variant in subjects(summary):
            for key, other in _others(summary, condition, variant):
                asked = _Asked(summary, condition, variant, key, other, margin, audited or {})
                answers = [_answers_as_well(asked), _knows_more(asked), _chooses_as_well(asked)]
                answers += [_traces(asked)] if key != "difference_control" else []
                found += [answer for answer in answers if answer]
    return found


def subjects(summary: Json) -> list[str]:
    """Variants that somebody may ship: merges and checkpoints; without any the adapters, the reference last."""
    variants = summary["variants"]
    shipped = [name for name, facts in variants.items() if facts["kind"] in _SHIPPED]
    alone = [name for name, facts in variants.items() if facts["kind"] in _ALONE]
    shipped = [name for name in shipped if name != summary["reference"]]
    return shipped or [name for name in alone if name != summary["reference"]] or alone


def control_of(summary: Json, variant: str) -> str | None:
    """The reference at the weight that it has in a merge."""
    reference, weights = summary["reference"], summary["variants"][variant].get("weights") or {}
    for name, facts in summary["variants"].items():
        if facts["kind"] == "control" and facts.get("weights") == {reference: weights.get(reference)}:
            return name
    controls = [name for name, facts in summary["variants"].items() if facts["kind"] == "control"]
    return controls[0] if len(controls) == 1 else None


def _others(summary: Json, condition: str, variant: str) -> Iterator[tuple[str, str]]:
    """Which differences a variant has, and from what."""
    suites = summary["conditions"][condition]["suites"].values()
    if not any(suite["n"] or suite["incomplete"] for suite in suites):
        return
    control = control_of(summary, variant) if summary["variants"][variant]["kind"] == "merge" else None
    base = next((name for name, facts in summary["variants"].items() if facts["kind"] == "base"), None)
    if variant != summary["reference"]:
        yield "difference", summary["reference"]
    elif base is not None:
        yield "difference_base", base
    if control is not None:
        yield "difference_control", control


def _parts(asked: _Asked, kinds: Sequence[str]) -> list[tuple[str, Json, str]]:
    """Suites of some kinds, each with the metric that stands for it."""
    found = []
    for name, suite in asked.suites.items():
        metric = next((m for m in _SCORES.get(suite["kind"], ()) if m in suite["metrics"]), None)
        if suite["kind"] in kinds and metric is not None and asked.variant in suite["metrics"][metric]:
            found.append((name, suite, metric))
    return found


def _missing(suite: Json) -> str:
    """Why a suite has no difference."""
    for variant, fault in (suite["incomplete"] or {}).items():
        return f"{variant} has no answer to {fault['failed']} items ({fault['reason'][:60]})"
    return f"{suite['n']} items are too few to compare"


def _judged(asked: _Asked, kinds: Sequence[str]) -> list[_Part]:
    """Non-inferiority of every suite of some kinds."""
    chosen, found = _parts(asked, kinds), []
    for name, suite, metric in chosen:
        known = metric_of(metric)
        title, scale = known.title, known.unit.scale
        point = asked.margin / scale
        difference = suite["metrics"][metric][asked.variant].get(asked.key)
        decision = as_good(difference, point, family=len(chosen))
        part = _part(asked, (name, suite, metric), difference, decision, (title, scale))
        if not any(figure.get("value") for figure in suite["metrics"][metric].values()):
            # Of zeros all are equal, whatever the variants are worth.
            part = replace(part, decision=Decision(CANNOT_TELL), why=_NOTHING)
        found.append(part)
    return found


def _part(
    asked: _Asked, chosen: tuple[str, Json, str], difference: Json | None, decision: Decision, form: tuple[str, float]
) -> _Part:
    name, suite, metric = chosen
    title = _title(form[0])
    text = f"{title} {change_text(difference, form[1])}" if difference else _missing(suite)
    n = difference["n"] if difference else suite["n"]
    evidence = Evidence(asked.where(name, metric), text, n, decision.needed)
    audit = asked.audited.get(name, {"found": 0})
    trained = f"{audit['found']:,} of {audit['n']:,} items are in training data" if audit["found"] else ""
    return _Part(name, decision, evidence, title, "" if difference else _missing(suite), trained)


def _title(title: str) -> str:
    """A metric's name without its unit: differences of shares are in points."""
    return title.removesuffix(" %")


def _figures(parts: Sequence[_Part]) -> str:
    """The figures of some parts, each with its suite where there are several."""
    several = len(parts) > 1
    return "; ".join(f"{f'{part.suite} ' if several else ''}{part.figure}" for part in parts)


def _needed(parts: Sequence[_Part]) -> str:
    """How many items there are of those that would decide, of the part that needs most."""
    known = [part for part in parts if part.evidence.needed is not None]
    if not known:
        return ""
    most = max(known, key=lambda part: part.evidence.needed or 0)
    return f"{most.evidence.n:,} of {most.evidence.needed:,}"


def _would(parts: Sequence[_Part], noun: str) -> str:
    """The same as the end of a sentence."""
    known = [part.evidence for part in parts if part.evidence.needed is not None]
    most = max(known, key=lambda one: one.needed or 0, default=None)
    return f"; about {most.needed:,} {noun} would decide, {most.n:,} were asked" if most else ""


@dataclass(frozen=True)
class _Words:
    """How one question about quality is put, and answered."""

    id: str
    question: str
    verb: str
    noun: str


_ANSWERS = _Words("answers-as-well", "Does {} answer as well as {}?", "answers", "items")
_CHOOSES = _Words("chooses-as-well", "Does {} choose as well as {}?", "chooses", "questions")


def _answers_as_well(asked: _Asked) -> Answer | None:
    return _quality(asked, _judged(asked, ("generation", "instructions")), _ANSWERS)


def _chooses_as_well(asked: _Asked) -> Answer | None:
    return _quality(asked, _judged(asked, ("choice",)), _CHOOSES)


def _quality(asked: _Asked, parts: Sequence[_Part], words: _Words) -> Answer | None:
    """Is it as good in all suites? yes: in all of them; no: in one it is worse by more than the margin."""
    if not parts:
        return None
    outcome = all_of([part.decision.outcome for part in parts])
    points = f"{asked.margin:g} point{'' if asked.margin == 1 else 's'}"
    deciding = [part for part in parts if part.decision.outcome == outcome] or list(parts)
    figures, verb, step = _figures(deciding), words.verb, None
    if outcome == YES:
        gained = [part for part in parts if part.decision.clear > 0]
        lost = [part for part in parts if part.decision.clear < 0]
        how = "better" if len(gained) == len(parts) else "as well"
        sentence = f"Yes: {asked.variant} {verb} {'better than' if how == 'better' else 'as well as'} {asked.other}"
        sentence += f"{'' if how == 'better' else f' within {points}'} ({figures})."
        sentence += f" A loss below that is shown in {joined([part.suite for part in lost])}." if lost else ""
        short = f"{verb} {how} ({figures})"
    elif outcome == NO:
        sentence = f"No: {asked.variant} {verb} worse than {asked.other} by more than {points} ({figures})."
        why = fall_text(asked.suites, asked.variant, asked.key) if words is _ANSWERS else ""
        sentence += f" {why}." if why else ""
        short = f"{verb} worse ({figures})"
        step = f"do not replace {asked.other} by {asked.variant}; try other weights"
    else:
        missing = [part for part in deciding if part.why]
        needed = _needed(deciding)
        worse = any(part.decision.clear < 0 for part in deciding)
        if missing:
            sentence = f"Cannot tell: {missing[0].suite} was not compared, as {missing[0].why}."
            short = f"{verb} as well ({missing[0].why})"
        else:
            loss = "it is worse, but a loss of" if worse else "a loss of"
            shown = "is not shown" if worse else "is neither shown nor excluded"
            would = _would(deciding, words.noun)
            sentence = f"Cannot tell: {loss} {points} {shown} ({figures}{would})."
            short = f"{verb} as well ({needed or figures})"
        step = _more(deciding, words.noun)
    evidence = tuple(part.evidence for part in parts)
    question = words.question.format(asked.variant, asked.other)
    more: dict[str, Any] = {"margin": asked.margin, "evidence": evidence, "next": step}
    return Answer(words.id, question, outcome, sentence, short, **asked.names, **more)


def _more(parts: Sequence[_Part], noun: str) -> str | None:
    """What would decide: so many items of a suite, or the answers that are missing."""
    missing = next((part for part in parts if part.why), None)
    if missing is not None:
        if missing.why == _NOTHING:
            return f"read what was answered to “{missing.suite}” (samples.json), and how it is asked"
        if "no answer" in missing.why:
            return f"run the same command again to get the missing answers to “{missing.suite}”"
        return f"ask more {noun} of “{missing.suite}”"
    known = [part for part in parts if part.evidence.needed is not None]
    if not known:
        return None
    most = max(known, key=lambda part: part.evidence.needed or 0)
    return f"ask about {most.evidence.needed:,} {noun} of “{most.suite}”"


def _knows_more(asked: _Asked) -> Answer | None:
    """Is the perplexity of documents lower? yes: of one suite, and higher of none; no: higher of one, or lower by less
    than the margin of all."""
    parts = []
    for name, suite, metric in _parts(asked, ("text",)):
        known = metric_of(metric)
        title, scale = known.title, known.unit.scale
        table = suite["metrics"][metric]
        difference, other = table[asked.variant].get(asked.key), table.get(asked.other)
        worth = asked.margin / 100 * other["value"] if other and other["value"] else 0.0
        decision = better(difference, worth, higher_is_better=False) if worth else Decision(CANNOT_TELL)
        parts.append(_part(asked, (name, suite, metric), difference, decision, (title, scale)))
    if not parts:
        return None
    found = [part.decision for part in parts]
    if any(one.clear < 0 for one in found) or all(one.outcome == NO for one in found):
        outcome: Outcome = NO
    else:
        outcome = YES if any(one.outcome == YES for one in found) else CANNOT_TELL
    deciding = [part for part in parts if part.decision.outcome == outcome] or parts
    documents = (
        "unseen" if all(asked.audited.get(part.suite, {}).get("found") == 0 for part in parts) else "held-out"
    ) + " documents"
    figures, worse, step = _figures(deciding), any(part.decision.clear < 0 for part in deciding), None
    if outcome == YES:
        sentence = f"Yes: {asked.variant} knows more of {documents} than {asked.other} ({figures})."
        short = f"knows more of {documents} ({figures})"
    elif outcome == NO:
        what = "less of" if worse else "no more of"
        sentence = f"No: {asked.variant} knows {what} {documents} than {asked.other} ({figures})."
        short = f"knows {what} {documents} ({figures})"
    else:
        needed = _needed(deciding)
        missing = next((part for part in deciding if part.why), None)
        reason = missing.why if missing else f"{figures}{_would(deciding, 'documents')}"
        sentence = f"Cannot tell: neither a gain of {asked.margin:g}% nor its absence is shown ({reason})."
        short = f"knows more of {documents} ({missing.why if missing else needed or figures})"
        step = _more(deciding, "documents")
    question = f"Does {asked.variant} know more of {documents} than {asked.other}?"
    evidence = tuple(part.evidence for part in parts)
    more: dict[str, Any] = {"margin": asked.margin, "evidence": evidence, "next": step}
    return Answer("knows-more", question, outcome, sentence, short, **asked.names, **more)


def _traces(asked: _Asked) -> Answer | None:
    """Do traces return? yes: in one suite by one sign; no: in all by all; the welcome answer is no."""
    parts = []
    for name, suite in asked.suites.items():
        for metric in _TRACES:
            entry = suite["metrics"].get(metric, {}).get(asked.variant)
            if entry is None or entry["value"] is None:
                continue
            other = suite["metrics"][metric].get(asked.other) or entry
            decision = more_traces(entry, entry.get(asked.key))
            count = round(entry["value"] * entry["n"])
            most = "" if entry["high"] is None else f"; interval up to {100 * entry['high']:.1f}%"
            share = f"{100 * (other['value'] or 0):.0f}%"
            text = f"{count} of {entry['n']} answers"
            text += (
                f", {share} of those of {asked.other}"
                if decision.outcome == YES
                else f" ({asked.other}: {share}{most})"
            )
            parts.append(
                _Part(name, decision, Evidence(asked.where(name, metric), text, entry["n"], decision.needed), metric)
            )
    if not parts:
        return None
    outcomes = [part.decision.outcome for part in parts]
    outcome: Outcome = YES if YES in outcomes else NO if set(outcomes) == {NO} else CANNOT_TELL
    deciding = max(
        (part for part in parts if part.decision.outcome == outcome), key=lambda part: part.decision.needed or 0
    )
    figures, step = deciding.evidence.text, None
    if outcome == YES:
        sentence = f"Yes: traces return in {deciding.suite} ({figures})."
        short = f"has traces again ({figures})"
        step = "give the reference a larger weight, or evaluate with the template nothink"
    elif outcome == NO:
        sentence = f"No: {figures} have a trace."
        short = f"has no traces ({figures.partition(' (')[0]})"
    else:
        needed, count = _needed([deciding]), deciding.evidence.needed
        sentence = f"Cannot tell: {figures} have a trace; about {count} answers without one would exclude {TRACES:.0%}."
        short = f"has no traces ({needed})"
    long = longest(asked.suites, asked.variant, asked.key, asked.other) if outcome != YES else ""
    if long:
        sentence += f" But its answers are {long}: reasoning in sentences has no marker to count, so read some."
        short += f", but answers {long.partition(' as long')[0]} as long"
        step = "read the longest answers side by side (samples.json, or the page)"
    question, evidence = f"Do reasoning traces return in {asked.variant}?", tuple(part.evidence for part in parts)
    more: dict[str, Any] = {"good": NO, "evidence": evidence, "next": step, "margin": 100 * TRACES}
    return Answer("traces-return", question, outcome, sentence, short, **asked.names, **more)
