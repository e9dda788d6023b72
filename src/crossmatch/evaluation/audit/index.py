"""An index of documents, in files that all processes map: which of its keys occur in a block of other documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmatch.evaluation.audit.commonness import Common
from crossmatch.evaluation.audit.fingerprints import BANDS, FIELDS, Document, Prints, fingerprint
from crossmatch.evaluation.audit.fingerprints import jaccard as jaccard_index
from crossmatch.evaluation.audit.tokens import I64, U64, Units, mix

JACCARD = 0.8
LEVELS = ("exact", "normalised", "ngram", "near")
AGAINST: dict[str, tuple[str, ...]] = {
    "whole": ("whole", "question", "beside"),
    "question": ("question", "whole", "beside"),
    "answer": ("answer", "whole", "beside"),
}
"""A held-out text of this scope is looked for among train texts of these fields; its n-grams among those of whole texts
and of what stands beside them."""
_BUCKET = 64
_CANDIDATES = 32
"""Bounds for templates: texts of a bucket that are taken, and pairs a train text whose Jaccard index is computed."""
_EMPTY, _NONE = np.zeros(0, np.int64), np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Hits:
    """Keys of one level that occur in a block: their places, the first document with each, a value (Jaccard index).

    A place is `field * keys + key`, for the n-grams, which have no field, the key. cut: texts of the block that had
    more candidates than were compared.
    """

    place: I64
    position: I64
    value: NDArray[np.float64] | None = None
    cut: int = 0


def look(block: Sequence[Document], start: int, folders: Sequence[Path]) -> list[dict[str, Hits]]:
    """What of each index occurs in a block of documents, the first of which has position `start`: level -> hits."""
    prints = fingerprint(block)
    position = prints.document + start
    whole = np.isin(prints.scope, [FIELDS.index("whole"), FIELDS.index("beside")])
    indexes = [_open(folder) for folder in folders]
    windows = _windows(prints.units, whole, position, sorted({n for index in indexes for n in index["lengths"]}))
    result = []
    for index in indexes:
        mine = [windows[n] for n in index["lengths"]]
        values, positions = (np.concatenate(parts) for parts in zip(*mine, strict=True)) if mine else (_NONE, _EMPTY)
        place, first = index["ngram"].first(values, positions)
        hits = {"ngram": Hits(place, first)}
        for level, key in (("exact", prints.raw), ("normalised", prints.units.normal)):
            found, rows = index[level].find(key)
            hits[level] = Hits(*_first(found + prints.scope[rows].astype(np.int64) * index[level].size, position[rows]))
        hits["near"] = _look_near(index["near"], index["buckets"], prints, position)
        result.append(hits)
    return result


def _windows(
    units: Units, chosen: NDArray[np.bool_], position: I64, lengths: Sequence[int]
) -> dict[int, tuple[U64, I64]]:
    """length -> n-grams of the chosen texts, and the position of each one's document."""
    result = {}
    for n, (values, offsets) in zip(lengths, units.windows(*lengths), strict=True):
        counts = np.diff(offsets)
        result[n] = values[np.repeat(chosen, counts)], np.repeat(position[chosen], counts[chosen])
    return result


class _Table:
    """Sorted unique keys and a filter of 8 bits a key, so that what is absent mostly costs one look into it."""

    def __init__(self, file: Path) -> None:
        self.keys: U64 = np.load(file.with_suffix(".npy"), mmap_mode="r")
        self.filter: NDArray[np.uint8] = np.load(file.with_suffix(".filter.npy"), mmap_mode="r")
        self.size = len(self.keys)

    def find(self, values: U64) -> tuple[I64, I64]:
        """For the values that are keys: which key, and which value (rising)."""
        byte = (values >> np.uint64(3)) & np.uint64(len(self.filter) - 1)
        maybe = np.flatnonzero((self.filter[byte] >> (values & np.uint64(7)).astype(np.uint8)) & 1)
        if not self.size or not len(maybe):
            return _EMPTY, _EMPTY
        at = np.minimum(np.searchsorted(self.keys, values[maybe]), self.size - 1)
        same = self.keys[at] == values[maybe]
        return at[same], maybe[same]

    def first(self, values: U64, positions: I64) -> tuple[I64, I64]:
        """The keys among the values, and the lowest position of each."""
        found, rows = self.find(values)
        return _first(found, positions[rows])


class _Near:
    """The texts of an index that differ in their units: shingles by text, and owners by band."""

    def __init__(self, folder: Path) -> None:
        file = folder / "shingles"
        self.shingles: U64 = np.memmap(file, np.uint64, "r") if file.stat().st_size else np.zeros(0, np.uint64)
        self.starts_of: I64 = np.load(folder / "shingles.starts.npy", mmap_mode="r")
        self.ends_of: I64 = np.load(folder / "shingles.ends.npy", mmap_mode="r")
        self.owners: NDArray[np.uint32] = np.load(folder / "owners.npy", mmap_mode="r")
        self.starts: I64 = np.load(folder / "owners.offsets.npy", mmap_mode="r")
        self.size = len(self.starts_of)
        self.common = Common.load(folder)

    def set_of(self, text: int) -> U64:
        """Sorted unique shingles of a text."""
        return np.unique(self.shingles[self.starts_of[text] : self.ends_of[text]])


@lru_cache(maxsize=64)
def _open(folder: Path) -> dict[str, Any]:
    tables = {level: _Table(folder / level) for level in ("exact", "normalised", "ngram", "buckets")}
    lengths = [n for n in np.load(folder / "lengths.npy").tolist() if n]
    return {**tables, "near": _Near(folder), "lengths": lengths}


def forget() -> None:
    """Let go of the files of all indexes."""
    _open.cache_clear()


def _first(places: I64, positions: I64) -> tuple[I64, I64]:
    order = np.lexsort((positions, places))
    unique, first = np.unique(places[order], return_index=True)
    return unique, positions[order][first]


def _look_near(near: _Near, buckets: _Table, prints: Prints, position: I64) -> Hits:
    """Texts of the index with a Jaccard index of at least JACCARD to one of the block."""
    # Texts that are the same in field and units need one look; the first stands for all.
    code = mix(prints.units.sequences() + prints.scope)
    _, texts, alike = np.unique(code, return_index=True, return_counts=True)
    filled = np.diff(prints.offsets)[texts] > 0
    texts, alike = texts[filled], alike[filled]
    bucket, row = buckets.find(prints.bands[texts].ravel())
    row //= BANDS
    sizes = near.starts[bucket + 1] - near.starts[bucket]
    taken = np.minimum(sizes, _BUCKET)
    within = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    theirs = near.owners[np.repeat(near.starts[bucket], taken) + within].astype(np.int64)
    pairs, shared = np.unique(np.repeat(row, taken) * near.size + theirs, return_counts=True)
    mine, theirs = np.divmod(pairs, max(near.size, 1))
    # Of each text's pairs those with most bands in common come first, among these the earlier ones.
    order = np.lexsort((theirs, -shared, mine))
    mine, theirs = mine[order], theirs[order]
    rank = np.arange(len(mine)) - np.searchsorted(mine, mine)
    cut = np.union1d(row[sizes > _BUCKET], mine[rank >= _CANDIDATES])
    mine, theirs = texts[mine[rank < _CANDIDATES]], theirs[rank < _CANDIDATES]
    values = _jaccards(prints, near, mine, theirs)
    hit = np.flatnonzero(values >= JACCARD)
    place, first, values = (
        prints.scope[mine[hit]].astype(np.int64) * near.size + theirs[hit],
        position[mine[hit]],
        values[hit],
    )
    order = np.lexsort((first, -values, place))
    best = order[np.flatnonzero(np.diff(place[order], prepend=-1))]
    return Hits(place[best], first[best], values[best], int(alike[cut].sum()))


def _jaccards(prints: Prints, near: _Near, mine: I64, theirs: I64) -> NDArray[np.float64]:
    """Jaccard indexes of pairs (text of the block, text of the index); the pairs of one text lie together."""
    values = np.zeros(len(mine))
    sets: dict[int, U64] = {}
    last, own = -1, near.shingles[:0]
    for i, (text, other) in enumerate(zip(mine.tolist(), theirs.tolist(), strict=True)):
        if text != last:
            last, own = text, np.unique(prints.shingles[prints.offsets[text] : prints.offsets[text + 1]])
        if other not in sets:
            sets[other] = near.set_of(other)
        values[i] = jaccard_index(own, sets[other], near.common.lost)
    return values
