"""Interference predicted from factors, inputs and gradients, and measured by switching modules off and on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from crossmatch.adapter import Adapter
from crossmatch.analysis.attribution.ablation import Unit, ablate, divergence, expected_scores, over_weights, units
from crossmatch.analysis.attribution.gate_gradients import Path, gradients, guest_path, mean, shares
from crossmatch.analysis.attribution.gated_model import Instrumented
from crossmatch.analysis.interference.activation_energy import ActivationSums, activation_interference
from crossmatch.analysis.interference.non_additivity import non_additivity
from crossmatch.analysis.weights.overlap import Overlap, independent, overlap
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.token_classes import Text
from crossmatch.results.interference import (
    AblatedUnitJson,
    GateJson,
    HostDivergenceJson,
    InterferenceFactsJson,
    InterferenceJson,
    InterferenceScopeJson,
    MeasuredJson,
    RankAgreementJson,
    ScorePointJson,
    TargetAttributionJson,
    TextCountsJson,
    WeightsGridJson,
)
from crossmatch.rules import Weight, weight_json
from crossmatch.runtime import SILENT, Progress
from crossmatch.statistics.influence import Array, Estimate, ratio
from crossmatch.statistics.rank_correlation import spearman

# Of which tokens activations are taken to predict a target: tokens of the class `think` are mostly those of probes.
_KINDS = {"loss": ("opener", "answer"), "odds": ("opener", "think")}
Way = Literal["off", "on", "mean"]
WAYS: tuple[Way, ...] = ("off", "on", "mean")
Order = Literal["first_order", "second_order"]
ORDERS: tuple[Order, ...] = ("first_order", "second_order")


@dataclass(frozen=True)
class Scope:
    """How much is done.

    measured: how many items (and as many probes) carry gradients, ablations and the residual stream; activations are
    taken on all texts; nodes: of the quadrature; units: at most so many ablations, single modules if they are no more,
    else module types in bands of layers; multiples: of the merge weights in the grid; tokens: in one batch; draws: of
    the bootstrap; seed: which texts are measured, and the draws.
    """

    measured: int = 16
    nodes: int = 5
    units: int = 28
    multiples: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5)
    tokens: int = 1024
    draws: int = 2000
    seed: int = 0

    def to_dict(self) -> InterferenceScopeJson:
        """As plain JSON."""
        return {
            "measured": self.measured,
            "nodes": self.nodes,
            "units": self.units,
            "multiples": list(self.multiples),
            "tokens": self.tokens,
            "draws": self.draws,
            "seed": self.seed,
        }


def predict_and_measure(
    base: Checkpoint,
    adapters: Mapping[str, Adapter],
    weights: Mapping[str, Weight],
    texts: Sequence[Text],
    scope: Scope | None = None,
    *,
    progress: Progress = SILENT,
) -> InterferenceJson:
    """Interference of the first adapter (guest: PT) with the task of the second (host: SFT), as plain JSON.

    texts: held-out items of the host's task, and probes (`read_texts`). The merge is base + sum_i w_i D_i, unrounded.
    {value, stderr} are estimates with standard errors by text, {value, low, high, n} rank correlations with their 95%
    interval over units; targets are `loss` (nats per token) and, if there are probes, `odds` (nats). The keys:

        schema_version, guest, host, weights, scope
        texts         items, probes, tokens; measured_items, measured_probes
        activation    by module and class of tokens: `Interference.to_dict`
        classes       by class of tokens, of all modules together: `Pooled.to_dict`
        residual      by layer and class of tokens: `NonAdditivity.to_dict`
        divergence    KL(merge || host alone) in nats: first_token, per_token
        attribution   by target: host_alone, merge, change (values of the target), integrated (sum over modules),
                      completeness (that sum over the change), and modules: name, layer, module, adapter, gradient
                      (dL/dg in the merge), alone (the same with the guest's gates at 0), integrated (None for the host)
        measured      by target: units with name, module, layers, sites (a number); off, on (estimates); mean (of the
                      two values); predicted: {predictor: {off, on, mean}}, None where not defined
        agreement     by target, predictor and way (off, on, mean): {change, size}, the rank correlation of the
                      prediction with the measured change, and of its size with the change's
        weights_grid  by target: points with guest, host (multiples of the weights), measured, first_order,
                      second_order; agreement of the two orders with what was measured, the merge itself left out

    Predictors: gradient (dL/dg in the merge for off, without the guest for on), integrated; activation_ratio
    (E||p||^2 / E||s||^2), activation_size (over E||W x||^2), activation_reversed; overlap_cosine and overlap_energy of
    the deltas themselves. The same inputs on the same machine give the same numbers.
    Raises InputError if there are not two adapters, DataError without an item.
    """
    scope = scope or Scope()
    shares(texts)
    with progress.task("load model") as loading:
        model = Instrumented(base, adapters, weights)
        guest, host = (model.adapters[n] for n in model.pair())
        loading.advance()
    one, other = (independent(model.vectors[name]) for name in (guest, host))
    lying = overlap(one, other, (weights[guest], weights[host]))
    written = {name: weight_json(weight) for name, weight in weights.items()}
    return {
        "schema_version": 1,
        "guest": guest,
        "host": host,
        "weights": written,
        "scope": scope.to_dict(),
        **_facts(model, texts, lying, scope, progress),
    }


def _facts(
    model: Instrumented, texts: Sequence[Text], lying: Sequence[Overlap], scope: Scope, progress: Progress
) -> InterferenceFactsJson:
    chosen = _chosen(texts, scope)
    counted = shares(chosen)
    sums = activation_interference(model, texts, tokens=scope.tokens, progress=progress)
    residual = non_additivity(model, chosen, tokens=scope.tokens, progress=progress)
    path = guest_path(model, chosen, nodes=scope.nodes, tokens=scope.tokens, progress=progress)
    numbers = [n for n, pair in enumerate(model.branches) if pair[path.guest] is not None]
    parts = units(model.sites, numbers, scope.units)
    changes = ablate(model, chosen, parts, tokens=scope.tokens, progress=progress)
    predicted = {t: _predictions(t, share, path, sums, parts, lying) for t, share in counted.items()}
    measured = {t: _measured(share, parts, changes, predicted[t]) for t, share in counted.items()}
    return {
        "texts": _counts(texts, chosen),
        "activation": [row.to_dict() for row in sums.table()],
        "classes": [row.to_dict() for row in sums.classes()],
        "residual": [row.to_dict() for row in residual],
        "divergence": _divergence(model, chosen, scope, progress),
        "attribution": {t: _attribution(model, path, share) for t, share in counted.items()},
        "measured": measured,
        "agreement": {t: _agreement(found, scope) for t, found in measured.items()},
        "weights_grid": _grid(model, chosen, path, scope, progress),
    }


def _chosen(texts: Sequence[Text], scope: Scope) -> list[Text]:
    """At most `measured` items and as many probes, each drawn by the seed; items first, in their order."""
    chosen = []
    for probes in (False, True):
        kind = [text for text in texts if text.is_probe == probes]
        drawn = torch.randperm(len(kind), generator=torch.Generator().manual_seed(scope.seed))[: scope.measured]
        chosen += [kind[n] for n in sorted(drawn.tolist())]
    return chosen


def _counts(texts: Sequence[Text], chosen: Sequence[Text]) -> TextCountsJson:
    probes, measured = sum(t.is_probe for t in texts), sum(t.is_probe for t in chosen)
    return {
        "items": len(texts) - probes,
        "probes": probes,
        "tokens": sum(len(text.ids) for text in texts),
        "measured_items": len(chosen) - measured,
        "measured_probes": measured,
    }


def _divergence(model: Instrumented, texts: Sequence[Text], scope: Scope, progress: Progress) -> HostDivergenceJson:
    first, total, count = divergence(model, texts, tokens=scope.tokens, progress=progress)
    return {
        "first_token": ratio(first, (count > 0).astype(float)).to_dict(),
        "per_token": ratio(total, count).to_dict(),
    }


def _attribution(model: Instrumented, path: Path, share: Array) -> TargetAttributionJson:
    rows: list[GateJson] = []
    for number, site in enumerate(model.sites):
        for adapter, name in enumerate(model.adapters):
            if model.branches[number][adapter] is None:
                continue
            added = mean(path.integrated[number], share).to_dict() if adapter == path.guest else None
            gradient, alone = (mean(path.slopes[k, adapter, number], share).to_dict() for k in (-1, 0))
            rows.append(
                {
                    "name": site.name,
                    "layer": site.layer,
                    "module": site.module,
                    "adapter": name,
                    "gradient": gradient,
                    "alone": alone,
                    "integrated": added,
                }
            )
    return {
        "host_alone": mean(path.scores[0], share).to_dict(),
        "merge": mean(path.scores[-1], share).to_dict(),
        "change": mean(path.change, share).to_dict(),
        "integrated": mean(path.integrated.sum(0), share).to_dict(),
        "completeness": path.completeness(share),
        "modules": rows,
    }


def _predictions(
    target: str,
    share: Array,
    path: Path,
    sums: ActivationSums,
    parts: Sequence[Unit],
    lying: Sequence[Overlap],
) -> dict[str, dict[str, Array]]:
    """(units,) for each predictor and way; NaN where it is not defined."""
    sites = [list(part.sites) for part in parts]
    slopes = [path.slopes[k, path.guest] for k in (-1, 0)]
    off, on = (np.array([_value(mean(slope[s].sum(0), share)) for s in sites]) for slope in slopes)
    whole = np.array([_value(mean(path.integrated[s].sum(0), share)) for s in sites])
    of = {name: sums.of(name, _KINDS[target]).sum(1) for name in ("guest", "host", "base", "reversed")}
    same = {
        "integrated": whole,
        "activation_ratio": _pooled(of["guest"], of["host"], sites),
        "activation_size": _pooled(of["guest"], of["base"], sites),
        "activation_reversed": _pooled(of["reversed"], of["host"], sites),
        **_overlaps(sums, lying, sites),
    }
    gradient = {"off": off, "on": on, "mean": (off + on) / 2}
    return {"gradient": gradient, **{name: dict.fromkeys(WAYS, values) for name, values in same.items()}}


def _overlaps(sums: ActivationSums, lying: Sequence[Overlap], sites: Sequence[list[int]]) -> dict[str, Array]:
    """Cosine and energy ratio of the deltas, pooled over the modules of a unit as if they were one long vector."""
    found = {row.name: row for row in lying}
    rows = [found.get(site.name) for site in sums.sites]
    first, second, inner = (np.full(len(rows), np.nan) for _ in range(3))
    energy, against = (np.full(len(rows), np.nan) for _ in range(2))
    for n, row in enumerate(rows):
        if row is None or row.cosine is None or row.energy_ratio is None:
            continue
        first[n], second[n] = row.first_norm**2, row.second_norm**2
        inner[n] = row.cosine * row.first_norm * row.second_norm
        # Weights may differ between modules; up to one common factor these are the two weighted energies.
        energy[n], against[n] = row.energy_ratio * second[n], second[n]
    cosine = [inner[s].sum() / np.sqrt(first[s].sum() * second[s].sum()) for s in sites]
    return {"overlap_cosine": np.array(cosine), "overlap_energy": _pooled(energy, against, sites)}


def _pooled(above: Array, below: Array, sites: Sequence[list[int]]) -> Array:
    sums = [(above[s].sum(), below[s].sum()) for s in sites]
    return np.array([a / b if b else np.nan for a, b in sums])


def _measured(
    share: Array, parts: Sequence[Unit], changes: Mapping[str, Array], predicted: Mapping[str, Mapping[str, Array]]
) -> MeasuredJson:
    rows: list[AblatedUnitJson] = []
    for number, part in enumerate(parts):
        found = {way: mean(changes[way][number], share) for way in changes}
        rows.append(
            {
                "name": part.name,
                "module": part.module,
                "layers": list(part.layers) if part.layers else None,
                "sites": len(part.sites),
                "off": found["off"].to_dict(),
                "on": found["on"].to_dict(),
                "mean": sum(_value(estimate) for estimate in found.values()) / len(found),
                "predicted": {
                    name: {
                        "off": _finite(values["off"][number]),
                        "on": _finite(values["on"][number]),
                        "mean": _finite(values["mean"][number]),
                    }
                    for name, values in predicted.items()
                },
            }
        )
    return {"units": rows}


def _agreement(measured: MeasuredJson, scope: Scope) -> dict[str, dict[str, RankAgreementJson]]:
    rows = measured["units"]
    found: dict[str, dict[str, RankAgreementJson]] = {}
    for predictor in rows[0]["predicted"] if rows else ():
        found[predictor] = {}
        for way in WAYS:
            x: Array = np.array([_number(row["predicted"][predictor][way]) for row in rows], dtype=np.float64)
            y: Array = np.array([row["mean"] if way == "mean" else row[way]["value"] for row in rows], dtype=np.float64)
            found[predictor][way] = {
                "change": spearman(x, y, draws=scope.draws, seed=scope.seed).to_dict(),
                "size": spearman(np.fabs(x), np.fabs(y), draws=scope.draws, seed=scope.seed).to_dict(),
            }
    return found


def _grid(
    model: Instrumented, texts: Sequence[Text], path: Path, scope: Scope, progress: Progress
) -> dict[str, WeightsGridJson]:
    guest, host = model.pair()
    multiples = [(one, other) for one in scope.multiples for other in scope.multiples]
    with progress.task("gradient without the host", len(texts)) as task:
        without = gradients(model, texts, {model.adapters[host]: 0.0}, tokens=scope.tokens, task=task)
    references = {
        "merge": (path.scores[-1], path.slopes[-1]),
        "without-guest": (path.scores[0], path.slopes[0]),
        "without-host": without,
    }
    known = {(1.0, 1.0): path.scores[-1], (0.0, 1.0): path.scores[0], (1.0, 0.0): without[0]}
    asked = [point for point in multiples if point not in known]
    if asked:
        rows = over_weights(model, texts, asked, tokens=scope.tokens, progress=progress)
        known |= dict(zip(asked, rows, strict=True))
    measured = np.stack([known[point] for point in multiples])
    expected = expected_scores(references, multiples, (guest, host))
    tables: dict[str, WeightsGridJson] = {}
    for target, share in shares(texts).items():
        columns = {"measured": measured, **expected}
        values = {name: [_value(mean(row, share)) for row in rows] for name, rows in columns.items()}
        points: list[ScorePointJson] = [
            {
                "guest": one,
                "host": other,
                "measured": values["measured"][n],
                "first_order": values["first_order"][n],
                "second_order": values["second_order"][n],
            }
            for n, (one, other) in enumerate(multiples)
        ]
        predicted = [point for point in points if (point["guest"], point["host"]) != (1.0, 1.0)]
        y = np.array([point["measured"] for point in predicted])
        found = {
            name: spearman(
                np.array([point[name] for point in predicted]), y, draws=scope.draws, seed=scope.seed
            ).to_dict()
            for name in ORDERS
        }
        tables[target] = {"points": points, "agreement": found}
    return tables


def _value(estimate: Estimate) -> float:
    return float("nan") if estimate.value is None else estimate.value


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
