"""What an audit found: per pair of sets, level and scope how many items; and which items are clean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmatch.answers import clean_answer, to_json
from crossmatch.errors import InputError, OutputError
from crossmatch.evaluation.audit.corpora import FileCorpus, SuiteCorpus
from crossmatch.evaluation.audit.fingerprints import (
    BANDS,
    CHARACTERS,
    ROWS,
    SCOPES,
    SHINGLE,
    SHINGLE_CHARACTERS,
    SHORTEST,
    SHORTEST_CHARACTERS,
    WORDS,
)
from crossmatch.evaluation.audit.index import JACCARD, LEVELS
from crossmatch.export.results import Tabled, by_name
from crossmatch.export.table import Table
from crossmatch.export.tables.others import audit_tables
from crossmatch.results.audit import AuditJson, FoundExampleJson, HeldOutSetJson, LevelJson, SetPairJson, TrainSetJson


@dataclass(frozen=True)
class Criteria:
    """From when on an item counts as found.

    share: of an item's n-grams that occur in the train set (level ngram); answer_words, answer_characters: shortest
    answer that is judged alone, by any level, in words or in characters of a script without spaces.
    """

    share: float = 0.5
    answer_words: int = 6
    answer_characters: int = 12

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"the share of n-grams must lie above 0 and at most at 1, not at {self.share}")

    @property
    def signature(self) -> str:
        """How the figures were made, in one line."""
        words = f"{WORDS} words ({SHORTEST} to {WORDS - 1}: one of all)"
        characters = f"{CHARACTERS} characters ({SHORTEST_CHARACTERS} to {CHARACTERS - 1}: one of all)"
        ngram = f"{words},{characters},without templates,weighed by log(n/df),share>={self.share:g}"
        shingles = f"shingles of {SHINGLE} words or {SHINGLE_CHARACTERS} characters,weighed"
        near = f"minhash {BANDS}x{ROWS},{shingles},jaccard>={JACCARD}"
        answer = f">={self.answer_words} words,{self.answer_characters} characters"
        normal = "nfkc+casefold+letters,marks,digits+han variants"
        return f"normal:{normal}|ngram:{ngram}|near:{near}|answer:{answer}|version:3"


@dataclass(frozen=True)
class Example:
    """An item that was found, and the document of the train set it was found in, as far as one is known.

    value: share of its n-grams (their first occurrences lie mostly in that document), Jaccard index, or None.
    """

    id: str
    train_id: str
    value: float | None

    def to_dict(self) -> FoundExampleJson:
        """As plain JSON."""
        return {"id": self.id, "train_id": self.train_id, "value": self.value}


@dataclass(frozen=True)
class LevelOverlap:
    """One level and scope: `found` of `n` judged items; too_short: items with the scope that could not be judged.

    any_hit: items with at least one n-gram in the train set (level ngram only).
    """

    level: str
    scope: str
    n: int
    too_short: int
    found: int
    any_hit: int | None
    examples: tuple[Example, ...]

    @property
    def share(self) -> float | None:
        """Found over judged; None where nothing was."""
        return self.found / self.n if self.n else None

    def to_dict(self) -> LevelJson:
        """As plain JSON."""
        return {
            "level": self.level,
            "scope": self.scope,
            "n": self.n,
            "too_short": self.too_short,
            "found": self.found,
            "any_hit": self.any_hit,
            "examples": [example.to_dict() for example in self.examples],
            "share": self.share,
        }


@dataclass(frozen=True)
class SetPair:
    """A train set, and the set whose documents were looked for in it.

    found: documents that at least one level and scope found, of all `documents`; cut: texts of the train set that had
    more candidates for the near level than were compared (sets made from templates), so that it may have missed some.
    """

    train: str
    against: str
    held_out: bool
    documents: int
    found: int
    cut: int
    overlaps: tuple[LevelOverlap, ...]

    def to_dict(self) -> SetPairJson:
        """As plain JSON."""
        return {
            "train": self.train,
            "against": self.against,
            "held_out": self.held_out,
            "documents": self.documents,
            "found": self.found,
            "cut": self.cut,
            "overlaps": [overlap.to_dict() for overlap in self.overlaps],
        }


@dataclass(frozen=True)
class AuditReport(Tabled):
    """All pairs of train and held-out sets, and of train sets; counts are of all items, not of a sample.

    train: documents of each; ids: of each held-out set; contaminated: held-out set -> id -> where it was found, as
    `train:level:scope`; notes: what was not looked at, by set.
    """

    signature: str
    train: Mapping[str, int]
    ids: Mapping[str, Sequence[str]]
    pairs: Sequence[SetPair]
    contaminated: Mapping[str, Mapping[str, Sequence[str]]]
    notes: Sequence[str] = ()

    def __repr__(self) -> str:
        found = [f"{name}: {len(self.contaminated[name])} of {len(ids)} items found" for name, ids in self.ids.items()]
        return f"AuditReport({', '.join(self.train)}; {'; '.join(found) or 'no held-out sets'})"

    def tables(self) -> dict[str, Table]:
        """`audit` by held-out set, `overlaps` by pair, level and scope, `found_items`."""
        return by_name(audit_tables(self.to_dict()))

    def share(self, held_out: str) -> float | None:
        """Share of a held-out set's items that any level, scope and train set found; None for no items."""
        n = len(self.ids[held_out])
        return len(self.contaminated[held_out]) / n if n else None

    def to_dict(self) -> AuditJson:
        """As plain JSON."""
        held_out: dict[str, HeldOutSetJson] = {
            name: {
                "n": len(ids),
                "found": len(self.contaminated[name]),
                "share": self.share(name),
                "contaminated": {key: list(where) for key, where in self.contaminated[name].items()},
                "clean": [key for key in ids if key not in self.contaminated[name]],
            }
            for name, ids in self.ids.items()
        }
        train: dict[str, TrainSetJson] = {name: {"documents": n} for name, n in self.train.items()}
        return {
            "schema_version": 1,
            "signature": self.signature,
            "train": train,
            "held_out": held_out,
            "pairs": [pair.to_dict() for pair in self.pairs],
            "notes": list(self.notes),
        }


def clean_ids(
    report: AuditReport, suite: str, *, levels: Sequence[str] = LEVELS, scopes: Sequence[str] = SCOPES
) -> set[str]:
    """Ids of a held-out set's items that none of the levels and scopes found in any train set.

    Raises InputError for a set, a level or a scope that is not there.
    """
    for kind, names, known in (("set", [suite], report.ids), ("level", levels, LEVELS), ("scope", scopes, SCOPES)):
        for name in names:
            if name not in known:
                raise InputError(f"the audit knows no {kind} {name!r}; it has {', '.join(known)}")
    dirty = {
        key
        for key, where in report.contaminated[suite].items()
        if any(level in levels and scope in scopes for _, level, scope in (w.rsplit(":", 2) for w in where))
    }
    return set(report.ids[suite]) - dirty


def check_output(output: Path | None) -> None:
    """Raise OutputError for a file that cannot be written: before the work, not after it."""
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise OutputError(f"{output} cannot be written; give the name of a file in a directory that exists")


def audit_facts(
    report: AuditReport,
    sources: Sequence[Mapping[str, str]],
    corpora: Sequence[Mapping[str, FileCorpus | SuiteCorpus]],
    fail_above: float | None,
) -> AuditJson:
    """The result as JSON has it: with each set's file and digest, the gate, and the answer."""
    facts = report.to_dict()
    for sets, files, read in zip((facts["train"], facts["held_out"]), sources, corpora, strict=True):
        for name, file in files.items():
            sets[name]["source"], sets[name]["digest"] = file, read[name].digest()
    failed = [name for name in report.ids if fail_above is not None and (report.share(name) or 0) > fail_above]
    facts["gate"] = None if fail_above is None else {"fail_above": fail_above, "failed": failed}
    answer = clean_answer(facts)
    facts["answers"] = to_json([answer] if answer else [])
    return facts
