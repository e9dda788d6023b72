"""An evaluation from options, as the command line and Python take them, to a request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

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
    clean: str | Path | None = None
    margin: float | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "EvaluationOptions":
        """From arguments by these names, as the command or Python has them; others are passed over. None is what is
        said here, a mapping is NAME=VALUE texts, one suite a list of one."""
        found: dict[str, Any] = {}
        for name in (field.name for field in fields(cls)):
            value = given[name]
            if isinstance(value, Mapping):
                value = [f"{key}={one if isinstance(one, str) else _text(one)}" for key, one in value.items()]
            if value is not None:
                found[name] = [value] if name == "suite" and isinstance(value, str) else value
        return cls(**found)

    @property
    def _is_local(self) -> bool:
        """Whether variants are asked on this machine, beside a server or without one."""
        given = (self.adapter, self.weight, self.strengths, self.nulls, self.checkpoint, self.interference)
        return self.server is None or self.reference == "base" or any(given)


def _text(value: object) -> str:
    """A number, or the numbers of a grid."""
    return ",".join(map(str, value)) if isinstance(value, Sequence) else str(value)


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
    clean_file = Path(options.clean) if options.clean is not None else None
    clean, base = clean_parts(clean_file, suites, notes), Checkpoint(options.base)
    variants = wanted.variants() if wanted else []
    variants += read_checkpoints(base, options.checkpoint, [*([SERVED] if serving else []), *variants], notes)
    asked = (base, tuple(suites), tuple(variants), wanted.adapters if wanted else {}, plan, serving, clean)
    request = EvaluationRequest(*asked, margin=options.margin or MARGIN)
    if not wanted or not pair:
        return request, None
    return request, partial(interfere, base, wanted, pair, options.interference, out, notes)
