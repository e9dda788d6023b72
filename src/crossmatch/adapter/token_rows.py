"""Rows of the embeddings that were trained for single tokens, and rows that a vector changes at all."""

from collections.abc import Iterable

import torch

from crossmatch.checkpoint import Checkpoint, input_embedding, output_embedding
from crossmatch.delta import Delta, TokenRows, TuningVector, summands


def token_rows(vector: TuningVector, view: Checkpoint) -> set[int]:
    """Rows of the embeddings that were trained as single tokens; view: the base as the vector saw it."""
    return {
        int(number)
        for delta in _embeddings(vector, view).values()
        for part in summands(delta)
        if isinstance(part, TokenRows)
        for number in part.indices.tolist()
    }


def changed_rows(vector: TuningVector, view: Checkpoint, numbers: Iterable[int]) -> set[int]:
    """Those of some rows of the embeddings that a vector changes."""
    wanted, found = sorted(set(numbers)), set()
    for name, delta in _embeddings(vector, view).items() if wanted else ():
        bound = delta.bind(lambda a, b, name=name: view.rows(name, a, b))
        for number in wanted:
            if number < bound.height:
                base = view.rows(name, number, number + 1).float() if bound.needs_base else None
                if bool(bound.rows(number, number + 1, torch.float32, base).any()):
                    found.add(number)
    return found


def _embeddings(vector: TuningVector, view: Checkpoint) -> dict[str, Delta]:
    names = (input_embedding(view.tensors), output_embedding(view.tensors))
    return {name: vector[name] for name in names if name is not None and name in vector}
