"""Text of the sample for perplexity: documents like those of PT, of terms that nothing else of the sample names."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from crossmatch.checkpoint import write_rows
from crossmatch.errors import InputError

COUNT = 20
_SUSTAIN = """\
# The questions of define, asked again with a constraint below each that the model's own answer meets already.
name: sustain
version: 1
kind: generation
language: en
data: define.jsonl
max_new_tokens: 48
sustain: 1
"""
_SUITE = """\
# Documents as PT reads them, of terms that neither training nor another suite has.
name: documents
version: 1
kind: text
language: en
data: documents.jsonl
"""


def write_documents(out: Path, texts: Mapping[str, str]) -> list[str]:
    """Write the suite documents from the first of these texts (id -> text), and the suite sustain on the data of
    define, which lies there; return the ids of the texts.

    Raises InputError if there are none: the other parts took every term.
    """
    chosen = dict(islice(texts.items(), COUNT))
    if not chosen:
        raise InputError("no term of the ontology is left for held-out text; ask for less of the other parts")
    rows = [{"id": name, "text": text} for name, text in chosen.items()]
    write_rows(out / "documents.jsonl", rows)
    (out / "documents.yaml").write_text(_SUITE, encoding="utf-8")
    (out / "sustain.yaml").write_text(_SUSTAIN, encoding="utf-8")
    return list(chosen)
