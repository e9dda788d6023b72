"""Fingerprints of documents: hashes of their texts, of their n-grams and shingles, and the bands of MinHash."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossmatch.evaluation.audit.tokens import I64, U64, Units, mix, raw_hash, tokenise

SCOPES = ("whole", "question", "answer")
FIELDS = (*SCOPES, "beside")
"""Texts of a document, as its fields have them; held-out items are judged by those of SCOPES."""
WORDS, CHARACTERS = 13, 20
"""Units of an n-gram: of words, and where half or more of a text's units are characters without spaces.

20 characters of medical Chinese are as many words as the 13 of English (1.6 characters a word, as jieba cuts it). The 8
characters of earlier versions were 5 words: exam questions share those without being the same."""
SHORTEST, SHORTEST_CHARACTERS = 8, 13
"""A text of fewer units, but of so many, is one n-gram; 8 words are the least that GPT-3's audit took (2005.14165).
Without these a definition of ten words inside a longer text is found by no level."""
LENGTHS = tuple(range(SHORTEST, CHARACTERS + 1))
"""All lengths that n-grams have."""
SHINGLE, SHINGLE_CHARACTERS = 3, 5
"""Units of a shingle, whose sets the Jaccard index compares: words, and characters that are about as many words."""
BANDS, ROWS = 20, 5
"""Of MinHash: a pair of Jaccard index J shares a band with probability 1 - (1 - J^ROWS)^BANDS, 0.9996 at 0.8."""

_MULTIPLIERS = mix(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64)) | np.uint64(1)
# Shingles a pass works on, so that they stay in the cache.
_STRETCH = 1 << 15


class Document(NamedTuple):
    """One document: its whole text, and where it has them its question and its answer.

    beside: what a model reads with it that is no part of it (system messages, tools): held-out texts are looked for
    there, too; it is not looked for itself.
    """

    id: str
    text: str
    question: str | None = None
    answer: str | None = None
    beside: str | None = None


@dataclass(frozen=True)
class Prints:
    """Fingerprints of the texts of some documents; a document has one text for each of its scopes.

    document, scope: (texts), which document, and which of FIELDS; raw: (texts), hash of the text as it is; shingles and
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
    lengths = np.where(units.by_characters, SHINGLE_CHARACTERS, SHINGLE)
    shingles, offsets = _chosen_windows(units, lengths, (SHINGLE, SHINGLE_CHARACTERS))
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


def grams(units: Units, characters: NDArray[np.bool_], places: I64 | None = None) -> tuple[U64, I64, NDArray[np.uint8]]:
    """N-grams of each text, of the length that is the text's; (texts + 1) where each text's begin; (texts) lengths,
    0 for a text that is too short.

    characters: (texts), whose n-grams are of characters; places: of the units in a text from which others were taken
    out; what is then no longer one stretch of it is no n-gram.
    """
    counts = units.counts
    lengths = np.minimum(counts, np.where(characters, CHARACTERS, WORDS))
    lengths[counts < np.where(characters, SHORTEST_CHARACTERS, SHORTEST)] = 0
    values, offsets = _chosen_windows(units, lengths, LENGTHS)
    if places is not None:
        first = _first_units(units, offsets)
        last = first + np.repeat(lengths, np.diff(offsets)) - 1
        whole = places[last] - places[first] == last - first
        values, offsets = values[whole], np.concatenate([[0], np.cumsum(whole)])[offsets]
    return values, offsets, lengths.astype(np.uint8)


def openings(units: Units) -> tuple[U64, I64]:
    """Windows of an n-gram's full length, by which templates are known; (texts + 1) where each text's begin."""
    return _chosen_windows(units, _full(units), (WORDS, CHARACTERS))


def without_template(units: Units, template: U64) -> tuple[Units, I64]:
    """The units of texts that no template covers, and the place of each; template: sorted hashes of openings."""
    values, offsets = openings(units)
    at = np.minimum(np.searchsorted(template, values), max(len(template) - 1, 0))
    hit = template[at] == values if len(template) else np.zeros(len(values), bool)
    first = _first_units(units, offsets)[hit]
    edges = np.zeros(len(units.hashes) + 1, np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, first + np.repeat(_full(units), np.diff(offsets))[hit], -1)
    own = np.cumsum(edges[:-1]) == 0
    starts = np.concatenate([[0], np.cumsum(own)])[units.offsets]
    return Units(units.hashes[own], starts, units.unspaced, units.normal), np.flatnonzero(own)


def _full(units: Units) -> I64:
    return np.where(units.by_characters, CHARACTERS, WORDS)


def _first_units(units: Units, offsets: I64) -> I64:
    """The first unit of every window, of which each text has its own between the offsets."""
    each = np.diff(offsets)
    return np.arange(offsets[-1]) + np.repeat(units.offsets[:-1] - offsets[:-1], each)


def _chosen_windows(units: Units, lengths: I64, known: Sequence[int]) -> tuple[U64, I64]:
    """Windows of each text of its own length, one of the known ones (0: none); (texts + 1) where each text's begin."""
    each = np.where(lengths > 0, np.maximum(units.counts - lengths + 1, 0), 0)
    offsets = np.concatenate([[0], np.cumsum(each)])
    result = np.empty(offsets[-1], np.uint64)
    # Only lengths that occur: each is a pass over all units.
    wanted = [n for n in known if (lengths == n).any()]
    for n, (values, starts) in zip(wanted, units.windows(*wanted), strict=True):
        result[np.repeat(lengths == n, each)] = values[np.repeat(lengths == n, np.diff(starts))]
    return result, offsets


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


def jaccard(first: U64, second: U64, lost: Callable[[U64], float] | None = None) -> float:
    """Jaccard index |A and B| / |A or B| of two sets given as sorted unique values; 0 for two empty ones.

    lost: of values, what their weights fall short of 1, summed; the index of the weights counts if it is smaller.
    """
    shared = np.intersect1d(first, second, assume_unique=True)
    common, union = float(len(shared)), float(len(first) + len(second) - len(shared))
    if lost is not None and common < union:
        missing = lost(shared)
        weighed = union - lost(first) - lost(second) + missing
        # The smaller of both: what is common where the sets differ does not make them more alike.
        return min(common / union, (common - missing) / weighed) if weighed > 0 else 0.0
    return common / union if union else 0.0
