"""A model with adapters beside its weights, each behind a gate:

    y = W x + sum_i g_i w_i B_i (A_i x)        in every module that an adapter changes

with w_i the merge weight and g_i a gate of its own for every adapter, module and row of a batch. Gates of one are the
merge, unrounded; gates of zero the base. A gate is a number that a loss can be differentiated by. A full fine-tune
changes norms, embeddings and biases too: any module f that is affine in its parameters has f(D) - f(0) in place of
B (A x).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from crossmatch.adapter import fit
from crossmatch.analysis.attribution.batches import Batch
from crossmatch.analysis.decoder_layers import decoder_layers
from crossmatch.causal import open_model, parameter_names
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


@dataclass(frozen=True, eq=False)
class Affine:
    """f(D) - f(0) of a module f that is affine in its parameters: `changed` has D in one of them, `empty` has not, and
    all the others are zero in both."""

    changed: nn.Module
    empty: nn.Module

    def __call__(self, x: Tensor) -> Tensor:
        """What the change adds to the module's output at the input x."""
        return self.changed(x) - self.empty(x)


@dataclass(frozen=True)
class Site:
    """A module that an adapter changes: its tensor's name, layer (None outside the stack) and type."""

    name: str
    layer: int | None
    module: str


class Instrumented:
    """A causal model in float32 and the branches of its adapters.

    float32 on any device: what is measured are differences between nearly equal activations, which 16 bits do not hold.
    adapters: names; vectors: theirs, by the base's names, at weight one;
    sites: the changed modules in the model's order; branches[s][i]: adapter i at site s, or None.
    Raises AdapterError if an adapter does not fit or changes the vocabulary, InputError if it changes anything but the
    weights of linear modules; with `everything`, anything but parameters of modules that are affine in them. A change
    of tied embeddings then is one site that acts on both.
    """

    def __init__(
        self,
        base: Checkpoint,
        adapters: Mapping[str, TuningVector],
        weights: Mapping[str, Weight],
        *,
        everything: bool = False,
    ) -> None:
        if missing := set(adapters) ^ set(weights):
            raise InputError(f"{min(missing)} has no adapter or no weight; each needs both")
        found = fit(base, adapters, tied="keep" if everything else "refuse")
        if found.base is not base:
            raise AdapterError("an adapter changes the vocabulary of the model, whose activations do not compare")
        self.adapters, self.vectors = tuple(adapters), found.vectors
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = open_model(base.path, torch.float32)
        self.model = model.to(self.device).eval().requires_grad_(False)
        changed = dict.fromkeys(name for vector in found.vectors.values() for name in vector)
        owners = _owners(self.model, parameter_names(self.model, base.tensors))
        for name in changed:
            linear = name in owners and name.endswith(".weight") and isinstance(owners[name][0], nn.Linear | Conv1D)
            if not linear and not (everything and name in owners):
                kind = "parameter of a module" if everything else "linear module's weight"
                raise InputError(f"an adapter changes {name}, which is no {kind}; leave it out")
        names = [name for name in owners if name in changed]
        self.sites = tuple(Site(name, layer_of(name), module_type_of(name)) for name in names)
        deltas = [
            {
                number: vector[name].scaled(weight_at(weights[label], name))
                for number, (label, vector) in enumerate(found.vectors.items())
                if name in vector
            }
            for name in names
        ]
        # A parameter that two modules share acts in both.
        self._places = [
            [(module, self._branches(base, name, row, module)) for module in owners[name]]
            for name, row in zip(names, deltas, strict=True)
        ]
        self.branches = [places[0][1] for places in self._places]
        self.layers = decoder_layers(self.model)
        inside = {id(module): depth for depth, layer in enumerate(self.layers) for module in layer.modules()}
        # The first layer that a site can change; what lies outside the stack may change them all.
        self.depths = tuple(inside.get(id(owners[name][0]), 0) for name in names)
        self._gates: Tensor | None = None
        self._live: list[list[bool]] = []
        self._observe: Observe | None = None
        for number, places in enumerate(self._places):
            for module, branches in places:
                module.register_forward_hook(partial(self._hook, number, branches))

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

    def _hook(
        self, site: int, branches: list[Any], module: nn.Module, args: tuple[Tensor, ...], output: Tensor
    ) -> Tensor | None:
        del module
        if self._gates is None:
            return None
        x = args[0]
        if output.ndim < 3 or self._gates.shape[2] not in (1, len(output)):
            raise InputError(f"{self.sites[site].name} does not see its texts row by row, as an expert; leave it out")
        if self._observe is not None:
            self._observe(site, x, output)
        for number, branch in enumerate(branches):
            if branch is not None and self._live[site][number]:
                gate = self._gates[number, site].view(-1, *[1] * (output.ndim - 1))
                output = output + gate * branch(x)
        return output

    def _branches(self, base: Checkpoint, name: str, deltas: Mapping[int, Delta], module: nn.Module) -> list[Any]:
        linear = isinstance(module, nn.Linear | Conv1D) and name.endswith(".weight")
        make = self._branch if linear else self._affine
        return [
            make(base, name, deltas[number], module) if number in deltas else None
            for number in range(len(self.adapters))
        ]

    def _branch(self, base: Checkpoint, name: str, delta: Delta, module: nn.Module) -> Branch:
        """A stored tensor's delta as factors of the product that its module forms."""
        if isinstance(delta, LowRank):
            a, b = delta.a.double(), delta.b.double() * delta.scale
            pair = (b.T, a.T) if isinstance(module, Conv1D) else (a, b)
            return Branch(*(factor.float().contiguous().to(self.device) for factor in pair))
        rows = _whole(base, name, delta)
        return Branch((rows.T if isinstance(module, Conv1D) else rows).contiguous().to(self.device), None)

    def _affine(self, base: Checkpoint, name: str, delta: Delta, module: nn.Module) -> Affine:
        """The same of any other module; raises InputError if its output is not affine in its parameters."""
        change = _whole(base, name, delta).view(delta.shape).to(self.device)
        leaf = name.rpartition(".")[2]
        changed, empty = _emptied(module), _emptied(module)
        changed.get_parameter(leaf).data = change
        affine, twice = Affine(changed, empty), _emptied(module)
        twice.get_parameter(leaf).data = 2 * change
        probe = _probe(module, change)
        try:
            holds = torch.allclose(twice(probe) - empty(probe), 2 * affine(probe), rtol=1e-4, atol=1e-6)
        except (RuntimeError, TypeError):
            holds = False
        if not holds:
            raise InputError(f"{name} belongs to a module that is not affine in it; it cannot have a gate")
        return affine


def _owners(model: nn.Module, names: Mapping[str, str]) -> dict[str, list[nn.Module]]:
    """For every parameter, under its first name, the modules that hold it; names: of the file -> of the model."""
    stored = {target: name for name, target in names.items()}
    first: dict[int, str] = {}
    found: dict[str, list[nn.Module]] = {}
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            own = f"{prefix}.{leaf}"
            name = first.setdefault(id(parameter), stored.get(own, own))
            found.setdefault(name, []).append(module)
    return found


def _whole(base: Checkpoint, name: str, delta: Delta) -> Tensor:
    """All rows of a delta, float32."""
    weight = base.rows(name, 0, delta.height, delta.columns)
    bound = delta.bind(lambda start, stop: weight[start:stop])
    return bound.rows(0, delta.height, torch.float64, weight.double()).float()


def _emptied(module: nn.Module) -> nn.Module:
    """A module like another, all its parameters zero; the zeros take no memory."""
    kept = dict(module.named_parameters())
    twin = deepcopy(module, {id(parameter): _zeros(parameter) for parameter in kept.values()})
    return twin.eval()


def _zeros(parameter: nn.Parameter) -> nn.Parameter:
    nothing = torch.zeros(1, dtype=parameter.dtype, device=parameter.device).expand(parameter.shape)
    return nn.Parameter(nothing, requires_grad=False)


def _probe(module: nn.Module, change: Tensor) -> Tensor:
    """An input to try a module with: token 0 for an embedding, else numbers."""
    if isinstance(module, nn.Embedding):
        return torch.zeros(1, 1, dtype=torch.long, device=change.device)
    width = module.in_features if isinstance(module, nn.Linear) else change.shape[-1]
    return torch.linspace(-1, 1, int(width), device=change.device).view(1, 1, -1)
