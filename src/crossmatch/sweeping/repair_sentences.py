"""A repair in words."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from crossmatch.statistics.estimates import Difference, Figure
from crossmatch.statistics.rank_correlation import spearman
from crossmatch.sweeping.conclusion import bounds_together
from crossmatch.sweeping.gates import Foretold
from crossmatch.sweeping.goals import Kept, all_hold
from crossmatch.sweeping.metrics import Measure
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.repair import Mending, Repair, Swept
from crossmatch.sweeping.sentences import figure_text, gain_text, value_text, weights_text
from crossmatch.sweeping.space import Point

Json = dict[str, Any]
_BEYOND = {"better": "does less", "worse": "does more", "not distinguishable": "is not distinguishable from it"}


@dataclass(frozen=True)
class Tried:
    """A repair with the figures of its points."""

    swept: Swept
    repair: Repair

    @property
    def fault(self) -> Measure:
        """The measure of what is to be mended."""
        return self.repair.constraints[0].measure

    @property
    def measures(self) -> list[Measure]:
        """By which a repair is compared with others: the fault's and the goals'."""
        return list(dict.fromkeys([self.fault, *self.swept.prepared.wanted.goals]))

    def kept(self, point: Point, part: Part) -> list[Kept]:
        """How a point stands to all that a repair must keep."""
        return [self.swept.board.judged(one, point, part) for one in self.repair.constraints]

    def gain(self, point: Point, other: Point, part: Part, measure: Measure | None = None) -> Difference | None:
        """By how much a point is better than another, in the fault's measure or in the one that is given."""
        return self.swept.board.gain(point, measure or self.fault, part, other)

    def beyond(self, chosen: Mending) -> str:
        """Whether a repair does more than lowering all of the adapter by as much: by the measure of the fault and the
        goals on unseen items, with intervals that hold for all of them."""
        part = self.swept.prepared.parts.confirmation
        gains = [self.gain(chosen.change.point, chosen.null, part, one) for one in self.measures]
        bounds = [found for gain in gains if (found := bounds_together(gain, len(gains))) is not None]
        better, worse = any(low > 0 for low, _ in bounds), any(high < 0 for _, high in bounds)
        return "better" if better and not worse else "worse" if worse and not better else "not distinguishable"

    def agreement(self) -> Figure | None:
        """Rank correlation of what gates foretold of the changes that were asked, with how they moved the fault."""
        told, target, search = self.repair.foretold, self.repair.target, self.swept.prepared.parts.search
        if not isinstance(told, Foretold) or target is None:
            return None
        pairs = [
            (-moved, gain.value)
            for change in self.repair.asked
            if (moved := told.change(target, change)) is not None
            and (gain := self.gain(change.point, target, search)) is not None
        ]
        columns = np.array(pairs, dtype=float).reshape(-1, 2)
        return spearman(columns[:, 0], columns[:, 1])


def unmended(tried: Tried) -> Json:
    """`outcome`, `sentence` and `reasons` where there is nothing to confirm."""
    target, constraints = tried.repair.target, tried.repair.constraints
    if target is None or not constraints:
        reference = tried.swept.board.wanted.reference.name
        kept = (
            f"on the search items {target.name} keeps all constraints and loses nothing to {reference}"
            if target
            else ""
        )
        return {"outcome": "no fault", "sentence": f"Nothing to repair: {kept or 'no merge was tried'}.", "reasons": []}
    search = tried.swept.prepared.parts.search
    gains = [(gain, one) for one in tried.repair.asked if (gain := tried.gain(one.point, target, search)) is not None]
    nearest = max(gains, key=lambda pair: pair[0].value, default=None)
    reasons = [_broken(tried, target), _asked(tried)]
    if nearest is not None:
        gain, change = nearest
        reasons.append(f"nearest was {change.what}: {gain_text(tried.fault, gain)} on {gain.n} search items")
    sentence = f"No candidate mends {target.name}, which breaks {constraints[0].text}."
    return {"outcome": "not mended", "sentence": sentence, "reasons": [*reasons, *_agreement(tried)]}


def mended(tried: Tried, chosen: Mending) -> Json:
    """The same of a change that was confirmed, or was not."""
    change, target, null = chosen.change, chosen.target, chosen.null
    later, reference = tried.swept.prepared.parts.confirmation, tried.swept.board.wanted.reference
    gain, kept = tried.gain(change.point, target, later), tried.kept(change.point, later)
    sure = all_hold(kept) and gain is not None and gain.low > 0
    act, moved = change.what[0].upper() + change.what[1:], gain_text(tried.fault, gain)
    n, pair = gain.n if gain is not None else 0, (target, change.point)
    whole = f"lowering all of {change.guest} to {null.weights[change.guest]:g}"
    beyond = f"{whole}, as much of its norm, {_BEYOND[tried.beyond(chosen)]}"
    costs = [
        gain_text(one, tried.gain(change.point, target, later, one)) for one in tried.measures if one != tried.fault
    ]
    values = " -> ".join(value_text(tried.fault, tried.swept.board.figure(p, tried.fault, later)) for p in pair)
    if sure:
        keeps = ", ".join(one.constraint.text for one in kept)
        cost = f"; against {target.name}: {', '.join(costs)}" if costs else ""
        said = f"{act} mends {target.name}: {moved}, {values} on {n} unseen items; keeps {keeps}{cost}; {beyond}."
    else:
        broken = [one.constraint.text for one in kept if not one.holds]
        why = f"it does not keep {', '.join(broken)} there" if broken else f"{moved}, {values} on {n} of them"
        said = f"{act} mends {target.name} on the search items, but not surely on unseen ones: {why}."
    alone, over = (
        [gain_text(one, tried.gain(change.point, other, later, one)) for one in tried.measures]
        for other in (reference, null)
    )
    holds = "keeps" if all_hold(tried.kept(null, later)) else "does not keep"
    reasons = [
        _broken(tried, target),
        f"repaired, against {reference.name} on unseen items: {'; '.join(alone)}",
        f"repaired, against its null there, {whole}, which {holds} the constraints: {'; '.join(over)}",
        _asked(tried),
    ]
    outcome = "mended" if sure else "not confirmed"
    return {"outcome": outcome, "sentence": said, "reasons": [*reasons, *_agreement(tried)]}


def _broken(tried: Tried, target: Point) -> str:
    search, reference = tried.swept.prepared.parts.search, tried.swept.board.wanted.reference
    own, theirs = (
        figure_text(tried.fault, tried.swept.board.figure(one, tried.fault, search)) for one in (target, reference)
    )
    text = tried.repair.constraints[0].text
    return f"{weights_text(target)} breaks {text} on the search items: {own}; {reference.name}: {theirs}"


def _asked(tried: Tried) -> str:
    told, asked, every = tried.repair.foretold, len(tried.repair.asked), len(tried.repair.changes)
    how = "the smallest" if isinstance(told, str) else f"chosen by gates on {told.items} of them ({told.suite})"
    return f"{asked} of {every} changes were asked the {tried.swept.prepared.parts.search.items} search items, {how}"


def _agreement(tried: Tried) -> list[str]:
    found = tried.agreement()
    if found is None or found.value is None or found.low is None:
        return []
    span = f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
    return [f"rank correlation of what gates foretold with what was measured: {span}, {found.n} changes"]
