"""A recipe opened: base, adapters, suites, space, goals, parts; everything that can be known to be wrong is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from crossmatch.adapter import open_vector
from crossmatch.checkpoint import Checkpoint, read_json, value_digest
from crossmatch.data.suites import load_suite
from crossmatch.errors import CheckpointError, OutputError, RecipeError
from crossmatch.evaluation.conditions import Plan
from crossmatch.evaluation.inference.batch_memory import parse_memory
from crossmatch.merging import plan_merge
from crossmatch.result_kinds import SWEEP_STUDY
from crossmatch.sweeping.board import Source, Wanted
from crossmatch.sweeping.goals import parse_constraint, parse_goal
from crossmatch.sweeping.metrics import default_measure
from crossmatch.sweeping.parts import Parts, check_sizes, split
from crossmatch.sweeping.race import Rung, rungs_of
from crossmatch.sweeping.recipe import SweepRecipe
from crossmatch.sweeping.space import Space

STUDY = "study.json"
# What may change between two runs in one directory: where work is done, in which pieces, and what comes after.
_FREE = ("executor", "batch_size", "memory", "repair")


@dataclass(frozen=True)
class Prepared:
    """A sweep that can run."""

    recipe: SweepRecipe
    space: Space
    source: Source
    wanted: Wanted
    parts: Parts

    @property
    def rungs(self) -> list[Rung]:
        """The steps of the search after which points are dropped, and the whole."""
        return rungs_of(self.parts.search, self.recipe.halving, {goal.suite for goal in self.wanted.goals})


def prepare(recipe: SweepRecipe) -> Prepared:
    """Open all that a recipe names.

    Raises what opening it raises (CheckpointError, AdapterError for an adapter that is truncated or does not fit,
    DataError), RecipeError for a space without a free weight, a metric that no suite has, or too few items.
    """
    suites = [load_suite(file) for file in recipe.suites]
    names = [suite.settings.name for suite in suites]
    if len(set(names)) < len(names):
        raise RecipeError("suites: two have the same name; their answers would overwrite each other")
    space = recipe.opened_space()
    goals = tuple(parse_goal(text, suites) for text in recipe.goals)
    if not goals:
        found = default_measure(suites[0])
        if found is None:
            raise RecipeError(f"goals: suite {names[0]} has no score; name a metric")
        goals = (found,)
    # What a constraint names is asked under the first template, as the reference is.
    named = {point.model_name: point for point in space.always if point.condition == space.conditions[0]}
    constraints = tuple(parse_constraint(text, suites, list(named)) for text in recipe.constraints)
    wanted = Wanted(goals, constraints, named, space.reference_point)
    parts = split(suites, recipe.confirm)
    check_sizes(parts, list(dict.fromkeys(m.suite for m in wanted.measures)), recipe.finalists, recipe.confirm)
    for constraint in constraints:
        count, needed = len(parts.confirmation.ids[constraint.measure.suite]), constraint.items_needed
        if needed is not None and count < needed:
            raise RecipeError(
                f"constraint {constraint.text!r}: {count} confirmation items of {constraint.measure.suite} cannot show "
                f"it, {needed} are needed; add items, or leave out `at 95%` to hold the measured value to it"
            )
    base, adapters = Checkpoint(recipe.base), {n: open_vector(path) for n, path in recipe.adapters.items()}
    plan_merge(base, {n: (a, 1.0) for n, a in adapters.items()}, allow_partial=recipe.allow_partial_adapter)
    plan = Plan(space.conditions, recipe.dtype, recipe.batch_size, 0, space.reference, parse_memory(recipe.memory))
    source = Source(base, adapters, {suite.settings.name: suite for suite in suites}, plan)
    return Prepared(recipe, space, source, wanted, parts)


def resolved(prepared: Prepared) -> dict[str, Any]:
    """All that decides what a sweep does, as plain JSON, with digests of what it reads."""
    recipe, source = prepared.recipe, prepared.source
    kept = {key: value for key, value in recipe.model_dump(mode="json").items() if key not in _FREE}
    return {
        **kept,
        "reference": recipe.sft,
        "goals": [goal.name for goal in prepared.wanted.goals],
        "space": prepared.space.to_json(),
        "digests": {
            "base": source.base.digest,
            "adapters": {name: adapter.digest for name, adapter in source.adapters.items()},
            "suites": {name: suite.digest for name, suite in source.suites.items()},
            "calibration": prepared.space.calibration.digest if prepared.space.calibration else None,
        },
    }


def claim_directory(out: Path, study: Mapping[str, Any]) -> None:
    """Note in a directory what it is of. Raises OutputError if it is of another sweep: whose confirmation items this
    one would see, or which holds other files."""
    file = out / STUDY
    if not file.exists():
        strangers = [path.name for path in out.iterdir() if not path.name.startswith("driver.lock")]
        if strangers:
            raise OutputError(f"{out} is not empty and holds no sweep ({min(strangers)}); choose another output")
        SWEEP_STUDY.replace(file, cast(Any, study))
        return
    try:
        known = read_json(file)
    except CheckpointError as error:
        raise OutputError(f"{error}; choose another output") from error
    if value_digest(known) == value_digest(study):
        return
    other = next(key for key in study if known.get(key) != study[key])
    raise OutputError(
        f"{out} holds another sweep ({other} differs): whose confirmation items this one sees; choose another output"
    )
