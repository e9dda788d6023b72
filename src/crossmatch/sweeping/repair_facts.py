"""A repair as plain JSON."""

from collections.abc import Mapping
from typing import Any

from crossmatch.checkpoint import value_digest
from crossmatch.sweeping.changes import Change
from crossmatch.sweeping.facts import figures_of, gains_over, shown_measures
from crossmatch.sweeping.gates import Foretold
from crossmatch.sweeping.goals import all_hold
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.repair import Mending, Repair, Swept
from crossmatch.sweeping.repair_sentences import Tried, mended, unmended
from crossmatch.sweeping.space import Point

Json = dict[str, Any]


def with_repair(facts: Mapping[str, Any], swept: Swept, found: Repair) -> Json:
    """The facts of a sweep with those of its repair."""
    rest = {key: value for key, value in facts.items() if key != "digest"}
    rest["repair"] = _repair(Tried(swept, found))
    return {**rest, "digest": value_digest(rest)}


def _repair(tried: Tried) -> Json:
    found, search = tried.repair, tried.swept.prepared.parts.search
    target, chosen = found.target, found.chosen
    faults = [kept for kept in tried.kept(target, search) if not kept.holds] if target is not None else []
    return {
        **(mended(tried, chosen) if chosen is not None else unmended(tried)),
        "point": target.to_json() if target is not None else None,
        "faults": [kept.to_json() for kept in faults],
        "foretold": _foretold(tried),
        "candidates": [_candidate(tried, change) for change in found.changes],
        "repaired": _changed(chosen.change) if chosen is not None else None,
        "confirmation": _confirmation(tried, chosen) if chosen is not None else None,
    }


def _changed(change: Change) -> Json:
    return {**change.point.to_json(), "change": change.what, "adapter": change.guest, "kept": round(change.kept, 6)}


def _foretold(tried: Tried) -> Json | None:
    told, agreement = tried.repair.foretold, tried.agreement()
    if not isinstance(told, Foretold) or agreement is None:
        return None
    return {"suite": told.suite, "items": told.items, "target": told.target, "agreement": agreement.to_dict()}


def _candidate(tried: Tried, change: Change) -> Json:
    """A change; with figures if it was asked, of which there are none elsewhere."""
    told, target = tried.repair.foretold, tried.repair.target
    moved = told.change(target, change) if isinstance(told, Foretold) and target is not None else None
    if change not in tried.repair.asked:
        return {**_changed(change), "foretold": moved, "search": None, "constraints": None, "holds": None}
    return {**_changed(change), "foretold": moved, **_figures(tried, change.point, tried.swept.prepared.parts.search)}


def _figures(tried: Tried, point: Point, part: Part, name: str = "search") -> Json:
    kept = tried.kept(point, part)
    return {
        name: figures_of(tried.swept.board, point, shown_measures(tried.swept.prepared), part),
        "constraints": [one.to_json() for one in kept],
        "holds": all_hold(kept),
    }


def _confirmation(tried: Tried, chosen: Mending) -> Json:
    prepared, board, repaired = tried.swept.prepared, tried.swept.board, chosen.change.point
    others = {"merge": chosen.target, "null": chosen.null, "reference": board.wanted.reference}
    points = {"repaired": repaired, **others}
    later = prepared.parts.confirmation
    return {
        "points": [
            {"role": role, "name": point.name, **_figures(tried, point, later, "figures")}
            for role, point in points.items()
        ],
        "over": {role: gains_over(prepared, board, repaired, point) for role, point in others.items()},
        "null": chosen.null.to_json(),
        "beyond_null": tried.beyond(chosen),
    }
