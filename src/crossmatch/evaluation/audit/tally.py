"""From hits to figures: what of an index was found in a train set, by level and scope."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from crossmatch.evaluation.audit.fingerprints import FIELDS, SCOPES, SHINGLE, SHINGLE_CHARACTERS
from crossmatch.evaluation.audit.index import AGAINST, LEVELS, Hits
from crossmatch.evaluation.audit.index_builder import Entries
from crossmatch.evaluation.audit.report import Criteria, Example, LevelOverlap, SetPair
from crossmatch.evaluation.audit.tokens import I64

_NEVER = np.iinfo(np.uint32).max
_EXAMPLES = 3
_NO_WEIGHT = 1e-6


class Found:
    """For every key of an index the first document of a train set that has it."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.first = {
            level: np.full(max(size * (1 if level == "ngram" else len(FIELDS)), 1), _NEVER, np.uint32)
            for level, size in entries.sizes.items()
        }
        self.value = np.zeros(len(self.first["near"]), np.float32)
        self.ids: dict[int, str] = {}
        self.cut = 0

    def add(self, hits: dict[str, Hits], ids: dict[int, str]) -> None:
        """Take the hits of one block, in whatever order blocks come; ids: of its documents that hit."""
        for level, hit in hits.items():
            first, place = self.first[level], hit.place
            self.cut += hit.cut
            if hit.value is None:
                first[place] = np.minimum(first[place], hit.position)
                continue
            # Of near texts the nearest is kept, of these the first.
            value = hit.value.astype(np.float32)
            better = (value > self.value[place]) | ((value == self.value[place]) & (hit.position < first[place]))
            first[place[better]], self.value[place[better]] = hit.position[better], value[better]
        self.ids.update(ids)


@dataclass
class _Sum:
    n: int = 0
    too_short: int = 0
    found: int = 0
    any_hit: int = 0
    examples: list[tuple[float, int, Example]] = field(default_factory=list)


@dataclass(frozen=True)
class _Verdicts:
    """Of the texts of one scope at one level, (texts): whether judged, found, touched at all; value; where: of one of
    the found texts the document of the train set it was found in."""

    judged: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    touched: NDArray[np.bool_]
    value: NDArray[np.float64]
    where: Callable[[int], int]


class Tally:
    """The figures of one pair, summed over the parts in which its second set is indexed."""

    def __init__(self, train: str, against: str, held_out: bool, criteria: Criteria) -> None:
        self.names = train, against, held_out
        self.criteria = criteria
        self.sums = {(level, scope): _Sum() for level in LEVELS for scope in SCOPES}
        self.documents = self.found = self.cut = 0
        self.where: dict[str, list[str]] = {}

    def add(self, found: Found, ids: Sequence[str]) -> None:
        """Take what was found of a part whose documents have these ids."""
        entries = found.entries
        any_level = np.zeros(len(ids), bool)
        for scope_number, scope in enumerate(SCOPES):
            rows = np.flatnonzero(entries.scope == scope_number)
            for level, verdicts in self._judge(found, rows, scope):
                document = entries.document[rows]
                any_level[document[verdicts.flagged]] = True
                flagged = [ids[int(d)] for d in document[verdicts.flagged]]
                self._sum(self.sums[level, scope], verdicts, flagged, found)
                for key in flagged if self.names[2] else ():
                    self.where.setdefault(key, []).append(f"{self.names[0]}:{level}:{scope}")
        self.documents += len(ids)
        self.found += int(any_level.sum())
        self.cut += found.cut

    def pair(self) -> SetPair:
        """The result."""
        overlaps = []
        for (level, scope), s in self.sums.items():
            examples = tuple(example for *_, example in s.examples)
            any_hit = s.any_hit if level == "ngram" else None
            overlaps.append(LevelOverlap(level, scope, s.n, s.too_short, s.found, any_hit, examples))
        train, against, held_out = self.names
        return SetPair(train, against, held_out, self.documents, self.found, self.cut, tuple(overlaps))

    def _sum(self, total: _Sum, verdicts: _Verdicts, flagged: Sequence[str], found: Found) -> None:
        total.n += int(verdicts.judged.sum())
        total.too_short += int((~verdicts.judged).sum())
        total.found += len(flagged)
        total.any_hit += int(verdicts.touched.sum())
        rows = np.flatnonzero(verdicts.flagged)
        values = verdicts.value[rows]
        for i in map(int, np.argsort(-np.nan_to_num(values), kind="stable")[:_EXAMPLES]):
            value = None if np.isnan(values[i]) else round(float(values[i]), 4)
            example = Example(flagged[i], found.ids[verdicts.where(int(rows[i]))], value)
            total.examples.append((-(value or 0), self.documents + i, example))
        total.examples = sorted(total.examples, key=lambda e: e[:2])[:_EXAMPLES]

    def _judge(self, found: Found, rows: I64, scope: str) -> Iterator[tuple[str, _Verdicts]]:
        entries, criteria = found.entries, self.criteria
        counts, nothing = entries.counts[rows], np.full(len(rows), np.nan)
        shortest = np.where(entries.by_characters[rows], criteria.answer_characters, criteria.answer_words)
        long_enough = counts >= (shortest if scope == "answer" else 1)
        for level in ("exact", "normalised"):
            where = found.first[level][_places(entries, rows, scope, level)].min(axis=0)
            hit = long_enough & (where != _NEVER)
            yield level, _Verdicts(long_enough, hit, hit, nothing, partial(_at, where))
        yield "ngram", self._ngrams(found, rows, long_enough)
        judged = long_enough & (counts >= np.where(entries.by_characters[rows], SHINGLE_CHARACTERS, SHINGLE))
        places = _places(entries, rows, scope, "near")
        nearest = np.lexsort((found.first["near"][places], -found.value[places]), axis=0)[0]
        places = places[nearest, np.arange(len(rows))]
        where = found.first["near"][places]
        hit = judged & (where != _NEVER)
        yield "near", _Verdicts(judged, hit, hit, found.value[places].astype(np.float64), partial(_at, where))

    def _ngrams(self, found: Found, rows: I64, long_enough: NDArray[np.bool_]) -> _Verdicts:
        entries = found.entries
        low, high = entries.offsets[rows], entries.offsets[rows + 1]
        hit = found.first["ngram"][entries.grams] != _NEVER
        weights = entries.weights[entries.grams].astype(np.float64)
        inside, all_of = (np.concatenate([[0], np.cumsum(w)]) for w in (weights * hit, weights))
        weight = all_of[high] - all_of[low]
        # Of weight 0 is what every document of its set has: nothing of its own to judge it by.
        judged = long_enough & (weight > _NO_WEIGHT)
        share = np.where(judged, (inside[high] - inside[low]) / np.maximum(weight, _NO_WEIGHT), 0)

        def where(row: int) -> int:
            """The document in which most of its n-grams occur first; of several the first."""
            first = found.first["ngram"][entries.grams[low[row] : high[row]]]
            documents, times = np.unique(first[first != _NEVER], return_counts=True)
            return int(documents[times.argmax()])

        return _Verdicts(judged, judged & (share >= self.criteria.share), judged & (share > _NO_WEIGHT), share, where)


def _at(where: NDArray[np.uint32], row: int) -> int:
    return int(where[row])


def _places(entries: Entries, rows: I64, scope: str, level: str) -> I64:
    """(fields of the train set, rows): where hits of these texts are kept; any place for a text without a key."""
    keys = np.maximum(entries.keys[level][rows], 0)
    return np.array([FIELDS.index(name) * entries.sizes[level] + keys for name in AGAINST[scope]])
