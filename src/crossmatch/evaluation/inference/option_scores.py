"""Log-likelihoods: a prompt goes through the model once, its options beside each other behind it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from crossmatch.evaluation.forward import Ways, forward
from crossmatch.evaluation.inference.batch_memory import Memory
from crossmatch.evaluation.inference.hidden_states import last_states, logits_of
from crossmatch.evaluation.inference.kv_cache import Prefix, as_mask, families
from crossmatch.evaluation.inference.protocol import FirstToken

Ids = Sequence[int]


Scored = tuple[int, list[float], FirstToken]


@torch.inference_mode()
def score(
    model: Any, ways: Ways, prompts: Sequence[Ids], options: Sequence[Sequence[Ids]], rows: int, memory: Memory
) -> Iterator[Scored]:
    """ln P(option | prompt), summed over its tokens, for every option of every prompt (there may be none: then only the
    first token is told of); in batches of similar length, of so many rows at most, as far as the memory goes.

    An option sees its prompt and itself, not the others (a tree of tokens; positions go on from the prompt's end).
    Tokens that the prompts of a family begin with (the examples of one subject) are computed once, and only what an
    option needs goes through the vocabulary. A model that does not take any mask reads every option behind a prompt of
    its own.
    """
    if not ways.masks:
        yield from _each(model, ways, prompts, options, (rows, memory))
        return
    for family in families(prompts):
        yield from _family(model, prompts, options, family, (rows, memory))


def _family(
    model: Any,
    prompts: Sequence[Ids],
    options: Sequence[Sequence[Ids]],
    family: Sequence[int],
    limits: tuple[int, Memory],
) -> Iterator[Scored]:
    rows, memory = limits
    prefix = Prefix.of(model, [prompts[i] for i in family])
    shared = len(prefix.ids)
    lengths = {i: len(prompts[i]) - shared + sum(len(option) - 1 for option in options[i]) for i in family}
    order = sorted(family, key=lambda i: (-lengths[i], i))
    while order:
        tails = [sum(len(o) - 1 for o in options[i]) + 1 for i in order]
        width = lengths[order[0]] + max(tails)
        logits = memory.positions(model) // max(tails[:rows])
        count = max(1, min(rows, memory.rows(model, width, shared), logits))
        chunk, order = order[:count], order[count:]
        found = beside(model, prefix, [prompts[i][shared:] for i in chunk], [options[i] for i in chunk])
        yield from ((i, values, opening) for i, (values, opening) in zip(chunk, found, strict=True))


def beside(
    model: Any, prefix: Prefix, prompts: Sequence[Ids], options: Sequence[Sequence[Ids]]
) -> list[tuple[list[float], FirstToken]]:
    """Rows [padding, prompt, options without their last tokens, padding]; prompts end at one column."""
    width = max(map(len, prompts))
    tail = max(sum(len(o) - 1 for o in group) for group in options)
    ids = torch.zeros(len(prompts), width + tail, dtype=torch.long)
    branch, positions = torch.full_like(ids, -1), torch.zeros_like(ids)
    for row, (prompt, group) in enumerate(zip(prompts, options, strict=True)):
        begin = width - len(prompt)
        ids[row, begin:width] = torch.tensor(prompt)
        branch[row, begin:width] = 0
        positions[row, begin:width] = torch.arange(len(prompt))
        at = width
        for number, option in enumerate(group, 1):
            stop = at + len(option) - 1
            ids[row, at:stop] = torch.tensor(option[:-1], dtype=torch.long)
            branch[row, at:stop] = number
            positions[row, at:stop] = len(prompt) + torch.arange(len(option) - 1)
            at = stop
    allowed = _tree(branch, len(prefix.ids)).to(model.device)
    out = forward(
        model,
        ids,
        {
            "attention_mask": as_mask(model, allowed),
            "position_ids": (positions + len(prefix.ids)).to(model.device),
            "past_key_values": prefix.cache(model, len(prompts)) if prefix.ids else None,
            "use_cache": bool(prefix.ids),
            "logits_to_keep": tail + 1,
        },
    )
    # Not every model leaves out the logits that are not wanted.
    return [_row(logits, group) for logits, group in zip(out.logits[:, -tail - 1 :], options, strict=True)]


def _tree(branch: Tensor, shared: int) -> Tensor:
    """Who sees whom, (rows, 1, queries, shared + columns): what came before on the same branch or on the trunk (0)."""
    length = branch.shape[1]
    keys, queries = branch[:, None, :], branch[:, :, None]
    seen = ((keys == 0) | (keys == queries)) & (keys >= 0)
    allowed = seen & torch.ones(length, length, dtype=torch.bool).tril()
    allowed = allowed | torch.eye(length, dtype=torch.bool)
    before = torch.ones(len(branch), length, shared, dtype=torch.bool)
    return torch.cat([before, allowed], 2)[:, None]


def _row(logits: Tensor, options: Sequence[Ids]) -> tuple[list[float], FirstToken]:
    """logits: (1 + summed lengths, vocabulary); the first after the prompt, then those after each option's tokens."""
    used = 1 + sum(len(option) - 1 for option in options)
    wide = logits[:used].float()
    norms = torch.logsumexp(wide, -1)
    values, at = [], 1
    for option in options:
        places = torch.tensor([0, *range(at, at + len(option) - 1)], device=wide.device)
        tokens = torch.tensor(option, device=wide.device)
        values.append(float((wide[places, tokens] - norms[places]).double().sum()))
        at += len(option) - 1
    return values, opening(wide[0] - norms[0])


def opening(log_p: Tensor) -> FirstToken:
    """From the log-probabilities (vocabulary,) of a first token."""
    p = log_p.exp()
    first, second = p.topk(2).values.tolist()
    return FirstToken(float(-(p * log_p.masked_fill(p == 0, 0.0)).sum()), first - second)


def _each(
    model: Any, ways: Ways, prompts: Sequence[Ids], options: Sequence[Sequence[Ids]], limits: tuple[int, Memory]
) -> Iterator[Scored]:
    """Every option behind a prompt of its own, from the last states of its tokens."""
    count, memory = limits
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    step = memory.positions(model)
    for start in range(0, len(order), count):
        chunk = order[start : start + count]
        # Without options there is still a first token to tell of.
        pairs = [(i, option) for i in chunk for option in options[i] or [(0,)]]
        rows = [[*prompts[i], *option[:-1]] for i, option in pairs]
        wanted = [len(option) for _, option in pairs]
        values: dict[int, list[float]] = {i: [] for i in chunk}
        openings: dict[int, FirstToken] = {}
        states = dict(last_states(model, ways, rows, wanted, memory))
        for number, (i, option) in enumerate(pairs):
            parts = [logits_of(model, ways.stem, part).float().log_softmax(-1) for part in states[number].split(step)]
            log_p = torch.cat(parts)
            tokens = torch.tensor(option, device=log_p.device)
            values[i].append(float(log_p.gather(1, tokens[:, None]).double().sum()))
            openings.setdefault(i, opening(log_p[0]))
        yield from ((i, values[i] if options[i] else [], openings[i]) for i in chunk)
