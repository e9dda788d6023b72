"""Which ways through a model are right: each is tried on a few short texts, against one text at a time.

What a class does with masks, positions and padding is not written down anywhere, and where it is wrong nothing fails:
the figures are others. So no list of architectures decides, but the model itself, once, when it is loaded.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from crossmatch.errors import InputError
from crossmatch.evaluation.forward import Ways, failed_for_memory, forward
from crossmatch.evaluation.inference.batch_memory import Memory
from crossmatch.evaluation.inference.generation import Lines
from crossmatch.evaluation.inference.hidden_states import find_stem, last_states, logits_of
from crossmatch.evaluation.inference.kv_cache import Pool, Prefix, Row, takes_any_mask
from crossmatch.evaluation.inference.option_scores import beside

# Share of the largest logit by which two ways to the same logits may differ: rounding, by the width of the numbers.
_BOUND = {torch.float32: 1e-3, torch.float64: 1e-3}
_COARSE = 0.03
_LENGTHS = (9, 5)
_SHARED = 2
# Tokens that come after the texts.
_STEPS = 3


@torch.inference_mode()
def find_ways(model: Any, memory: Memory) -> Ways:
    """What holds for this model. Raises InputError for one whose tokens see those that come after them, or that cannot
    read a text at all."""
    texts, after = _texts(model)
    try:
        plain = [_plain(model, [*text, *after]) for text in texts]
        cut = _plain(model, texts[0])
    except Exception as error:
        if failed_for_memory(error):
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{_kind(model)} cannot read a plain text, which every figure needs ({why})") from error
    # What is no number is named where it is scored.
    if bool(torch.isfinite(cut).all()) and not _alike(model, [cut], [plain[0][: len(cut)]]):
        raise InputError(
            f"{_kind(model)} lets a token of a text see those that come after it; only models that read from left to "
            "right can be evaluated"
        )
    # Logits after each text, and after each of the tokens that follow.
    wanted = [row[len(text) - 1 :] for row, text in zip(plain, texts, strict=True)]
    ways = Ways(
        masks=takes_any_mask(model)
        and _holds(model, lambda: _pooled(model, texts, after), wanted)
        and _holds_beside(model, texts, after, wanted),
        left=_holds(model, lambda: _lined(model, Ways(left=True), texts, after), wanted),
        cached=_holds(model, lambda: _lined(model, Ways(cached=True), texts[:1], after), wanted[:1])
        and _holds(model, lambda: _lined(model, Ways(cached=True), texts[:1] * 2, after), wanted[:1] * 2),
        stem=find_stem(model),
    )
    for right in (replace(ways, right=True), replace(ways, right=True, masks=False)):
        if _holds(model, lambda ways=right: _filled(model, ways, texts, after, memory), wanted):
            return right
    alone = replace(ways, masks=False)
    found = _holds(model, lambda: _filled(model, alone, texts, after, memory), wanted)
    return alone if found else replace(alone, stem=replace(alone.stem, module=None))


def _kind(model: Any) -> str:
    return str(model.config.model_type)


def _texts(model: Any) -> tuple[list[list[int]], list[int]]:
    """Two texts of different length with one beginning, and what follows both: ordinary tokens, spread over the
    vocabulary."""
    config = model.config.get_text_config(decoder=True)
    special = set(_special(model.config)) | set(_special(config))
    ordinary = [i for i in range(3, config.vocab_size) if i not in special] or [0]
    count = max(_LENGTHS) + len(_LENGTHS) * max(_LENGTHS) + _STEPS
    ids = [ordinary[(len(ordinary) * (2 * i + 1) // (2 * count) + 7 * i) % len(ordinary)] for i in range(count)]
    begin, rest = ids[:_SHARED], ids[_SHARED:]
    texts = []
    for length in _LENGTHS:
        own, rest = rest[: length - _SHARED], rest[length - _SHARED :]
        texts.append([*begin, *own])
    return texts, rest[:_STEPS]


def _special(config: Any) -> Iterable[int]:
    """Ids that a config gives a meaning: ends, padding, images."""
    for name, value in vars(config).items():
        if name.endswith(("_token_id", "_token_index", "_token_ids")):
            yield from (i for i in (value if isinstance(value, list | tuple) else [value]) if isinstance(i, int))


def _plain(model: Any, ids: Sequence[int]) -> Tensor:
    """Logits (length, vocabulary) of one text, without mask, padding or cache."""
    return forward(model, torch.tensor([ids]), {"use_cache": False}).logits[0].float()


def _alike(model: Any, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    bound = _BOUND.get(model.dtype, _COARSE)
    for one, other in zip(found, wanted, strict=True):
        if one.shape != other.shape or not bool((one.float() - other).abs().max() <= bound * other.abs().max()):
            return False
    return True


def _holds(model: Any, way: Callable[[], Sequence[Tensor]], wanted: Sequence[Tensor]) -> bool:
    """Whether a way gives these logits; one that fails does not."""
    try:
        return _alike(model, way(), wanted)
    except Exception as error:
        if failed_for_memory(error):
            raise
        return False


def _pooled(model: Any, texts: Sequence[Sequence[int]], after: Sequence[int]) -> list[Tensor]:
    """Logits after each text and each of the tokens that follow, from a pool behind the common prefix."""
    prefix = Prefix.of(model, texts)
    rows = [Row(i, 0, 0, []) for i in range(len(texts))]
    pool = Pool(model, prefix, len(texts), max(map(len, texts)) + len(after))
    found = [pool.admit(rows, [text[len(prefix.ids) :] for text in texts])]
    for token in after:
        for row in pool.rows:
            row.tokens.append(token)
        found.append(pool.step())
    return list(torch.stack(found, 1))


def _lined(model: Any, ways: Ways, texts: Sequence[Sequence[int]], after: Sequence[int]) -> list[Tensor]:
    """The same of rows that go on together."""
    lines = Lines(model, ways, texts)
    found = [lines.read()]
    for token in after:
        lines.write([token] * len(texts))
        found.append(lines.read())
    return list(torch.stack(found, 1))


def _filled(
    model: Any, ways: Ways, texts: Sequence[Sequence[int]], after: Sequence[int], memory: Memory
) -> list[Tensor]:
    """The same by way of last states."""
    rows = [[*text, *after] for text in texts]
    states = dict(last_states(model, ways, rows, [len(after) + 1] * len(rows), memory))
    return [logits_of(model, ways.stem, states[i]) for i in range(len(rows))]


def _holds_beside(model: Any, texts: Sequence[Sequence[int]], after: Sequence[int], wanted: Sequence[Tensor]) -> bool:
    """Whether options beside each other, of one beginning or none, have the log-likelihoods that they have alone."""
    prefix = Prefix.of(model, texts)
    options = [list(after), [after[-1], after[0]]]
    # The second option's own path: its first token comes where the first option's does.
    second = [_plain(model, [*text, after[-1]])[-2:] for text in texts]
    try:
        found = beside(model, prefix, [text[len(prefix.ids) :] for text in texts], [options] * len(texts))
    except Exception as error:
        if failed_for_memory(error):
            raise
        return False
    for (values, _), first, other in zip(found, wanted, second, strict=True):
        for value, option, logits in zip(values, options, (first, other), strict=True):
            log_p = logits[: len(option)].log_softmax(-1)
            expected = log_p.gather(1, torch.tensor(option, device=log_p.device)[:, None]).sum()
            bound = _BOUND.get(model.dtype, _COARSE) * float(logits.abs().max()) * len(option)
            if not abs(value - float(expected)) <= bound:
                return False
    return True
