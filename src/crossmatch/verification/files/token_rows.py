"""Rows that were trained for tokens which the directory's tokenizer does not have."""

from collections.abc import Iterable, Mapping

import torch

from crossmatch.checkpoint import Checkpoint, input_embedding, output_embedding
from crossmatch.delta import Delta, TokenRows, TuningVector, summands
from crossmatch.verification.files.sandbox import Encoder


def lost_tokens(
    merged: Encoder, adapters: Mapping[str, Encoder], vectors: Iterable[TuningVector], view: Checkpoint
) -> tuple[list[str], list[str]]:
    """Tokens that an adapter's tokenizer adds and the merged one lacks, in sentences: those whose rows a vector
    changes, and those whose rows nobody trained or that have none; view: the base as the adapters saw it."""
    name = input_embedding(view.tensors)
    if name is None or not view.tensors[name].shape:
        return [], []
    deltas = [delta for vector in vectors for delta in _embeddings(vector, view).items()]
    rows, trained, idle, seen = view.tensors[name].shape[0], [], [], set()
    for label, encoder in adapters.items():
        missing = {t: i for t, i in encoder.added.items() if merged.special.get(t) != i}
        changed = _changed(deltas, view, [i for i in missing.values() if i < rows])
        seen |= set(missing.values())
        for token, number in missing.items():
            if number in changed:
                trained.append(f"{token[:40]!r} ({number}) of {label}: its row was trained")
            else:
                why = "no row" if number >= rows else "a row that nobody trained"
                idle.append(f"{token[:40]!r} ({number}) of {label} has {why}")
    single = {
        number
        for _, delta in deltas
        for part in summands(delta)
        if isinstance(part, TokenRows)
        for number in part.indices.tolist()
    }
    trained += [f"row {i} was trained as a token" for i in sorted(single - seen) if i > merged.largest]
    return trained, idle


def _embeddings(vector: TuningVector, view: Checkpoint) -> dict[str, Delta]:
    names = (input_embedding(view.tensors), output_embedding(view.tensors))
    return {name: vector[name] for name in names if name is not None and name in vector}


def _changed(deltas: Iterable[tuple[str, Delta]], view: Checkpoint, numbers: Iterable[int]) -> set[int]:
    """Those of some rows that a delta changes."""
    wanted, found = sorted(set(numbers)), set()
    for name, delta in deltas if wanted else ():
        bound = delta.bind(lambda a, b, name=name: view.rows(name, a, b))
        for number in wanted:
            if number < bound.height:
                base = view.rows(name, number, number + 1).float() if bound.needs_base else None
                if bool(bound.rows(number, number + 1, torch.float32, base).any()):
                    found.add(number)
    return found
