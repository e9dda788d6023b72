"""Is the test set clean?"""

from collections.abc import Mapping
from typing import Any

from crossmatch.answers.answer import CANNOT_TELL, NO, YES, Answer, Evidence, joined

Json = Mapping[str, Any]
_ID, _QUESTION = "test-set-clean", "Are the test sets free of training data?"


def clean_answer(audit: Json) -> Answer | None:
    """From the result of an audit: no if an item of a held-out set was found; None without held-out sets."""
    sets = audit.get("held_out") or {}
    if not sets:
        return None
    evidence = tuple(
        Evidence(f"audit.json: held_out/{name}", f"{found['found']:,} of {found['n']:,} items of {name}", found["n"])
        for name, found in sets.items()
    )
    touched = {name: found for name, found in sets.items() if found["found"]}
    count = sum(found["n"] for found in sets.values())
    if not count:
        return Answer(_ID, _QUESTION, CANNOT_TELL, "Cannot tell: there are no held-out items.", evidence=evidence)
    if not touched:
        text = f"None of {count:,} items of {joined(list(sets))} was found in the training data."
        return Answer(_ID, _QUESTION, YES, text, text, evidence=evidence)
    parts = [f"{name} ({found['found']:,} of {found['n']:,})" for name, found in touched.items()]
    text = f"Training data hold text of test items: {joined(parts)}."
    step = f"read the clean items' figures ({_kept(touched)}), or ask other items"
    return Answer(_ID, _QUESTION, NO, text, text, evidence=evidence, next=step)


def audited_in(summary: Json) -> Json | None:
    """What a summary itself tells of an audit, in the audit's form: suites with fewer clean items than items."""
    touched = {
        name: {"n": suite["n"], "found": suite["n"] - suite["clean"]["n"]}
        for condition in summary["conditions"].values()
        for name, suite in condition["suites"].items()
        if suite.get("clean")
    }
    return {"held_out": touched} if touched else None


def _kept(touched: Mapping[str, Json]) -> str:
    return ", ".join(f"{name}: {found['n'] - found['found']:,}" for name, found in touched.items())
