"""Input and output embedding: tied ones that an adapter would pull apart, and a vocabulary that it added to."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch

from crossmatch.adapter.adapter import Adapter
from crossmatch.adapter.stored_vector import StoredDense, StoredVector
from crossmatch.adapter.tensor_names import Placed, Places
from crossmatch.checkpoint import Checkpoint, Tail, input_embedding, is_output, output_embedding, untied_output
from crossmatch.delta import Delta, LowRank, Replacement, Sum, TokenRows, TuningVector, summands
from crossmatch.errors import AdapterError

Tied = Literal["refuse", "untie", "keep"]
"""What to do where an adapter changes one of two tied embeddings: refuse; store the output embedding by itself; or
accept that the change acts on both."""
# Kinds of changes that are one change of both tied embeddings: tokens are trained so, full fine-tunes saved so.
_OF_BOTH = (("tokens",), ("shared",))


def grow(
    base: Checkpoint, vectors: Mapping[str, TuningVector], places: Mapping[str, Places]
) -> tuple[Checkpoint, str | None]:
    """The base with the rows that an adapter added to its vocabulary, and that adapter's name.

    The added rows are the adapter's own, whatever its weight: there is nothing to weigh them against. Deltas of the
    others are taken to leave them alone. Raises AdapterError if two adapters added to it.
    """
    tails: dict[str, Tail] = {}
    owner: str | None = None
    for label, placed in places.items():
        vector = vectors[label]
        for name, found in placed.items():
            info = base.tensors.get(name)
            if info is None or len(info.shape) != 2 or not _adds(vector, found):
                continue
            rows = found.shape[0]
            if rows <= info.shape[0] or found.shape[1:] != info.shape[1:]:
                continue
            if owner not in (None, label):
                raise AdapterError(
                    f"adapters {owner} and {label} each added tokens to the vocabulary; merge the one, then train the "
                    "other on the result"
                )
            owner = label
            tails[name] = _tail(label, vector, found, name, info.shape[0])
    if owner is None:
        return base, None
    _check_outputs(base, tails, owner)
    rows = max(tail.rows for tail in tails.values())
    view = base.extended({}, tails, {"vocab_size": rows})
    for placed in places.values():
        for name in [n for n in placed if n in tails]:
            placed[name] = _padded(placed[name], view.tensors[name].shape)
    return view, owner


def _adds(vector: TuningVector, found: Placed) -> bool:
    """Whether a delta may bring rows of its own: a saved embedding, or a stored vector's with rows that were added."""
    if isinstance(vector, StoredVector):
        return found.source in vector.added
    return isinstance(vector, Adapter) and "saved" in found.kinds


def _tail(label: str, vector: TuningVector, found: Placed, name: str, height: int) -> Tail:
    if isinstance(vector, StoredVector):
        first, key = vector.added[found.source]
        if first != height:
            raise AdapterError(
                f"adapter {label}: it adds rows to {name} behind row {first}, the base has {height}; "
                "it was made on another base"
            )
        return Tail(vector.files, key, found.shape[0], name, first)
    assert isinstance(vector, Adapter)
    key = next(part.keys[0] for part in vector.parts[found.source] if part.kind == "saved")
    return Tail(vector.files, key, found.shape[0], name)


def _check_outputs(base: Checkpoint, tails: Mapping[str, Tail], owner: str) -> None:
    apart = output_embedding(base.tensors) is not None and not base.tied
    if apart and (len(tails) != 2 or len({t.rows for t in tails.values()}) != 1):
        raise AdapterError(
            f"adapter {owner} adds rows to {', '.join(tails)} alone; input and output embedding must grow together"
        )


def _padded(placed: Placed, shape: tuple[int, ...]) -> Placed:
    """A delta on the first rows of a tensor that has grown."""
    if placed.shape[0] in (-1, shape[0]):
        return placed

    def build() -> Delta:
        """The delta, with zeros for the added rows."""
        parts = []
        for part in summands(placed.build()):
            if isinstance(part, LowRank):
                added = shape[0] - part.b.shape[0]
                parts.append(replace(part, b=torch.nn.functional.pad(part.b, (0, 0, 0, added))))
            elif isinstance(part, Replacement):
                parts.append(TokenRows(torch.arange(part.height), part.tensor, shape, part.scale))
            elif isinstance(part, StoredDense):
                parts.append(replace(part, dims=shape))
            else:
                raise AdapterError(f"a delta on {part.height} rows cannot be put on a vocabulary of {shape[0]}")
        return parts[0] if len(parts) == 1 else Sum(tuple(parts))

    return replace(placed, shape=shape, build=build)


def untie(view: Checkpoint, places: Mapping[str, Places], tied: Tied, notes: list[str]) -> Checkpoint:
    """Keep a change of one tied embedding out of the other, or refuse.

    The same change of both stays one change of the shared tensor. Trainable tokens act on both, as PEFT trains them.
    """
    entrance = input_embedding(view.tensors)
    if not view.tied or entrance is None:
        for label, placed in places.items():
            if any(found.kinds == ("shared",) for found in placed.values()):
                raise AdapterError(f"adapter {label} was made on tied embeddings, and {view.path} does not tie its own")
        return view
    named = (name for placed in places.values() for name in placed if is_output(name))
    output = output_embedding(view.tensors) or next(named, untied_output(entrance))
    apart = [label for label, placed in places.items() if _pulls_apart(placed, entrance, output)]
    if apart and tied == "refuse":
        raise AdapterError(
            f"adapter {apart[0]} changes one of the two embeddings that {view.path} ties, and the change would "
            "leak into the other; --tied untie stores the output embedding by itself, --tied keep lets it act on both"
        )
    if apart and tied == "untie":
        for placed in places.values():
            if entrance in placed and placed[entrance].kinds in _OF_BOTH:
                placed.setdefault(output, placed[entrance])
        notes.append("embeddings untied: the output embedding is stored by itself")
        aliases = {} if output in view.tensors else {output: entrance}
        return view.extended(aliases, {}, {"tie_word_embeddings": False})
    for label, placed in places.items():
        outside = placed.pop(output, None)
        if label in apart and outside is not None and entrance in placed:
            raise AdapterError(f"adapter {label} changes both tied embeddings differently; use --tied untie")
        if outside is not None:
            placed.setdefault(entrance, outside)
        # A file may store the shared tensor twice.
        if entrance in placed and output in view.tensors:
            placed[output] = placed[entrance]
    if apart:
        notes.append("tied embeddings: the change of one acts on both")
    return view


def _pulls_apart(placed: Places, entrance: str, output: str) -> bool:
    """Whether an adapter changes the two embeddings differently; trainable tokens are trained for both."""
    inside, outside = placed.get(entrance), placed.get(output)
    if outside is None:
        return inside is not None and inside.kinds not in _OF_BOTH
    return inside is None or not _same(inside.build(), outside.build())


def _same(x: Delta, y: Delta) -> bool:
    first, second = summands(x), summands(y)
    return len(first) == len(second) and all(map(_same_part, first, second))


def _same_part(x: Delta, y: Delta) -> bool:
    if isinstance(x, LowRank) and isinstance(y, LowRank):
        return torch.equal(x.b, y.b) and torch.equal(x.a, y.a) and torch.equal(x.scale, y.scale)
    if isinstance(x, Replacement) and isinstance(y, Replacement):
        return torch.equal(x.tensor, y.tensor)
    if isinstance(x, TokenRows) and isinstance(y, TokenRows):
        return torch.equal(x.indices, y.indices) and torch.equal(x.values, y.values)
    return False
