"""Is the file what it claims to be?"""

from collections.abc import Mapping
from typing import Any

from crossmatch.answers.answer import CANNOT_TELL, NO, YES, Answer, Evidence, Outcome
from crossmatch.report.text import plain
from crossmatch.report.verdict_text import reason, sentence

_OUTCOMES: Mapping[str, Outcome] = {"verified": YES, "failed": NO, "inconclusive": CANNOT_TELL}


def claim_answer(name: str, verdict: Mapping[str, Any]) -> Answer:
    """From a verdict as `verify --json` has it: yes where it is verified, cannot tell where it is inconclusive."""
    outcome = _OUTCOMES[verdict["verdict"]]
    found = [
        f"{plain(key)} {'not identifiable' if weight['recovered'] is None else format(weight['recovered'], '.5f')}"
        for key, weight in verdict["weights"].items()
    ]
    weights = f" ({', '.join(found)})" if found else ""
    findings, step = verdict.get("findings") or [], None
    if outcome == YES:
        text = f"{plain(name)} is what it claims to be{weights}."
    elif outcome == NO:
        what = sentence(findings[0]["consequence"]) if findings else f"{', '.join(verdict['faults'])}."
        text = f"{plain(name)} is not what it claims to be{weights}: {what[:1].lower()}{what[1:]}"
        step = findings[0]["remedy"] if findings else None
    else:
        text = f"Whether {plain(name)} is what it claims to be cannot be told: {reason(verdict)}."
        step = "give the adapters and the base that the file was made from"
    modules = verdict["modules"]
    seen = f"{modules['agree']} of {modules['adapted']} adapted modules agree with the claim{weights}"
    evidence = (Evidence(f"verify/{plain(name)}.json: weights", seen, modules["adapted"]),)
    question = f"Is {plain(name)} what it claims to be?"
    return Answer("is-as-claimed", question, outcome, text, text, about=name, evidence=evidence, next=step)
