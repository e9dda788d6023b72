"""A tuning vector: what a fine-tune changed, as a mapping from tensor name to delta."""

import html
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from crossmatch.delta.compound import linear
from crossmatch.delta.deltas import Delta, check_weights
from crossmatch.delta.geometry import inner, norm
from crossmatch.errors import RuleError
from crossmatch.export.results import Tabled, by_name
from crossmatch.export.table import Table
from crossmatch.export.tables.others import vector_tables


class TuningVector(Mapping[str, Delta], Tabled):
    """A weighted sum of sources, each a mapping *tensor name -> Delta*: v = sum_i weight_i * source_i.

    Sums and multiples only note the weights; a delta is formed when it is asked for, and factors stay factors.
    Terms of weight zero, and empty ones, are dropped, so that `0 * v` leaves a base untouched bit for bit.
    """

    def __init__(self, source: Mapping[str, Delta]) -> None:
        self.terms: tuple[tuple[float, Mapping[str, Delta]], ...] = ((1.0, source),)

    @classmethod
    def of(cls, *terms: tuple[float, Mapping[str, Delta]]) -> "TuningVector":
        """The vector sum_i weight_i * source_i; a source that appears twice has its weights added."""
        merged: list[list] = []
        for weight, source in terms:
            check_weights([weight])
            for known in merged:
                if known[1] is source:
                    known[0] += weight
                    break
            else:
                merged.append([weight, source])
        vector = TuningVector({})
        vector.terms = tuple((float(w), s) for w, s in merged if w != 0.0 and len(s))
        return vector

    @cached_property
    def _order(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for _, source in self.terms for name in source))

    def __getitem__(self, name: str) -> Delta:
        parts = [(weight, source[name]) for weight, source in self.terms if name in source]
        if not parts:
            raise KeyError(name)
        return linear([delta for _, delta in parts], [weight for weight, _ in parts])

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, name: object) -> bool:
        return any(name in source for _, source in self.terms)

    # Two vectors are the same only if they are one object: comparing tensors by value is a question for `distance`.
    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __mul__(self, weight: float) -> "TuningVector":
        if not isinstance(weight, int | float):
            return NotImplemented
        check_weights([weight])
        return TuningVector.of(*((weight * w, source) for w, source in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> "TuningVector":
        return -1.0 * self

    def __add__(self, other: "TuningVector") -> "TuningVector":
        if not isinstance(other, TuningVector):
            return NotImplemented
        return TuningVector.of(*self.terms, *other.terms)

    def __sub__(self, other: "TuningVector") -> "TuningVector":
        return self + -1.0 * other

    def __repr__(self) -> str:
        path = getattr(self, "path", None)
        if path is not None or any(source is self for _, source in self.terms):
            place = "" if path is None else f"{str(path)!r}, "
            return f"{type(self).__name__}({place}{len(self)} tensors)"
        terms = [f"{weight:g} * {_called(source)}" for weight, source in self.terms]
        return f"TuningVector({' + '.join(terms) or 'zero'})"

    def _repr_html_(self) -> str:
        # Its table has norms, which are read from files: not before somebody asks for it.
        return f"<code>{html.escape(repr(self))}</code>"

    def tables(self) -> dict[str, Table]:
        """One table, `tensors`: kind, size, rank and Frobenius norm of every delta; each is formed for it. The norm is
        None where it depends on the base (DoRA, a replacement)."""
        return by_name(vector_tables([_row(name, self[name]) for name in self]))

    def inner(self, other: "TuningVector") -> float:
        """<u, v> = sum of the tensors' Frobenius inner products; tensors in only one of them count zero."""
        return sum(inner(self[name], other[name]) for name in self if name in other)

    def norm(self) -> float:
        """||v|| = sqrt(sum of the tensors' squared Frobenius norms)."""
        return math.hypot(*(norm(self[name]) for name in self))

    def cosine(self, other: "TuningVector") -> float:
        """<u, v> / (||u|| ||v||). Raises RuleError for a vector of norm zero."""
        size = self.norm() * other.norm()
        if size == 0.0:
            raise RuleError("the cosine with a zero vector is not defined")
        return max(-1.0, min(1.0, self.inner(other) / size))


def _called(source: Mapping[str, Delta]) -> str:
    return repr(source) if isinstance(source, TuningVector) else f"{len(source)} tensors"


def _row(name: str, delta: Delta) -> dict[str, Any]:
    size = None if delta.needs_base else norm(delta)
    kind, rank = type(delta).__name__, getattr(delta, "rank", None)
    return {"tensor": name, "kind": kind, "rows": delta.height, "columns": delta.columns, "rank": rank, "norm": size}


class Built(TuningVector):
    """A vector whose deltas are built when they are asked for, so that whole matrices need not be held."""

    def __init__(self, makers: Mapping[str, Callable[[], Delta]]) -> None:
        self._makers = dict(makers)
        self.terms = ((1.0, self),)

    def __getitem__(self, name: str) -> Delta:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __contains__(self, name: object) -> bool:
        return name in self._makers
