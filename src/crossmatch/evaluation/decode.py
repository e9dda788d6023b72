"""Generation of one token after another, for many prompts at a time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from crossmatch.evaluation.memory import Memory
from crossmatch.evaluation.model import Decoding
from crossmatch.evaluation.pool import Pool, Prefix, Row, takes_any_mask

# Tokens looked at first when the most probable ones are wanted.
_TOP = 512


@dataclass(frozen=True)
class Limits:
    """When an answer ends: at one of these tokens, or after so many; rows: how many go on at a time at most, as far as
    the memory goes."""

    ends: frozenset[int]
    tokens: int
    rows: int
    memory: Memory


Answer = tuple[int, list[int], bool]
"""Number of the prompt, tokens without the end, whether it was cut at the limit."""


@torch.inference_mode()
def decode(
    model: Any, prompts: Sequence[Sequence[int]], limits: Limits, decoding: Decoding, seeds: Sequence[int]
) -> Iterator[Answer]:
    """Answers as they end, the longest prompts first, so that what does not fit in memory fails at once.

    Drawn tokens follow from the answer's own seed, not from its neighbours, up to the arithmetic's last digits. Answers
    to one prompt stand beside each other, so that the pool reads it once.
    """
    choose = _chooser(decoding)
    rows = [Row(i, 0, 0, [], _draws(decoding, seed, limits.tokens)) for i, seed in enumerate(seeds)]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), tuple(prompts[i]), i))
    if not takes_any_mask(model):
        size = min(limits.rows, limits.memory.places(model, max(map(len, prompts), default=0) + limits.tokens))
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            yield from _together(model, [prompts[i] for i in chunk], [rows[i] for i in chunk], limits, choose)
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
        if token not in limits.ends:
            row.tokens.append(token)
        if token in limits.ends or len(row.tokens) >= limits.tokens:
            yield row.index, row.tokens, token not in limits.ends
            row.index = -1


def _together(
    model: Any,
    prompts: Sequence[Sequence[int]],
    rows: list[Row],
    limits: Limits,
    choose: Callable[[Tensor, Sequence[Row]], list[int]],
) -> Iterator[Answer]:
    """For models whose layers keep something else than all keys and values: rows stay until all have ended."""
    width, device = max(map(len, prompts)), model.device
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for number, prompt in enumerate(prompts):
        ids[number, width - len(prompt) :] = torch.tensor(prompt)
        mask[number, width - len(prompt) :] = 1
    cache = DynamicCache(config=model.config)
    ids, positions = ids.to(device), (mask.cumsum(1) - 1).clamp_min(0).to(device)
    mask = mask.to(device)
    while any(row.index >= 0 for row in rows):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = choose(out.logits[:, -1], rows)
        going = [n for n, row in enumerate(rows) if row.index >= 0]
        yield from _note([rows[n] for n in going], [chosen[n] for n in going], limits)
        ids = torch.tensor(chosen, device=device)[:, None]
        mask, positions = torch.cat([mask, torch.ones_like(mask[:, :1])], 1), positions[:, -1:] + 1


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
