"""Random numbers that belong to an element, not to a moment: the same for any sharding, block size or order."""

import numpy as np
import torch
from torch import Tensor

from crossmatch.checkpoint import bytes_digest

# A step of Philox's counter yields four numbers.
_PER_STEP = 4


def uniform(seed: int, label: str, tensor: str, start: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1) of elements [start:start + count] of a tensor, (count,) float64.

    Philox (Salmon et al., 2011, doi 10.1145/2063384.2063405) with a key from seed, label (the adapter, say) and the
    tensor's name, at the counter of the element. Raw words are taken, which numpy promises never to change.
    """
    key = int(bytes_digest(f"{seed}\0{label}\0{tensor}".encode())[:32], 16)
    step, skipped = divmod(start, _PER_STEP)
    words = np.random.Philox(key=key, counter=step).random_raw(skipped + count)[skipped:]
    return torch.from_numpy((words >> np.uint64(11)) * 2.0**-53)
