"""crossmatch: train, merge, prove, measure and explain two LoRA adapters in one model.

    from crossmatch import Adapter, Checkpoint, verify, write

Names are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossmatch.adapter import Adapter as Adapter
    from crossmatch.adapter import StoredVector as StoredVector
    from crossmatch.adapter import open_vector as open_vector
    from crossmatch.checkpoint import Checkpoint as Checkpoint
    from crossmatch.delta import Dense as Dense
    from crossmatch.delta import LowRank as LowRank
    from crossmatch.delta import TuningVector as TuningVector
    from crossmatch.merging import merge as merge
    from crossmatch.merging import write as write
    from crossmatch.sweeping import sweep as sweep
    from crossmatch.vectors import extract as extract
    from crossmatch.verification import Verdict as Verdict
    from crossmatch.verification import identify as identify
    from crossmatch.verification import verify as verify

_HOMES = {
    "Adapter": "crossmatch.adapter",
    "Checkpoint": "crossmatch.checkpoint",
    "Dense": "crossmatch.delta",
    "LowRank": "crossmatch.delta",
    "StoredVector": "crossmatch.adapter",
    "TuningVector": "crossmatch.delta",
    "Verdict": "crossmatch.verification",
    "extract": "crossmatch.vectors",
    "identify": "crossmatch.verification",
    "merge": "crossmatch.merging",
    "open_vector": "crossmatch.adapter",
    "sweep": "crossmatch.sweeping",
    "verify": "crossmatch.verification",
    "write": "crossmatch.merging",
}
__all__ = [
    "Adapter",
    "Checkpoint",
    "Dense",
    "LowRank",
    "StoredVector",
    "TuningVector",
    "Verdict",
    "extract",
    "identify",
    "merge",
    "open_vector",
    "sweep",
    "verify",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'crossmatch' has no attribute {name!r}")
