"""crossmatch: train, merge, prove, measure and explain two LoRA adapters in one model.

    import crossmatch

    verdict = crossmatch.verify("models/merged")

Each command has an entry of its name, with the names of its options: `verify`, `identify`, `inspect`, `evaluate`,
`compare`, `audit`, `analyse`, `train`, `run`, `merge`, `doctor`, `init`. The algebra below them: `Checkpoint`,
`Adapter`, `TuningVector`, `write`. Names are loaded when they are first used: importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossmatch.adapter import Adapter as Adapter
    from crossmatch.adapter import StoredVector as StoredVector
    from crossmatch.adapter import open_vector as open_vector
    from crossmatch.api.make import analyse as analyse
    from crossmatch.api.make import run as run
    from crossmatch.api.make import train as train
    from crossmatch.api.measure import audit as audit
    from crossmatch.api.measure import compare as compare
    from crossmatch.api.measure import evaluate as evaluate
    from crossmatch.api.prove import identify as identify
    from crossmatch.api.prove import inspect as inspect
    from crossmatch.api.prove import verify as verify
    from crossmatch.checkpoint import Checkpoint as Checkpoint
    from crossmatch.delta import Dense as Dense
    from crossmatch.delta import LowRank as LowRank
    from crossmatch.delta import TuningVector as TuningVector
    from crossmatch.merging import merge as merge
    from crossmatch.merging import write as write
    from crossmatch.study.doctor import doctor as doctor
    from crossmatch.study.init import init as init
    from crossmatch.sweeping import sweep as sweep
    from crossmatch.vectors import extract as extract
    from crossmatch.verification import Verdict as Verdict

_HOMES = {
    "Adapter": "crossmatch.adapter",
    "Checkpoint": "crossmatch.checkpoint",
    "Dense": "crossmatch.delta",
    "LowRank": "crossmatch.delta",
    "StoredVector": "crossmatch.adapter",
    "TuningVector": "crossmatch.delta",
    "Verdict": "crossmatch.verification",
    "analyse": "crossmatch.api.make",
    "audit": "crossmatch.api.measure",
    "compare": "crossmatch.api.measure",
    "doctor": "crossmatch.study.doctor",
    "evaluate": "crossmatch.api.measure",
    "extract": "crossmatch.vectors",
    "identify": "crossmatch.api.prove",
    "init": "crossmatch.study.init",
    "inspect": "crossmatch.api.prove",
    "merge": "crossmatch.merging",
    "open_vector": "crossmatch.adapter",
    "run": "crossmatch.api.make",
    "sweep": "crossmatch.sweeping",
    "train": "crossmatch.api.make",
    "verify": "crossmatch.api.prove",
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
    "analyse",
    "audit",
    "compare",
    "doctor",
    "evaluate",
    "extract",
    "identify",
    "init",
    "inspect",
    "merge",
    "open_vector",
    "run",
    "sweep",
    "train",
    "verify",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'crossmatch' has no attribute {name!r}")
