"""Keys and values: the prefix that all prompts share, and a pool in which rows come and go while others go on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from crossmatch.evaluation.forward import cache_of, forward
from crossmatch.positions import number_in

# Columns of a pool are moved to the front when so many of them belong to nobody.
_IDLE = 0.3
# Fields of configs that limit how far back a layer looks, without a cache of that kind.
_WINDOWS = ("window_size", "attention_window_size", "attention_chunk_size", "local_attention")
# Prompts that go through the model by themselves because of a beginning that they have in common.
_FAMILY = 4


def takes_any_mask(model: Any) -> bool:
    """Whether every layer may attend to all that a mask allows: no sliding windows, no recurrent state, as far as the
    config says. What it does with a mask is seen by trying it (`trial`)."""
    config = model.config.get_text_config(decoder=True)
    try:
        layers = DynamicCache(config=model.config).layers
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    # Some windows are no matter of the cache, but of positions in it.
    windowed = any(number_in(config, name) for name in _WINDOWS)
    return bool(layers) and not windowed and all(type(layer) is DynamicLayer for layer in layers)


def as_mask(model: Any, allowed: Tensor) -> Tensor:
    """A boolean (rows, 1, queries, columns) mask in the form that the model's attention takes."""
    if model.config._attn_implementation == "sdpa":
        return allowed
    least = torch.finfo(model.dtype).min
    return torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device).masked_fill_(~allowed, least)


@dataclass(frozen=True)
class Prefix:
    """The tokens that all prompts begin with, and their keys and values: by layer, (1, heads, length, width)."""

    ids: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    @torch.inference_mode()
    def of(cls, model: Any, prompts: Sequence[Sequence[int]]) -> "Prefix":
        """Run the common tokens through the model once; every prompt keeps at least one token of its own. For models
        that take any mask."""
        ids = common(prompts)
        if not ids:
            return cls((), ())
        cache: Any = cache_of(forward(model, torch.tensor([ids]), {"use_cache": True, "logits_to_keep": 1}))
        return cls(ids, tuple((layer.keys, layer.values) for layer in cache.layers))

    def cache(self, model: Any, rows: int) -> DynamicCache:
        """A cache that begins with the prefix in every row; empty without one."""
        cache = DynamicCache(config=model.config)
        layers: list[Any] = list(cache.layers)
        for layer, (keys, values) in zip(layers, self.layers, strict=False):
            layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
        return cache


def common(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The longest beginning of all of them that leaves each at least one token."""
    if len(prompts) < 2:
        return ()
    ordered = sorted(map(tuple, prompts))
    first, last, least = ordered[0], ordered[-1], min(map(len, prompts))
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), least)
    return first[: min(length, least - 1)]


def families(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of the prompts that have half of what is their own in common with the next: those with the same examples
    before the question. Whoever has few of the like is put to the others, who share what all share."""
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    by_all = len(common(prompts))
    groups: list[list[int]] = []
    for place, number in enumerate(order):
        if place and _alike(prompts[order[place - 1]], prompts[number], by_all):
            groups[-1].append(number)
        else:
            groups.append([number])
    others = [number for group in groups if len(group) < _FAMILY for number in group]
    return [*(group for group in groups if len(group) >= _FAMILY), *([others] if others else [])]


def _alike(one: Sequence[int], other: Sequence[int], by_all: int) -> bool:
    shared, least = len(common([one, other])) - by_all, min(len(one), len(other)) - by_all
    return shared > 0 and 2 * shared >= least


class _Slots(DynamicLayer):
    """One layer of a pool: a buffer (rows, heads, columns, width) of which `filled` columns are in use."""

    def __init__(self, capacity: int, columns: int) -> None:
        super().__init__()
        self.capacity, self.columns, self.filled = capacity, columns, 0
        self.k = self.v = torch.empty(0, 0, 0, 0)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *__: Any, **_: Any) -> tuple[Tensor, Tensor]:
        """Write new columns in place; what is returned are views of the rows in use."""
        rows, count = key_states.shape[0], key_states.shape[2]
        self.reserve(key_states, value_states, self.filled + count)
        self.k[:rows, :, self.filled : self.filled + count] = key_states
        self.v[:rows, :, self.filled : self.filled + count] = value_states
        self.filled += count
        return self.k[:rows, :, : self.filled], self.v[:rows, :, : self.filled]

    def reserve(self, keys: Tensor, values: Tensor, columns: int) -> None:
        """Make room; shapes and dtype as those of `keys` and `values`."""
        if columns <= self.k.shape[2]:
            return
        old = min(self.filled, self.k.shape[2])
        self.columns = max(columns, 2 * self.columns if old else self.columns)
        self.k, self.v = _grown(self.k, keys, self, old), _grown(self.v, values, self, old)

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.filled


def _grown(old: Tensor, like: Tensor, slots: _Slots, used: int) -> Tensor:
    buffer = like.new_zeros(slots.capacity, like.shape[1], slots.columns, like.shape[3])
    if used:
        buffer[:, :, :used] = old[:, :, :used]
    return buffer


@dataclass
class Row:
    """One prompt under way: its number, first column in the pool, next position, tokens so far, and random numbers."""

    index: int
    start: int
    position: int
    tokens: list[int]
    draws: Tensor | None = None


class Pool:
    """Rows of different lengths that end at one column; `capacity` at a time.

    A row that has ended leaves its place to the last one; new rows end at the same column as all others.
    """

    def __init__(self, model: Any, prefix: Prefix, capacity: int, columns: int) -> None:
        count = len(DynamicCache(config=model.config).layers)
        self.model, self.prefix, self.capacity = model, prefix, capacity
        self.rows: list[Row] = []
        self._layers = [_Slots(capacity, columns) for _ in range(count)]
        self._cache = Cache(layers=list(self._layers))

    @property
    def free(self) -> int:
        """Places that are not taken."""
        return self.capacity - len(self.rows)

    def admit(self, rows: Sequence[Row], prompts: Sequence[Sequence[int]]) -> Tensor:
        """Run prompts (without the prefix), equal ones once, and give them places; logits (rows, vocabulary) after
        each.

        No prompt may be longer than the columns in use, unless the pool is empty: the longest come first.
        """
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        which = [numbers[tuple(prompt)] for prompt in prompts]
        cache, logits = self._read(list(numbers))
        if not self.rows:
            for layer in self._layers:
                layer.filled = 0
        self._take(rows, prompts, cache, which)
        return logits[which]

    def _read(self, prompts: Sequence[Sequence[int]]) -> tuple[DynamicCache, Tensor]:
        """Keys and values of the prefix and different prompts, each ending at the last column; logits after each."""
        shared, width, device = len(self.prefix.ids), max(map(len, prompts)), self.model.device
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        own = torch.zeros(len(prompts), width, dtype=torch.bool)
        for number, prompt in enumerate(prompts):
            ids[number, width - len(prompt) :] = torch.tensor(prompt)
            own[number, width - len(prompt) :] = True
        allowed = own[:, None, None, :] & torch.ones(width, width, dtype=torch.bool).tril()
        # A query that may look nowhere gives numbers that are none, and these spread.
        allowed |= torch.eye(width, dtype=torch.bool)
        before = torch.ones(len(prompts), 1, width, shared, dtype=torch.bool)
        allowed = torch.cat([before, allowed], 3).to(device)
        positions = (own.cumsum(1) - 1).clamp_min(0) + shared
        cache = self.prefix.cache(self.model, len(prompts))
        out = forward(
            self.model,
            ids,
            {
                "attention_mask": as_mask(self.model, allowed),
                "position_ids": positions.to(device),
                "past_key_values": cache,
                "use_cache": True,
                "logits_to_keep": 1,
            },
        )
        return cache, out.logits[:, -1]

    def _take(
        self, rows: Sequence[Row], prompts: Sequence[Sequence[int]], cache: DynamicCache, which: Sequence[int]
    ) -> None:
        shared, first = len(self.prefix.ids), len(self.rows)
        longest = shared + max(map(len, prompts))
        for layer, found in zip(self._layers, cache.layers, strict=True):
            made: Any = found
            layer.filled = max(layer.filled, longest)
            layer.reserve(made.keys, made.values, layer.filled)
            for place, (prompt, number) in enumerate(zip(prompts, which, strict=True), start=first):
                stop, length = layer.filled, len(prompt)
                for buffer, new in ((layer.k, made.keys), (layer.v, made.values)):
                    buffer[place, :, stop - length : stop] = new[number, :, new.shape[2] - length :]
                    buffer[place, :, stop - length - shared : stop - length] = new[number, :, :shared]
        for row, prompt in zip(rows, prompts, strict=True):
            row.position = shared + len(prompt)
            row.start = self._layers[0].filled - row.position
            self.rows.append(row)

    def step(self) -> Tensor:
        """One token further: logits (rows, vocabulary) after each row's last token."""
        self._trim()
        device, filled = self.model.device, self._layers[0].filled
        starts = torch.tensor([row.start for row in self.rows])
        allowed = torch.arange(filled + 1)[None, :] >= starts[:, None]
        out = forward(
            self.model,
            torch.tensor([[row.tokens[-1]] for row in self.rows]),
            {
                "attention_mask": as_mask(self.model, allowed[:, None, None, :].to(device)),
                "position_ids": torch.tensor([[row.position] for row in self.rows], device=device),
                "past_key_values": self._cache,
                "use_cache": True,
                "logits_to_keep": 1,
            },
        )
        for row in self.rows:
            row.position += 1
        return out.logits[:, -1]

    def drop(self, places: Sequence[int]) -> None:
        """Rows that have ended leave."""
        for place in sorted(places, reverse=True):
            last = len(self.rows) - 1
            if place != last:
                for layer in self._layers:
                    layer.k[place, :, : layer.filled] = layer.k[last, :, : layer.filled]
                    layer.v[place, :, : layer.filled] = layer.v[last, :, : layer.filled]
                self.rows[place] = self.rows[last]
            self.rows.pop()

    def _trim(self) -> None:
        idle = min(row.start for row in self.rows)
        if idle <= _IDLE * self._layers[0].filled:
            return
        for layer in self._layers:
            for buffer in (layer.k, layer.v):
                buffer[:, :, : layer.filled - idle] = buffer[:, :, idle : layer.filled].clone()
            layer.filled -= idle
        for row in self.rows:
            row.start -= idle
