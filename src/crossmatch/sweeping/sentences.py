"""The recommendation in words."""

from collections.abc import Sequence
from typing import Any

from crossmatch.results.metrics import metric_of
from crossmatch.statistics.estimates import Difference, Figure
from crossmatch.sweeping.board import Board
from crossmatch.sweeping.conclusion import Conclusion, Confirmed
from crossmatch.sweeping.goals import Kept
from crossmatch.sweeping.metrics import Measure
from crossmatch.sweeping.prepare import Prepared
from crossmatch.sweeping.space import Point


def recommendation_of(
    prepared: Prepared, board: Board, conclusion: Conclusion, confirmed: Confirmed | None, tried: int
) -> dict[str, Any]:
    """`sentence`: what to ship and why, in one; `reasons`: what stands behind it, a line each."""
    if confirmed is not None:
        return {
            "sentence": _ship(prepared, confirmed),
            "reasons": _reasons(prepared, board, conclusion, confirmed, tried),
        }
    return {"sentence": _stay(prepared, board, conclusion), "reasons": _why_stay(prepared, board, conclusion, tried)}


def weights_text(point: Point) -> str:
    """`0.25 pt + 1 sft`, with its rule and template where they are others than usual."""
    if not point.weights:
        return "the base as it is"
    text = " + ".join(f"{weight:g} {name}" for name, weight in point.weights.items())
    rule = point.recipe.rule
    settings = ", ".join(f"{key} {value}" for key, value in point.recipe.parameters.items())
    text += f" by {rule}{f' ({settings})' if settings else ''}" if rule != "linear" else ""
    template = point.condition.template.name
    return text if template == "own" else f"{text}, asked with template {template}"


def value_text(measure: Measure, figure: Figure) -> str:
    """`12.0`, in the unit that is shown."""
    known = metric_of(measure.metric)
    return "unknown" if figure.value is None else format(figure.value * known.unit.scale, known.form)


def figure_text(measure: Measure, figure: Figure) -> str:
    """`trace rate 12.0 (8.1 to 16.2)`, in the unit that is shown."""
    known = metric_of(measure.metric)
    title, form, scale = _title(measure), known.form, known.unit.scale
    if figure.low is None or figure.high is None:
        return f"{title} {value_text(measure, figure)}"
    low, high = (format(number * scale, form) for number in (figure.low, figure.high))
    return f"{title} {value_text(measure, figure)} ({low} to {high})"


def gain_text(goal: Measure, gain: Difference | None) -> str:
    """`perplexity lower by 2.1 (1.2 to 3.0)`: a gain with its interval, in the unit that is shown."""
    known = metric_of(goal.metric)
    title, form, scale = _title(goal), known.form, known.unit.scale
    if gain is None:
        return f"{title} unknown"
    unit = " points" if goal.percent else ""
    if not gain.value:
        return f"{title} equal ({gain.low * scale:+{form}} to {gain.high * scale:+{form}})"
    word = ("higher" if goal.higher else "lower") if gain.value >= 0 else ("lower" if goal.higher else "higher")
    low, high = (gain.low, gain.high) if gain.value >= 0 else (-gain.high, -gain.low)
    value, low, high = (format(number * scale + 0.0, form) for number in (abs(gain.value), low, high))
    return f"{title} {word} by {value}{unit} ({low} to {high})"


def _ship(prepared: Prepared, one: Confirmed) -> str:
    goals, sft = prepared.wanted.goals, prepared.wanted.reference.name
    gains = "; ".join(gain_text(goal, gain) for goal, gain in zip(goals, one.gains, strict=True))
    n = one.gains[0].n if one.gains[0] else 0
    kept = "".join(f"; {text}" for text in _kept_texts(one.kept, sft))
    return f"Ship {weights_text(one.point)}: {gains} than {sft} on {n} items that no trial saw{kept}."


def _kept_texts(kept: Sequence[Kept], sft: str) -> list[str]:
    """Constraints that are kept, each for as much as it says: `not below` asks for no proof that nothing is lost."""
    found: dict[str, list[str]] = {}
    for one in (one.constraint for one in kept if _is_weak(one)):
        word = "lower" if one.relation == "not below" else "higher"
        against = "" if one.than == sft else f" than {one.than}"
        found.setdefault(f"no {word} {{}}{against} is shown", []).append(_title(one.measure))
    texts = [form.format(" or ".join(titles)) for form, titles in found.items()]
    firm = ", ".join(one.constraint.text for one in kept if not _is_weak(one))
    return [*texts, *([f"keeps {firm}"] if firm else [])]


def _left_open(kept: Sequence[Kept]) -> list[str]:
    """What constraints that ask for no proof leave open, a line for each variant that they name."""
    found: dict[str, list[str]] = {}
    for one in filter(_is_weak, kept):
        below = one.constraint.relation == "not below"
        if one.low is None or one.high is None or (one.low >= 0 if below else one.high <= 0):
            continue
        form = metric_of(one.constraint.measure.metric).form
        text = f"{_title(one.constraint.measure)} {one.value:+{form}} ({one.low:+{form}} to {one.high:+{form}})"
        found.setdefault(str(one.constraint.than), []).append(text)
    return [f"not ruled out there, against {than}: {', '.join(texts)}" for than, texts in found.items()]


def _is_weak(kept: Kept) -> bool:
    return kept.constraint.relation.startswith("not")


def _title(measure: Measure) -> str:
    return metric_of(measure.metric).title.removesuffix(" %")


def _reasons(prepared: Prepared, board: Board, conclusion: Conclusion, one: Confirmed, tried: int) -> list[str]:
    lines = [_tried(prepared, tried)]
    before = conclusion.finalists[: conclusion.finalists.index(one)]
    if before:
        lines.append(f"better in the search: {_rejected(before)}")
    for goal, gain in zip(prepared.wanted.goals, one.gains, strict=True):
        claimed = board.gain(one.point, goal, prepared.parts.search)
        if claimed is not None and gain is not None:
            known = metric_of(goal.metric)
            form, scale = known.form, known.unit.scale
            lines.append(
                f"the search claimed a gain of {claimed.value * scale:{form}} in {goal.title}, unseen items "
                f"{gain.value * scale:{form}}: its optimism is {(claimed.value - gain.value) * scale + 0.0:{form}}"
            )
    control = prepared.space.control_of(one.point)
    if control is not None:
        goal = prepared.wanted.goals[0]
        over = board.gain(one.point, goal, prepared.parts.confirmation, control)
        lines.append(f"against its control, {weights_text(control)} alone: {gain_text(goal, over)}")
    return [*lines, *_left_open(one.kept)]


def _rejected(finalists: Sequence[Confirmed]) -> str:
    """Finalists that are not recommended, with what each lacks."""
    found: dict[str, list[str]] = {}
    for one in finalists:
        broken = ", ".join(_broken(one.kept))
        lacks = f"unseen items break {broken}" if broken else "no sure gain on unseen items"
        found.setdefault(lacks, []).append(one.point.name)
    return "; ".join(f"{' and '.join(names)} ({lacks})" for lacks, names in found.items())


def _stay(prepared: Prepared, board: Board, conclusion: Conclusion) -> str:
    sft, goal = prepared.wanted.reference, prepared.wanted.goals[0]
    if not conclusion.ranked:
        broken = _broken_by_reference(prepared, board)
        also = f" ({sft.name} itself breaks {broken})" if broken else ""
        return f"Ship {sft.name} alone: no other point keeps all constraints in the search{also}."
    best = conclusion.finalists[0]
    text = gain_text(goal, best.gains[0])
    n = best.gains[0].n if best.gains[0] else 0
    if any(one.better for one in conclusion.finalists):
        broken = next(text for one in conclusion.finalists if one.better for text in _broken(one.kept))
        return f"Ship {sft.name} alone: what is better on unseen items does not keep {broken} there."
    worse = all(one.worse for one in conclusion.finalists)
    found = "every point that reached them is worse" if worse else "no point is surely better"
    return (
        f"Ship {sft.name} alone: on {n} unseen items {found} (the search's best of these, {best.point.name}: {text})."
    )


def _broken_by_reference(prepared: Prepared, board: Board) -> str:
    return ", ".join(_broken(board.kept(prepared.wanted.reference, prepared.parts.search)))


def _broken(kept: Sequence[Kept]) -> list[str]:
    return [one.constraint.text for one in kept if not one.holds]


def _why_stay(prepared: Prepared, board: Board, conclusion: Conclusion, tried: int) -> list[str]:
    lines = [_tried(prepared, tried)]
    if behind := tried - conclusion.finished:
        lines.append(f"{behind} of them were dropped before all search items were asked: points.csv says why")
    goal = prepared.wanted.goals[0]
    for one in conclusion.finalists:
        claimed = board.gain(one.point, goal, prepared.parts.search)
        broken = ", ".join(_broken(one.kept))
        also = f"; does not keep {broken}" if broken else ""
        known = metric_of(goal.metric)
        form, scale = known.form, known.unit.scale
        said = f"{claimed.value * scale:+{form}}" if claimed is not None else "unknown"
        lines.append(f"{one.point.name}: the search claimed {said}; confirmed: {gain_text(goal, one.gains[0])}{also}")
    return lines


def _tried(prepared: Prepared, tried: int) -> str:
    search, later = prepared.parts.search.items, prepared.parts.confirmation.items
    return f"{tried} points were tried on up to {search} items; {later} others were kept for the confirmation"
