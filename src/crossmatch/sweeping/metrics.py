"""What a suite can be asked about: the metrics that its answers will have, their words, their directions and units."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossmatch.data.suites import Suite, SuiteSettings
from crossmatch.errors import RecipeError
from crossmatch.evaluation.comparison.paired import primary
from crossmatch.results.metrics import CATALOGUE, SCORE, Metric, better_is_more, metric_of

# Of a generation suite these cost a further pass over every prompt, which is made only if one of them is wanted.
OPENINGS = ("think_probability", "opener_probability", "first_entropy", "first_margin")
# Of a choice without a written answer, and of its options in other orders.
_SCORED = ("acc", "acc_norm", "first_entropy", "first_margin")
_ORDERS = ("acc_mean", "acc_majority", "acc_worst", "consistency")
# Neither good nor bad in the catalogue; whoever names one in a goal of a sweep wants less of it.
_UNWANTED = frozenset(
    (
        *("trace_structural", "trace_lexical", "trace_share", "trace_untagged", "openers_calibrated"),
        *("hesitating", "hesitations", "think_probability", "opener_probability"),
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
    """Metrics that the answers to a suite have, in the order of the catalogue."""
    settings = suite.settings
    return tuple(m.name for m in CATALOGUE.values() if settings.kind in m.suites and _is_made(m, settings))


def _is_made(metric: Metric, settings: SuiteSettings) -> bool:
    """Whether a suite's answers have a metric of its kind."""
    name = metric.name
    if name == "sustained":
        return settings.sustain > 0
    if name.startswith("kl_"):
        # Along another model's answers: a sweep asks each point by itself.
        return False
    if settings.kind == "choice" and name not in _SCORED:
        return settings.permutations > 0 if name in _ORDERS else settings.generative
    if settings.kind == "generation":
        if name.startswith("number"):
            return settings.match == "number"
        if name.startswith("exact"):
            return settings.match is not None
        if metric.unit is SCORE or name in ("length_ratio", "openers_calibrated"):
            return settings.match != "number"
    return True


def of_traces(metric: str) -> bool:
    """Whether a metric is of reasoning that is written or about to be."""
    return metric in _UNWANTED


def _higher_is_better(metric: str) -> bool | None:
    return False if metric in _UNWANTED else better_is_more(metric)


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
    higher = _higher_is_better(metric) if higher is None else higher
    if higher is None:
        raise RecipeError(f"{place}: is more {metric} better? Write maximise {metric}, or minimise {metric}")
    return Measure(homes[0], metric, higher)


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
    return Measure(suite.settings.name, found, bool(_higher_is_better(found))) if found else None
