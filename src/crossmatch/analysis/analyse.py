"""From paths to one result: what `crossmatch analyse` prints and writes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from crossmatch.adapter import CONFIG_FILE, Adapter, fit, is_vector, open_vector
from crossmatch.analysis.checkpoint_difference import Difference
from crossmatch.analysis.weights.delta_matrix import LeftOut
from crossmatch.analysis.weights.tables import Wanted, analyse
from crossmatch.checkpoint import Checkpoint, locate
from crossmatch.delta import TuningVector
from crossmatch.errors import DataError, EqualError
from crossmatch.results.analysis import AnalysedVectorJson, AnalysisJson
from crossmatch.runtime import SILENT, Progress


@dataclass(frozen=True)
class OpenedVector:
    """What is known of one vector. made_on: digest of the base that it was made on, None if nothing records it."""

    path: str
    kind: Literal["adapter", "vector", "checkpoint"]
    tensors: int
    digest: str = ""
    made_on: str | None = None

    def to_dict(self, base: str | None) -> AnalysedVectorJson:
        """As plain JSON; base: the digest of the base, None if its weights were not read."""
        return {
            "path": self.path,
            "kind": self.kind,
            "digest": self.digest,
            "tensors": self.tensors,
            # Not known where the weights were not read, or nothing was recorded.
            "on_its_base": self.made_on == base if self.made_on and base else None,
        }


@dataclass(frozen=True)
class Opened:
    """A base and what is analysed on it. base: as the vectors saw it (grown by an adapter's tokens); vectors: by its
    tensor names; facts: path, kind and digest of each; same: those that are the base; left_out: what they hold
    beside."""

    base: Checkpoint
    vectors: Mapping[str, TuningVector]
    facts: Mapping[str, OpenedVector]
    left_out: tuple[LeftOut, ...] = field(default=())


def open_vectors(base: str | Path, sources: Mapping[str, str | Path]) -> Opened:
    """Open a base, and adapters, stored vectors or tuned checkpoints on it, by name.

    Raises InputError for what does not fit together, EqualError for a checkpoint that is the base itself.
    An adapter that changes one of two tied embeddings is taken as it stands: its change acts on both.
    """
    checkpoint = Checkpoint(base)
    if checkpoint.quantisation:
        raise DataError(
            f"{checkpoint.path} is quantised ({checkpoint.quantisation}): its singular directions would be those of "
            "the rounding too; give the base that it was made from"
        )
    adapters: dict[str, TuningVector] = {}
    tuned: dict[str, Difference] = {}
    facts: dict[str, OpenedVector] = {}
    for label, source in sources.items():
        path = locate(source).path
        if (path / CONFIG_FILE).exists() or is_vector(path):
            known = adapters[label] = open_vector(source)
            kind = "adapter" if isinstance(known, Adapter) else "vector"
            facts[label] = OpenedVector(str(path), kind, len(known), known.digest, known.trained_on)
        else:
            found = tuned[label] = Difference(checkpoint, Checkpoint(source))
            facts[label] = OpenedVector(str(path), "checkpoint", len(found))
    for label, vector in tuned.items():
        if vector.is_zero():
            raise EqualError(
                f"{label} ({vector.tuned.path}) is the base itself: every tensor is equal, nothing was tuned"
            )
        facts[label] = replace(facts[label], digest=vector.tuned.digest)
    placed = fit(checkpoint, adapters, tied="keep") if adapters else None
    vectors = {**(placed.vectors if placed else {}), **tuned}
    left_out = [
        LeftOut(label, name, "everything", why) for label, v in tuned.items() for name, why in v.left_out.items()
    ]
    view = placed.base if placed else checkpoint
    return Opened(view, {x: vectors[x] for x in sources}, facts, tuple(left_out))


def assemble(opened: Opened, wanted: Wanted | None = None, *, progress: Progress = SILENT) -> AnalysisJson:
    """The whole result as plain JSON. Each part of an analysis is one or several keys of it; another part, another key.

    The base's digest is None where its weights were not read.
    """
    wanted, started = wanted or Wanted(), time.monotonic()
    weights = analyse(opened.base, opened.vectors, wanted, progress=progress)
    weights["left_out"] = [item.to_dict() for item in opened.left_out] + weights["left_out"]
    base, digest = opened.base.original, None
    if wanted.aligned:
        with progress.task("digest"):
            digest = base.digest
    architectures = base.config.get("architectures")
    return {
        "schema_version": 1,
        "base": {
            "path": str(base.path),
            "architecture": str(architectures[0]) if isinstance(architectures, list) and architectures else None,
            "digest": digest,
        },
        "vectors": {name: opened.facts[name].to_dict(digest) for name in opened.vectors},
        **weights,
        "seconds": round(time.monotonic() - started, 2),
    }
