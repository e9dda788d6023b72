"""What is measured against predictions: the guest switched off or on in some modules, whole merges at other weights.

    off   L(merge) - L(merge without the guest in these modules)
    on    L(host alone, and the guest in these modules) - L(host alone)

Both are positive where the guest does harm to a loss.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossmatch.analysis.attribution.batches import Batch, batches
from crossmatch.analysis.attribution.gate_gradients import score
from crossmatch.analysis.attribution.gated_model import Instrumented, Site
from crossmatch.data.token_classes import Text
from crossmatch.errors import InputError
from crossmatch.runtime import SILENT, Progress, Task
from crossmatch.statistics.influence import Array


@dataclass(frozen=True)
class Unit:
    """Modules that are switched together: numbers of their sites, their type, first and last layer (None: outside)."""

    name: str
    module: str
    layers: tuple[int, int] | None
    sites: tuple[int, ...]


def units(sites: Sequence[Site], numbers: Sequence[int], limit: int) -> list[Unit]:
    """One unit for each of the sites that `numbers` lists or, where they are more than `limit`, for each type of module
    in each band of layers, of as many bands of like height as keep below it (one at least)."""
    if len(numbers) <= limit:
        return [_unit(sites[n].name.removesuffix(".weight"), sites, [n]) for n in numbers]
    types = list(dict.fromkeys(sites[n].module for n in numbers))
    height = 1 + max((sites[n].layer or 0 for n in numbers), default=0)
    bands = max(1, min(height, limit // len(types)))
    groups: dict[tuple[str, int], list[int]] = {}
    for n in numbers:
        layer = sites[n].layer
        groups.setdefault((sites[n].module, -1 if layer is None else layer * bands // height), []).append(n)
    return [_unit("", sites, members) for members in groups.values()]


def _unit(name: str, sites: Sequence[Site], numbers: Sequence[int]) -> Unit:
    within = [layer for n in numbers if (layer := sites[n].layer) is not None]
    layers, module = ((min(within), max(within)) if within else None), sites[numbers[0]].module
    place = f" {layers[0]}-{layers[1]}" if layers else ""
    return Unit(name or f"{module}{place}", module, layers, tuple(numbers))


def ablate(
    model: Instrumented,
    texts: Sequence[Text],
    parts: Sequence[Unit],
    *,
    tokens: int = 1024,
    progress: Progress = SILENT,
) -> dict[str, Array]:
    """`off` and `on` as (units, texts) differences of scores (`Instrumented.scores`).

    Layers below the first module of a unit are not computed again: nothing has changed there.
    """
    guest, _ = model.pair()
    changes = {way: np.zeros((len(parts), len(texts))) for way in ("off", "on")}
    with torch.inference_mode(), progress.task("ablation", 2 * len(parts) * len(texts)) as task:
        for batch in batches(texts, tokens):
            for way, change in changes.items():
                reference = model.gates({} if way == "off" else {model.adapters[guest]: 0.0})
                found = _switched(model, batch, parts, reference, guest, task)
                change[:, list(batch.numbers)] = found if way == "off" else -found
    return changes


def removed(
    model: Instrumented,
    texts: Sequence[Text],
    parts: Sequence[Unit],
    adapter: int,
    *,
    tokens: int = 1024,
    progress: Progress = SILENT,
) -> Array:
    """(units, texts) scores of the whole less those without an adapter in a unit's modules, by the adapter's number."""
    changes = np.zeros((len(parts), len(texts)))
    with torch.inference_mode(), progress.task("ablation", len(parts) * len(texts)) as task:
        for batch in batches(texts, tokens):
            changes[:, list(batch.numbers)] = _switched(model, batch, parts, model.gates({}), adapter, task)
    return changes


def _switched(
    model: Instrumented, batch: Batch, parts: Sequence[Unit], reference: Tensor, adapter: int, task: Task
) -> Array:
    """(units, rows) scores at the reference's gates less those with one unit's gates of an adapter at the other end."""
    rows = []
    with _kept(model.layers) as outputs, model.gated(reference):
        before = model.scores(batch)
    for part in parts:
        gates = reference.clone()
        gates[adapter, list(part.sites)] = 1.0 - gates[adapter, list(part.sites)]
        first = min(model.depths[site] for site in part.sites)
        with _resumed(model.layers[:first], outputs), model.gated(gates):
            rows.append((before - model.scores(batch)).double().cpu().numpy())
        task.advance(len(batch.numbers), part.name)
    return np.stack(rows)


@contextmanager
def _kept(layers: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """What every layer returns while the block runs, whole."""
    outputs: list[Any] = [None] * len(layers)

    def keep(number: int, module: nn.Module, args: Any, output: Any) -> None:
        del module, args
        outputs[number] = output

    handles = [layer.register_forward_hook(partial(keep, number)) for number, layer in enumerate(layers)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _resumed(layers: Sequence[nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """While the block runs these layers return what was kept, and compute nothing."""
    for layer, output in zip(layers, outputs, strict=False):
        layer.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def over_weights(
    model: Instrumented,
    texts: Sequence[Text],
    multiples: Sequence[tuple[float, float]],
    *,
    tokens: int = 1024,
    progress: Progress = SILENT,
) -> Array:
    """(points, texts) scores of whole merges, at (guest, host) multiples of the merge weights.

    Raises InputError if a multiple is not finite.
    """
    guest, host = model.pair()
    if not np.isfinite(np.array(multiples, dtype=float)).all():
        raise InputError(f"multiples of the weights must be finite numbers: {list(multiples)}")
    rows = []
    with progress.task("merge weights", len(multiples) * len(texts)) as task:
        for one, other in multiples:
            gates = {model.adapters[guest]: one, model.adapters[host]: other}
            rows.append(score(model, texts, gates, tokens=tokens, task=task))
    return np.stack(rows)


def expected_scores(
    references: Mapping[str, tuple[Array, Array]], multiples: Sequence[tuple[float, float]], pair: tuple[int, int]
) -> dict[str, Array]:
    """(points, texts) of the first and second order expansion about the merge, g = (1, 1) of guest and host:

        L(g) = L(1) + G^T (g - 1) + (g - 1)^T H (g - 1) / 2

    references: (scores, slopes) of `gradients` at the merge, `without-guest` at (0, 1) and `without-host` at (1, 0).
    H is made of secants of the gradient towards these two, its mixed entry the mean of both.
    """
    scores, slopes = references["merge"]
    order = list(pair)
    here = slopes.sum(1)[order]
    secants = [here - references[name][1].sum(1)[order] for name in ("without-guest", "without-host")]
    mixed = (secants[0][1] + secants[1][0]) / 2
    steps = np.array(multiples, dtype=float) - 1.0
    first = scores + steps @ here
    one, other = steps[:, :1], steps[:, 1:]
    curved = (one**2 * secants[0][0] + other**2 * secants[1][1]) / 2 + one * other * mixed
    return {"first_order": first, "second_order": first + curved}


def divergence(
    model: Instrumented, texts: Sequence[Text], *, tokens: int = 1024, progress: Progress = SILENT
) -> tuple[Array, Array, Array]:
    """KL(merge || host alone) in nats, (texts,): at a response's first token, summed over its tokens, and their number.

    Probes count nothing: their prompt is an item's.
    """
    guest, _ = model.pair()
    first, total, count = (np.zeros(len(texts)) for _ in range(3))
    with torch.inference_mode(), progress.task("divergence", len(texts)) as task:
        for batch in batches(texts, tokens):
            states: list[Tensor] = []
            for gates in ({}, {model.adapters[guest]: 0.0}):
                with model.gated(model.gates(gates)):
                    states.append(model.log_probabilities(batch)[0])
            place = int(batch.starts.min())
            kl = (states[0].exp() * (states[0] - states[1])).sum(-1).double().cpu()
            counted = batch.scored[:, place:] & (batch.rivals < 0)[:, None]
            rows = list(batch.numbers)
            starts = (batch.starts - place)[:, None]
            first[rows] = (kl.gather(1, starts)[:, 0] * counted.any(1)).numpy()
            total[rows], count[rows] = (kl * counted).sum(1).numpy(), counted.sum(1).numpy()
            task.advance(len(rows))
    return first, total, count
