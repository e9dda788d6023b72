"""Kinds of tensors that tools add to by code of their own, and so by other arithmetic."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from crossmatch.checkpoint import Checkpoint, input_embedding

Kind = frozenset[str]


@dataclass(frozen=True)
class Kinds:
    """What is added to the tensors of a base; found: kinds of the deltas (low-rank, experts, dora), by tensor name."""

    base: Checkpoint
    found: Mapping[str, set[str]] = field(default_factory=dict)

    def of(self, name: str) -> Kind:
        """What is added to a tensor, and to what: an embedding, or a tensor of more than two axes."""
        kind = set(self.found.get(name, ()))
        if name == self._embedding:
            kind.add("embedding")
        if len(self.base.tensors[name].shape) > 2:
            kind.add("wide")
        return frozenset(kind)

    @cached_property
    def _embedding(self) -> str | None:
        return input_embedding(self.base.tensors)

    def groups(self, names: Iterable[str]) -> dict[Kind, list[str]]:
        """Tensors by kind, first the kind that holds most of the elements."""
        found: dict[Kind, list[str]] = {}
        for name in names:
            found.setdefault(self.of(name), []).append(name)
        return dict(sorted(found.items(), key=lambda kind: -sum(self.base.tensors[n].elements for n in kind[1])))
