"""From the study's facts to what the page shows: texts, tables, chart specifications. No number is made here."""

from collections.abc import Mapping
from typing import Any

from crossmatch.report.charts.study_charts import loss_chart, overlap_charts, weight_text
from crossmatch.report.metric_text import names_against
from crossmatch.report.page.analysis import changed_view, within_chance
from crossmatch.report.page.evaluation import audit_view, measured_view
from crossmatch.report.page.first_screen import gist_view, slug
from crossmatch.report.page.interference import interference_view
from crossmatch.report.page.verdict import proof_view
from crossmatch.report.text import plain


def build_view(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template needs, as plain JSON."""
    charts: dict[str, Any] = {}
    verdicts = []
    for number, (name, verdict) in enumerate(facts["verdicts"].items()):
        shown, drawn = proof_view(number, name, verdict)
        verdicts.append(shown)
        charts |= drawn
    if losses := loss_chart(facts["adapters"]):
        charts["loss"] = losses
    if facts.get("overlap") and any(row["layer"] is not None for row in facts["overlap"]["modules"]):
        charts["cosine"], charts["energy"] = overlap_charts(facts["overlap"])
    cosine_alike = within_chance(facts["overlap"]["modules"]) if "cosine" in charts else None
    if cosine_alike:
        del charts["cosine"]
    interference, drawn = interference_view(facts.get("interference"))
    charts |= drawn
    changed, drawn = changed_view(facts.get("analysis"), without=("cosine", "ratio") if "energy" in charts else ())
    charts |= drawn
    summary = facts.get("summary")
    conditions = []
    for number, name in enumerate(summary["conditions"] if summary else ()):
        shown, drawn = measured_view(number, name, facts["summary"])
        conditions.append(shown)
        charts |= drawn
    return {
        "study": facts["study"],
        "slug": slug(facts["study"]),
        "what": "study",
        "gist": gist_view(facts.get("answers") or (), summary),
        "question": facts["question"],
        "base": facts["base"],
        "data": facts.get("data"),
        "adapters": facts["adapters"],
        "verdicts": verdicts,
        "reference": summary["reference"] if summary else None,
        "against": [{"key": key, "name": plain(n)} for key, n in names_against(summary).items()] if summary else [],
        "conditions": conditions,
        "order": [condition["name"] for condition in conditions],
        "changed": changed,
        "cosine_alike": cosine_alike,
        "overlap": _overlap(facts.get("overlap")),
        "audit": audit_view(facts.get("audit")),
        "interference": interference,
        "seconds": list(facts["seconds"].items()),
        "samples": facts.get("samples"),
        "charts": charts,
    }


def evaluation_view(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same for an evaluation by itself: no proof, no training, no weight space."""
    study = {"study": plain(facts["name"]), "question": "What does merging these adapters gain and lose?"}
    none: dict[str, Any] = {"base": None, "adapters": {}, "verdicts": {}, "seconds": {}}
    found = {name: facts.get(name) for name in ("summary", "samples", "interference")}
    answers = (facts.get("summary") or {}).get("answers")
    return {**build_view({**study, **none, **found, "answers": answers}), "what": "evaluation"}


def analysis_view(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the page of `crossmatch analyse`."""
    changed, charts = changed_view(facts)
    vectors = [{"name": plain(name), **vector} for name, vector in facts["vectors"].items()]
    return {
        "slug": slug("-".join(vector["name"] for vector in vectors)),
        "gist": gist_view(facts.get("answers") or (), None),
        "base": plain(str(facts["base"]["path"])),
        "digest": facts["base"]["digest"],
        "names": [vector["name"] for vector in vectors],
        "vectors": vectors,
        "changed": changed,
        "charts": charts,
    }


def _overlap(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The overlap with its weights as text; None where the two have no tensor in common."""
    if not found or found["cosine"] is None:
        return None
    return {**found, "weights": [weight_text(w) for w in found["weights"]]}
