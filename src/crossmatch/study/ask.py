"""An evaluation from options, as the command line and Python take them, to a request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crossmatch.analysis.interference.suite_pair import interfere, wanted_pair
from crossmatch.answers import MARGIN, check_margin
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.suites import load_suite
from crossmatch.evaluation.comparison.clean_items import clean_parts
from crossmatch.evaluation.conditions import Plan, conditions_of
from crossmatch.evaluation.inference.batch_memory import parse_memory
from crossmatch.evaluation.pipeline import EvaluationRequest
from crossmatch.evaluation.runner.served_runner import read_serving
from crossmatch.evaluation.variants.checkpoints import read_checkpoints
from crossmatch.evaluation.variants.measuring import read_measuring
from crossmatch.evaluation.variants.variants import SERVED
from crossmatch.executors import parse_executor
from crossmatch.results.interference import InterferenceJson
from crossmatch.runtime import Progress

Pairs = Sequence[str]
Measure = Callable[[], InterferenceJson]


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of `crossmatch evaluate` by their names; adapter, weight, strengths and checkpoint as NAME=VALUE."""

    base: str | Path
    suite: Sequence[str]
    adapter: Pairs = ()
    weight: Pairs = ()
    reference: str | None = None
    template: Sequence[str] = ()
    decoding: Sequence[str] = ()
    strengths: Pairs = ()
    nulls: int = 0
    checkpoint: Pairs = ()
    kl: int = 16
    interference: int = 0
    batch_size: int = 256
    memory: str | None = None
    executor: str | None = None
    server: str | None = None
    model: str | None = None
    same_as: str | None = None
    clean: Path | None = None
    margin: float | None = None

    @property
    def _is_local(self) -> bool:
        """Whether variants are asked on this machine, beside a server or without one."""
        given = (self.adapter, self.weight, self.strengths, self.nulls, self.checkpoint, self.interference)
        return self.server is None or self.reference == "base" or any(given)


def request_of(options: EvaluationOptions, out: Path, notes: Progress) -> tuple[EvaluationRequest, Measure | None]:
    """The request, and what measures interference after it, if that is asked for; answers go to `out`.

    Raises InputError and DataError for options that cannot be, before anything is asked; remarks go to `notes`.
    """
    check_margin(options.margin)
    conditions = conditions_of(options.template, options.decoding)
    suites = [load_suite(file) for file in options.suite]
    serving = read_serving(options.server, options.model, options.same_as)
    wanted = None
    if options._is_local:
        pairs = (options.adapter, options.weight, options.reference, options.strengths, options.nulls)
        wanted = read_measuring(*pairs, bool(options.checkpoint or serving))
    against = wanted.reference if wanted else options.reference or "served"
    memory, executor = parse_memory(options.memory), parse_executor(options.executor or "local")
    plan = Plan(conditions, None, options.batch_size, options.kl, against, memory, executor)
    pair = wanted_pair(wanted, suites, options.interference) if wanted else None
    clean, base = clean_parts(options.clean, suites, notes), Checkpoint(options.base)
    variants = wanted.variants() if wanted else []
    variants += read_checkpoints(base, options.checkpoint, [*([SERVED] if serving else []), *variants], notes)
    asked = (base, tuple(suites), tuple(variants), wanted.adapters if wanted else {}, plan, serving, clean)
    request = EvaluationRequest(*asked, margin=options.margin or MARGIN)
    if not wanted or not pair:
        return request, None
    return request, partial(interfere, base, wanted, pair, options.interference, out, notes)
