"""Last hidden states, and from them logits a few positions at a time: what is needed of a text is narrow (the hidden
width), what it is turned into is wide (the vocabulary)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from crossmatch.evaluation.forward import Stem, Ways, failed_for_memory, forward
from crossmatch.evaluation.inference.batch_memory import Memory
from crossmatch.evaluation.inference.kv_cache import Prefix

Ids = Sequence[int]
# Share of the largest logit by which two ways to the same logits may differ.
_ALIKE = 0.02
# Names by which models call their decoder, where it is a part of their base model.
_DECODERS = ("decoder", "language_model", "text_model", "model", "transformer")


@torch.inference_mode()
def last_states(
    model: Any, ways: Ways, rows: Sequence[Ids], wanted: Sequence[int], memory: Memory
) -> Iterator[tuple[int, Tensor]]:
    """(number of the row, states (wanted, hidden)) of the last `wanted` positions of every row, the longest first.

    Rows lie side by side from their first token on: what fills up the shorter ones comes after all that is kept, where
    nothing sees it, whatever attention the layers have; a model that sees it is given rows of one length at a time.
    What all rows begin with is computed once.
    """
    prefix = Prefix((), ())
    if ways.masks:
        # A prefix must leave every position that is wanted to its row.
        prefix = Prefix.of(model, [row[: len(row) - count + 1] for row, count in zip(rows, wanted, strict=True)])
    shared = len(prefix.ids)
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    while order:
        width = len(rows[order[0]]) - shared
        chunk = order[: memory.rows(model, width, shared)] if ways.right else order[:1]
        order = order[len(chunk) :]
        ids = torch.zeros(len(chunk), width, dtype=torch.long)
        for number, i in enumerate(chunk):
            ids[number, : len(rows[i]) - shared] = torch.tensor(rows[i][shared:])
        positions = (shared + torch.arange(width)).expand(len(chunk), -1).to(model.device)
        output = forward(
            model if ways.stem.module is None else ways.stem.module,
            ids,
            {
                "position_ids": positions if ways.right else None,
                "past_key_values": prefix.cache(model, len(chunk)) if shared else None,
                "use_cache": bool(shared),
            },
        )
        states = output.logits if ways.stem.module is None else output[0]
        for number, i in enumerate(chunk):
            stop = len(rows[i]) - shared
            yield i, states[number, stop - wanted[i] : stop].clone()


@torch.inference_mode()
def logits_of(model: Any, stem: Stem, states: Tensor) -> Tensor:
    """Logits (n, vocabulary) of last hidden states (n, hidden), by the model's own way from one to the other, with the
    caps and scales that some models have there."""
    if stem.module is None:
        return states
    with _given(stem.module, states[None]):
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        return forward(model, ids, {"use_cache": False}).logits[0]


@torch.inference_mode()
def find_stem(model: Any) -> Stem:
    """The outermost module from whose output the model's logits follow as `logits_of` has it: its base model, else a
    decoder inside. Without one, a stem without module."""
    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config(decoder=True).vocab_size
    if model.get_output_embeddings() is None:
        return Stem()
    for module in _candidates(model):
        try:
            own, states = _watched(model, module, ids)
            again = logits_of(model, Stem(module), states).float()
        except Exception as error:
            if failed_for_memory(error):
                raise
            continue
        if own.shape == again.shape and bool((own - again).abs().max() <= _ALIKE * own.abs().max()):
            return Stem(module)
    return Stem()


def _candidates(model: Any) -> Iterator[Any]:
    """The base model, and what it calls its decoder, from the outside to the inside."""
    module, seen = model.base_model, {id(model)}
    if module is model:
        module = _inner(model)
    while module is not None and id(module) not in seen:
        seen.add(id(module))
        yield module
        module = _inner(module)


def _inner(module: Any) -> Any:
    """The decoder inside of a module; None without one."""
    parts = (getattr(module, name, None) for name in _DECODERS)
    return next((part for part in parts if isinstance(part, nn.Module)), None)


def _watched(model: Any, module: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, vocabulary) of a text, and the states (n, hidden) that a module gave on the way. Raises ValueError
    unless it was run once."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    try:
        logits = forward(model, ids, {"use_cache": False}).logits[0].float()
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ValueError(f"run {len(seen)} times")
    return logits, seen[0][0]


def head_parameters(model: Any, stem: Stem) -> list[nn.Parameter]:
    """Parameters that lead from the stem's states to logits: the output embedding's, and others outside of the stem."""
    if stem.module is None:
        return []
    own = list(model.get_output_embeddings().parameters())
    known = {id(parameter) for parameter in [*own, *stem.module.parameters()]}
    return [*own, *(parameter for parameter in model.parameters() if id(parameter) not in known)]


@contextmanager
def head_of(model: Any, stem: Stem, head: Sequence[Tensor]) -> Iterator[None]:
    """The model with other parameters between its states and logits (as `head_parameters`) while the block runs."""
    parameters = head_parameters(model, stem)
    own = [parameter.data for parameter in parameters]
    for parameter, tensor in zip(parameters, head, strict=True):
        parameter.data = tensor.to(parameter.device)
    try:
        yield
    finally:
        for parameter, tensor in zip(parameters, own, strict=True):
            parameter.data = tensor


class _Given(BaseModelOutputWithPast):
    """An output that has states, and nothing of what else a class may read (router logits, attentions, a cache)."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _given(decoder: Any, states: Tensor) -> Iterator[None]:
    """While the block runs, the decoder gives these states back, whatever it is asked."""
    decoder.forward = lambda *_, **__: _Given(last_hidden_state=states)  # pyright: ignore
    try:
        yield
    finally:
        del decoder.forward
