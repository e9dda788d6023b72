"""Texts as padded tensors, and sums by text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from crossmatch.data.token_classes import KINDS, Text
from crossmatch.statistics.influence import Array


@dataclass(frozen=True, eq=False)
class Batch:
    """Some texts as one tensor, filled up on the right, where no token of a causal model sees it.

    numbers: which texts; ids: (rows, length) int64; classes: (rows, length) int64 numbers in `KINDS`, -1 for what is
    not counted; scored: (rows, length) bool, tokens of the response; starts, rivals: (rows,) int64, rival -1 for items.
    """

    numbers: tuple[int, ...]
    ids: Tensor
    classes: Tensor
    scored: Tensor
    starts: Tensor
    rivals: Tensor


def batches(texts: Sequence[Text], tokens: int) -> Iterator[Batch]:
    """Texts of like length together, longest first, at most `tokens` of them (but one text at least) in a batch."""
    order = sorted(range(len(texts)), key=lambda n: (-len(texts[n].ids), n))
    place = 0
    while place < len(order):
        length = len(texts[order[place]].ids)
        numbers = order[place : place + max(1, tokens // length)]
        place += len(numbers)
        yield _batch(tuple(numbers), [texts[n] for n in numbers], length)


def _batch(numbers: tuple[int, ...], texts: Sequence[Text], length: int) -> Batch:
    ids = torch.zeros(len(texts), length, dtype=torch.long)
    classes = torch.full_like(ids, -1)
    scored = torch.zeros_like(ids, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        classes[row, : len(text.ids)] = torch.tensor(text.classes())
        scored[row, text.start : len(text.ids)] = True
    starts = torch.tensor([text.start for text in texts])
    rivals = torch.tensor([-1 if text.rival is None else text.rival for text in texts])
    return Batch(numbers, ids, classes, scored, starts, rivals)


def sums_by_text(values: Tensor, batch: Batch) -> Array:
    """(rows, kinds, statistics) sums of the tokens of each class, from values (rows, length, statistics) float64."""
    classes = batch.classes.to(values.device)
    member = one_hot(classes.clamp_min(0), len(KINDS)).to(values.dtype) * (classes >= 0)[..., None]
    return (member.transpose(1, 2) @ values).cpu().numpy()
