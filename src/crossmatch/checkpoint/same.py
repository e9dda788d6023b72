"""Two checkpoints of one model: which tensors of theirs are the same one, and what only one of them needs to store."""

import torch

from crossmatch.checkpoint.checkpoint import Checkpoint
from crossmatch.checkpoint.naming import namings, same_tensors, ties_by_default
from crossmatch.checkpoint.tensor_names import input_embedding, is_output

# Constants that classes of former versions stored, and no class has any more.
_FORMER = ("masked_bias",)


def by_names_of(base: Checkpoint, other: Checkpoint) -> tuple[Checkpoint, dict[str, str]]:
    """Another checkpoint of the model by the base's tensor names, and its own names of those that go by another one.

    What transformers loads as the same tensor of the model is the same. The view reads the same files; it is the
    checkpoint itself where all names agree.
    """
    classes = dict.fromkeys((*namings(other.config), *namings(base.config)))
    names, _ = same_tensors(base.tensors, other.tensors, classes)
    return (other.renamed(names), names) if names else (other, names)


def is_needless(name: str, holder: Checkpoint, other: Checkpoint) -> bool:
    """Whether a tensor that only `holder` stores holds nothing that `other` lacks.

    Two kinds are: what the model's class makes by itself, and passes over in files (masks, frequencies); and the second
    copy of tied embeddings, if both configs tie them and both files hold the first.
    """
    return is_made_by_class(name, holder) or _is_second_copy(name, holder, other)


def is_made_by_class(name: str, holder: Checkpoint) -> bool:
    """Whether a tensor is one that the model computes: its class passes over it, and it is no weight, nor beside one.

    A class may pass over trained layers too, as those that predict several tokens ahead; they are not meant.
    """
    module, _, leaf = name.rpartition(".")
    if leaf == "weight" or f"{module}.weight" in holder.tensors:
        return False
    return leaf in _FORMER or any(naming.ignores(name) for naming in namings(holder.config)[:1])


def _is_second_copy(name: str, holder: Checkpoint, other: Checkpoint) -> bool:
    if not (_ties(holder) and _ties(other)):
        return False
    first = _first_copy(name, holder)
    if first is None or first not in other.tensors:
        return False
    ours, theirs = holder.tensors[name], holder.tensors[first]
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return False
    return all(torch.equal(holder.rows(name, *rows), holder.rows(first, *rows)) for rows in holder.blocks(name))


def _first_copy(name: str, holder: Checkpoint) -> str | None:
    """The tensor with which the model's class ties another one; by known names, if the class is not known."""
    for naming in namings(holder.config)[:1]:
        shared = next((n for n in holder.tensors if n != name and naming.shares(name, n)), None)
        if shared is not None:
            return shared
    return input_embedding(holder.tensors) if is_output(name) else None


def _ties(checkpoint: Checkpoint) -> bool:
    """Whether embeddings are tied, by the config or, if it does not say, by the class."""
    return checkpoint.tied or ties_by_default(checkpoint.config)
