"""A model with adapters beside its weights, each behind a gate:

    y = W x + sum_i g_i w_i B_i (A_i x)        in every module that an adapter changes

with w_i the merge weight and g_i a gate of its own for every adapter, module and row of a batch. Gates of one are the
merge, unrounded; gates of zero the base. A gate is a number that a loss can be differentiated by.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from crossmatch.adapter import fit
from crossmatch.analysis.texts import Batch
from crossmatch.checkpoint import Checkpoint, layer_of, module_type_of
from crossmatch.delta import Delta, LowRank, TuningVector
from crossmatch.errors import AdapterError, InputError
from crossmatch.rules import Weight, weight_at

Observe = Callable[[int, Tensor, Tensor], None]
"""(module number, its input x (rows, length, d_in), W x (rows, length, d_out))."""


@dataclass(frozen=True, eq=False)
class Branch:
    """w D = B A, the merge weight in B; a: (r, d_in), b: (d_out, r), or None for the identity (no factors)."""

    a: Tensor
    b: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """w D x for x (..., d_in), through the factors."""
        z = x @ self.a.T
        return z if self.b is None else z @ self.b.T

    def double(self) -> "Branch":
        """The same in float64."""
        return Branch(self.a.double(), None if self.b is None else self.b.double())


@dataclass(frozen=True)
class Site:
    """A module that an adapter changes: its tensor's name, layer (None outside the stack) and type."""

    name: str
    layer: int | None
    module: str


class Instrumented:
    """A causal model in float32 and the branches of its adapters.

    float32 on any device: what is measured are differences between nearly equal activations, which 16 bits do not hold.
    adapters: names; sites: the changed modules in the model's order; branches[s][i]: adapter i at site s, or None.
    Raises AdapterError if an adapter does not fit or changes the vocabulary, InputError if it changes anything but the
    weights of linear modules.
    """

    def __init__(self, base: Checkpoint, adapters: Mapping[str, TuningVector], weights: Mapping[str, Weight]) -> None:
        if missing := set(adapters) ^ set(weights):
            raise InputError(f"{min(missing)} has no adapter or no weight; each needs both")
        found = fit(base, adapters)
        if found.base is not base:
            raise AdapterError("an adapter changes the vocabulary of the model, whose activations do not compare")
        self.adapters = tuple(adapters)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
        self.model = model.to(self.device).eval().requires_grad_(False)
        changed = dict.fromkeys(name for vector in found.vectors.values() for name in vector)
        modules = {f"{name}.weight": module for name, module in self.model.named_modules()}
        for name in changed:
            if not isinstance(modules.get(name), nn.Linear | Conv1D):
                raise InputError(f"an adapter changes {name}, which is no linear module's weight; leave it out")
        names = [name for name in modules if name in changed]
        self.sites = tuple(Site(name, layer_of(name), module_type_of(name)) for name in names)
        self.branches = [
            [
                self._branch(base, name, vector[name].scaled(weight_at(weights[label], name)), modules[name])
                if name in vector
                else None
                for label, vector in found.vectors.items()
            ]
            for name in names
        ]
        self.layers = decoder_layers(self.model)
        inside = {id(module): depth for depth, layer in enumerate(self.layers) for module in layer.modules()}
        # The first layer that a site can change; what lies outside the stack may change them all.
        self.depths = tuple(inside.get(id(modules[name]), 0) for name in names)
        self._gates: Tensor | None = None
        self._live: list[list[bool]] = []
        self._observe: Observe | None = None
        for number, name in enumerate(names):
            modules[name].register_forward_hook(partial(self._hook, number))

    def gates(self, values: Mapping[str, float], rows: int = 1) -> Tensor:
        """One value for all modules of an adapter, 1 for adapters that are not named: (adapters, sites, rows)."""
        column = torch.tensor([float(values.get(name, 1.0)) for name in self.adapters], device=self.device)
        return column[:, None, None].repeat(1, len(self.sites), rows)

    def pair(self) -> tuple[int, int]:
        """Numbers of the guest, whose interference is asked for, and of the host, whose task the texts are: the first
        and the second adapter. Raises InputError if there are not two."""
        if len(self.adapters) != 2:
            raise InputError(f"interference is between two adapters, guest and host; there are {len(self.adapters)}")
        return 0, 1

    @contextmanager
    def gated(self, gates: Tensor, observe: Observe | None = None) -> Iterator[None]:
        """While the block runs the model is the one of these gates, (adapters, sites, rows or 1)."""
        some = gates.requires_grad
        self._live = (gates.detach().bool().any(2) | some).T.tolist()
        self._gates, self._observe = gates, observe
        try:
            yield
        finally:
            self._gates = self._observe = None

    def hidden(self, batch: Batch, copies: int = 1) -> None:
        """Run the stack over `copies` of the batch below each other, for what hooks see; no logits are formed."""
        self.model.base_model(input_ids=batch.ids.repeat(copies, 1).to(self.device), use_cache=False)

    def log_probabilities(self, batch: Batch) -> tuple[Tensor, int]:
        """(rows, length - first, vocabulary) of the tokens from place `first` on, where the first response begins."""
        first = int(batch.starts.min())
        kept = torch.arange(first - 1, batch.ids.shape[1] - 1, device=self.device)
        logits = self.model(input_ids=batch.ids.to(self.device), use_cache=False, logits_to_keep=kept).logits
        return torch.log_softmax(logits.float(), -1), first

    def scores(self, batch: Batch) -> Tensor:
        """(rows,): for an item -log P(response | prompt) in nats, summed over its tokens; for a probe the log-odds
        log P(opener | prompt) - log P(rival | prompt)."""
        log_p, first = self.log_probabilities(batch)
        ids, scored = batch.ids.to(self.device), batch.scored.to(self.device)
        taken = log_p.gather(2, ids[:, first:, None])[..., 0] * scored[:, first:]
        total = taken.sum(1)
        rivals = batch.rivals.to(self.device)
        rows = torch.arange(len(ids), device=self.device)
        rival = log_p[rows, batch.starts.to(self.device) - first, rivals.clamp_min(0)]
        scores = torch.where(rivals >= 0, total - rival, -total)
        if not scores.isfinite().all():
            raise InputError("the model gives NaN or infinite likelihoods on these texts; it is broken there")
        return scores

    def _hook(self, site: int, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        del module
        if self._gates is None:
            return None
        x = args[0]
        if x.ndim != 3 or self._gates.shape[2] not in (1, len(x)):
            raise InputError(f"{self.sites[site].name} does not see its texts row by row, as an expert; leave it out")
        if self._observe is not None:
            self._observe(site, x, output)
        for number, branch in enumerate(self.branches[site]):
            if branch is not None and self._live[site][number]:
                output = output + self._gates[number, site].view(-1, 1, 1) * branch(x)
        return output

    def _branch(self, base: Checkpoint, name: str, delta: Delta, module: nn.Module) -> Branch:
        """A stored tensor's delta as factors of the product that its module forms."""
        if isinstance(delta, LowRank):
            a, b = delta.a.double(), delta.b.double() * delta.scale
            pair = (b.T, a.T) if isinstance(module, Conv1D) else (a, b)
            return Branch(*(factor.float().contiguous().to(self.device) for factor in pair))
        weight = base.rows(name, 0, delta.height, delta.columns)
        bound = delta.bind(lambda start, stop: weight[start:stop])
        rows = bound.rows(0, delta.height, torch.float64, weight.double())
        return Branch((rows.T if isinstance(module, Conv1D) else rows).float().contiguous().to(self.device), None)


def decoder_layers(model: Any) -> Sequence[nn.Module]:
    """The decoder's layers: the first list of modules as long as the config says. Raises InputError without one."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise InputError(f"{type(model).__name__} holds no list of {count} layers; its residual stream cannot be read")


def hidden_of(output: Any) -> Tensor:
    """The hidden state among what a layer returns, (rows, length, d)."""
    return output if isinstance(output, Tensor) else output[0]
