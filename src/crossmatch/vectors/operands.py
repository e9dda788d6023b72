"""The parts of a sum, by names that they share, each a delta that stands by itself."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from crossmatch.adapter import Adapter, StoredDense, StoredVector, fit
from crossmatch.checkpoint import Checkpoint
from crossmatch.delta import Delta, TuningVector
from crossmatch.delta.deltas import ReadRows
from crossmatch.errors import AdapterError, InputError, RuleError
from crossmatch.rules import Heads

# Kinds of an adapter's parts that are relative to the weights they change.
_RELATIVE = {"dora": "DoRA", "saved": "saved modules", "tokens": "trained tokens"}
_REMEDY = "give it (--base BASE)"


@dataclass(frozen=True, eq=False)
class OnBase(Delta):
    """A delta that depends on the weights it changes, with these: what it is there, as a number for every element."""

    delta: Delta
    read: ReadRows

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.delta.shape

    @property
    def columns(self) -> int:
        """Width of the delta."""
        return self.delta.columns

    def scaled(self, weight: float) -> "OnBase":
        """weight * D."""
        return replace(self, delta=self.delta.scaled(weight))

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop], computed in float64."""
        del base
        return self.delta.rows(start, stop, torch.float64, self.read(start, stop).double()).to(dtype)


@dataclass(frozen=True, eq=False)
class Laid(Mapping[str, Delta]):
    """A part: tensor name -> delta. kinds: of each; added: name -> the stored vector's first row and key of rows that a
    vocabulary has gained."""

    build: Callable[[str], Delta]
    kinds: Mapping[str, str]
    added: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    vector: StoredVector | None = None

    def __getitem__(self, name: str) -> Delta:
        return self.build(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    def __contains__(self, name: object) -> bool:
        return name in self.kinds

    @property
    def is_double(self) -> bool:
        """Whether a dense delta of it is stored in float64."""
        infos = self.vector.files.tensors.items() if self.vector is not None else ()
        return any(key.startswith(("delta/", "shared/")) and info.dtype == torch.float64 for key, info in infos)


def lay(label: str, vector: TuningVector, base: Checkpoint | None) -> Laid:
    """A vector as a part of a sum.

    Stored vectors and adapters by their own names; adapters with a base by its names, and relative to it. Raises
    InputError for an adapter that needs its base and is given none, AdapterError for what does not fit the base that is
    given, RuleError for an adapter that added to the vocabulary.
    """
    if isinstance(vector, StoredVector):
        if base is not None:
            fit(base, {label: vector}, tied="keep")
        return Laid(partial(_own_rows, vector), {n: p.kind for n, (p,) in vector.parts.items()}, vector.added, vector)
    if isinstance(vector, Adapter) and base is not None:
        return _on_base(label, vector, base)
    if isinstance(vector, Adapter):
        _check_alone(label, vector)
        return Laid(vector.__getitem__, {n: p[0].kind for n, p in vector.parts.items()})
    return Laid(vector.__getitem__, dict.fromkeys(vector, "delta"))


def _own_rows(vector: StoredVector, name: str) -> Delta:
    """A stored delta without the zeros that stand for added rows."""
    delta = vector[name]
    if isinstance(delta, StoredDense) and name in vector.added:
        return replace(delta, dims=(vector.added[name][0], *delta.dims[1:]))
    return delta


def _check_alone(label: str, adapter: Adapter) -> None:
    for name, parts in adapter.parts.items():
        kinds = {part.kind for part in parts}
        found = next((what for kind, what in _RELATIVE.items() if kind in kinds), None)
        if found is not None:
            raise InputError(f"{label} has {found} ({name}), which mean something only beside the base; {_REMEDY}")
        if "experts" in kinds:
            raise InputError(f"{label} lies on experts ({name}), whose order the base knows; {_REMEDY}")
    if adapter.config.fan_in_fan_out:
        raise InputError(f"{label} lies on weights that are stored transposed (fan_in_fan_out); {_REMEDY}")


def _on_base(label: str, adapter: Adapter, base: Checkpoint) -> Laid:
    try:
        found = fit(base, {label: adapter})
    except AdapterError as error:
        if "--tied" in str(error):
            raise RuleError(
                f"{label} changes one of two tied embeddings: merge it with --tied, then extract the result"
            ) from error
        raise
    if found.grown_by is not None:
        raise RuleError(f"{label} added tokens to the vocabulary: merge it, then extract the result")
    fitted = found.vectors[label]

    def build(name: str) -> Delta:
        delta = fitted[name]
        if not delta.needs_base:
            return delta
        read: Any = lambda start, stop: base.rows(name, start, stop, delta.columns)  # noqa: E731
        return OnBase(delta.bind(read), read)

    return Laid(build, dict.fromkeys(fitted, "delta"))


def heads_of(parts: Mapping[str, tuple[TuningVector, object]], base: Checkpoint | None) -> Heads | None:
    """The model's attention heads: of the base's config, or as the manifest of a stored vector has them."""
    if base is not None:
        return Heads.of(base.config)
    for vector, _ in parts.values():
        known = vector.record.get("heads") if isinstance(vector, StoredVector) else None
        if isinstance(known, dict):
            fields = {"num_attention_heads": "queries", "num_key_value_heads": "groups", "head_dim": "width"}
            return Heads.of({field: known.get(key) for field, key in fields.items()})
    return None
