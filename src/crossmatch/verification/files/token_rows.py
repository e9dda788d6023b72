"""Rows that were trained for tokens which the directory's tokenizer does not have."""

from collections.abc import Mapping, Sequence

from crossmatch.adapter.token_rows import changed_rows, token_rows
from crossmatch.checkpoint import Checkpoint, input_embedding
from crossmatch.delta import TuningVector
from crossmatch.verification.files.sandbox import Encoder


def lost_tokens(
    merged: Encoder, adapters: Mapping[str, Encoder], vectors: Sequence[TuningVector], view: Checkpoint
) -> tuple[list[str], list[str]]:
    """Tokens that an adapter's tokenizer adds and the merged one lacks, in sentences: those whose rows a vector
    changes, and those whose rows nobody trained or that have none; view: the base as the adapters saw it."""
    name = input_embedding(view.tensors)
    if name is None or not view.tensors[name].shape:
        return [], []
    rows, trained, idle, seen = view.tensors[name].shape[0], [], [], set()
    for label, encoder in adapters.items():
        missing = {t: i for t, i in encoder.added.items() if merged.special.get(t) != i}
        numbers = [i for i in missing.values() if i < rows]
        changed = {row for vector in vectors for row in changed_rows(vector, view, numbers)}
        seen |= set(missing.values())
        for token, number in missing.items():
            if number in changed:
                trained.append(f"{token[:40]!r} ({number}) of {label}: its row was trained")
            else:
                why = "no row" if number >= rows else "a row that nobody trained"
                idle.append(f"{token[:40]!r} ({number}) of {label} has {why}")
    single = {row for vector in vectors for row in token_rows(vector, view)}
    trained += [f"row {i} was trained as a token" for i in sorted(single - seen) if i > merged.largest]
    return trained, idle
