"""Under what all suites are run: a template and a decoding; and what every file of answers is called."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crossmatch.checkpoint import value_digest
from crossmatch.data.prompt_templates import TEMPLATES, Template, find_template
from crossmatch.data.suites import Suite
from crossmatch.errors import DataError
from crossmatch.evaluation.inference.batch_memory import ROWS
from crossmatch.evaluation.inference.protocol import Decoding
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.executors import LOCAL, ExecutorOptions

SEEDS = 5
# What records hold; part of every digest, so that other ones are not taken for these.
RECORDS_VERSION = 5
_DECODING = re.compile(r"^T(\d+(?:\.\d+)?)(?:p(\d+(?:\.\d+)?))?(?:x(\d+))?$")


@dataclass(frozen=True)
class Condition:
    """One template and one decoding; sampled decodings are run with several seeds, each for every item."""

    template: Template = TEMPLATES["own"]
    temperature: float = 0.0
    top_p: float = 1.0
    seeds: tuple[int, ...] = field(default=(0,))

    @property
    def name(self) -> str:
        """Fit for a path, as in `own.greedy` or `own.T0.6p0.8`."""
        return f"{self.template.name}.{self.decoding_name}"

    @property
    def decoding_name(self) -> str:
        """`greedy`, or temperature and nucleus."""
        nucleus = f"p{self.top_p:g}" if self.top_p < 1 else ""
        return f"T{self.temperature:g}{nucleus}" if self.temperature > 0 else "greedy"

    @property
    def decoding(self) -> Decoding:
        """How every answer is generated, but for its seed."""
        return Decoding(self.temperature, self.top_p)

    @property
    def digest(self) -> str:
        """Digest of all that can change an answer."""
        drawn = [{**asdict(self.decoding), "seed": seed} for seed in self.seeds]
        return value_digest([RECORDS_VERSION, self.template.digest, drawn])


@dataclass(frozen=True)
class Plan:
    """Under what variants are asked.

    dtype: as which their weights are stored before they are computed with (None: the base's own); batch_size: prompts
    at a time at most, memory: bytes for what grows with them (None: a quarter of what is free), neither of which
    changes an answer. kl: of so many items of each generation suite, how far the next tokens are from those of the
    variant `kl_to`, and of the base. executor: where cells are answered.
    """

    conditions: tuple[Condition, ...] = (Condition(),)
    dtype: str | None = None
    batch_size: int = ROWS
    kl: int = 0
    kl_to: str | None = None
    memory: int | None = None
    executor: ExecutorOptions = LOCAL


def conditions_of(templates: Sequence[str] = (), decodings: Sequence[str] = ()) -> tuple[Condition, ...]:
    """Every template with every decoding: `greedy`, or `T0.6p0.8` (five seeds), `T1x10` (ten). Raises DataError."""
    found = tuple(
        Condition(template, *decoding)
        for template in map(find_template, templates or ("own",))
        for decoding in map(_decoding, decodings or ("greedy",))
    )
    names = [condition.name for condition in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DataError(f"condition {twice} is asked for twice; rename one of the template files")
    return found


def _asked(suite: Suite, scored: bool, first: bool) -> bool:
    settings = suite.settings
    if settings.kind == "text":
        return first
    return scored or settings.kind != "choice" or settings.generative


def _decoding(text: str) -> tuple[float, float, tuple[int, ...]]:
    match = _DECODING.match(text)
    if text == "greedy":
        return 0.0, 1.0, (0,)
    if match is None or not 0 < float(match[1]) <= 100 or not 0 < float(match[2] or 1) <= 1:
        raise DataError(f"decoding {text!r}: give greedy, or T and p as in T0.6p0.8, with x10 for ten seeds")
    return float(match[1]), float(match[2] or 1), tuple(range(max(1, int(match[3] or SEEDS))))


@dataclass(frozen=True)
class Cell:
    """One file of answers; scored: whether this condition is the first of its template, which scores options."""

    variant: Variant
    suite: Suite
    condition: Condition
    scored: bool

    @property
    def key(self) -> tuple[str, str, str]:
        """Its names."""
        return self.variant.name, self.suite.settings.name, self.condition.name

    def file(self, out: Path) -> Path:
        """Where its records lie."""
        return out / self.variant.name / f"{self.suite.settings.name}.{self.condition.name}.jsonl"


def cells(variants: Sequence[Variant], suites: Sequence[Suite], conditions: Sequence[Condition]) -> list[Cell]:
    """What there is to do. Choices that are not generated do not depend on the decoding: one condition per template.
    Plain text does not depend on a template either: one condition of all."""
    first: dict[str, str] = {}
    for condition in conditions:
        first.setdefault(condition.template.name, condition.name)
    found = []
    for variant in variants:
        for condition in conditions:
            scored = first[condition.template.name] == condition.name
            some = [s for s in suites if _asked(s, scored, condition is conditions[0])]
            found += [Cell(variant, suite, condition, scored) for suite in some]
    return found


OWN = (Condition(),)
DEFAULT = Plan()
