"""One training run in several processes, as `accelerate launch` and `torchrun` start them."""

import os
from dataclasses import dataclass

from crossmatch.errors import InputError


@dataclass(frozen=True)
class Processes:
    """count: of the run; rank: of this one, from 0. The first speaks, and writes all that is not gathered by all."""

    count: int = 1
    rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Sequences of a batch that each process takes: what a step sees does not depend on how many there are.

        Raises InputError if a batch cannot be divided.
        """
        if batch_size % self.count:
            raise InputError(
                f"batch_size {batch_size} cannot be divided among {self.count} processes; give a multiple, as in "
                f"--set batch_size={self.count * -(-batch_size // self.count)}"
            )
        return batch_size // self.count

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()


def this_run() -> Processes:
    """What the launcher says. Without a local rank there is none, whatever a scheduler has put into WORLD_SIZE: the
    trainer would run alone, on a share of each batch."""
    if "LOCAL_RANK" not in os.environ:
        return Processes()
    return Processes(int(os.environ.get("WORLD_SIZE") or 1), int(os.environ.get("RANK") or 0))
