"""The proof of one merge as the page shows it: sentences, and the names of its charts. No number is made here."""

from collections.abc import Mapping
from typing import Any

from crossmatch.report.charts.study_charts import Spec, recovered_chart, weights_chart
from crossmatch.report.text import plain
from crossmatch.report.verdict_text import (
    hiding_lines,
    not_checked,
    note_line,
    places,
    reason,
    rounding_line,
    sentence,
    with_error,
)

_VERDICTS = {
    "verified": ("Verified", "is what it claims to be"),
    "failed": ("Failed", "is not what it claims to be"),
    "inconclusive": ("Inconclusive", "could not be judged"),
}
_SHOWN = 8


def proof_view(number: int, name: str, verdict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Spec]]:
    """What the page says of one merge, and its charts by name; number: the merge's place on the page."""
    word, meaning = _VERDICTS[verdict["verdict"]]
    charts = {f"weights-{number}": weights_chart(verdict)} if verdict["weights"] else {}
    maps, alike = [], []
    for place, adapter in enumerate(verdict["weights"]):
        said = _alike(verdict, adapter)
        chart = recovered_chart(verdict, adapter) if said is None else None
        if said is not None:
            alike.append(said)
        if chart is not None:
            charts[f"recovered-{number}-{place}"] = chart
            maps.append({"chart": f"recovered-{number}-{place}", "adapter": adapter})
    view = {
        "name": name,
        "verdict": verdict["verdict"],
        "word": word,
        "meaning": meaning,
        "reason": sentence(reason(verdict)) if verdict["verdict"] == "inconclusive" else "",
        "weights": [_weight(key, weight) for key, weight in verdict["weights"].items()],
        "weights_chart": f"weights-{number}" if verdict["weights"] else None,
        "sigmas": f"{_sigmas(verdict):g}",
        "maps": maps,
        "alike": alike,
        "findings": [_finding(finding) for finding in verdict.get("findings", ())],
        "facts": _facts(verdict),
        "notes": [{"id": note, "text": sentence(note_line(verdict, note))} for note in verdict["notes"]],
        "not_checked": not_checked(verdict),
        "digest": (verdict["digests"].get("merged") or "")[:16],
    }
    return view, charts


def _alike(verdict: Mapping[str, Any], adapter: str) -> str | None:
    """Of an adapter whose weight is the claimed one in all modules a sentence; None where a map shows more."""
    claimed, details = verdict["weights"][adapter]["claimed"], verdict.get("details", ())
    if claimed is None or not details or any("layer" not in detail for detail in details):
        return None
    found = [d["weights"].get(adapter, {}).get("recovered") for d in details]
    if any(value is None for value in found) or any(detail["state"] != "agree" for detail in details):
        return None
    low, high = min(found), max(found)
    spread = f"{low:.5f}" if f"{low:.5f}" == f"{high:.5f}" else f"from {low:.5f} to {high:.5f}"
    return f"{plain(adapter)}: all {len(found)} modules agree with the claim of {claimed:g}; recovered {spread}."


def _sigmas(verdict: Mapping[str, Any]) -> float:
    return verdict.get("thresholds", {}).get("sigmas", 4.0)


def _weight(name: str, weight: Mapping[str, Any]) -> dict[str, Any]:
    claimed = weight["claimed"]
    return {
        "name": plain(name),
        "claimed": "nothing" if claimed is None else f"{claimed:g}",
        "recovered": with_error(weight["recovered"], weight["stderr"]),
    }


def _finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fault": finding["fault"],
        "consequence": sentence(finding["consequence"]),
        "evidence": plain(finding["evidence"]),
        "where": places(finding["where"], _SHOWN),
        "remedy": sentence(finding["remedy"]),
    }


def _facts(verdict: Mapping[str, Any]) -> list[str]:
    tensors, modules = verdict["tensors"], verdict["modules"]
    states = f"{modules['agree']} of {modules['adapted']} adapted modules agree with the claim"
    if modules.get("disagree"):
        states += f", {modules['disagree']} disagree"
    if modules.get("undecided"):
        states += f", {modules['undecided']} hold no evidence either way"
    others = tensors["total"] - modules["adapted"]
    same = f"{tensors['untouched_identical']} of {others} other tensors are the base's own, bit for bit"
    checked = verdict.get("evidence", {}).get("checked", ())
    # As on the terminal: what could hide in a file that failed is not the question.
    hidden = hiding_lines(verdict) if verdict["verdict"] == "verified" else []
    looked = [f"also checked: {', '.join(name.replace('_', ' ') for name in checked)}"] if checked else []
    return [states, same, f"rounding: {rounding_line(verdict['rounding'])}", *hidden, *looked]
