"""The making of an index: blocks of documents in, files of sorted keys out; what is large waits on the disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmatch.evaluation.audit.commonness import Common
from crossmatch.evaluation.audit.fingerprints import BANDS, Document, fingerprint, grams, without_template
from crossmatch.evaluation.audit.tokens import I64, U64

_STEP = 1 << 20


@dataclass(frozen=True)
class Sought:
    """What an index needs of the texts of a block; the fields are those of Prints and of Units."""

    documents: int
    document: I64
    scope: NDArray[np.uint8]
    counts: I64
    by_characters: NDArray[np.bool_]
    raw: U64
    normal: U64
    sequences: U64
    shingles: U64
    shingle_counts: I64
    bands: U64
    grams: U64
    gram_counts: I64
    lengths: NDArray[np.uint8]


@dataclass(frozen=True)
class Entries:
    """What is known of an index's texts beside its files.

    document, scope, counts, by_characters: (texts), as in Sought; keys: level -> (texts), the key of each text among
    the level's keys, -1 where it has none; grams: keys of each text's n-grams, text after text; offsets: (texts + 1)
    of these; weights: of each n-gram's key, by how common it is in its own set; sizes: level -> number of keys.
    """

    document: I64
    scope: NDArray[np.uint8]
    counts: I64
    by_characters: NDArray[np.bool_]
    keys: Mapping[str, I64]
    grams: NDArray[np.uint32]
    offsets: I64
    weights: NDArray[np.float32]
    sizes: Mapping[str, int]


def sought(documents: Sequence[Document], template: U64) -> Sought:
    """A block of documents as an index takes it; template: as of Common."""
    prints = fingerprint(documents)
    units = prints.units
    own, places = without_template(units, template) if len(template) else (units, None)
    flat, offsets, lengths = grams(own, units.by_characters, places)
    return Sought(
        documents=prints.documents,
        document=prints.document,
        scope=prints.scope,
        counts=units.counts,
        by_characters=units.by_characters,
        raw=prints.raw,
        normal=units.normal,
        sequences=units.sequences(),
        shingles=prints.shingles,
        shingle_counts=np.diff(prints.offsets),
        bands=prints.bands,
        grams=flat,
        gram_counts=np.diff(offsets),
        lengths=lengths,
    )


class Builder:
    """Collects blocks in the order of their documents and writes the index into an empty folder."""

    def __init__(self, folder: Path, common: Common) -> None:
        folder.mkdir()
        self.common = common
        self.folder = folder
        self.units = 0
        self.documents = 0
        self._blocks: list[Sought] = []
        self._document: list[I64] = []

    def add(self, block: Sought) -> None:
        """Take a block; its n-grams and shingles go to the disk."""
        for name, values in (("grams", block.grams), ("shingles", block.shingles)):
            with (self.folder / name).open("ab") as stream:
                stream.write(values.data)
        none = np.zeros(0, np.uint64)
        self._document.append(block.document + self.documents)
        self._blocks.append(Sought(**{**vars(block), "grams": none, "shingles": none}))
        self.units += int(block.counts.sum())
        self.documents += block.documents

    def finish(self) -> Entries:
        """Write the keys; return what is known of the texts."""
        blocks = self._blocks
        entries_of = {
            "exact": _keys(np.concatenate([b.raw for b in blocks]), self.folder / "exact"),
            "normalised": _keys(np.concatenate([b.normal for b in blocks]), self.folder / "normalised"),
            "near": self._near(),
        }
        sizes = {level: int(values.max(initial=-1)) + 1 for level, values in entries_of.items()}
        found, weighed = self._grams()
        sizes["ngram"] = len(weighed)
        self.common.save(self.folder)
        counts = np.concatenate([b.gram_counts for b in blocks])
        return Entries(
            document=np.concatenate(self._document),
            scope=np.concatenate([b.scope for b in blocks]),
            counts=np.concatenate([b.counts for b in blocks]),
            by_characters=np.concatenate([b.by_characters for b in blocks]),
            keys=entries_of,
            grams=found,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            weights=weighed,
            sizes=sizes,
        )

    def _grams(self) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Write the n-grams' keys; the key of every n-gram of the texts, and the weight of every key."""
        file = self.folder / "grams"
        unique = np.fromfile(file, np.uint64)
        found = np.empty(len(unique), np.uint32)
        unique.sort()
        unique = unique[np.diff(unique, prepend=unique[:1] + np.uint64(1)) != 0]
        _save(unique, self.folder / "ngram")
        np.save(self.folder / "lengths.npy", np.unique(np.concatenate([b.lengths for b in self._blocks])))
        for start in range(0, len(found), _STEP):
            part = np.fromfile(file, np.uint64, _STEP, offset=8 * start)
            # Sorted, so that one search ends near the next.
            order = np.argsort(part)
            found[start + order] = np.searchsorted(unique, part[order])
        file.unlink()
        return found, self.common.grams.of(unique).astype(np.float32)

    def _near(self) -> I64:
        """Write the bands of the texts, of those with the same units only the first's; the key of every text."""
        sequences = np.concatenate([b.sequences for b in self._blocks])
        counts = np.concatenate([b.shingle_counts for b in self._blocks])
        bands = np.concatenate([b.bands for b in self._blocks])
        _, first, inverse = np.unique(sequences, return_index=True, return_inverse=True)
        # Keys rise with the texts, and only texts with shingles have one.
        chosen = np.sort(first[counts[first] > 0])
        number = np.full(len(sequences), -1)
        number[chosen] = np.arange(len(chosen))
        ends = np.cumsum(counts)
        np.save(self.folder / "shingles.starts.npy", (ends - counts)[chosen])
        np.save(self.folder / "shingles.ends.npy", ends[chosen])
        flat = bands[chosen].ravel()
        order = np.argsort(flat, kind="stable")
        flat = flat[order]
        starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + np.uint64(1)))
        _save(flat[starts], self.folder / "buckets")
        np.save(self.folder / "owners.npy", (order // BANDS).astype(np.uint32))
        np.save(self.folder / "owners.offsets.npy", np.append(starts, len(flat)))
        return number[first[inverse]]


def _save(keys: U64, file: Path) -> None:
    """Keys, sorted and unique, and their filter of 4 to 8 bits a key."""
    size = 1 << max(6, len(keys).bit_length())
    bits = np.zeros(size, np.uint8)
    for start in range(0, len(keys), _STEP):
        part = keys[start : start + _STEP]
        byte = (part >> np.uint64(3)) & np.uint64(size - 1)
        np.bitwise_or.at(bits, byte, np.uint8(1) << (part & np.uint64(7)).astype(np.uint8))
    np.save(file.with_suffix(".npy"), keys)
    np.save(file.with_suffix(".filter.npy"), bits)


def _keys(values: U64, file: Path) -> I64:
    unique, keys = np.unique(values, return_inverse=True)
    _save(unique, file)
    return keys
