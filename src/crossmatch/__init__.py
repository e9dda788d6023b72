"""crossmatch: train, merge, prove, measure and explain two LoRA adapters in one model.

    import crossmatch

    verdict = crossmatch.verify("models/merged")

Each command has an entry of its name, with the names of its options: `init`, `doctor`, `run`, `train`, `merge`,
`calibrate`, `verify`, `identify`, `inspect`, `evaluate`, `sweep`, `predict`, `compare`, `audit`, `analyse`, `report`,
and `vectors.extract`, `add`, `scale`, `apply`, `remove`, `inspect`. The algebra below them: `Checkpoint`, `Adapter`,
`TuningVector`, `write`. Names are loaded when they are first used: importing the package costs nothing.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossmatch.adapter import Adapter as Adapter
    from crossmatch.adapter import StoredVector as StoredVector
    from crossmatch.adapter import open_vector as open_vector
    from crossmatch.api import vectors as vectors
    from crossmatch.api.make import analyse as analyse
    from crossmatch.api.make import calibrate as calibrate
    from crossmatch.api.make import run as run
    from crossmatch.api.make import train as train
    from crossmatch.api.measure import audit as audit
    from crossmatch.api.measure import compare as compare
    from crossmatch.api.measure import evaluate as evaluate
    from crossmatch.api.measure import predict as predict
    from crossmatch.api.measure import sweep as sweep
    from crossmatch.api.merge import merge as merge
    from crossmatch.api.prove import identify as identify
    from crossmatch.api.prove import inspect as inspect
    from crossmatch.api.prove import verify as verify
    from crossmatch.api.show import report as report
    from crossmatch.checkpoint import Checkpoint as Checkpoint
    from crossmatch.delta import Dense as Dense
    from crossmatch.delta import LowRank as LowRank
    from crossmatch.delta import TuningVector as TuningVector
    from crossmatch.merging import write as write
    from crossmatch.study.doctor import doctor as doctor
    from crossmatch.study.init import init as init
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
    "calibrate": "crossmatch.api.make",
    "compare": "crossmatch.api.measure",
    "doctor": "crossmatch.study.doctor",
    "evaluate": "crossmatch.api.measure",
    "extract": "crossmatch.vectors",
    "identify": "crossmatch.api.prove",
    "init": "crossmatch.study.init",
    "inspect": "crossmatch.api.prove",
    "merge": "crossmatch.api.merge",
    "open_vector": "crossmatch.adapter",
    "predict": "crossmatch.api.measure",
    "report": "crossmatch.api.show",
    "run": "crossmatch.api.make",
    "sweep": "crossmatch.api.measure",
    "train": "crossmatch.api.make",
    "vectors": "crossmatch.api.vectors",
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
    "calibrate",
    "compare",
    "doctor",
    "evaluate",
    "extract",
    "identify",
    "init",
    "inspect",
    "merge",
    "open_vector",
    "predict",
    "report",
    "run",
    "sweep",
    "train",
    "vectors",
    "verify",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = importlib.import_module(_HOMES[name])
        return home if name == "vectors" else getattr(home, name)
    raise AttributeError(f"module 'crossmatch' has no attribute {name!r}")


# Python sets a sub-package that is imported as an attribute of its package, and asks no `__getattr__` for what is set.
class _Package(ModuleType):
    """The package, in which a command's entry goes before a room of the same name: importing `crossmatch.report` or
    `crossmatch.vectors` works as ever, but does not hide `crossmatch.report(...)` and `crossmatch.vectors.apply`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
