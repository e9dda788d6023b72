"""How non-additive the network is: what two adapters do together to the residual stream, less what each does alone.

i = h(base + p + s) - h(base + p) - h(base + s) + h(base)          at the output of every layer
a = (h(base + p) - h(base)) + (h(base + s) - h(base))              the sum of the two shifts
m = h(base + p + s) - h(base)                                      the shift of the merge
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossmatch.analysis.attribution.batches import Batch, batches, sums_by_text
from crossmatch.analysis.attribution.gated_model import Instrumented
from crossmatch.analysis.decoder_layers import hidden_of
from crossmatch.data.token_classes import KINDS, Text
from crossmatch.results.interference import NonAdditivityJson
from crossmatch.runtime import SILENT, Progress
from crossmatch.statistics.influence import Array, Estimate, ratio

_STATISTICS = ("n", "together", "sum", "merge", "guest", "host", "inner")


@dataclass(frozen=True)
class NonAdditivity:
    """Of one layer's output at the tokens of one class; n tokens of `texts` texts, standard errors by text.

    ratio: sum ||i||^2 / sum ||a||^2; to_merge: sum ||i||^2 / sum ||m||^2; guest_to_host: sum ||shift of the guest||^2 /
    sum ||shift of the host||^2; cosine: of the two shifts, pooled: sum <., .> / sqrt(sum ||.||^2 sum ||.||^2).
    Ratios are of energies; their roots are ratios of lengths.
    """

    layer: int
    kind: str
    n: int
    texts: int
    ratio: Estimate
    to_merge: Estimate
    guest_to_host: Estimate
    cosine: float | None

    def to_dict(self) -> NonAdditivityJson:
        """As plain JSON, each estimate as {value, stderr}."""
        return {
            "layer": self.layer,
            "kind": self.kind,
            "n": self.n,
            "texts": self.texts,
            "ratio": self.ratio.to_dict(),
            "to_merge": self.to_merge.to_dict(),
            "guest_to_host": self.guest_to_host.to_dict(),
            "cosine": self.cosine,
        }


def non_additivity(
    model: Instrumented, texts: Sequence[Text], *, tokens: int = 1024, progress: Progress = SILENT
) -> list[NonAdditivity]:
    """For every layer and class of tokens. The four models are four rows of one batch for every text."""
    model.pair()
    sums = np.zeros((len(model.layers), len(texts), len(KINDS), len(_STATISTICS)))
    with torch.inference_mode(), progress.task("residual stream", len(texts)) as task:
        for batch in batches(texts, max(1, tokens // 4)):
            rows = len(batch.numbers)
            on = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]], device=model.device)
            gates = on.repeat_interleave(rows, 1)[:, None].expand(-1, len(model.sites), -1)
            handles = [
                layer.register_forward_hook(partial(_add, sums, number, batch))
                for number, layer in enumerate(model.layers)
            ]
            try:
                with model.gated(gates):
                    model.hidden(batch, copies=4)
            finally:
                for handle in handles:
                    handle.remove()
            task.advance(rows)
    return [_row(sums[layer], layer, kind) for layer in range(len(sums)) for kind in KINDS if _has(sums[layer], kind)]


def _add(sums: Array, layer: int, batch: Batch, module: nn.Module, args: Any, output: Any) -> None:
    del module, args
    sums[layer, list(batch.numbers)] += sums_by_text(_statistics(hidden_of(output)), batch)


def _statistics(hidden: Tensor) -> Tensor:
    base, guest, host, merge = hidden.double().chunk(4)
    by_guest, by_host, by_both = guest - base, host - base, merge - base
    values = {
        "n": torch.ones(base.shape[:2], dtype=base.dtype, device=base.device),
        "together": (by_both - by_guest - by_host).square().sum(-1),
        "sum": (by_guest + by_host).square().sum(-1),
        "merge": by_both.square().sum(-1),
        "guest": by_guest.square().sum(-1),
        "host": by_host.square().sum(-1),
        "inner": (by_guest * by_host).sum(-1),
    }
    return torch.stack([values[name] for name in _STATISTICS], -1)


def _has(sums: Array, kind: str) -> bool:
    return bool(sums[:, KINDS.index(kind), 0].any())


def _row(sums: Array, layer: int, kind: str) -> NonAdditivity:
    of = dict(zip(_STATISTICS, sums[:, KINDS.index(kind)].T, strict=True))
    size = float(np.sqrt(of["guest"].sum() * of["host"].sum()))
    return NonAdditivity(
        layer=layer,
        kind=kind,
        n=int(of["n"].sum()),
        texts=int((of["n"] > 0).sum()),
        ratio=ratio(of["together"], of["sum"]),
        to_merge=ratio(of["together"], of["merge"]),
        guest_to_host=ratio(of["guest"], of["host"]),
        cosine=float(of["inner"].sum()) / size if size > 0 else None,
    )
