"""How common n-grams and shingles are in a set itself: what its documents share is no sign that another set has them.

An instruction template stands in every document. What stands in a tenth of them, for 13 words or 20 characters on end,
is a template and no part of any n-gram; a shingle that stands in a tenth weighs nothing. Any other n-gram, or shingle,
that d of n documents have weighs log(n / d) / log(n): 1 if one document has it, less if several have. Counted are the
first documents of the set, 10,000 at most. `benchmarks/audit_false_alarms.py` has the rates of false alarms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmatch.evaluation.audit.fingerprints import Document, fingerprint, openings
from crossmatch.evaluation.audit.fingerprints import grams as grams_of
from crossmatch.evaluation.audit.tokens import I64, U64

DOCUMENTS = 10_000
_UNITS = 4_000_000
"""Documents that are counted, and their units, of which one document may have more."""
TEMPLATE_SHARE, _TEMPLATE_DOCUMENTS = 0.1, 3
"""Share of a set's documents, and least number of them, in which a template stands."""


@dataclass(frozen=True)
class Weights:
    """Hashes, sorted, that several documents have, and the weight of each; others weigh 1."""

    hashes: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))
    weights: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def of(self, values: U64) -> NDArray[np.float64]:
        """The weight of each value."""
        result = np.ones(len(values))
        if len(self.hashes):
            at = np.minimum(np.searchsorted(self.hashes, values), len(self.hashes) - 1)
            same = self.hashes[at] == values
            result[same] = self.weights[at[same]]
        return result


@dataclass(frozen=True)
class Common:
    """Weights of n-grams and of shingles of one set; template: sorted hashes of its templates' openings."""

    grams: Weights = field(default_factory=Weights)
    shingles: Weights = field(default_factory=Weights)
    template: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))

    def lost(self, shingles: U64) -> float:
        """What the weights of shingles fall short of 1, summed."""
        return float(len(shingles) - self.shingles.of(shingles).sum()) if len(self.shingles.hashes) else 0.0

    def save(self, folder: Path) -> None:
        """Keep the weights of shingles beside an index."""
        np.savez(folder / "common.npz", hashes=self.shingles.hashes, weights=self.shingles.weights)

    @classmethod
    def load(cls, folder: Path) -> "Common":
        """The weights of shingles of an index."""
        with np.load(folder / "common.npz") as stored:
            return cls(shingles=Weights(stored["hashes"], stored["weights"]))


@dataclass(frozen=True)
class Counted:
    """Of a block of documents: units: (documents); owners, hashes: for n-grams, shingles and openings, who has what."""

    units: I64
    owners: tuple[I64, ...]
    hashes: tuple[U64, ...]


def count_block(documents: Sequence[Document]) -> Counted:
    """What the documents of a block have, each thing once."""
    prints = fingerprint(documents)
    units = np.zeros(len(documents), np.int64)
    np.add.at(units, prints.document, prints.units.counts)
    owners, hashes = [], []
    flat, offsets, _ = grams_of(prints.units, prints.units.by_characters)
    for values, starts in ((flat, offsets), (prints.shingles, prints.offsets), openings(prints.units)):
        owner = np.repeat(prints.document, np.diff(starts))
        order = np.lexsort((owner, values))
        values, owner = values[order], owner[order]
        new = np.ones(len(values), bool)
        new[1:] = (np.diff(values) != 0) | (np.diff(owner) != 0)
        owners.append(owner[new])
        hashes.append(values[new])
    return Counted(units, tuple(owners), tuple(hashes))


def enough(blocks: Sequence[Counted]) -> bool:
    """Whether further documents would not be counted."""
    return sum(len(b.units) for b in blocks) >= DOCUMENTS or sum(int(b.units.sum()) for b in blocks) > _UNITS


def commonness(blocks: Sequence[Counted]) -> Common:
    """How common things are in the first documents of a set, given as its first blocks, whatever their size."""
    if not blocks:
        return Common()
    total = np.cumsum(np.concatenate([b.units for b in blocks])[:DOCUMENTS])
    n = max(int((total <= _UNITS).sum()), min(len(total), 1))
    starts = np.cumsum([0, *(len(b.units) for b in blocks)])
    found = []
    for kind in range(3):
        owners = np.concatenate([b.owners[kind] + start for b, start in zip(blocks, starts, strict=False)])
        hashes = np.concatenate([b.hashes[kind] for b in blocks])
        unique, times = np.unique(hashes[owners < n], return_counts=True)
        found.append((unique[times > 1], times[times > 1]))
    shared = max(_TEMPLATE_DOCUMENTS, TEMPLATE_SHARE * n)
    grams, shingles = (
        Weights(unique, np.where(times < shared, np.log(n / times) / np.log(max(n, 2)), 0))
        for unique, times in found[:2]
    )
    template, times = found[2]
    return Common(grams, shingles, template[times >= shared])
