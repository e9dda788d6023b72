"""Last hidden states, and from them logits a few positions at a time: what is needed of a text is narrow (the hidden
width), what it is turned into is wide (the vocabulary)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

from crossmatch.evaluation.memory import Memory
from crossmatch.evaluation.pool import Prefix

Ids = Sequence[int]
# Share of the largest logit by which two ways to the same logits may differ.
_ALIKE = 0.02


@torch.inference_mode()
def last_states(model: Any, rows: Sequence[Ids], wanted: Sequence[int], memory: Memory) -> Iterator[tuple[int, Tensor]]:
    """(number of the row, states (wanted, hidden)) of the last `wanted` positions of every row, the longest first.

    Rows lie side by side from their first token on: what fills up the shorter ones comes after all that is kept, where
    nothing sees it, whatever attention the layers have. What all rows begin with is computed once.
    """
    # A prefix must leave every position that is wanted to its row.
    prefix = Prefix.of(model, [row[: len(row) - count + 1] for row, count in zip(rows, wanted, strict=True)])
    shared = len(prefix.ids)
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    while order:
        width = len(rows[order[0]]) - shared
        chunk = order[: memory.rows(model, width, shared)]
        order = order[len(chunk) :]
        ids = torch.zeros(len(chunk), width, dtype=torch.long)
        for number, i in enumerate(chunk):
            ids[number, : len(rows[i]) - shared] = torch.tensor(rows[i][shared:])
        states = model.base_model(
            input_ids=ids.to(model.device),
            position_ids=(shared + torch.arange(width)).expand(len(chunk), -1).to(model.device),
            past_key_values=prefix.cache(model, len(chunk)) if shared else None,
            use_cache=bool(shared),
        ).last_hidden_state
        for number, i in enumerate(chunk):
            stop = len(rows[i]) - shared
            yield i, states[number, stop - wanted[i] : stop].clone()


@torch.inference_mode()
def logits_of(model: Any, states: Tensor) -> Tensor:
    """Logits (n, vocabulary) of last hidden states (n, hidden), by the model's own way from one to the other, with the
    caps and scales that some models have there."""
    with _given(model.base_model, states[None]):
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        return model(input_ids=ids, use_cache=False).logits[0]


@torch.inference_mode()
def tells_all(model: Any) -> bool:
    """Whether this model's logits follow from its last hidden states as `logits_of` has it."""
    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config(decoder=True).vocab_size
    own = model(input_ids=ids, use_cache=False).logits[0].float()
    found = model.base_model(input_ids=ids, use_cache=False)
    states = getattr(found, "last_hidden_state", None)
    if states is None:
        return False
    again = logits_of(model, states[0]).float()
    return own.shape == again.shape and bool((own - again).abs().max() <= _ALIKE * own.abs().max())


@contextmanager
def head_of(model: Any, head: Sequence[Tensor]) -> Iterator[None]:
    """The model with other parameters of its output embedding (weight, and bias if it has one) while the block runs."""
    parameters = list(model.get_output_embeddings().parameters())
    own = [parameter.data for parameter in parameters]
    for parameter, tensor in zip(parameters, head, strict=True):
        parameter.data = tensor.to(parameter.device)
    try:
        yield
    finally:
        for parameter, tensor in zip(parameters, own, strict=True):
            parameter.data = tensor


@contextmanager
def _given(decoder: Any, states: Tensor) -> Iterator[None]:
    """While the block runs, the decoder gives these states back, whatever it is asked."""
    decoder.forward = lambda *_, **__: BaseModelOutputWithPast(last_hidden_state=states)  # pyright: ignore
    try:
        yield
    finally:
        del decoder.forward
