"""A full fine-tune as a tuning vector: what its checkpoint holds less what the base holds, read when asked for."""

from collections.abc import Iterator

from crossmatch.checkpoint import Checkpoint
from crossmatch.delta import Delta, Dense, TuningVector
from crossmatch.errors import InputError


class Difference(TuningVector):
    """tuned - base, tensor by tensor in float32; tensors that are equal to the bit are left out.

    Reads both checkpoints once to see which these are. Raises InputError if one holds a tensor that the other does not,
    or of another shape.
    """

    def __init__(self, base: Checkpoint, tuned: Checkpoint) -> None:
        check_same(base, tuned)
        self._base, self._tuned = base, tuned
        self._names = tuple(name for name in base if self._differs(name))
        self.terms = ((1.0, self),) if self._names else ()

    def __getitem__(self, name: str) -> Delta:
        if name not in self._names:
            raise KeyError(name)
        return Dense(self._tuned[name].float() - self._base[name].float())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def _differs(self, name: str) -> bool:
        return any(
            not bool((self._base.rows(name, *block).float() == self._tuned.rows(name, *block).float()).all())
            for block in self._base.blocks(name)
        )


def check_same(base: Checkpoint, tuned: Checkpoint) -> None:
    """Raise InputError unless both hold the same tensors, of the same shapes."""
    for name in sorted({*base, *tuned}):
        if name not in base or name not in tuned:
            lacking = base if name not in base else tuned
            raise InputError(f"{lacking.path} has no tensor {name}; the two models are of different architectures")
        if base.tensors[name].shape != tuned.tensors[name].shape:
            shapes = f"{tuple(base.tensors[name].shape)} in {base.path}, {tuple(tuned.tensors[name].shape)}"
            raise InputError(f"{name} is {shapes} in {tuned.path}; such models do not compare")
