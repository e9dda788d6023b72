"""How adapters lie on a base: which tensor of the checkpoint each delta belongs to, checked before anything is written.

Three things may stand between them. Names: what a model calls its tensors is not always what its file calls them.
Ties: one tensor serves as input and output embedding, and a change of one would leak into the other. Vocabulary: rows
were added to the embeddings before training.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from crossmatch.adapter.adapter import Adapter
from crossmatch.adapter.embeddings import Tied, grow, untie
from crossmatch.adapter.stored_vector import StoredVector
from crossmatch.adapter.tensor_names import Placed, Places, place
from crossmatch.checkpoint import DTYPE_NAMES, Checkpoint, input_embedding, is_output
from crossmatch.delta import STORABLE, Built, Delta, Replacement, Sum, TokenRows, TuningVector, summands
from crossmatch.errors import AdapterError


@dataclass(frozen=True)
class Fit:
    """Adapters on their base.

    base: the checkpoint as the adapters saw it, grown or untied where that was so; vectors: by tensor names of `base`;
    notes: what had to be done to make them meet; grown_by: whose vocabulary it is, if one added to it.
    """

    base: Checkpoint
    vectors: Mapping[str, "Fitted"]
    notes: tuple[str, ...] = ()
    grown_by: str | None = None


class Fitted(Built):
    """Deltas by the base's tensor names, built when asked for."""

    def __init__(self, places: Mapping[str, Placed]) -> None:
        super().__init__({name: placed.build for name, placed in places.items()})
        self._places = dict(places)

    def by_source(self, adapter: Adapter | StoredVector) -> "Fitted":
        """The same under the adapter's own names; experts that the base keeps apart are one delta there."""
        places = {placed.source: placed for placed in self._places.values()}
        for name in places:
            if any(part.kind == "experts" for part in adapter.parts[name]):
                places[name] = replace(places[name], build=partial(adapter.__getitem__, name))
        return Fitted({name: places[name] for name in adapter if name in places})

    def source(self, name: str) -> str:
        """The adapter's own name of a delta."""
        return self._places[name].source

    def turned(self, name: str) -> bool:
        """Whether the tensor is stored transposed."""
        return self._places[name].turned

    def kinds(self, name: str) -> tuple[str, ...]:
        """Kinds of the parts of a delta: low-rank, dora, bias, saved, tokens, experts, or expert where the base
        stores each of these by itself; delta for any other vector, shared for one on two tied embeddings."""
        return self._places[name].kinds


def fit(
    base: Checkpoint, vectors: Mapping[str, TuningVector], *, tied: Tied = "refuse", incomplete: Collection[str] = ()
) -> Fit:
    """Find for every delta its tensor in `base`, and check that it fits; incomplete: adapters that may have holes.

    Raises AdapterError for a delta without a tensor of its shape, for targeted modules that an adapter leaves out
    although it covers others of their kind, for a change of one of two tied embeddings (unless `tied` says what to do),
    and for two vocabularies of different size.
    """
    notes: list[str] = []
    places = {label: place(label, v, base, notes, partial=label in incomplete) for label, v in vectors.items()}
    view, grown_by = grow(base, vectors, places)
    for label in places:
        _drop_unchanged(label, vectors[label], places[label], view)
    view = untie(view, places, tied, notes)
    for label, placed in places.items():
        for name, found in placed.items():
            _check(label, name, found, view)
            if found.shape[:1] == (-1,):
                placed[name] = replace(found, build=partial(_sized, found.build, view.tensors[name].shape))
    if grown_by is not None:
        notes.append(f"vocabulary of {grown_by}: {view.config.get('vocab_size')} tokens")
    return Fit(view, {k: Fitted(p) for k, p in places.items()}, tuple(dict.fromkeys(notes)), grown_by)


def _drop_unchanged(label: str, vector: TuningVector, places: Places, view: Checkpoint) -> None:
    """Leave out saved layers that are the base's own: PEFT saves embeddings as soon as an adapter lies on them."""
    for name in [n for n, p in places.items() if "saved" in p.kinds]:
        placed = places[name]
        stored = _stored(name, view)
        whole = placed.build()
        if stored is None or whole.shape != view.tensors[stored].shape:
            continue
        saved = next((part for part in summands(whole) if isinstance(part, Replacement)), None)
        # Trained tokens lie in the saved layer already.
        if saved is None or not _equal(saved, view, stored):
            if "dora" in placed.kinds:
                raise AdapterError(
                    f"adapter {label}: {name} was adapted (DoRA) on other weights than {view.path} holds"
                )
            continue
        kinds = tuple(k for k in placed.kinds if k not in ("saved", "tokens"))
        if kinds:
            places[name] = replace(placed, kinds=kinds, build=partial(_without_saved, placed.build))
        else:
            del places[name]


def _without_saved(build: Callable[[], Delta]) -> Delta:
    rest = tuple(part for part in summands(build()) if not isinstance(part, Replacement))
    return rest[0] if len(rest) == 1 else Sum(rest)


def _equal(saved: Replacement, view: Checkpoint, name: str) -> bool:
    theirs = saved.tensor.reshape(saved.height, saved.columns)
    dtype = view.tensors[name].dtype
    return all(
        torch.equal(theirs[start:stop].to(dtype), view.rows(name, start, stop)) for start, stop in view.blocks(name)
    )


def _sized(build: Callable[[], Delta], shape: tuple[int, ...]) -> Delta:
    """Tokens with the size of the embedding that they are rows of. Raises AdapterError for a token beyond it."""
    delta = build()
    assert isinstance(delta, TokenRows)
    if int(delta.indices.max()) >= shape[0]:
        raise AdapterError(f"token {int(delta.indices.max())} was trained, the vocabulary has {shape[0]}")
    return replace(delta, dims=shape)


def _stored(name: str, view: Checkpoint) -> str | None:
    """The tensor that holds what `name` is in the model: itself, or the input embedding for a tied output."""
    if name in view.tensors:
        return name
    return input_embedding(view.tensors) if is_output(name) and view.tied else None


def _check(label: str, name: str, placed: Placed, view: Checkpoint) -> None:
    info = view.tensors[name]
    if len(placed.shape) != len(info.shape) or any(
        a not in (-1, b) for a, b in zip(placed.shape, info.shape, strict=True)
    ):
        why = "it was trained on another base; give that one"
        if _is_grouped(placed.shape, info.shape):
            why = "the convolution has groups, and the adapter's does not: no weight of the base can hold the sum"
        shapes = f"a delta of {list(placed.shape)}, the base a tensor of {list(info.shape)}"
        raise AdapterError(f"adapter {label}: {name} has {shapes}; {why}")
    if info.dtype not in STORABLE:
        raise AdapterError(f"adapter {label}: {name} is stored as {DTYPE_NAMES[info.dtype]}, which takes no delta")


def _is_grouped(delta: tuple[int, ...], stored: tuple[int, ...]) -> bool:
    """Whether shapes differ only in that each output channel of the base sees a group of those that the delta sees."""
    return (
        min(len(delta), len(stored)) > 2
        and (delta[0], *delta[2:]) == (stored[0], *stored[2:])
        and stored[1] > 0
        and delta[1] % stored[1] == 0
    )
