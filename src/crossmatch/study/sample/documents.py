"""Text of the sample for perplexity: documents like those of PT, of terms that nothing else of the sample names."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from crossmatch.checkpoint import write_rows
from crossmatch.errors import InputError
from crossmatch.study.sample.ontology import write_suites

COUNT = 20


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
    write_suites(out, "documents", "sustain")
    return list(chosen)
