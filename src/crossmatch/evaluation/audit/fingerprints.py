"""Fingerprints of documents: hashes of their texts, of their n-grams and shingles, and the bands of MinHash."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossmatch.evaluation.audit.tokens import (
    I64,
    U64,
    Units,
    mix,
    raw_hash,
    tokenise,
)

SCOPES = ("whole", "question", "answer")
WORDS, CHARACTERS = 13, 8
"""Units of an n-gram: of words, and where half or more of a text's units are characters without spaces."""
SHORTEST = 8
"""A text of fewer than WORDS words, but of so many, is one n-gram; 8 is the least that GPT-3's audit took (2005.14165).
Without these a definition of ten words inside a longer text is found by no level."""
LENGTHS = tuple(range(SHORTEST, WORDS + 1))
"""All lengths that n-grams have."""
SHINGLE = 3
"""Units of a shingle, whose sets the Jaccard index compares."""
BANDS, ROWS = 20, 5
"""Of MinHash: a pair of Jaccard index J shares a band with probability 1 - (1 - J^ROWS)^BANDS, 0.9996 at 0.8."""

_MULTIPLIERS = mix(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64)) | np.uint64(1)
# Shingles a pass works on, so that they stay in the cache.
_STRETCH = 1 << 15


class Document(NamedTuple):
    """One document: its whole text, and where it has them its question and its answer."""

    id: str
    text: str
    question: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Prints:
    """Fingerprints of the texts of some documents; a document has one text for each of its scopes.

    document, scope: (texts), which document, and which of SCOPES; raw: (texts), hash of the text as it is; shingles and
    their offsets: (texts + 1); bands: (texts, BANDS), meaningless for a text without shingles.
    """

    documents: int
    document: I64
    scope: NDArray[np.uint8]
    units: Units
    raw: U64
    shingles: U64
    offsets: I64
    bands: U64


def fingerprint(documents: Sequence[Document]) -> Prints:
    """Fingerprints of documents."""
    rows = [
        (number, scope, text)
        for number, (_, *texts) in enumerate(documents)
        for scope, text in enumerate(texts)
        if text is not None
    ]
    units = tokenise([text for *_, text in rows])
    ((shingles, offsets),) = units.windows(SHINGLE)
    return Prints(
        documents=len(documents),
        document=np.array([number for number, *_ in rows], np.int64),
        scope=np.array([scope for _, scope, _ in rows], np.uint8),
        units=units,
        raw=np.array([raw_hash(text) for *_, text in rows], np.uint64),
        shingles=shingles,
        offsets=offsets,
        bands=bands(shingles, offsets),
    )


def grams(units: Units) -> tuple[U64, I64, NDArray[np.uint8]]:
    """N-grams of each text, of the length that is the text's; (texts + 1) where each text's begin; (texts) lengths,
    0 for a text that is too short."""
    counts = units.counts
    lengths = np.where(units.by_characters, CHARACTERS, np.minimum(counts, WORDS))
    lengths[counts < np.where(units.by_characters, CHARACTERS, SHORTEST)] = 0
    each = np.where(lengths > 0, counts - lengths + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(each)])
    result = np.empty(offsets[-1], np.uint64)
    for n, (values, starts) in zip(LENGTHS, units.windows(*LENGTHS), strict=True):
        result[np.repeat(lengths == n, each)] = values[np.repeat(lengths == n, np.diff(starts))]
    return result, offsets, lengths.astype(np.uint8)


def bands(shingles: U64, offsets: I64) -> U64:
    """(texts, BANDS): MinHash signatures of the texts' shingle sets, ROWS values hashed into one a band.

    Value k of a signature is min over shingles x of a_k * x mod 2^64, a_k odd: x is well mixed, so each product orders
    the shingles as a random permutation would, and two sets have the same minimum with probability J.
    """
    signature = np.zeros((BANDS * ROWS, len(offsets) - 1), np.uint64)
    filled = np.flatnonzero(np.diff(offsets))
    # Groups of texts of about a stretch together.
    groups = np.flatnonzero(np.diff(offsets[filled] // _STRETCH, prepend=-1))
    for low, high in pairwise([*groups, len(filled)]):
        texts = filled[low:high]
        start = offsets[texts[0]]
        stretch = shingles[start : offsets[texts[-1] + 1]]
        product = np.empty_like(stretch)
        for k, multiplier in enumerate(_MULTIPLIERS):
            np.multiply(stretch, multiplier, out=product)
            signature[k, texts] = np.minimum.reduceat(product, offsets[texts] - start)
    rows = signature.reshape(BANDS, ROWS, -1)
    hashed = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64)[:, None], rows[:, 0].shape)
    for row in range(ROWS):
        hashed = mix(hashed ^ rows[:, row])
    return np.ascontiguousarray(hashed.T)


def jaccard(first: U64, second: U64) -> float:
    """Jaccard index |A and B| / |A or B| of two sets given as sorted unique values; 0 for two empty ones."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - common
    return common / union if union else 0.0
