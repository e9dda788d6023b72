"""The contamination audit: what of the held-out sets, and of each train set, occurs in the train sets."""

from crossmatch.evaluation.audit.audit import Corpus, Work, audit
from crossmatch.evaluation.audit.corpora import FileCorpus, SuiteCorpus, open_corpus
from crossmatch.evaluation.audit.fingerprints import SCOPES, Document
from crossmatch.evaluation.audit.index import LEVELS
from crossmatch.evaluation.audit.report import AuditReport, Criteria, Example, LevelOverlap, SetPair, clean_ids

__all__ = [
    "LEVELS",
    "SCOPES",
    "AuditReport",
    "Corpus",
    "Criteria",
    "Document",
    "Example",
    "FileCorpus",
    "LevelOverlap",
    "SetPair",
    "SuiteCorpus",
    "Work",
    "audit",
    "clean_ids",
    "open_corpus",
]
