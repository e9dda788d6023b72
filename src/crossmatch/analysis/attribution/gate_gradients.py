"""Gate attributions: how a target changes with the gate of every module and adapter, and what each adds to it.

Targets: `loss`, the mean negative log-likelihood of the items' responses, in nats per token; `odds`, the mean over the
probes of log P(opener | prompt) - log P(first token of the answer | prompt). Both are sums over texts, so that one
backward pass for each batch gives dL/dg for every module, adapter and text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from crossmatch.analysis.attribution.batches import batches
from crossmatch.analysis.attribution.gated_model import Instrumented
from crossmatch.data.token_classes import Text
from crossmatch.errors import DataError
from crossmatch.runtime import QUIET, SILENT, Progress, Task
from crossmatch.statistics.influence import Array, Estimate, ratio


def shares(texts: Sequence[Text]) -> dict[str, Array]:
    """(texts,) for each target: response tokens of an item, or 1 for a probe; 0 for what the target does not count.

    A target's value is sum of the scores of the texts that count, over the sum of these. A target for which no text
    counts is left out. Raises DataError if there is no item.
    """
    items = np.array([0.0 if text.is_probe else len(text.ids) - text.start for text in texts])
    probes = np.array([float(text.is_probe) for text in texts])
    if not items.any():
        raise DataError("the loss needs texts with a response of their own, not probes alone")
    return {"loss": items, "odds": probes} if probes.any() else {"loss": items}


def mean(scores: Array, share: Array) -> Estimate:
    """A target's value, or that of a difference of scores (texts,), with its standard error by text."""
    return ratio(np.where(share > 0, scores, 0.0), share)


def score(
    model: Instrumented, texts: Sequence[Text], gates: Mapping[str, float], *, tokens: int = 1024, task: Task = QUIET
) -> Array:
    """(texts,) scores (`Instrumented.scores`) with one gate for all modules of an adapter, 1 where none is given."""
    scores = np.zeros(len(texts))
    with torch.inference_mode(), model.gated(model.gates(gates)):
        for batch in batches(texts, tokens):
            scores[list(batch.numbers)] = model.scores(batch).double().cpu().numpy()
            task.advance(len(batch.numbers))
    return scores


def gradients(
    model: Instrumented, texts: Sequence[Text], gates: Mapping[str, float], *, tokens: int = 1024, task: Task = QUIET
) -> tuple[Array, Array]:
    """(texts,) scores, and their derivatives by every gate, (adapters, sites, texts)."""
    scores = np.zeros(len(texts))
    slopes = np.zeros((len(model.adapters), len(model.sites), len(texts)))
    for batch in batches(texts, tokens):
        rows = list(batch.numbers)
        leaf = model.gates(gates, len(rows)).requires_grad_()
        with model.gated(leaf):
            values = model.scores(batch)
            slopes[:, :, rows] = torch.autograd.grad(values.sum(), leaf)[0].double().cpu().numpy()
        scores[rows] = values.detach().double().cpu().numpy()
        task.advance(len(rows))
    return scores, slopes


def lobatto(count: int) -> tuple[Array, Array]:
    """Nodes and weights on [0, 1], both ends among the nodes, exact for polynomials of degree 2 count - 3.

    Inner nodes are the roots of P'_(n-1), weights 1 / (n (n - 1) P_(n-1)(x)^2) (Abramowitz & Stegun, 25.4.32).
    Raises DataError for fewer than two nodes.
    """
    if count < 2:
        raise DataError(f"integrated gradients need both ends of their path; {count} nodes are too few")
    polynomial = np.polynomial.legendre.Legendre.basis(count - 1)
    inner = np.sort(np.real(polynomial.deriv().roots())) if count > 2 else np.zeros(0)
    nodes = np.concatenate([[-1.0], inner, [1.0]])
    return (nodes + 1) / 2, 1 / (count * (count - 1) * polynomial(nodes) ** 2)


@dataclass(frozen=True, eq=False)
class Path:
    """The guest's gates together from 0 to 1, the others' at 1: from what they are alone to the merge.

    nodes, weights: (k,) of the quadrature; scores: (k, texts); slopes: (k, adapters, sites, texts).
    """

    guest: int
    nodes: Array
    weights: Array
    scores: Array
    slopes: Array

    @cached_property
    def integrated(self) -> Array:
        """(sites, texts) integrated gradients of the guest's gates (Sundararajan et al., 1703.01365):
        IG_m = integral over t in [0, 1] of dL/dg_m at g = t."""
        return np.tensordot(self.weights, self.slopes[:, self.guest], 1)

    @property
    def change(self) -> Array:
        """(texts,) scores of the merge less those of the host alone."""
        return self.scores[-1] - self.scores[0]

    def completeness(self, share: Array) -> float | None:
        """sum over modules of IG over L(1) - L(0), which is 1 up to the error of the quadrature; None if L does not
        change."""
        change = mean(self.change, share).value
        added = mean(self.integrated.sum(0), share).value
        return added / change if change and added is not None else None


def guest_path(
    model: Instrumented, texts: Sequence[Text], *, nodes: int = 5, tokens: int = 1024, progress: Progress = SILENT
) -> Path:
    """Gradients at the nodes of the guest's path; `nodes` passes forth and back over the texts."""
    guest, _ = model.pair()
    return gate_path(model, texts, guest, nodes=nodes, tokens=tokens, progress=progress)


def gate_path(
    model: Instrumented,
    texts: Sequence[Text],
    guest: int,
    *,
    nodes: int = 8,
    tokens: int = 1024,
    progress: Progress = SILENT,
) -> Path:
    """The same for any adapter, by its number."""
    places, weights = lobatto(nodes)
    scores, slopes = [], []
    with progress.task("gate attributions", nodes * len(texts)) as task:
        for place in places:
            gates = {model.adapters[guest]: float(place)}
            values, derivatives = gradients(model, texts, gates, tokens=tokens, task=task)
            scores.append(values)
            slopes.append(derivatives)
    return Path(guest, places, weights, np.stack(scores), np.stack(slopes))
