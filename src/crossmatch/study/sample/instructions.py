"""Instructions whose answers a program can check: 40 requests about the sample's terms, of IFEval's 25 kinds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import write_rows
from crossmatch.errors import InputError

_SUITE = """\
# Requests about terms that neither training nor another suite has; each says what its checks look for.
name: instructions
version: 1
kind: instructions
language: en
data: instructions.jsonl
max_new_tokens: 160
"""

_FILE = Path(__file__).with_name("instructions.jsonl")
REQUESTS: Sequence[Mapping[str, Any]] = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
"""`question` and `checks` (kind, arguments) of each; {term} is a term inside a sentence."""


def write_instructions(out: Path, terms: Mapping[str, str]) -> list[str]:
    """Write the suite instructions, a request for each of the first terms (id -> name inside a sentence); return the
    ids of those. Raises InputError if there are too few."""
    if len(terms) < len(REQUESTS):
        raise InputError(f"{len(REQUESTS)} more terms are needed for instructions, {len(terms)} are left; ask for less")
    chosen = list(terms.items())[: len(REQUESTS)]
    rows = [
        {"id": f"{number:02}-{identifier}", **_filled(request, name)}
        for number, (request, (identifier, name)) in enumerate(zip(REQUESTS, chosen, strict=True), 1)
    ]
    write_rows(out / "instructions.jsonl", rows)
    (out / "instructions.yaml").write_text(_SUITE, encoding="utf-8")
    return [identifier for identifier, _ in chosen]


def _filled(value: Any, term: str) -> Any:
    """A part of a request with the term in its place."""
    if isinstance(value, dict):
        return {key: _filled(inner, term) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, term) for inner in value]
    return value.replace("{term}", term) if isinstance(value, str) else value
