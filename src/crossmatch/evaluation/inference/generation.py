"""Generation of one token after another, for many prompts at a time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

from crossmatch.evaluation.forward import Ways, cache_of, forward
from crossmatch.evaluation.inference.batch_memory import Memory
from crossmatch.evaluation.inference.kv_cache import Pool, Prefix, Row
from crossmatch.evaluation.inference.protocol import Decoding

# Tokens looked at first when the most probable ones are wanted.
_TOP = 512


@dataclass(frozen=True)
class Limits:
    """When an answer ends: at one of these tokens, or after so many, or where `said` finds an end in its tokens; rows:
    how many go on at a time at most, as far as the memory goes."""

    ends: frozenset[int]
    tokens: int
    rows: int
    memory: Memory
    said: Callable[[Sequence[int]], bool] | None = None


Answer = tuple[int, list[int], int | None]
"""Number of the prompt, tokens without the token that ended it, that token (None: cut at the limit, or `said`)."""


@torch.inference_mode()
def decode(
    model: Any, ways: Ways, prompts: Sequence[Sequence[int]], limits: Limits, decoding: Decoding, seeds: Sequence[int]
) -> Iterator[Answer]:
    """Answers as they end, the longest prompts first, so that what does not fit in memory fails at once.

    Drawn tokens follow from the answer's own seed, not from its neighbours, up to the arithmetic's last digits. Answers
    to one prompt stand beside each other, so that the pool reads it once.
    """
    choose = _chooser(decoding)
    rows = [Row(i, 0, 0, [], _draws(decoding, seed, limits.tokens)) for i, seed in enumerate(seeds)]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), tuple(prompts[i]), i))
    if not ways.masks:
        size = min(limits.rows, limits.memory.places(model, max(map(len, prompts), default=0) + limits.tokens))
        for chunk in _chunks(order, [0 if ways.left else len(prompt) for prompt in prompts], size):
            lines = Lines(model, ways, [prompts[i] for i in chunk])
            yield from _together(lines, [rows[i] for i in chunk], limits, choose)
        return
    prefix = Prefix.of(model, prompts)
    width = max(map(len, prompts), default=0) + limits.tokens
    places = min(limits.rows, len(order), limits.memory.places(model, width))
    pool = Pool(model, prefix, max(1, places), width)
    waiting = deque(order)
    while waiting or pool.rows:
        if waiting and (not pool.rows or pool.free >= max(1, pool.capacity // 4)):
            fit = limits.memory.fit(model, len(prompts[waiting[0]]) - len(prefix.ids), len(prefix.ids))
            some = [waiting.popleft() for _ in range(min(pool.free, len(waiting), fit))]
            first = len(pool.rows)
            logits = pool.admit([rows[i] for i in some], [prompts[i][len(prefix.ids) :] for i in some])
        else:
            first, logits = 0, pool.step()
        chosen = choose(logits, pool.rows[first:])
        yield from _note(pool.rows[first:], chosen, limits)
        pool.drop([first + n for n, row in enumerate(pool.rows[first:]) if row.index < 0])


def _note(rows: Sequence[Row], chosen: Sequence[int], limits: Limits) -> Iterator[Answer]:
    """Add a token to every row; rows that end are given out, and marked by a number below zero."""
    for row, token in zip(rows, chosen, strict=True):
        if token in limits.ends:
            yield row.index, row.tokens, token
            row.index = -1
            continue
        row.tokens.append(token)
        if len(row.tokens) >= limits.tokens or (limits.said is not None and limits.said(row.tokens)):
            yield row.index, row.tokens, None
            row.index = -1


def _chunks(order: Sequence[int], kinds: Sequence[int], size: int) -> Iterator[list[int]]:
    """Numbers in their order, so many of one kind at a time at most."""
    for _, group in groupby(order, key=lambda i: kinds[i]):
        while chunk := list(islice(group, size)):
            yield chunk


class Lines:
    """Rows that go on together until all have ended, for models that keep something else than all keys and values.

    Rows of different lengths are filled up on the left; where a cache is not right all is computed again for each
    token.
    """

    def __init__(self, model: Any, ways: Ways, prompts: Sequence[Sequence[int]]) -> None:
        self.model, self.cached = model, ways.left or ways.cached
        width = max(map(len, prompts))
        self.ids = torch.zeros(len(prompts), width, dtype=torch.long)
        own = torch.zeros(len(prompts), width, dtype=torch.long)
        for number, prompt in enumerate(prompts):
            self.ids[number, width - len(prompt) :] = torch.tensor(prompt)
            own[number, width - len(prompt) :] = 1
        # Where rows may not be filled up, the model is read as it would have it, without a mask.
        self._mask = own.to(model.device) if ways.left else None
        self._positions = (own.cumsum(1) - 1).clamp_min(0).to(model.device) if ways.left else None
        self._cache: Any = None

    def read(self) -> Tensor:
        """Logits (rows, vocabulary) after the last token of each row."""
        out = forward(
            self.model,
            self.ids,
            {
                "attention_mask": self._mask,
                "position_ids": self._positions,
                "past_key_values": self._cache,
                "use_cache": self.cached,
                "logits_to_keep": 1,
            },
        )
        self._cache = cache_of(out) if self.cached else None
        return out.logits[:, -1]

    def write(self, tokens: Sequence[int]) -> None:
        """One token more for every row."""
        new = torch.tensor(tokens)[:, None]
        self.ids = new if self.cached else torch.cat([self.ids, new], 1)
        if self._mask is not None and self._positions is not None:
            self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
            self._positions = self._positions[:, -1:] + 1


def _together(
    lines: Lines, rows: list[Row], limits: Limits, choose: Callable[[Tensor, Sequence[Row]], list[int]]
) -> Iterator[Answer]:
    """Rows stay until all have ended."""
    while any(row.index >= 0 for row in rows):
        chosen = choose(lines.read(), rows)
        going = [n for n, row in enumerate(rows) if row.index >= 0]
        yield from _note([rows[n] for n in going], [chosen[n] for n in going], limits)
        lines.write(chosen)


def _draws(decoding: Decoding, seed: int, count: int) -> Tensor | None:
    if decoding.temperature <= 0:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _chooser(decoding: Decoding) -> Callable[[Tensor, Sequence[Row]], list[int]]:
    if decoding.temperature <= 0:
        return lambda logits, _: logits.argmax(-1).tolist()

    def drawn(logits: Tensor, rows: Sequence[Row]) -> list[int]:
        at = torch.stack([row.draws[min(len(row.tokens), len(row.draws) - 1)] for row in rows if row.draws is not None])
        return draw(logits, decoding, at.to(logits.device)).tolist()

    return drawn


def draw(logits: Tensor, decoding: Decoding, at: Tensor) -> Tensor:
    """Tokens by nucleus sampling (Holtzman et al., 1904.09751): the inverse of the distribution function at `at`.

    logits: (rows, vocabulary); at: (rows,) in [0, 1). Kept are the most probable tokens up to the first at which their
    sum reaches top_p; (rows,).
    """
    p = torch.softmax(logits.double() / decoding.temperature, -1)
    values, tokens = p.topk(min(_TOP, p.shape[-1]), -1)
    if bool((values.sum(-1) < min(decoding.top_p, 1.0 - 1e-12)).any()):
        values, tokens = p.sort(dim=-1, descending=True, stable=True)
    before = values.cumsum(-1) - values
    values = values.masked_fill(before >= decoding.top_p, 0.0)
    sums = values.cumsum(-1)
    place = torch.searchsorted(sums, (at * sums[:, -1])[:, None], right=True)
    last = (values > 0).sum(-1, keepdim=True) - 1
    return tokens.gather(-1, torch.minimum(place, last))[:, 0]
