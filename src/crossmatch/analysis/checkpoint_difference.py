"""A full fine-tune as a tuning vector: the difference of two checkpoints, read in blocks when it is asked for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossmatch.checkpoint import DTYPE_NAMES, Checkpoint, is_output
from crossmatch.delta import STORABLE, Delta, TuningVector
from crossmatch.errors import DataError


@dataclass(frozen=True, eq=False)
class Stored(Delta):
    """D = s (T - W) for one tensor of two checkpoints, neither of which is kept in memory."""

    tuned: Checkpoint
    base: Checkpoint
    name: str
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""
        return self.tuned.tensors[self.name].shape

    def scaled(self, weight: float) -> "Stored":
        """weight * D."""
        return replace(self, scale=self.scale * weight)

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop]; the difference of two 16-bit numbers is formed in `dtype`."""
        del base
        theirs = self.tuned.rows(self.name, start, stop).to(dtype)
        return (theirs - self.base.rows(self.name, start, stop).to(dtype)) * self.scale


class Difference(TuningVector):
    """tuned - base, tensor name -> delta, for two checkpoints of one architecture.

    left_out: tensors that only one of them stores and that mean nothing of their own (an output embedding that is tied
    in one and stored in the other). Raises DataError for different tensors, shapes or vocabularies, and for a quantised
    side.
    """

    def __init__(self, base: Checkpoint, tuned: Checkpoint) -> None:
        self.base, self.tuned = base, tuned
        self.left_out: dict[str, str] = {}
        for side in (base, tuned):
            if side.quantisation:
                raise DataError(f"{side.path} is quantised ({side.quantisation}); give the weights it was made from")
        self._check_names()
        self._names = [name for name, info in base.tensors.items() if name in tuned.tensors and _taken(info.dtype)]
        for name in self._names:
            theirs, ours = tuned.tensors[name], base.tensors[name]
            if theirs.shape != ours.shape:
                raise DataError(self._shapes(name, ours.shape, theirs.shape))
            if not _taken(theirs.dtype):
                raise DataError(f"{tuned.path}: {name} is stored as {DTYPE_NAMES[theirs.dtype]}, which is no weight")
        self.terms = ((1.0, self),)

    def _check_names(self) -> None:
        for here, there in ((self.base, self.tuned), (self.tuned, self.base)):
            only = [name for name in here.tensors if name not in there.tensors]
            tied = [name for name in only if is_output(name)]
            if tied == only:
                self.left_out |= dict.fromkeys(tied, f"{there.path} stores none: it is tied to the input there")
                continue
            first = next(name for name in only if name not in tied)
            raise DataError(
                f"{self.base.path} and {self.tuned.path} are of different architectures: {len(only)} of "
                f"{len(here.tensors)} tensors of {here.path} are not in the other, first {first}"
            )

    def _shapes(self, name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
        sizes = f"{list(ours)} in {self.base.path}, {list(theirs)} in {self.tuned.path}"
        if ours[1:] == theirs[1:] and ours[0] == self.base.config.get("vocab_size"):
            return f"{name} is {sizes}: two vocabularies; a difference needs one"
        return f"{name} is {sizes}: different architectures"

    def __getitem__(self, name: str) -> Delta:
        if name not in self:
            raise KeyError(name)
        return Stored(self.tuned, self.base, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self.tuned.tensors and name in self.base.tensors and name not in self.left_out

    def is_zero(self) -> bool:
        """Whether every element is the base's; ends at the first that is not."""
        return all(
            torch.equal(self.tuned.rows(name, *block).float(), self.base.rows(name, *block).float())
            for name in self
            for block in self.base.blocks(name)
        )


def _taken(dtype: torch.dtype) -> bool:
    return dtype in STORABLE or dtype == torch.float64
