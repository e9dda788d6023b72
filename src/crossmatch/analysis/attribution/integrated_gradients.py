"""Which modules of a fine-tune a log-odds comes from: gates on single deltas, and the proof by taking them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student

from crossmatch.analysis.attribution.ablation import Unit, removed
from crossmatch.analysis.attribution.gate_gradients import Path, gate_path
from crossmatch.analysis.attribution.gated_model import Instrumented
from crossmatch.analysis.checkpoint_difference import Difference
from crossmatch.analysis.decoder_layers import check_configs
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.log_odds_items import Contrasts
from crossmatch.delta import TuningVector, norm
from crossmatch.errors import EqualError, InputError
from crossmatch.results.attribution import (
    AttributedModuleJson,
    AttributionJson,
    AttributionScopeJson,
    RemovalProofJson,
    RemovedModuleJson,
)
from crossmatch.results.figures import EstimateJson, FigureJson
from crossmatch.runtime import SILENT, Progress
from crossmatch.statistics.influence import Array, Estimate, ratio
from crossmatch.statistics.rank_correlation import LEVEL, spearman


@dataclass(frozen=True)
class AttributionScope:
    """How much is done.

    nodes: of the quadrature at first; limit: nodes at most, to which they are doubled until the attributions add up;
    tolerance: by how much of the change their sum may be off; top: how many modules are taken out; controls: how many
    others are, drawn at random; tokens: in one batch; draws: of the bootstrap of rank correlations; seed: of the
    controls and the draws. Raises InputError for numbers that make no sense.
    """

    nodes: int = 8
    limit: int = 64
    tolerance: float = 0.05
    top: int = 10
    controls: int = 10
    tokens: int = 1024
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.nodes <= self.limit or self.tolerance <= 0 or self.top < 1 or self.controls < 0:
            raise InputError("attribution needs 2 nodes at least, a limit not below them, a tolerance, and a top of 1")

    def to_dict(self) -> AttributionScopeJson:
        """As plain JSON."""
        return {
            "nodes": self.nodes,
            "limit": self.limit,
            "tolerance": self.tolerance,
            "top": self.top,
            "controls": self.controls,
            "tokens": self.tokens,
            "draws": self.draws,
            "seed": self.seed,
        }


def attribute(
    base: Checkpoint,
    tuned: TuningVector | Checkpoint,
    contrasts: Contrasts,
    scope: AttributionScope | None = None,
    *,
    progress: Progress = SILENT,
) -> AttributionJson:
    """What every module's delta adds to M, the mean log-odds of the items, as plain JSON.

    A gate g on the delta of each tensor, y = W x + g D x: dM/dg at g = 1, and integrated gradients (1703.01365) along g
    from 0 to 1, all gates together. tuned: a vector, or a checkpoint of which the difference to the base is taken.
    {value, stderr} are means over items with their standard error, in nats. The keys:

        schema_version, scope
        metric, items       M in words, and how many items
        base, tuned, change M of the two, and what it changes by
        integrated          the sum of the attributions over all modules
        completeness        that sum over the change (None where M does not change)
        complete, nodes     whether it is within the tolerance of 1, and with how many nodes
        modules             name, layer, module, gradient, integrated; the largest first, by the size of integrated
        types               module -> sum over its deltas of integrated
        removed             modules: the first `top` of these with removed (M less M without this delta) and confirmed
                            (removed has the sign of integrated, and its 95% interval leaves out 0); controls: the same
                            of others drawn at random; confirmed: how many of the top; larger: how many of the top
                            change M by more than any control does, None without controls; spearman: integrated and
                            gradient against removed, over the top, and over top and controls
    Raises EqualError for a fine-tune that changes nothing, InputError for what can have no gate.
    """
    scope = scope or AttributionScope()
    vector = _changed(base, Difference(base, tuned) if isinstance(tuned, Checkpoint) else tuned)
    with progress.task("load model") as loading:
        model = Instrumented(base, {"tuned": vector}, {"tuned": 1.0}, everything=True)
        loading.advance()
    path = _complete_path(model, contrasts, scope, progress)
    parts = contrasts.of(path.integrated)
    slopes = contrasts.of(path.slopes[-1, path.guest])
    order = np.argsort(-np.abs(parts.mean(1)), kind="stable").tolist()
    share = _completeness(path, contrasts)
    predicted = {"integrated": parts, "gradient": slopes}
    return {
        "schema_version": 1,
        "scope": scope.to_dict(),
        "metric": contrasts.metric,
        "items": contrasts.count,
        "base": _mean(contrasts.of(path.scores[0])).to_dict(),
        "tuned": _mean(contrasts.of(path.scores[-1])).to_dict(),
        "change": _mean(contrasts.of(path.change)).to_dict(),
        "integrated": _mean(parts.sum(0)).to_dict(),
        "completeness": share,
        "complete": _is_complete(share, scope),
        "nodes": len(path.nodes),
        "modules": [_module(model, n, predicted) for n in order],
        "types": _types(model, parts),
        "removed": _removed(model, contrasts, predicted, order, scope, progress),
    }


def _changed(base: Checkpoint, vector: TuningVector) -> TuningVector:
    """The deltas that change anything; of a whole checkpoint many may not."""
    if isinstance(vector, Difference):
        check_configs(base, vector.tuned)
        vector = TuningVector({name: delta for name, delta in vector.items() if norm(delta) > 0})
    if not len(vector):
        raise EqualError("the tuned model changes no tensor of its base; there is nothing to attribute")
    return vector


def _complete_path(model: Instrumented, contrasts: Contrasts, scope: AttributionScope, progress: Progress) -> Path:
    """The path with the first number of nodes at which the attributions add up, or with as many as are allowed."""
    nodes = scope.nodes
    while True:
        path = gate_path(model, contrasts.texts, 0, nodes=nodes, tokens=scope.tokens, progress=progress)
        share = _completeness(path, contrasts)
        if share is None or _is_complete(share, scope) or nodes == scope.limit:
            return path
        nodes = min(2 * nodes, scope.limit)
        progress.say(f"the attributions add up to {share:.3f} of the change; again with {nodes} nodes")


def _completeness(path: Path, contrasts: Contrasts) -> float | None:
    change = float(contrasts.of(path.change).mean())
    added = float(contrasts.of(path.integrated).sum(0).mean())
    return added / change if change else None


def _is_complete(share: float | None, scope: AttributionScope) -> bool:
    return share is not None and abs(share - 1) <= scope.tolerance


def _mean(values: Array) -> Estimate:
    """Over items, (items,)."""
    return ratio(values, np.ones_like(values))


def _types(model: Instrumented, parts: Array) -> dict[str, EstimateJson]:
    found: dict[str, list[int]] = {}
    for number, site in enumerate(model.sites):
        found.setdefault(site.module, []).append(number)
    return {module: _mean(parts[numbers].sum(0)).to_dict() for module, numbers in sorted(found.items())}


def _removed(
    model: Instrumented,
    contrasts: Contrasts,
    predicted: Mapping[str, Array],
    order: Sequence[int],
    scope: AttributionScope,
    progress: Progress,
) -> RemovalProofJson:
    """The first of the order, and others at random, taken out one by one."""
    top, rest = order[: scope.top], order[scope.top :]
    drawn = np.random.default_rng(scope.seed).permutation(len(rest))[: scope.controls]
    numbers = [*top, *(rest[n] for n in sorted(drawn))]
    units = [Unit(site.name, site.module, None, (n,)) for n in numbers for site in [model.sites[n]]]
    changes = contrasts.of(removed(model, contrasts.texts, units, 0, tokens=scope.tokens, progress=progress))
    rows = [_row(model, n, predicted, change) for n, change in zip(numbers, changes, strict=True)]
    first, others = rows[: len(top)], rows[len(top) :]
    ceiling = max((abs(row["removed"]["value"] or 0.0) for row in others), default=None)
    return {
        "modules": first,
        "controls": others,
        "confirmed": sum(row["confirmed"] for row in first),
        "larger": None if ceiling is None else sum(abs(row["removed"]["value"] or 0.0) > ceiling for row in first),
        "spearman": {
            "integrated": {"top": _ranks(first, "integrated", scope), "all": _ranks(rows, "integrated", scope)},
            "gradient": {"top": _ranks(first, "gradient", scope), "all": _ranks(rows, "gradient", scope)},
        },
    }


def _module(model: Instrumented, number: int, predicted: Mapping[str, Array]) -> AttributedModuleJson:
    site, found = model.sites[number], {name: _mean(values[number]).to_dict() for name, values in predicted.items()}
    return {
        "name": site.name,
        "layer": site.layer,
        "module": site.module,
        "gradient": found["gradient"],
        "integrated": found["integrated"],
    }


def _row(model: Instrumented, number: int, predicted: Mapping[str, Array], change: Array) -> RemovedModuleJson:
    measured, expected = _mean(change), float(predicted["integrated"][number].mean())
    value, error = measured.value or 0.0, measured.stderr
    half = float(student.ppf((1 + LEVEL) / 2, len(change) - 1)) * error if error is not None else np.inf
    confirmed = value * expected > 0 and abs(value) > half
    return {**_module(model, number, predicted), "removed": measured.to_dict(), "confirmed": confirmed}


def _ranks(
    rows: Sequence[RemovedModuleJson], name: Literal["integrated", "gradient"], scope: AttributionScope
) -> FigureJson:
    x, y = np.array([row[name]["value"] for row in rows]), np.array([row["removed"]["value"] for row in rows])
    return spearman(x, y, draws=scope.draws, seed=scope.seed).to_dict()
