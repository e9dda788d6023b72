"""Activations of several models at the same tokens, layer after layer, with one layer's in memory.

The models are one model with some of its weights changed (`Side`). What a layer puts out for all texts is kept in place
of what it took in, and the next pass begins there: every layer is computed once for each side, and only its own
weights are exchanged. Memory: the model, and for each side tokens x d numbers of four bytes, twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from crossmatch.adapter import fit
from crossmatch.analysis.checkpoint_difference import Difference
from crossmatch.analysis.decoder_layers import check_configs, decoder_layers, hidden_of
from crossmatch.causal import open_model, parameter_names
from crossmatch.checkpoint import Checkpoint, is_output, layer_of
from crossmatch.data.passages import Passage
from crossmatch.delta import Delta, Dense, TuningVector, same_spectrum, summed_rows
from crossmatch.errors import AdapterError, DataError, InputError
from crossmatch.runtime import QUIET, Task

PARTS = ("residual", "attention", "mlp")
# What architectures call the two halves of a layer.
_HALVES = {
    "attention": ("self_attn", "attn", "attention", "self_attention"),
    "mlp": ("mlp", "feed_forward", "block_sparse_moe", "ffn"),
}

Fill = Callable[[str, Tensor], None]
"""(tensor name, where its weights are to be written, in that dtype)."""


@dataclass(frozen=True, eq=False)
class Side:
    """A model: the base, with the tensors `names` as `fill` writes them."""

    names: frozenset[str]
    fill: Fill


def own(base: Checkpoint) -> Side:
    """The base itself."""
    return Side(frozenset(), partial(_copy, base))


def with_vector(base: Checkpoint, vector: TuningVector) -> Side:
    """base + D, summed in float64, cast once and not rounded to what a checkpoint would store.

    Raises AdapterError if the vector does not fit the base or changes its vocabulary.
    """
    found = fit(base, {"vector": vector}, tied="keep")
    if found.base is not base:
        raise AdapterError("the vector changes the vocabulary of the model, whose activations do not compare")
    fitted = found.vectors["vector"]
    return Side(frozenset(fitted), lambda name, target: _add(base, name, fitted[name], target))


def with_difference(base: Checkpoint, vector: Difference) -> Side:
    """The tuned checkpoint of a difference, its weights as they are stored; refused as in `check_configs`."""
    check_configs(base, vector.tuned)
    return Side(frozenset(vector), partial(_copy, vector.tuned))


def random_side(base: Checkpoint, vector: TuningVector, seed: int) -> Side:
    """base + a random vector with the singular values of D, tensor by tensor (`same_spectrum`).

    Formed when a layer is asked for: dense tensors cost a decomposition each. Raises RuleError for stacks of experts.
    """
    fitted = fit(base, {"vector": vector}, tied="keep").vectors["vector"]

    def fill(name: str, target: Tensor) -> None:
        alone = TuningVector({name: _alone(base, name, fitted[name])})
        _add(base, name, same_spectrum(alone, seed)[name], target)

    return Side(frozenset(fitted), fill)


def _add(base: Checkpoint, name: str, delta: Delta, target: Tensor) -> None:
    """target = W + D, in blocks of rows."""
    columns = delta.columns
    rows = target.view(delta.height, columns)
    delta = delta.bind(lambda start, stop: base.rows(name, start, stop, columns))
    for start, stop in base.blocks(name, columns):
        rows[start:stop].copy_(summed_rows(base.rows(name, start, stop, columns), delta, start, stop))


def _alone(base: Checkpoint, name: str, delta: Delta) -> Delta:
    """The same delta without its base."""
    if not delta.needs_base:
        return delta
    weight = base.rows(name, 0, delta.height, delta.columns).double()
    bound = delta.bind(lambda start, stop: weight[start:stop])
    return Dense(bound.rows(0, delta.height, torch.float64, weight).reshape(delta.shape).float())


def _copy(source: Checkpoint, name: str, target: Tensor) -> None:
    columns = source.tensors[name].columns
    rows = target.view(-1, columns) if target.ndim else target.view(1, 1)
    for start, stop in source.blocks(name, columns):
        rows[start:stop].copy_(source.rows(name, start, stop, columns))


@dataclass(frozen=True, eq=False)
class Tokens:
    """Texts as batches of token ids, filled up on the right, where no token of a causal model sees it.

    ids: each (rows, length); real: of the same shape, False where it is filled up; text, place: (N,) the number of
    its text and its place in it for every real token, in the order of the batches.
    """

    ids: tuple[Tensor, ...]
    real: tuple[Tensor, ...]
    text: Tensor
    place: Tensor

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return int(self.text.max()) + 1


def choose(
    passages: Sequence[Passage], positions: int, *, length: int = 256, batch: int = 1024, seed: int = 0
) -> Tokens:
    """Texts in an order drawn by the seed, each cut at `length` tokens, until there are `positions` tokens.

    batch: tokens in one batch at most, but one text at least. Raises DataError if there is no text of two tokens.
    """
    usable = [passage for passage in passages if len(passage.ids) > 1]
    if not usable:
        raise DataError("there are no texts of two tokens or more; give some in which the models are to be compared")
    order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: list[tuple[int, ...]] = []
    left = positions
    for number in order:
        taken = usable[number].ids[: min(length, left)]
        if len(taken) < 2:
            break
        chosen.append(taken)
        left -= len(taken)
    return _packed(sorted(chosen, key=len, reverse=True), batch)


def _packed(texts: Sequence[tuple[int, ...]], tokens: int) -> Tokens:
    ids, real, place = [], [], 0
    while place < len(texts):
        width = len(texts[place])
        rows = texts[place : place + max(1, tokens // width)]
        place += len(rows)
        ids.append(torch.tensor([[*row, *[0] * (width - len(row))] for row in rows]))
        real.append(torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows]))
    lengths = [len(text) for text in texts]
    number = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor(lengths))
    return Tokens(tuple(ids), tuple(real), number, torch.cat([torch.arange(n) for n in lengths]))


class Streams:
    """A causal model in float32, whose layers can be run one by one for several sides.

    float32 on any device: what is measured are differences between nearly equal activations. Raises InputError for a
    model without a list of decoder layers, AdapterError for a base whose vocabulary a vector changed.
    """

    def __init__(self, base: Checkpoint) -> None:
        if base.original is not base:
            raise AdapterError("a vector changes the vocabulary of the model, whose activations do not compare")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = open_model(base.path, torch.float32)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.layers = decoder_layers(self.model)
        self._base = own(base)
        # By the names of the file, as vectors have them.
        stored = {target: name for name, target in parameter_names(self.model, base.tensors).items()}
        self._weights = {stored.get(name, name): p for name, p in self.model.named_parameters()}
        self._buffers = {stored.get(name, name) for name, _ in self.model.named_buffers()}
        depths = {id(p): depth for depth, layer in enumerate(self.layers) for p in layer.parameters()}
        self._depths = {name: depths.get(id(parameter)) for name, parameter in self._weights.items()}

    @torch.inference_mode()
    def run(
        self, tokens: Tokens, sides: Sequence[Side], parts: Sequence[str] = PARTS[:1], task: Task = QUIET
    ) -> Iterator[dict[str, list[Tensor]]]:
        """For every layer, part -> for each side the activations (N, d) float32 at all real tokens, on the device.

        residual: what the layer puts out; attention, mlp: what these halves of it add. Raises InputError for a side
        with a tensor that the model does not have, for a layer without such a half, and for values that are not finite.
        """
        for side in sides:
            self._check(side)
        states: list[list[Any]] = [[None] * len(tokens.ids) for _ in sides]
        for depth in range(len(self.layers)):
            found: dict[str, list[Tensor]] = {part: [] for part in parts}
            for side, state in zip(sides, states, strict=True):
                with self._worn(side, depth):
                    for part, values in self._layer(depth, tokens, state, parts).items():
                        found[part].append(values)
                task.advance()
            yield found

    def _layer(self, depth: int, tokens: Tokens, state: list[Any], parts: Sequence[str]) -> dict[str, Tensor]:
        """Values of each part at the real tokens; state: what the layer before put out, replaced by what it does."""
        rows: dict[str, list[Tensor]] = {part: [] for part in parts}
        watched = {part: _half(self.layers[depth], part) for part in parts if part != "residual"}
        for number, (ids, real) in enumerate(zip(tokens.ids, tokens.real, strict=True)):
            seen: dict[str, Any] = {}
            with _watching(watched, seen):
                state[number] = self._step(depth, ids.to(self.device), state[number])
            seen["residual"] = state[number]
            for part in parts:
                rows[part].append(hidden_of(seen[part])[real.to(self.device)].float())
        found = {part: torch.cat(values) for part, values in rows.items()}
        for part, values in found.items():
            if not values.isfinite().all():
                raise InputError(f"layer {depth}, {part}: a model gives NaN or infinite activations on these texts")
        return found

    def _step(self, depth: int, ids: Tensor, before: Any) -> Any:
        """What layer `depth` returns for a batch, given what the layer before it returned; no other layer runs."""
        kept = [before]

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            del module, args
            kept[0] = output

        idle = [layer for number, layer in enumerate(self.layers) if number != depth]
        handle = self.layers[depth].register_forward_hook(keep)
        for layer in idle:
            layer.forward = lambda *_, **__: kept[0]
        try:
            self.model.base_model(input_ids=ids, use_cache=False)
        finally:
            handle.remove()
            for layer in idle:
                del layer.forward
        return kept[0]

    def _check(self, side: Side) -> None:
        for name in sorted(side.names):
            if name not in self._weights and not is_output(name) and not self._unread(name):
                raise InputError(f"the model has no parameter {name}; its activations with it cannot be computed")

    def _unread(self, name: str) -> bool:
        """Whether a stored tensor is no weight of this model: a buffer, or a layer beyond those that its config has."""
        layer = layer_of(name)
        return name in self._buffers or (layer is not None and layer >= len(self.layers))

    @contextmanager
    def _worn(self, side: Side, depth: int) -> Iterator[None]:
        """The model with the side's weights in one layer; before the first one also with those outside of the stack,
        which reach the layers by way of their input."""
        wanted = (depth,) if depth else (depth, None)
        names = [n for n in self._weights if n in side.names and self._depths[n] in wanted and not is_output(n)]
        try:
            for name in names:
                side.fill(name, self._weights[name].data)
            yield
        finally:
            for name in names:
                self._base.fill(name, self._weights[name].data)


def _half(layer: nn.Module, part: str) -> nn.Module:
    found = [child for name, child in layer.named_children() if name in _HALVES[part]]
    if len(found) != 1:
        names = ", ".join(name for name, _ in layer.named_children())
        raise InputError(f"which of {names} is the {part} of a layer is not known; leave this part out")
    return found[0]


@contextmanager
def _watching(modules: Mapping[str, nn.Module], seen: dict[str, Any]) -> Iterator[None]:
    def see(part: str, module: nn.Module, args: Any, output: Any) -> None:
        del module, args
        seen[part] = output

    handles = [module.register_forward_hook(partial(see, part)) for part, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
