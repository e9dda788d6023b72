"""What a sweep would do: its points, items and questions, without a model loaded."""

from crossmatch.results.sweep import SweepPlanJson
from crossmatch.sweeping.methods import BATCH
from crossmatch.sweeping.prepare import prepare
from crossmatch.sweeping.recipe import SweepRecipe
from crossmatch.sweeping.repair import ASKED
from crossmatch.sweeping.space import Dimension


def plan_sweep(recipe: SweepRecipe) -> SweepPlanJson:
    """The plan as plain JSON; `lines`: the same for people. Raises what `prepare` raises."""
    prepared = prepare(recipe)
    always = [point.name for point in prepared.space.always]
    if recipe.method == "grid":
        grid = prepared.space.grid()
        count = len({point.name for point in grid}.union(always))
    else:
        count = recipe.trials + len(always)
    search, later = prepared.parts.search, prepared.parts.confirmation
    asked = count * search.items
    confirmed = (recipe.finalists * 2 + len(always)) * later.items
    rungs = [rung.whole.items for rung in prepared.rungs]
    steps = [prepared.rungs[0].goals.items, *rungs] if len(rungs) > 1 else rungs
    weights = [f"{d.name}: {_values(d)}" for d in prepared.space.weight_dimensions]
    lines = [
        f"sweep {recipe.name}: {recipe.method}, {count} points at most (always: {', '.join(always)})",
        *(f"  weight of {text}" for text in weights),
        *(f"  goal: {'more' if g.higher else 'less'} {g.name}" for g in prepared.wanted.goals),
        *(f"  constraint: {c.text}" for c in prepared.wanted.constraints),
        f"  reference: {prepared.wanted.reference.name}",
        *(
            f"suite {name}: {len(ids)} items for the search, {len(later.ids[name])} for the confirmation"
            for name, ids in search.ids.items()
        ),
        f"items of a point: {' -> '.join(map(str, steps))}; points that cannot win are dropped on the way",
        f"questions at most: {asked} in the search, {confirmed} in the confirmation",
    ]
    if recipe.repair is not False:
        more = ASKED * search.items, 3 * later.items
        lines.append(f"repair: at most {more[0]} more questions in the search, {more[1]} in the confirmation")
    if recipe.method != "grid":
        lines.append(f"points are proposed {BATCH} at a time")
    return {
        "schema_version": 1,
        "name": recipe.name,
        "method": recipe.method,
        "points": count,
        "parts": {part.name: {n: len(ids) for n, ids in part.ids.items()} for part in (search, later)},
        "rungs": rungs,
        "questions": {"search": asked, "confirmation": confirmed},
        "lines": lines,
    }


def _values(dimension: Dimension) -> str:
    listed = [f"{value:g}" if isinstance(value, float) else str(value) for value in dimension.values]
    return ", ".join(listed) or f"{dimension.low:g} to {dimension.high:g}"
