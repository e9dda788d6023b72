"""The audit: every train set streamed past indexes of the held-out sets, and of the train sets named after it."""

import operator
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crossmatch.errors import DataError, InputError
from crossmatch.evaluation.audit.commonness import Common, Counted, commonness, count_block, enough
from crossmatch.evaluation.audit.corpora import FileCorpus, SuiteCorpus
from crossmatch.evaluation.audit.fingerprints import Document
from crossmatch.evaluation.audit.index import Hits, forget, look
from crossmatch.evaluation.audit.index_builder import Builder, Entries, Sought, sought
from crossmatch.evaluation.audit.report import AuditReport, Criteria
from crossmatch.evaluation.audit.tally import Found, Tally
from crossmatch.evaluation.audit.tokens import U64
from crossmatch.evaluation.audit.workers import Workers
from crossmatch.runtime import SILENT, Progress, Task, cores

Corpus = Iterable[Document]
"""Documents that can be read several times; with a length (or `__length_hint__`) progress knows how much is left."""

_CHARACTERS = 1 << 22


@dataclass(frozen=True)
class Work:
    """How the work is cut; no figure depends on it, but `cut` on index_units.

    processes: None: as many as cores, where there is more than a block to do. They are spawned, so a script that asks
    for more than one keeps its own work under `if __name__ == "__main__"`. block: documents handed over at a time;
    index_units: units (words) after which a train set is indexed in parts, each a pass over the train sets before it;
    a unit takes up to 30 bytes of disk and 55 of memory, all processes together.
    """

    processes: int | None = None
    block: int = 2000
    index_units: int = 40_000_000


@dataclass(frozen=True)
class _Indexed:
    """The index of a held-out set, or of a part of a train set; order: how many of the train sets are streamed by."""

    name: str
    folder: Path
    entries: Entries
    ids: Sequence[str]
    order: int
    units: int


def audit(
    train: Mapping[str, Corpus],
    held_out: Mapping[str, Corpus],
    *,
    criteria: Criteria | None = None,
    work: Work | None = None,
    progress: Progress = SILENT,
) -> AuditReport:
    """Look for the documents of every held-out set in every train set, and for those of every train set in the ones
    named before it.

    Levels: `exact` (the same text but for white space at its ends), `normalised` (the same letters, marks and digits),
    `ngram` (share of its n-grams that occur in the train set, anywhere), `near` (Jaccard index of shingles, candidates
    by MinHash). Templates of a set are taken out, other n-grams and shingles weigh less the more of its documents have
    them (`crossmatch.evaluation.audit.commonness`). Each for the whole text, the question and the answer of an item.
    Hashes of 64 bits stand for texts: with a million documents on both sides one pair in 10^7 audits is mistaken for
    equal.

    Raises InputError for a name used twice or no train set, DataError for an id that occurs twice in a held-out set,
    and what a corpus raises when it is read.
    """
    criteria, work = criteria or Criteria(), work or Work()
    if not train or not (held_out or len(train) > 1):
        raise InputError("an audit needs a train set, and a held-out set or another train set")
    both = sorted(set(train) & set(held_out))
    if both:
        raise InputError(f"{both[0]} is the name of a train set and of a held-out set; give one another name")
    names = list(train)
    tallies = {
        (source, against): Tally(source, against, against in held_out, criteria)
        for position, source in enumerate(names)
        for against in [*held_out, *names[position + 1 :]]
    }
    with (
        Workers(cores() if work.processes is None else work.processes) as workers,
        tempfile.TemporaryDirectory(prefix="crossmatch-audit-", ignore_cleanup_errors=True) as scratch,
    ):
        run = _Run(train, held_out, work, workers, progress)
        for indexed in run.indexes(Path(scratch)):
            run.waiting.append(indexed)
            if run.room <= 0:
                run.pass_all(tallies)
        run.pass_all(tallies)
    found: dict[str, dict[str, list[str]]] = {name: {} for name in held_out}
    for (_, against), tally in tallies.items():
        for key, where in tally.where.items():
            found[against].setdefault(key, []).extend(where)
    return AuditReport(
        criteria.signature,
        {name: run.counts[name] for name in names},
        run.ids,
        [tally.pair() for tally in tallies.values()],
        {name: {key: tuple(found[name][key]) for key in run.ids[name] if key in found[name]} for name in held_out},
        _notes(train, held_out),
    )


class _Run:
    """One audit under way: indexes wait until they fill their room, then all are looked for in one pass."""

    def __init__(
        self,
        train: Mapping[str, Corpus],
        held_out: Mapping[str, Corpus],
        work: Work,
        workers: Workers,
        progress: Progress,
    ) -> None:
        self.train, self.held_out = train, held_out
        self.work, self.workers, self.progress = work, workers, progress
        self.waiting: list[_Indexed] = []
        self.counts: dict[str, int] = {}
        self.ids: dict[str, tuple[str, ...]] = {}

    @property
    def room(self) -> int:
        """Units that an index may have before the waiting ones are too many."""
        return self.work.index_units - sum(i.units for i in self.waiting)

    def indexes(self, scratch: Path) -> Iterator[_Indexed]:
        """Indexes of all held-out sets, then of all train sets but the first, these in parts. Raises DataError."""
        number = 0
        sets = [(name, corpus, len(self.train)) for name, corpus in self.held_out.items()]
        sets += [(name, corpus, order) for order, (name, corpus) in enumerate(self.train.items()) if order]
        for name, corpus, order in sets:
            common = self._commonness(corpus)
            jobs = ((own_texts(block), common.template) for block in blocks(corpus, self.work.block))
            source = self.workers.map(_seek, jobs)
            total, known = _length(corpus), list[str]()
            while True:
                builder, ids, number = Builder(scratch / str(number), common), list[str](), number + 1
                with self.progress.task(f"index {name}", None if total is None else total - len(known)) as task:
                    for block_ids, block in source:
                        builder.add(block)
                        ids += block_ids
                        task.advance(len(block_ids))
                        if builder.units >= self.room:
                            break
                    if not ids:
                        break
                    entries = builder.finish()
                known += ids
                yield _Indexed(name, builder.folder, entries, ids, order, builder.units)
            if not known:
                raise DataError(f"{name} holds no documents")
            self.counts[name] = len(known)
            if name in self.held_out:
                self.ids[name] = _distinct(name, known)

    def _commonness(self, corpus: Corpus) -> Common:
        """How common what its first documents have is in a set."""
        counted: list[Counted] = []
        for block in self.workers.map(count_block, ((own_texts(block),) for block in blocks(corpus, self.work.block))):
            counted.append(block)
            if enough(counted):
                break
        return commonness(counted)

    def pass_all(self, tallies: Mapping[tuple[str, str], Tally]) -> None:
        """Stream the train sets past all waiting indexes, add up what was found, and let the indexes go."""
        for position, (name, corpus) in enumerate(self.train.items()):
            past = [i for i in self.waiting if position < i.order]
            if past:
                with self.progress.task(f"read {name}", _length(corpus)) as task:
                    founds = self._stream(name, corpus, past, task)
                for indexed, found in zip(past, founds, strict=True):
                    tallies[name, indexed.name].add(found, indexed.ids)
        for indexed in self.waiting:
            shutil.rmtree(indexed.folder, ignore_errors=True)
        forget()
        self.waiting = []

    def _stream(self, name: str, corpus: Corpus, past: Sequence[_Indexed], task: Task) -> list[Found]:
        founds = [Found(i.entries) for i in past]
        against = ", ".join(dict.fromkeys(i.name for i in past))
        done = 0
        jobs = _numbered(blocks(corpus, self.work.block))
        for count, results in self.workers.map(partial(_look, folders=[i.folder for i in past]), jobs):
            for found, (hits, ids) in zip(founds, results, strict=True):
                found.add(hits, ids)
            done += count
            task.advance(count, f"for {against}")
        if not done:
            raise DataError(f"{name} holds no documents")
        self.counts[name] = done
        return founds


def _notes(train: Mapping[str, Corpus], held_out: Mapping[str, Corpus]) -> tuple[str, ...]:
    """What was not looked at, by set, where its corpus tells."""
    sets = [*((name, corpus, False) for name, corpus in train.items()), *((n, c, True) for n, c in held_out.items())]
    return tuple(
        f"{name}: {note}"
        for name, corpus, held in sets
        if isinstance(corpus, FileCorpus | SuiteCorpus)
        for note in corpus.notes(held_out=held)
    )


def blocks(corpus: Corpus, size: int) -> Iterator[list[Document]]:
    """Documents in blocks of at most `size`, or of about four million characters."""
    block: list[Document] = []
    characters = 0
    for document in corpus:
        block.append(document)
        characters += sum(len(text) for text in document[1:] if text)
        if len(block) >= size or characters >= _CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def own_texts(block: list[Document]) -> list[Document]:
    """Documents as they are looked for: without what stands beside them."""
    return [document if document.beside is None else document._replace(beside=None) for document in block]


def _numbered(source: Iterable[list[Document]]) -> Iterator[tuple[list[Document], int]]:
    start = 0
    for block in source:
        yield block, start
        start += len(block)


def _seek(block: list[Document], template: U64) -> tuple[list[str], Sought]:
    return [document.id for document in block], sought(block, template)


def _look(
    block: list[Document], start: int, folders: Sequence[Path]
) -> tuple[int, list[tuple[dict[str, Hits], dict[int, str]]]]:
    """How many documents; per index its hits, and the ids of the documents that are first with a key."""
    results = []
    for hits in look(block, start, folders):
        positions = {p for hit in hits.values() for p in hit.position.tolist()}
        results.append((hits, {p: block[p - start].id for p in positions}))
    return len(block), results


def _length(corpus: Corpus) -> int | None:
    return operator.length_hint(corpus) or None


def _distinct(name: str, ids: Sequence[str]) -> tuple[str, ...]:
    counts = Counter(ids)
    for key, times in counts.items():
        if times > 1:
            raise DataError(
                f"{name}: id {key!r} appears {times} times; the items of a held-out set are told by their ids"
            )
    return tuple(ids)
