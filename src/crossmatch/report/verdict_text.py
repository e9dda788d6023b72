"""A verdict (the dict of `verify --json`) in sentences, the same wherever it is shown. Its names are strangers'."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crossmatch.report.text import plain

REASON_NOTE = "not-identifiable"
"""The note that says why a verdict is inconclusive."""
_ROUTES = {
    "once": "rounded once",
    "twice": "rounded more than once, an honest route",
    "models": "merged as models of their own first, an honest route",
}


def places(where: Sequence[str], most: int = 3) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(where) - most} more" if len(where) > most else ""
    return ", ".join(map(plain, where[:most])) + more


def seen(finding: Mapping[str, Any]) -> str:
    """What was seen of a fault, and where; empty if there is nothing to say."""
    evidence = plain(finding["evidence"])
    # Places that the evidence names are not named again; nor are those that it counts ("and 2 more") behind them.
    told = all(plain(where) in evidence for where in finding["where"][: 1 if " more" in evidence else None])
    return "; in ".join(filter(None, (evidence, "" if told else places(finding["where"]))))


def finding_lines(finding: Mapping[str, Any]) -> list[str]:
    """What a fault means, what was seen of it, what to do."""
    what = seen(finding)
    return [sentence(finding["consequence"]), *([f"Seen: {what}."] if what else []), sentence(finding["remedy"])]


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def with_error(value: float | None, error: float | None) -> str:
    """A value with its standard error, to the digits that the error leaves."""
    if value is None or error is None:
        return "not identifiable"
    digits = 5 if error < 1e-5 else max(2, 1 - math.floor(math.log10(error)))
    shown = "<0.00001" if error < 1e-5 else f"{error:.{digits}f}"
    return f"{value:.{digits}f} ± {shown}"


def reliable(faults: Iterable[str], modules: Mapping[str, Any]) -> bool:
    """Whether recovered weights can be believed to their standard errors: these know of rounding alone, and what is
    unexplained in most modules shifts the weights of adapters that resemble it by many of them."""
    unexplained = {"unexplained-delta", "wrong-adapter", "base-differs"} & set(faults)
    return not unexplained or 2 * modules["agree"] >= modules["adapted"] > 0


def percent(share: float) -> str:
    """A share to two digits, as at most so much: 0.34%, and 0.01% for what is less."""
    return f"{max(100 * share, 0.01):.2g}%"


def weight_line(name: str, weight: Mapping[str, Any]) -> str:
    """One adapter: recovered and claimed."""
    found = with_error(weight["recovered"], weight["stderr"])
    claimed = "not claimed" if weight["claimed"] is None else f"claimed {weight['claimed']:g}"
    return f"{plain(name)} {found} ({claimed})"


def rounding_line(rounding: Mapping[str, Any]) -> str:
    """By which route the stored values came about."""
    share, route = rounding.get("violations"), rounding.get("route")
    if share is None:
        return "no element was compared"
    if not route:
        return "no honest rounding explains the stored values"
    words = rounding.get("arithmetic")
    if words:
        outside = f"{share:.2%} of the elements outside it" if share else "no element lies outside it"
        return f"{plain(words)}; {outside}"
    replay = (rounding.get("replay") or {}).get("route")
    exact = f" (bit for bit: {plain(replay)})" if replay and replay != route else ""
    return f"{_ROUTES.get(route, plain(route))}{exact}, {share:.2%} of the elements outside it"


def hiding_lines(verdict: Mapping[str, Any]) -> list[str]:
    """What a verified file holds beyond the claim and why that is honest, and how small a further delta would be seen;
    sizes are of the claimed one's, in the module where that is the most."""
    evidence, outside = verdict.get("evidence", {}), verdict.get("rounding", {}).get("violations")
    left, unseen = evidence.get("left_over"), evidence.get("unseen")
    lines = []
    if left:
        # With elements outside the named arithmetic, only noise of one more rounding passes.
        why = (
            "noise no larger than one more rounding, without a direction"
            if outside
            else "what the rounding above leaves open, since sums may be added in any order; no element is beyond that"
        )
        lines.append(f"left over beside it: at most {percent(left)} of the claimed delta, in any module: {why}")
    elif left is not None:
        where = " in the rows that were looked at" if evidence.get("sampled") else ""
        lines.append(f"nothing is left over beside it{where}")
    if unseen is not None:
        line = f"a further delta of {percent(unseen)}, spread over a module, would be seen (99%)"
        # Smaller than what is left over: it shows in single elements, not in the size of the whole.
        beyond = left and not outside and unseen < left
        lines.append(f"{line}, by single elements that it carries beyond that rounding" if beyond else line)
    return lines


def note_line(verdict: Mapping[str, Any], note: str) -> str:
    """What a note means."""
    return verdict.get("explained", {}).get(note) or note.replace("-", " ")


def not_checked(verdict: Mapping[str, Any]) -> list[str]:
    """What was not looked at, each with the reason."""
    return [plain(text) for text in verdict.get("evidence", {}).get("not_checked", ())]


def reason(verdict: Mapping[str, Any]) -> str:
    """Why an inconclusive verdict is none."""
    modules = verdict["modules"]
    parts = [note_line(verdict, note) for note in verdict["notes"] if note == REASON_NOTE]
    if modules.get("undecided"):
        parts.append(f"{modules['undecided']} of {modules['adapted']} adapted modules hold no evidence either way")
    return "; ".join(parts) or "the file holds too little evidence"
