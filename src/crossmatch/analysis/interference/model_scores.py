"""Scores of a merge from one model and a few texts: how far hidden states move, and what gates' gradients foretell."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from crossmatch.analysis.attribution.batches import Batch, batches
from crossmatch.analysis.attribution.gate_gradients import gradients, shares
from crossmatch.analysis.attribution.gated_model import Instrumented
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.token_classes import Text
from crossmatch.delta import TuningVector
from crossmatch.results.sweep import ModelScoresJson
from crossmatch.rules import Weight, weight_at

# score -> title and what it is, as `weight_scores.SCORES` has them.
MODEL_SCORES: Mapping[str, tuple[str, str]] = {
    "hidden": (
        "distance of hidden states",
        "mean over prompts of ||h - h_ref|| / ||h_ref||, last layer, where the answer begins",
    ),
    "gates": (
        "gates' gradients",
        "first-order change of the loss from the reference alone, nats a token: sum_m (w_m - w_ref,m) dL/dg_m",
    ),
}


class ModelScores:
    """The base in memory with a gate for every adapter and module: any weights are a forward pass away.

    texts: items with references; probes are left out. Raises what `Instrumented` raises, and DataError without an item.
    """

    def __init__(
        self,
        base: Checkpoint,
        adapters: Mapping[str, TuningVector],
        reference: str,
        texts: Sequence[Text],
        *,
        tokens: int = 1024,
    ) -> None:
        self._texts, self._tokens = [text for text in texts if not text.is_probe], tokens
        share = shares(self._texts)["loss"]
        self._model = Instrumented(base, adapters, dict.fromkeys(adapters, 1.0))
        alone = {name: float(name == reference) for name in adapters}
        self._own = self._model.gates(alone)
        _, slopes = gradients(self._model, self._texts, alone, tokens=tokens)
        # (adapters, sites): derivative of the loss, nats a token, by each gate at the reference alone.
        self._slopes = torch.from_numpy(slopes.sum(2) / share.sum())
        self._states = self._hidden(self._own)

    def scores(self, weights: Mapping[str, Weight]) -> ModelScoresJson:
        """Every score of `MODEL_SCORES` of the sum with these weights."""
        model = self._model
        rows = [[weight_at(weights.get(name, 0.0), site.name) for site in model.sites] for name in model.adapters]
        gates = torch.tensor(rows, device=model.device)[:, :, None]
        moved = (self._hidden(gates) - self._states).norm(dim=1) / self._states.norm(dim=1)
        change = ((gates - self._own)[..., 0].double().cpu() * self._slopes).sum()
        return {"hidden": float(moved.mean()), "gates": float(change)}

    def _hidden(self, gates: Tensor) -> Tensor:
        """(texts, hidden) states of the last layer at the last token of each prompt."""
        found: dict[int, Tensor] = {}
        with torch.inference_mode(), self._model.gated(gates):
            for batch in batches(self._texts, self._tokens):
                found |= dict(zip(batch.numbers, self._last(batch), strict=True))
        return torch.stack([found[number] for number in range(len(self._texts))])

    def _last(self, batch: Batch) -> Tensor:
        ids = batch.ids.to(self._model.device)
        states = self._model.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        rows = torch.arange(len(ids), device=ids.device)
        return states[rows, batch.starts.to(ids.device) - 1].double().cpu()
