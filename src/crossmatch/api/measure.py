"""Measure: variants on suites, two finished runs, training data against what must not be in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossmatch.errors import InputError
from crossmatch.runtime import SILENT, Progress

if TYPE_CHECKING:
    from crossmatch.evaluation.audit import AuditReport
    from crossmatch.evaluation.comparison.run_comparison import RunComparison
    from crossmatch.evaluation.pipeline import Evaluation


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
    progress: Progress = SILENT,
) -> "Evaluation":
    """Measure base, each adapter alone, their merge and its scale-matched control on the same prompts.

    base: a directory or hub id; suite: YAML files or `recipe:NAME`; output: directory of the answers, the summary and
    the page, as the command leaves it; the other names are the command's options. Asked again, what was answered before
    is kept. `summary` of the result holds every figure and difference, `samples` answers side by side. Raises
    InputError or DataError for what cannot be asked.

        >>> import crossmatch
        >>> found = crossmatch.evaluate(
        ...     "models/base", "choice.yaml", "answers", adapter={"sft": "runs/sft"}, weight={"sft": 0.7}
        ... )
        >>> sorted(found.summary["conditions"])
        ['own.greedy']
    """
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.cli.evaluate.options import (
        clean_parts,
        interfere,
        read_checkpoints,
        read_measuring,
        read_serving,
        wanted_pair,
    )
    from crossmatch.data.suites import load_suite
    from crossmatch.evaluation.conditions import Plan, conditions_of
    from crossmatch.evaluation.inference.batch_memory import parse_memory
    from crossmatch.evaluation.pipeline import EvaluationRequest, run_evaluation
    from crossmatch.evaluation.variants.variants import SERVED
    from crossmatch.executors import parse_executor
    from crossmatch.report import write_evaluation
    from crossmatch.result_kinds import SAMPLES, SUMMARY

    out = Path(output)
    suites = [load_suite(one) for one in ([suite] if isinstance(suite, str) else suite)]
    serving = read_serving(server, model, same_as)
    wanted = None
    if serving is None or reference == "base" or any((adapter, weight, strengths, nulls, checkpoint, interference)):
        grids = {
            name: value if isinstance(value, str) else ",".join(map(str, value))
            for name, value in (strengths or {}).items()
        }
        pairs = _pairs(adapter), _pairs(weight), reference, _pairs(grids), nulls
        wanted = read_measuring(*pairs, bool(checkpoint or serving))
    against = wanted.reference if wanted else reference or "served"
    where = parse_executor(executor)
    plan = Plan(conditions_of(template, decoding), None, batch_size, kl, against, parse_memory(memory), where)
    pair = wanted_pair(wanted, suites, interference) if wanted else None
    parts, whole = clean_parts(Path(clean) if clean is not None else None, suites), Checkpoint(base)
    variants = wanted.variants() if wanted else []
    variants += read_checkpoints(whole, _pairs(checkpoint), [*([SERVED] if serving else []), *variants])
    adapters = wanted.adapters if wanted else {}
    request = EvaluationRequest(whole, tuple(suites), tuple(variants), adapters, plan, serving, parts)
    found = run_evaluation(request, out, progress=progress)
    SUMMARY.replace(out / "summary.json", found.summary)
    SAMPLES.replace(out / "samples.json", found.samples)
    facts = {"name": out.resolve().name, "summary": found.summary, "samples": found.samples}
    if wanted and pair:
        facts["interference"] = interfere(whole, wanted, pair, interference, out)
    write_evaluation(facts, out / "summary.html")
    return found


def compare(
    a: str | Path,
    b: str | Path,
    *,
    margin: float | None = None,
    metric: Sequence[str] = (),
    task: Sequence[str] = (),
    pooled: bool = False,
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

    from crossmatch.cli.compare import _located, _read
    from crossmatch.evaluation.comparison.run_comparison import Wanted, compare_runs

    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"margin {margin}: give points, as in 1.0; 0 asks whether B is better")
    wanted = Wanted(margin, tuple(metric), tuple(task), pooled)
    return compare_runs(_read(*_located(str(a))), _read(*_located(str(b))), wanted)


def audit(
    train: Mapping[str, str],
    held_out: Mapping[str, str] | None = None,
    *,
    ngram_share: float = 0.5,
    processes: int | None = None,
    progress: Progress = SILENT,
) -> "AuditReport":
    """Look for held-out items in the train sets, and for each train set in those before it.

    train, held_out: name -> data file of any format, suite YAML, or hub data set; ngram_share: share of an item's
    n-grams from which on it is found; processes: None for one a core. `share(name)` of the result is the share of a
    held-out set that was found. Raises DataError for a file with a bad row.

        >>> import crossmatch
        >>> report = crossmatch.audit({"sft": "sft.jsonl"}, {"choice": "choice.yaml"}, processes=1)
        >>> report.share("choice")
        0.0
    """
    from crossmatch.evaluation.audit import Criteria, Work, open_corpus
    from crossmatch.evaluation.audit import audit as look

    opened = [{name: open_corpus(file) for name, file in files.items()} for files in (train, held_out or {})]
    criteria, work = Criteria(share=ngram_share), Work(processes=processes)
    return look(opened[0], opened[1], criteria=criteria, work=work, progress=progress)


def _pairs(values: Mapping[str, object] | None) -> list[str]:
    """As the command takes them."""
    return [f"{name}={value}" for name, value in (values or {}).items()]
