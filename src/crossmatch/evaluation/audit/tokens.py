"""Texts into units, all texts of a block at once in numpy: what every level of the audit counts and compares.

A unit is a word, or one character of a script that is written without spaces (Han, kana, Thai, Lao, Khmer, Burmese).
Texts are normalised first: NFKC, case folded, characters without width removed, traditional and simplified forms of a
Han character as one (`crossmatch.data.text_forms`; character by character, so 后 and 後 are one, too); all but letters,
marks and digits separates.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from crossmatch.data.text_forms import NO_WIDTH, han_forms

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

# Characters a pass of numpy works on: its arrays, of 8 bytes a character, stay in the cache.
_BATCH = 1 << 17
_SPACED, _UNSPACED = 1, 2
_SCRIPTS_WITHOUT_SPACES = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x303B), (0x3040, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
# Odd, and 3 modulo 8: powers of it differ soon in their low bits.
_BASE = 0x9E3779B97F4A7C1B
_POWERS = 1 << 16
_FIRST_HAN = 0x3400


@dataclass(frozen=True)
class Units:
    """The units of some texts, as hashes of 64 bits.

    hashes: all units, text after text; offsets: (texts + 1), where each text's begin; unspaced: (texts), how many of a
    text's units are characters of a script without spaces; normal: (texts), hash of the normal form, which is the
    normalised text without its separators.
    """

    hashes: U64
    offsets: I64
    unspaced: I64
    normal: U64

    @property
    def counts(self) -> I64:
        """(texts): units of each."""
        return np.diff(self.offsets)

    @property
    def by_characters(self) -> NDArray[np.bool_]:
        """(texts): whether half or more of a text's units are characters of a script without spaces."""
        return (self.unspaced * 2 >= self.counts) & (self.unspaced > 0)

    def sequences(self) -> U64:
        """(texts): one hash of each text's units in their order."""
        places = np.arange(len(self.hashes)) - np.repeat(self.offsets[:-1], self.counts)
        sums = segment_sums(self.hashes * _tables()[2][places % _POWERS], self.offsets)
        return mix(sums + self.counts.astype(np.uint64))

    def windows(self, *lengths: int) -> Iterator[tuple[U64, I64]]:
        """For each of some rising lengths n: hashes of all n units in a row that lie within one text, and (texts + 1)
        where each text's begin."""
        rolled = np.zeros_like(self.hashes)
        done = 0
        for n in lengths:
            total = max(len(self.hashes) - n + 1, 0)
            rolled = rolled[:total]
            for step in range(done, n):
                rolled *= np.uint64(_BASE)
                rolled += self.hashes[step : total + step]
            done = n
            counts = np.maximum(self.counts - n + 1, 0)
            offsets = np.concatenate([[0], np.cumsum(counts)])
            kept = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] - offsets[:-1], counts)
            yield mix(rolled[kept] + np.uint64(n)), offsets


def mix(values: U64) -> U64:
    """A bijection of 64 bits after which every bit depends on all (the finaliser of splitmix64)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def segment_sums(values: U64, offsets: I64) -> U64:
    """(segments): sums modulo 2^64 of values[offsets[i] : offsets[i + 1]]; 0 where a segment is empty."""
    result = np.zeros(len(offsets) - 1, np.uint64)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        result[filled] = np.add.reduceat(values, offsets[filled])
    return result


def raw_hash(text: str) -> int:
    """64 bits of BLAKE2b of a text without the white space at its ends."""
    return int.from_bytes(blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def normalise(text: str) -> str:
    """NFKC, case folded, without characters that have no width."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return NO_WIDTH.sub("", unicodedata.normalize("NFKC", folded))


def tokenise(texts: Sequence[str]) -> Units:
    """The units of texts."""
    counts, unspaced = np.zeros((2, len(texts)), np.int64)
    hashers = [blake2b(digest_size=8) for _ in texts]
    found: list[U64] = []
    for owners, pieces in _batches(texts):
        hashes, each, each_unspaced, kept, bounds = _units_of(pieces)
        found.append(hashes)
        # A long text comes in several pieces.
        np.add.at(counts, owners, each)
        np.add.at(unspaced, owners, each_unspaced)
        view = kept.view(np.uint8).data
        for i, owner in enumerate(owners):
            hashers[owner].update(view[4 * bounds[i] : 4 * bounds[i + 1]])
    normal = np.frombuffer(b"".join(h.digest() for h in hashers), np.uint64)
    hashes = np.concatenate(found) if found else np.zeros(0, np.uint64)
    return Units(hashes, np.concatenate([[0], np.cumsum(counts)]), unspaced, normal)


def _batches(texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    owners: list[int] = []
    pieces: list[str] = []
    room = _BATCH
    for owner, text in enumerate(texts):
        for piece in _cut(normalise(text)):
            if len(piece) > room and pieces:
                yield owners, pieces
                owners, pieces, room = [], [], _BATCH
            owners.append(owner)
            pieces.append(piece)
            room -= len(piece) + 1
    if pieces:
        yield owners, pieces


def _cut(text: str) -> Iterator[str]:
    """Pieces of at most a batch, cut after a space or a line's end if there is one."""
    start = 0
    while len(text) - start > _BATCH:
        stop = 1 + max(text.rfind(" ", start, start + _BATCH), text.rfind("\n", start, start + _BATCH))
        stop = stop if stop > start else start + _BATCH
        yield text[start:stop]
        start = stop
    yield text[start:]


def _units_of(pieces: Sequence[str]) -> tuple[U64, I64, I64, NDArray[np.uint32], list[int]]:
    """Hashes of the units; for each piece its units and those of scripts without spaces; kept characters; bounds."""
    kinds, values, powers, forms = _tables()
    points = np.frombuffer("\n".join(pieces).encode("utf-32-le", "surrogatepass"), np.uint32)
    if points.max(initial=0) >= _FIRST_HAN:
        points = forms[points]
    kind = kinds[points]
    at = np.flatnonzero(kind)
    kept, kind_kept = points[at], kind[at]
    starts = np.ones(len(at), bool)
    # A letter goes on with the word that the character before it belongs to.
    starts[1:] = (kind_kept[1:] != _SPACED) | (kind_kept[:-1] != _SPACED) | (np.diff(at) > 1)
    first = np.flatnonzero(starts)
    ends = np.cumsum([len(piece) + 1 for piece in pieces])
    bounds = np.searchsorted(at, np.concatenate([[0], ends]))
    edges = np.searchsorted(first, bounds)
    letters = np.concatenate([[0], np.cumsum(kind_kept[first] == _UNSPACED)])
    if not len(first):
        return np.zeros(0, np.uint64), np.diff(edges), np.diff(letters[edges]), kept, bounds.tolist()
    places = np.arange(len(at)) - np.repeat(first, np.diff(first, append=len(at)))
    hashes = np.add.reduceat(values[kept] * powers[places % _POWERS], first)
    return mix(hashes), np.diff(edges), np.diff(letters[edges]), kept, bounds.tolist()


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.uint8], U64, U64, NDArray[np.uint32]]:
    """By code point its kind (0: separates) and a random-looking value; powers of the base; by code point its form."""
    # Planes above the third hold no letters.
    kinds = np.zeros(0x110000, np.uint8)
    kinds[:0x40000] = [unicodedata.category(chr(point))[0] in "LMN" for point in range(0x40000)]
    for low, high in _SCRIPTS_WITHOUT_SPACES:
        kinds[low : high + 1] *= _UNSPACED
    values = mix(np.arange(1, len(kinds) + 1, dtype=np.uint64) * np.uint64(_BASE))
    powers = np.full(_POWERS, _BASE, np.uint64)
    powers[0] = 1
    return kinds, values, np.multiply.accumulate(powers), _forms(len(kinds))


def _forms(size: int) -> NDArray[np.uint32]:
    """By code point the one that stands for it."""
    forms = np.arange(size, dtype=np.uint32)
    variants = han_forms()
    forms[list(variants)] = list(variants.values())
    return forms
