"""Measure: variants on suites, two finished runs, training data against what must not be in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.errors import InputError
from crossmatch.runtime import SILENT, Progress

if TYPE_CHECKING:
    from crossmatch.adapter import Recorded
    from crossmatch.evaluation.audit import AuditReport
    from crossmatch.evaluation.comparison.run_comparison import RunComparison
    from crossmatch.evaluation.pipeline import Evaluation
    from crossmatch.results.sweep import PredictJson
    from crossmatch.sweeping import SweepRecipe, SweepResult


def evaluate(
    base: str | Path,
    suite: str | Sequence[str],
    output: str | Path,
    *,
    adapter: Mapping[str, str] | None = None,
    weight: Mapping[str, float | str] | None = None,
    reference: str | None = None,
    template: Sequence[str] = (),
    decoding: Sequence[str] = (),
    strengths: Mapping[str, str | Sequence[float]] | None = None,
    nulls: int = 0,
    checkpoint: Mapping[str, str] | None = None,
    kl: int = 16,
    interference: int = 0,
    batch_size: int = 256,
    memory: str | None = None,
    executor: str = "local",
    server: str | None = None,
    model: str | None = None,
    same_as: str | None = None,
    clean: str | Path | None = None,
    margin: float | None = None,
    progress: Progress = SILENT,
) -> "Evaluation":
    """Measure base, each adapter alone, their merge and its scale-matched control on the same prompts.

    base: a directory or hub id; suite: YAML files or `recipe:NAME`; output: directory of the answers, the summary and
    the page, as the command leaves it; margin: the loss within which a variant is as good, in points of a score or
    percent of a perplexity; the other names are the command's options. Asked again, what was answered before is kept.
    `summary` of the result holds every figure and difference, `samples` answers side by side. Raises InputError or
    DataError for what cannot be asked.

        >>> import crossmatch
        >>> found = crossmatch.evaluate(
        ...     "models/base", "choice.yaml", "answers", adapter={"sft": "runs/sft"}, weight={"sft": 0.7}
        ... )
        >>> sorted(found.summary["conditions"])
        ['own.greedy']
    """
    given = locals()
    from crossmatch.console import Terminal
    from crossmatch.study.ask import EvaluationOptions, request_of
    from crossmatch.study.evaluate import evaluate_into

    # Notes are shown whatever `progress` is.
    request, measure = request_of(EvaluationOptions.of(given), Path(output), Terminal())
    return evaluate_into(Path(output), request, measure, progress)[0]


def compare(
    a: str | Path,
    b: str | Path,
    *,
    margin: float | None = None,
    metric: Sequence[str] = (),
    task: Sequence[str] = (),
    pooled: bool = False,
    higher: Sequence[str] = (),
    lower: Sequence[str] = (),
) -> "RunComparison":
    """Compare two finished evaluations, document by document: B - A, with intervals and tests.

    a, b: a directory or file of `lm-eval --log_samples`, or what `evaluate` left, with `:VARIANT` behind it; margin: is
    B not worse than A by so many points (`not_worse` of the result: yes, no, cannot tell). Raises InputError for what
    is no run, DataError for runs that cannot be paired.

        >>> import crossmatch
        >>> found = crossmatch.compare("answers:base", "answers:sft", margin=5.0)
        >>> found.not_worse
        'cannot tell'
    """
    import math

    from crossmatch.evaluation.comparison.open_run import locate_run, open_run
    from crossmatch.evaluation.comparison.run_comparison import Wanted, compare_runs

    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"margin {margin}: give points, as in 1.0; 0 asks whether B is better")
    wanted = Wanted(margin, tuple(metric), tuple(task), pooled, tuple(higher), tuple(lower))
    return compare_runs(open_run(*locate_run(str(a))), open_run(*locate_run(str(b))), wanted)


def audit(
    train: Mapping[str, str],
    held_out: Mapping[str, str] | None = None,
    *,
    output: str | Path | None = None,
    ngram_share: float = 0.5,
    processes: int | None = None,
    progress: Progress = SILENT,
) -> "AuditReport":
    """Look for held-out items in the train sets, and for each train set in those before it.

    train, held_out: name -> data file of any format, suite YAML, or hub data set; output: a JSON file to write, too, as
    `evaluate(clean=...)` takes it; ngram_share: share of an item's n-grams from which on it is found; processes: None
    for one a core. `share(name)` of the result is the share of a held-out set that was
    found. Raises DataError for a file with a bad row.

        >>> import crossmatch
        >>> report = crossmatch.audit({"sft": "sft.jsonl"}, {"choice": "choice.yaml"}, processes=1)
        >>> report.share("choice")
        0.0
    """
    from crossmatch.evaluation.audit import Criteria, Work, open_corpus
    from crossmatch.evaluation.audit import audit as look
    from crossmatch.evaluation.audit.report import audit_facts, check_output
    from crossmatch.result_kinds import AUDIT

    place = None if output is None else Path(output)
    check_output(place)
    opened = [{name: open_corpus(file) for name, file in files.items()} for files in (train, held_out or {})]
    criteria, work = Criteria(share=ngram_share), Work(processes=processes)
    report = look(opened[0], opened[1], criteria=criteria, work=work, progress=progress)
    if place is not None:
        AUDIT.replace(place, audit_facts(report, (train, held_out or {}), opened, None))
    return report


def predict(
    base: str | Path,
    adapter: Mapping[str, "str | Path | Recorded"],
    weight: Mapping[str, float | str],
    *,
    reference: str | None = None,
    sweep: str | Path | None = None,
    suite: str | None = None,
    items: int = 8,
    progress: Progress = SILENT,
) -> "PredictJson":
    """Score a merge before it is made, from the adapters' factors alone: sizes, cosine, shared subspaces, PRISM.

    base: a directory or hub id; adapter, weight: by name; reference: the adapter to compare with (None: the last);
    sweep: the directory of a finished sweep, which says how well each score put its points in order; suite,
    items: a generation suite, on so many items of which a model is run for hidden states and gates. The fields are
    those of `crossmatch predict --json`. Raises InputError for fewer than two adapters.

        >>> import crossmatch
        >>> pair = {"pt": "runs/pt", "sft": "runs/sft"}
        >>> found = crossmatch.predict("models/base", pair, {"pt": 0.3, "sft": 0.7})
        >>> found["reference"], 0 <= found["scores"]["prism"]
        ('sft', True)
    """
    from crossmatch.adapter import Recorded, open_vector
    from crossmatch.api.prove import parts_of
    from crossmatch.sweeping.predict import Evidence
    from crossmatch.sweeping.predict import predict as score

    evidence = Evidence(None if sweep is None else Path(sweep), suite, items)
    vectors = {name: one if isinstance(one, Recorded) else open_vector(one) for name, one in adapter.items()}
    parts = {name: (vectors[name], value) for name, (_, value) in parts_of(vectors, weight).items()}
    return score(base, parts, reference, evidence, progress)


def sweep(
    study: "SweepRecipe | Mapping[str, Any] | str | Path",
    output: str | Path | None = None,
    *,
    adapter: Mapping[str, str] | None = None,
    suite: Sequence[str] = (),
    space: Mapping[str, Any] | None = None,
    fix: Mapping[str, float] | None = None,
    goal: Sequence[str] = (),
    constraint: Sequence[str] = (),
    reference: str | None = None,
    method: str | None = None,
    trials: int | None = None,
    seed: int | None = None,
    confirm: float | None = None,
    template: Sequence[str] = (),
    batch_size: int | None = None,
    memory: str | None = None,
    allow_partial_adapter: bool = False,
    executor: str | None = None,
    repair: bool | int | str = False,
    progress: Progress = SILENT,
) -> "SweepResult":
    """Search merge weights, confirm the best on unseen items, and recommend a merge, or the reference adapter.

    study: a recipe (its YAML file, its values, or a SweepRecipe), or a base checkpoint, with adapter and suite; output:
    the directory (None: `runs/<name>` of a recipe); space: adapter -> span, list or number; the other names are the
    command's options; repair: True, or the number or name of a point, of which the cheapest change that mends it is
    looked for. The same call after an interruption goes on and asks nothing twice. Raises OutputError if the
    directory is of another sweep or another process works in it, RecipeError, InputError and DataError for what cannot
    be searched.

        >>> import crossmatch
        >>> found = crossmatch.sweep(
        ...     "models/base", "swept", adapter={"sft": "runs/sft"}, suite=["exam.yaml"], space={"sft": [0.5, 1]}
        ... )
        >>> found.facts["reference"]
        'sft'
    """
    from crossmatch.sweeping import recipe_of
    from crossmatch.sweeping import sweep as search

    values: dict[str, Any] = {
        "suites": _several(suite),
        "space": dict(space) if space else None,
        "fixed": dict(fix) if fix else None,
        "goals": _several(goal),
        "constraints": _several(constraint),
        "templates": _several(template),
        "reference": reference,
        "method": method,
        "trials": trials,
        "seed": seed,
        "confirm": confirm,
        "batch_size": batch_size,
        "memory": memory,
        "allow_partial_adapter": allow_partial_adapter or None,
    }
    given = {key: value for key, value in values.items() if value is not None}
    place = None if output is None else Path(output)
    if not isinstance(study, str | Path):
        free = {"adapter": adapter, "executor": executor, "repair": repair}
        beside = [*(name for name, value in free.items() if value), *given]
        if beside:
            raise InputError(f"the recipe is given as such: put {beside[0]} into it")
        return search(study, place, progress=progress)
    after = {"executor": executor, "repair": repair or None}
    return search(recipe_of(str(study), dict(adapter or {}), place, given, after), place, progress=progress)


def _several(values: str | Sequence[str]) -> tuple[str, ...] | None:
    """One text, or several; none is None."""
    return (values,) if isinstance(values, str) else tuple(values) or None
