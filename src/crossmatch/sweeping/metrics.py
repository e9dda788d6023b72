"""What a suite can be asked about: the metrics that its answers will have, their words, their directions and units."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossmatch.data.suites import Suite
from crossmatch.errors import RecipeError
from crossmatch.evaluation.comparison.paired import primary
from crossmatch.results.metrics import STANDING, metric_of

_OUTPUTS = (
    *("trace_structural", "trace_lexical", "trace_share", "trace_untagged", "trace_unclosed"),
    *("hesitating", "hesitations", "truncated", "output_tokens", "answer_entropy", "answer_margin"),
)
_OVERLAP = (
    *("bleu", "chrf", "sentence_bleu", "rouge1", "rouge2", "rougeL"),
    *("bleu_raw", "chrf_raw", "sentence_bleu_raw", "rouge1_raw", "rouge2_raw", "rougeL_raw"),
    *("lf_bleu4", "lf_rouge1", "lf_rouge2", "lf_rougeL"),
    *("lf_bleu4_stripped", "lf_rouge1_stripped", "lf_rouge2_stripped", "lf_rougeL_stripped"),
    *("length_ratio", "openers_calibrated"),
)
# Of a generation suite these cost a further pass over every prompt, which is made only if one of them is wanted.
OPENINGS = ("think_probability", "opener_probability", "first_entropy", "first_margin")
_TEXT = ("perplexity", "token_nats", "bits_per_byte")
_INSTRUCTIONS = (
    *("followed_strict", "followed_loose", "instructions_strict", "instructions_loose"),
    *("instructions_strict_raw", "instructions_loose_raw"),
)
_LOWER = frozenset(
    (
        *_TEXT,
        *("trace_structural", "trace_lexical", "trace_share", "trace_untagged", "trace_unclosed"),
        *("hesitating", "hesitations", "truncated", "invalid", "openers_calibrated"),
        *("think_probability", "opener_probability"),
    )
)
# What people call them.
_WORDS = {
    "accuracy": "acc",
    "trace rate": "trace_structural",
    "traces": "trace_structural",
    "opener rate": "trace_lexical",
    "openers": "trace_lexical",
    "rouge-l": "rougeL",
    "rouge l": "rougeL",
    "exact match": "exact",
    "truncation rate": "truncated",
}


def metrics_of(suite: Suite) -> tuple[str, ...]:
    """Metrics that the answers to a suite have, in the order of their groups."""
    settings = suite.settings
    sustained = ("sustained",) if settings.sustain else ()
    if settings.kind == "text":
        return _TEXT
    if settings.kind == "choice":
        orders = ("acc_mean", "acc_majority", "acc_worst", "consistency") if settings.permutations else ()
        written = ("acc_generated", "invalid", *_OUTPUTS) if settings.generative else ()
        return ("acc", "acc_norm", "first_entropy", "first_margin", *orders, *written, *sustained)
    if settings.kind == "instructions":
        return (*_INSTRUCTIONS, *_OUTPUTS, *OPENINGS)
    matched = ("exact", "exact_raw") if settings.match else ()
    if settings.match == "number":
        return (*matched, "number", "number_raw", *_OUTPUTS, *OPENINGS, *sustained)
    return (*matched, *_OVERLAP, *_OUTPUTS, *OPENINGS, *sustained)


@dataclass(frozen=True)
class Measure:
    """A metric of a suite. higher: whether more is better."""

    suite: str
    metric: str
    higher: bool

    @property
    def name(self) -> str:
        """`suite.metric`."""
        return f"{self.suite}.{self.metric}"

    @property
    def title(self) -> str:
        """For readers: the suite and the metric's title."""
        return f"{self.suite} {metric_of(self.metric).title}"

    @property
    def scale(self) -> float:
        """By what a stored value becomes the shown one."""
        return metric_of(self.metric).unit.scale

    @property
    def percent(self) -> bool:
        """Whether it is shown in percent."""
        return metric_of(self.metric).title.endswith("%")

    def to_json(self) -> dict[str, object]:
        """As plain JSON."""
        return {"suite": self.suite, "metric": self.metric, "higher_is_better": self.higher}


def find_measure(text: str, suites: Sequence[Suite], place: str, higher: bool | None = None) -> Measure:
    """The metric that a text names, as `rougeL`, `trace rate` or `suite.metric`.

    higher: whether more is better, where it is said. Raises RecipeError for a metric that no suite has, with the
    closest name, for one that several have, and where the direction is not known.
    """
    known = {suite.settings.name: metrics_of(suite) for suite in suites}
    head, dot, rest = text.strip().partition(".")
    named = {head: known[head]} if dot and head in known else known
    words = rest if dot and head in known else text.strip()
    metric = _WORDS.get(" ".join(words.lower().split()), words.replace(" ", "_"))
    cased = {name.lower(): name for names in named.values() for name in names}
    metric = cased.get(metric.lower(), metric)
    homes = [name for name, metrics in named.items() if metric in metrics]
    if not homes:
        raise RecipeError(_unknown(text.strip(), metric, named, place))
    if len(homes) > 1:
        raise RecipeError(f"{place}: suites {' and '.join(homes)} both have {metric}; write {homes[0]}.{metric}")
    if higher is None:
        if metric not in _LOWER and metric not in STANDING and not _is_score(metric):
            raise RecipeError(f"{place}: is more {metric} better? Write maximise {metric}, or minimise {metric}")
        higher = metric not in _LOWER
    return Measure(homes[0], metric, higher)


def _is_score(metric: str) -> bool:
    return metric.startswith(("acc", "exact", "number", "rouge", "bleu", "chrf", "lf_", "sentence_bleu")) or metric in (
        *_INSTRUCTIONS,
        *("consistency", "sustained"),
    )


def _unknown(text: str, metric: str, known: Mapping[str, Sequence[str]], place: str) -> str:
    names = list(dict.fromkeys(name for metrics in known.values() for name in metrics))
    every = {**{name.lower(): name for name in names}, **{w: w for w, m in _WORDS.items() if m in names}}
    close = difflib.get_close_matches(metric.lower(), every, n=1)
    of = f"suite {next(iter(known))} has" if len(known) == 1 else f"none of the suites {', '.join(known)} has"
    what = "no metric" if len(known) == 1 else "a metric"
    hint = f"did you mean {every[close[0]]}?" if close else f"there are {', '.join(names[:8])}, ..."
    return f"{place}: {of} {what} {text!r}; {hint}"


def default_measure(suite: Suite) -> Measure | None:
    """The metric that stands for a suite: its first score, or the perplexity of texts."""
    metrics = metrics_of(suite)
    found = "perplexity" if suite.settings.kind == "text" else primary(metrics)
    return Measure(suite.settings.name, found, found not in _LOWER) if found else None
