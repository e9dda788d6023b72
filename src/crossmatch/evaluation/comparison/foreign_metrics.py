"""Metrics of other programs: which way is better, and what a point is, by whole names; what is not known is said so.

A name that only begins like a known one may mean the opposite: more `acc_drop` is no better.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from crossmatch.evaluation.comparison.scored_run import Task
from crossmatch.results.metrics import better_is_more, metric_of
from crossmatch.statistics.estimates import Array, Ratio, Statistic, mean_of

Direction = Literal["recorded", "given", "known", "unknown"]

# Of any size, so that values which happen to be below 1 are no shares.
_UNBOUNDED = frozenset(
    (
        *("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "likelihood_diff", "nll", "loss"),
        *("mse", "mae", "rmse", "ter", "wer", "cer"),
    )
)
_LOWER = _UNBOUNDED | {"brier_score", "pct_stereotype", "ece"}
# The names in lm-evaluation-harness 0.4, and what squad, drop, truthfulqa, ifeval and longbench call theirs.
_HIGHER = re.compile(
    r"acc(uracy)?|acc_(norm|bytes|mutual_info|all|raw)|exact(_match|_raw)?|em|math_verify|contains|relaxed_accuracy|anls"
    r"|(bleu|rouge[12]|rougel|rougelsum)(_(max|acc|diff))?|rouge|chrf(\+\+|pp)?|mcc|matthews_corrcoef"
    r"|f1|((macro|micro|weighted)_)?f1(_score)?|f1_(macro|micro|weighted)|(best|hasans|noans)_(exact|f1)"
    r"|pass(@|_at_)\d+|mc[12]|(prompt|inst)_level_(strict|loose)_acc"
    r"|(qa_f1|qa_f1_zh|rouge|rouge_zh|classification|code_sim|retrieval|retrieval_zh|count)_score"
)
# Scores from 0 to 100, of which a point is one and not a hundredth.
_HUNDRED = re.compile(r"(bleu|rouge[12]|rougel|rougelsum)(_(max|diff))?|rouge|chrf(\+\+|pp)?|ter")


def direction(
    metric: str, tasks: Sequence[Task], higher: Sequence[str], lower: Sequence[str]
) -> tuple[bool | None, Direction]:
    """Whether more of a metric is better, and how that is known; None where it is not.

    tasks: those that measured it; higher, lower: metrics of which the user said so.
    """
    if metric in higher or metric in lower:
        return metric in higher, "given"
    recorded = {task.higher_is_better[metric] for task in tasks if metric in task.higher_is_better}
    if recorded:
        # Tasks, or runs, that record opposite directions cannot be one figure's.
        return (recorded.pop(), "recorded") if len(recorded) == 1 else (None, "unknown")
    known, name = better_is_more(metric), metric.lower()
    if known is not None:
        return known, "known"
    if name in _LOWER:
        return False, "known"
    return (True, "known") if _HIGHER.fullmatch(name) else (None, "unknown")


def point_of(metric: str, first: Array, second: Array, statistic: Statistic) -> float | None:
    """What a point of the metric is: a hundredth of a mean of values from 0 to 1, one of a score from 0 to 100; None
    where points are not defined."""
    values, name = np.concatenate([first, second]), metric.lower()
    hundred = metric_of(metric).unit.hundred or bool(_HUNDRED.fullmatch(name))
    if statistic is mean_of and values.min() >= 0 and values.max() <= 1 and name not in _UNBOUNDED:
        return 0.01
    if hundred:
        return 1.0
    # A share of right ones among all: their sum is at most their number.
    shares = isinstance(statistic, Ratio) and statistic.of is None and (values[:, 0] <= values[:, 1]).all()
    return 0.01 if shares and values.min() >= 0 else None
