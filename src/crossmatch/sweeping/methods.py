"""Which points are tried next: all of a grid, or what one of optuna's samplers proposes from what is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from crossmatch.analysis.interference.weight_scores import WeightScores
from crossmatch.errors import InputError, RecipeError, pip_line
from crossmatch.sweeping.prediction import in_order
from crossmatch.sweeping.recipe import SweepRecipe
from crossmatch.sweeping.space import Dimension, Point, Space

# Points that are proposed at once, whatever the executor, so that the same points are tried on one machine and on many.
BATCH = 8
# Digits of a weight that is proposed from a span: a finer one is no other model.
_DIGITS = 3
JOURNAL = "optuna.log"


class Method(Protocol):
    """Proposes points, and learns what became of them."""

    def known(self) -> list[list[Point]]:
        """Points that an earlier run has learnt, as they were proposed."""
        ...

    def propose(self) -> list[Point]:
        """The next points; none when there are no more."""
        ...

    def learn(self, results: Mapping[str, "Learnt"]) -> None:
        """What became of the points of the last proposal, by name."""
        ...


class Learnt:
    """What became of a point: gains over the reference by goal, and how far each constraint is broken."""

    def __init__(self, gains: Sequence[float], violations: Sequence[float]) -> None:
        self.gains, self.violations = list(gains), list(violations)


class GridMethod:
    """Every point of the grid, in one proposal."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = list(points)

    def known(self) -> list[list[Point]]:
        """Nothing: a grid keeps no journal."""
        return []

    def propose(self) -> list[Point]:
        """All points, the first time."""
        points, self._points = self._points, []
        return points

    def learn(self, results: Mapping[str, Learnt]) -> None:
        """Nothing: the grid is what it is."""
        del results


class OptunaMethod:
    """Points from a sampler of optuna; its study is a journal, a file that many processes may append to.

    The sampler is made anew for each proposal, with a seed that depends on how many trials there are: a search that
    was interrupted proposes what it would have proposed. What was proposed and not learnt is proposed again.
    """

    def __init__(self, recipe: SweepRecipe, space: Space, out: Path) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            line = pip_line("optuna")
            raise InputError(f"method {recipe.method} needs optuna, which is not installed: {line}") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self._recipe, self._space = optuna, recipe, space
        self._study: Any = optuna.create_study(
            study_name=recipe.name,
            storage=JournalStorage(JournalFileBackend(str(out / JOURNAL))),
            directions=[optuna.study.StudyDirection.MAXIMIZE] * max(1, len(recipe.goals)),
            load_if_exists=True,
        )
        for trial in self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(trial.params)
        self._asked: list[tuple[Any, Point]] = []

    def known(self) -> list[list[Point]]:
        """Points that an earlier run has learnt, as they were proposed."""
        complete = (self._optuna.trial.TrialState.COMPLETE,)
        points = [self._point(trial.params) for trial in self._study.get_trials(states=complete)]
        return [points[start : start + BATCH] for start in range(0, len(points), BATCH)]

    def propose(self) -> list[Point]:
        """The next few points, each model once."""
        complete = (self._optuna.trial.TrialState.COMPLETE,)
        done = len(self._study.get_trials(deepcopy=False, states=complete))
        self._study.sampler = self._sampler(done)
        self._asked = []
        for _ in range(min(BATCH - done % BATCH, self._recipe.trials - done)):
            trial = self._study.ask()
            self._asked.append((trial, self._point(self._suggested(trial))))
        return list({point.name: point for _, point in self._asked}.values())

    def learn(self, results: Mapping[str, Learnt]) -> None:
        """Tell the sampler, trial by trial."""
        for trial, point in self._asked:
            found = results[point.name]
            trial.set_user_attr("violations", found.violations)
            self._study.tell(trial, found.gains)

    def _suggested(self, trial: Any) -> dict[str, Any]:
        values = {d.name: _suggest(trial, d) for d in self._space.weight_dimensions}
        values["rule"] = trial.suggest_categorical("rule", list(self._space.rules))
        values |= {d.name: _suggest(trial, d) for d in self._space.rules[values["rule"]]}
        names = [condition.template.name for condition in self._space.conditions]
        return {**values, "template": trial.suggest_categorical("template", names)}

    def _point(self, values: Mapping[str, Any]) -> Point:
        free = {d.name for d in self._space.weight_dimensions if not d.values}
        return self._space.at({k: round(v, _DIGITS) if k in free else v for k, v in values.items()})

    def _sampler(self, done: int) -> Any:
        samplers, seed = self._optuna.samplers, self._recipe.seed + 7919 * done

        def constraints(trial: Any) -> list[float]:
            return trial.user_attrs.get("violations", [])

        if self._recipe.method == "tpe":
            constrained = {"constraints_func": constraints} if self._recipe.constraints else {}
            return samplers.TPESampler(seed=seed, n_startup_trials=min(10, self._recipe.trials // 2), **constrained)
        if self._recipe.method == "cma-es":
            if len(self._recipe.goals) > 1:
                raise RecipeError("method cma-es takes one goal; use nsga-ii or tpe for several")
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        population = min(50, max(BATCH, self._recipe.trials // 5))
        constrained = {"constraints_func": constraints} if self._recipe.constraints else {}
        return samplers.NSGAIISampler(seed=seed, population_size=population, **constrained)


def _suggest(trial: Any, dimension: Dimension) -> Any:
    if not dimension.values:
        return trial.suggest_float(dimension.name, dimension.low, dimension.high)
    steps = sorted(
        {
            round(b - a, 9)
            for a, b in zip(dimension.values, dimension.values[1:], strict=False)
            if isinstance(a, float) and isinstance(b, float)
        }
    )
    if len(steps) == 1 and len(dimension.values) > 1 and steps[0] > 0:
        low, high = dimension.values[0], dimension.values[-1]
        return trial.suggest_float(dimension.name, low, high, step=steps[0])
    return trial.suggest_categorical(dimension.name, list(dimension.values))


def open_method(recipe: SweepRecipe, space: Space, out: Path, scores: WeightScores | None) -> Method:
    """What the recipe asks for; scores: by which the points of a grid are put in order."""
    return GridMethod(in_order(scores, space.grid())) if recipe.method == "grid" else OptunaMethod(recipe, space, out)
