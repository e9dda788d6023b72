"""The audit: planted overlaps of every kind are found, clean data is not, and how the work is cut changes nothing."""

import json
import os
import random
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmatch.cli import run
from crossmatch.errors import CrossmatchError, DataError, InputError
from crossmatch.evaluation import load_suite
from crossmatch.evaluation.audit import (
    LEVELS,
    SCOPES,
    AuditReport,
    Criteria,
    Document,
    LevelOverlap,
    SuiteCorpus,
    Work,
    audit,
    clean_ids,
    open_corpus,
)
from crossmatch.evaluation.audit.fingerprints import (
    BANDS,
    CHARACTERS,
    ROWS,
    SHINGLE,
    WORDS,
    bands,
    fingerprint,
    jaccard,
)
from crossmatch.evaluation.audit.tokens import tokenise
from crossmatch.evaluation.audit.workers import Workers

ONE = Work(processes=1, block=50)
WORDLIST = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ser", "tu") for b in ("ba", "den", "go", "ri") for c in "xyzvw"]
HAN = [chr(0x4E00 + i) for i in range(800)]


def words(rng: random.Random, n: int) -> str:
    return " ".join(f"{rng.choice(WORDLIST)}{rng.randrange(100)}" for _ in range(n))


def han(rng: random.Random, n: int) -> str:
    return "".join(rng.choice(HAN) for _ in range(n))


def exchange(key: str, question: str, answer: str) -> Document:
    return Document(key, f"{question}\n{answer}", question, answer)


def items(make: Callable[[random.Random, int], str], n: int = 20) -> list[Document]:
    rng = random.Random(1)
    return [exchange(f"h{i}", make(rng, 20), make(rng, 40)) for i in range(n)]


def noise(make: Callable[[random.Random, int], str], n: int = 120) -> list[Document]:
    rng = random.Random(2)
    plain = [Document(f"t{i}", make(rng, 80)) for i in range(n)]
    return plain + [exchange(f"x{i}", make(rng, 20), make(rng, 30)) for i in range(n)]


def where(report: AuditReport, key: str) -> set[str]:
    return {w.removeprefix("pt:") for w in report.contaminated["v"].get(key, ())}


def overlap(report: AuditReport, level: str, scope: str, *, pair: int = 0) -> LevelOverlap:
    return next(o for o in report.pairs[pair].overlaps if (o.level, o.scope) == (level, scope))


def changed(text: str, places: Sequence[int]) -> str:
    """Units at these places replaced."""
    units = text.split() if " " in text else list(text)
    for place in places:
        units[place] = "龥" if " " not in text else "other"
    return (" " if " " in text else "").join(units)


@pytest.mark.parametrize("make", [words, han], ids=["words", "characters"])
def test_what_is_planted_is_found_at_its_level(make: Callable[[random.Random, int], str]) -> None:
    held, train, rng = items(make), noise(make), random.Random(3)
    loud = [f"“{t.upper()}”，!" for t in (held[1].question or "", held[1].answer or "")]
    n = WORDS if make is words else CHARACTERS
    span = (held[2].answer or "").split()[5 : 5 + n] if make is words else [(held[2].answer or "")[5 : 5 + n]]
    train[100] = Document("whole", f"  {held[0].text}\n")
    train[101] = Document("loud", " ".join(loud))
    train[102] = Document("span", f"{make(rng, 30)} {' '.join(span)} {make(rng, 30)}")
    train[103] = Document("near", changed(held[3].text.replace("\n", " " if make is words else ""), [30]))
    train[104] = exchange("question", held[4].question or "", make(rng, 40))
    train[105] = exchange("answer", make(rng, 20), held[5].answer or "")
    train[106] = Document("inside", f"{make(rng, 50)} {held[6].question} {make(rng, 50)}")
    report = audit({"pt": train}, {"v": held}, work=ONE)
    assert {"exact:whole", "normalised:whole", "ngram:whole", "near:whole"} <= where(report, "h0")
    assert {"normalised:whole", "near:whole"} <= where(report, "h1")
    assert "exact:whole" not in where(report, "h1")
    # One n-gram of many: touched, not found.
    assert where(report, "h2") == set()
    assert {"ngram:whole", "near:whole"} <= where(report, "h3")
    assert "normalised:whole" not in where(report, "h3")
    scopes = {w.split(":")[1] for w in where(report, "h4")}
    assert scopes == {"question"}
    assert {"exact:question", "normalised:question", "ngram:question", "near:question"} == where(report, "h4")
    assert {"exact:answer", "normalised:answer", "ngram:answer", "near:answer"} <= where(report, "h5")
    assert where(report, "h6") == {"ngram:question"}
    assert set(report.contaminated["v"]) == {"h0", "h1", "h3", "h4", "h5", "h6"}
    assert overlap(report, "ngram", "whole").any_hit == 7
    assert clean_ids(report, "v") == {f"h{i}" for i in range(20)} - set(report.contaminated["v"])
    assert clean_ids(report, "v", levels=["exact"], scopes=["whole"]) == {f"h{i}" for i in range(1, 20)}
    assert report.share("v") == 6 / 20


def test_examples_name_the_document_of_the_train_set() -> None:
    held, train = items(words), noise(words)
    train[7] = Document("seven", held[0].text)
    train[70] = Document("again", held[0].text)
    near = changed(held[1].text.replace("\n", " "), [30])
    train[90] = Document("ninety", near)
    report = audit({"pt": train}, {"v": held}, work=ONE)
    assert [(e.id, e.train_id, e.value) for e in overlap(report, "exact", "whole").examples] == [("h0", "seven", None)]
    first, second = overlap(report, "near", "whole").examples
    assert (first.id, first.train_id, first.value) == ("h0", "seven", 1.0)
    a, b = (set(zip(*(t.split()[i:] for i in range(3)), strict=False)) for t in (near, held[1].text))
    assert (second.id, second.train_id) == ("h1", "ninety")
    assert second.value == round(len(a & b) / len(a | b), 4)
    share = overlap(report, "ngram", "whole").examples
    assert [(e.id, e.train_id) for e in share] == [("h0", "seven"), ("h1", "ninety")]
    assert share[1].value == round((60 - 12 - 13) / (60 - 12), 4)


def test_clean_data_is_clean() -> None:
    for make in (words, han):
        report = audit({"pt": noise(make), "sft": noise(make)[:0] + items(make, 30)[20:]}, {"v": items(make)}, work=ONE)
        assert all(o.found == 0 and not o.any_hit for p in report.pairs for o in p.overlaps), make
        assert clean_ids(report, "v") == set(report.ids["v"])


def test_short_answers_are_not_found() -> None:
    """`yes` is in every train set; how many answers were too short is said."""
    held = [exchange(f"h{i}", f"is it {words(random.Random(i), 9)}", answer) for i, answer in enumerate(SHORT)]
    train = [exchange(f"t{i}", words(random.Random(100 + i), 9), answer) for i, answer in enumerate(SHORT)]
    report = audit({"pt": train}, {"v": held}, work=ONE)
    assert set(report.contaminated["v"]) == {f"h{i}" for i, answer in enumerate(SHORT) if len(answer) > 30}
    for level in LEVELS:
        found = overlap(report, level, "answer")
        assert (found.n, found.too_short) == (3, 5), level
    loose = audit({"pt": train}, {"v": held}, work=ONE, criteria=Criteria(answer_words=1, answer_characters=1))
    assert len(loose.contaminated["v"]) == len(SHORT)


SHORT = (
    *("yes", "A", "是", "高血压", "one two three four five"),
    "one two three four five six seven eight",
    "高血压是以体循环动脉血压持续升高为主要特征的疾病，常见于中老年人群体，需要长期治疗",
    "what is said in nine words or a few more",
)


def test_a_short_text_inside_a_longer_one_is_one_ngram() -> None:
    """Of 8 to 12 words; of fewer it is too short."""
    rng = random.Random(8)
    held = [exchange(f"h{n}", words(rng, 20), words(rng, n)) for n in range(6, 16)]
    train = [Document(f"t{d.id}", f"{words(rng, 50)} {d.answer} {words(rng, 50)}") for d in held]
    report = audit({"pt": train}, {"v": held}, work=ONE)
    found = overlap(report, "ngram", "answer")
    assert (found.n, found.too_short, found.found, found.any_hit) == (8, 2, 8, 8)
    assert set(report.contaminated["v"]) == {f"h{n}" for n in range(8, 16)}
    assert all(e.train_id == f"t{e.id}" for e in found.examples)


def test_train_sets_are_looked_for_in_those_before() -> None:
    first, second, third = noise(words), items(words), items(han)
    first[3] = Document("of second", second[0].text)
    second[5] = Document("of third", third[0].text)
    report = audit({"a": first, "b": second, "c": third}, {}, work=ONE)
    assert [(p.train, p.against, p.documents, p.found) for p in report.pairs] == [
        ("a", "b", 20, 1),
        ("a", "c", 20, 0),
        ("b", "c", 20, 1),
    ]
    assert report.train == {"a": 240, "b": 20, "c": 20}
    assert report.ids == report.contaminated == {}


@pytest.fixture(scope="module")
def mixed() -> tuple[dict[str, list[Document]], dict[str, list[Document]]]:
    """Sets with overlaps of all kinds, words and characters, and one text far longer than a batch of the tokeniser."""
    rng = random.Random(5)
    held = items(words) + [replace_id(d, f"z{d.id}") for d in items(han)]
    train = noise(words) + noise(han)
    for i, document in enumerate(held[::2]):
        changes = [rng.randrange(50) for _ in range(i % 7)]
        text = document.text.replace("\n", " " if " " in document.text else "")
        train[13 * i] = Document(f"p{i}", changed(text, changes) if i % 5 else document.text)
    train[5] = Document("long", f"{words(rng, 30_000)} {held[1].text} {words(rng, 500)}")
    sft = held[3:9] + noise(han)[5:40] + noise(words)[50:90] * 2
    return {"pt": train, "sft": sft}, {"v": held, "w": noise(words)[:10]}


def replace_id(document: Document, key: str) -> Document:
    return document._replace(id=key)


def test_how_the_work_is_cut_changes_nothing(mixed: tuple[Any, Any]) -> None:
    train, held = mixed
    expected = audit(train, held, work=Work(processes=1, block=2000)).to_dict()
    assert expected["held_out"]["v"]["found"] > 10
    assert "ngram:whole" in str(expected["held_out"]["v"]["contaminated"]["h1"])
    for work in (Work(1, 7, 300), Work(1, 41, 2000), Work(2, 100, 2000)):
        assert audit(train, held, work=work).to_dict() == expected, work


def test_order_of_documents_does_not_matter(mixed: tuple[Any, Any]) -> None:
    train, held = mixed
    shuffled = random.Random(6).sample(train["pt"], len(train["pt"]))
    one, other = (audit({"pt": t}, held, work=ONE).contaminated for t in (train["pt"], shuffled))
    assert one == other


def test_a_killed_process_is_said_in_one_line() -> None:
    with Workers(2) as workers, pytest.raises(CrossmatchError, match="ended by the system"):
        list(workers.map(os._exit, [(1,)] * 4))


# --- units ---------------------------------------------------------------------------------------------------------

TEXTS = st.lists(
    st.text(alphabet=st.sampled_from("abcXYZ 　\t.,-é́ß１ﬁ血压ひらカ한글ไท'\u200b\U00020000"), max_size=40), max_size=6
)


def reference(text: str) -> list[str]:
    """Units of a text, character by character."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("\u200b", "")
    pieces = re.findall(r"[血压ひらカไท\U00020000]|[^血压ひらカไท\U00020000 \t.,'\u3000-]+", text)
    return [p for p in pieces if p]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_units_are_those_of_a_plain_tokeniser(texts: list[str]) -> None:
    units = tokenise(texts)
    expected = [reference(text) for text in texts]
    assert units.counts.tolist() == [len(e) for e in expected]
    flat = [word for e in expected for word in e]
    # Equal units and no others have equal hashes; so have windows and normal forms.
    assert len(set(zip(flat, units.hashes.tolist(), strict=True))) == len(set(flat)) == len(set(units.hashes.tolist()))
    joined = ["".join(e) for e in expected]
    assert (
        len(set(zip(joined, units.normal.tolist(), strict=True))) == len(set(joined)) == len(set(units.normal.tolist()))
    )
    for n, (hashes, offsets) in zip((1, 3, 4), units.windows(1, 3, 4), strict=True):
        grams = [[tuple(e[i : i + n]) for i in range(len(e) - n + 1)] for e in expected]
        assert np.diff(offsets).tolist() == [len(g) for g in grams]
        every = [g for one in grams for g in one]
        assert len(set(zip(every, hashes.tolist(), strict=True))) == len(set(every)) == len(set(hashes.tolist()))
    sequences = units.sequences().tolist()
    tuples = [tuple(e) for e in expected]
    assert len(set(zip(tuples, sequences, strict=True))) == len(set(tuples)) == len(set(sequences))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_texts_do_not_depend_on_their_company(seed: int, copies: int) -> None:
    """A text of many batches has the units it has alone; so has one beside it."""
    rng = random.Random(seed)
    long, short = words(rng, 12_000 * copies), han(rng, 30)
    alone, together = [tokenise([t]) for t in (long, short)], tokenise([short, long, "", short])
    assert together.normal.tolist() == [int(alone[i].normal[0]) for i in (1, 0)] + [
        int(tokenise([""]).normal[0]),
        int(alone[1].normal[0]),
    ]
    both = np.concatenate([alone[1].hashes, alone[0].hashes, alone[1].hashes])
    assert np.array_equal(together.hashes, both)
    assert together.by_characters.tolist() == [True, False, False, True]


# --- MinHash -------------------------------------------------------------------------------------------------------


def test_minhash_is_unbiased_and_bands_follow_their_formula() -> None:
    """P(a band is shared) = J^ROWS for pairs of known Jaccard index; 400 pairs of 20 bands, four standard errors."""
    rng = np.random.default_rng(7)
    for common, apart in ((80, 10), (90, 5), (40, 30), (0, 50)):
        j, pairs = common / (common + 2 * apart), 400
        sets = rng.integers(1, 2**63, (pairs, common + 2 * apart)).astype(np.uint64)
        flat = np.concatenate(
            [np.concatenate([s[: common + apart], np.concatenate([s[:common], s[common + apart :]])]) for s in sets]
        )
        found = bands(flat, np.arange(0, len(flat) + 1, common + apart))
        shared = (found[::2] == found[1::2]).mean()
        expected = j**ROWS
        assert abs(shared - expected) <= 4 * np.sqrt(expected * (1 - expected) / (pairs * BANDS)) + 1e-12, j


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 12), st.integers(25, 70))
def test_near_is_the_exact_jaccard_index(seed: int, changes: int, length: int) -> None:
    """Found if and only if the Jaccard index of the shingles' sets, computed plainly, is at least 0.8."""
    rng = random.Random(seed)
    text = words(rng, length)
    other = changed(text, [rng.randrange(length) for _ in range(changes)])
    a, b = (set(pairwise_three(t.split())) for t in (text, other))
    train = [*noise(words, 20), Document("other", other)]
    found = overlap(audit({"pt": train}, {"v": [Document("h", text)]}, work=ONE), "near", "whole").found
    assert found == (len(a & b) / len(a | b) >= 0.8)


def pairwise_three(units: list[str]) -> list[tuple[str, str, str]]:
    return [(a, b, c) for (a, b), (_, c) in pairwise(pairwise(units))]


def test_jaccard_of_sets() -> None:
    one, other = np.array([1, 2, 3], np.uint64), np.array([2, 3, 4, 5], np.uint64)
    assert jaccard(one, other) == 2 / 5
    assert jaccard(one, one) == 1
    assert jaccard(one[:0], one[:0]) == 0


def test_templates_are_bounded_and_said() -> None:
    """Thousands of questions from one template share their bands: the search is cut, said, and finds equal ones."""
    held = [exchange(f"h{i}", f"{TEMPLATE} {i} ?", f"{words(random.Random(i), 20)}") for i in range(400)]
    train = [exchange(f"t{i}", f"{TEMPLATE} {i} ?", f"{words(random.Random(900 + i), 20)}") for i in range(0, 800, 2)]
    report = audit({"pt": train}, {"v": held}, work=ONE)
    assert report.pairs[0].cut > 0
    assert overlap(report, "exact", "question").found == 200
    again = audit({"pt": train}, {"v": held}, work=Work(1, 9))
    assert again.to_dict() == report.to_dict()


def test_a_template_is_no_leak_and_what_stands_in_it_is_found() -> None:
    """Questions behind one instruction, in both languages: other questions are clean, the same ones are not."""
    for make, template in ((words, f"{TEMPLATE} as you would in an examination of medicine"), (han, ZH_TEMPLATE)):
        rng = random.Random(4)
        asked = [make(rng, 20) for _ in range(60)]
        held = [exchange(f"h{i}", f"{template}\n{q}", make(rng, 3)) for i, q in enumerate(asked[:20])]
        others = [exchange(f"t{i}", f"{template}\n{q}", make(rng, 3)) for i, q in enumerate(asked[20:])]
        assert not audit({"pt": others}, {"v": held}, work=ONE).contaminated["v"]
        known = [Document("k", f"{make(rng, 30)} {asked[3]} {make(rng, 30)}"), held[5]]
        assert set(audit({"pt": [*others, *known]}, {"v": held}, work=ONE).contaminated["v"]) == {"h3", "h5"}


def test_chinese_stems_that_share_words_are_other_questions() -> None:
    pairs = [
        ("下列哪项不属于痛风的慢性并发症", "下列哪项不属于痛风的急性并发症"),
        ("有关肝硬化的叙述，正确的一项是", "有关肝硬化的叙述，错误的一项是"),
        ("支气管扩张症最常见的致病菌是", "支气管扩张症最常见的症状是"),
        ("患者，女，52岁，因双下肢水肿2周入院，最可能的诊断是", "患者，女，52岁，因双下肢水肿2周入院，首选的检查是"),
    ]
    held = [Document(str(i), one, one) for i, (one, _) in enumerate(pairs)]
    train = [Document(str(i), other, other) for i, (_, other) in enumerate(pairs)]
    assert not audit({"pt": train}, {"v": held}, work=ONE).contaminated["v"]
    same = [Document("s", f"题目：{one}！答案：甲") for one, _ in pairs]
    assert set(audit({"pt": same}, {"v": held}, work=ONE).contaminated["v"]) == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("肝硬化最常見的死亡原因", "肝硬化最常见的死亡原因"), ("後頭部的發髮", "后头部的发发"), ("反覆", "反复")],
)
def test_traditional_and_simplified_forms_are_one(one: str, other: str) -> None:
    units = tokenise([one, other])
    assert units.normal[0] == units.normal[1]
    assert units.hashes[: len(one)].tolist() == units.hashes[len(one) :].tolist()


ZH_TEMPLATE = "请根据你的医学知识回答以下单项选择题，先给出分析过程，再在最后一行写出答案。"
TEMPLATE = "please say in one short sentence of your own words what is meant by the following medical term number"


def test_texts_without_units() -> None:
    """Nothing to compare is nothing found: too short at every level."""
    report = audit({"pt": [Document("t", "?!")]}, {"v": [Document("h", "?!"), Document("i", "\ud800")]}, work=ONE)
    for level in LEVELS:
        found = overlap(report, level, "whole")
        assert (found.n, found.too_short, found.found, found.share) == (0, 2, 0, None)
    assert fingerprint([Document("a", "one two")]).offsets.tolist() == [0, 0]
    assert SHINGLE == 3


# --- files ---------------------------------------------------------------------------------------------------------

ROWS_OF = [
    {"id": 5, "prompt": "what is it", "completion": "it is this"},
    {"instruction": "say", "input": "this", "output": "that"},
    {"text": "plain\ntext"},
    {"question": "which", "reference": "that one"},
    {"id": "c", "question": "which", "options": ["one", "two"], "answer": 1},
    {
        "id": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "one"},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": "two"},
        ],
    },
]
DOCUMENTS = [
    exchange("5", "what is it", "it is this"),
    exchange("2", "say\nthis", "that"),
    Document("3", "plain\ntext"),
    exchange("4", "which", "that one"),
    Document("c", "which\nA. one\nB. two", "which", "two"),
    exchange("m/1", "first", "one")._replace(beside="be brief"),
    exchange("m/2", "second", "two"),
]


def test_forms_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS_OF))
    assert list(open_corpus(tmp_path / "a.jsonl")) == DOCUMENTS
    (tmp_path / "a.json").write_text(json.dumps(ROWS_OF, indent=1))
    assert list(open_corpus(tmp_path / "a.json")) == DOCUMENTS
    (tmp_path / "a.txt").write_text("one document\n\nanother\n")
    assert [d.text.strip() for d in open_corpus(tmp_path / "a.txt")] == ["one document", "another"]
    assert [d.id for d in open_corpus(tmp_path / "a.txt")] == ["1", "3"]
    (tmp_path / "b.jsonl").write_text(json.dumps({"Q": "who", "A": "me"}) + "\n")
    assert list(open_corpus(tmp_path / "b.jsonl", {"instruction": "Q", "output": "A"})) == [exchange("1", "who", "me")]


def test_parquet(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list([{"text": "a text"}, {"text": "more"}]).to_parquet(tmp_path / "a.parquet")
    assert list(open_corpus(tmp_path / "a.parquet")) == [Document("1", "a text"), Document("2", "more")]
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="b.parquet cannot be read"):
        list(open_corpus(tmp_path / "b.parquet"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30).filter(str.strip), max_size=6), st.integers(1, 40), st.sampled_from([None, 2]))
def test_json_lists_in_pieces(texts: list[str], chunk: int, indent: int | None) -> None:
    """Whatever the size of the pieces, a list has the items that `json` finds."""
    import tempfile

    from crossmatch.data import json_list

    whole = json_list.CHUNK
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "a.json"
        file.write_text(
            json.dumps([{"text": t} for t in texts], indent=indent, ensure_ascii=not chunk % 2),
            "utf-8",
            "surrogatepass",
        )
        try:
            json_list.CHUNK = chunk
            assert [d.text for d in open_corpus(file)] == texts
        finally:
            json_list.CHUNK = whole


def test_a_suite_is_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: s\nversion: 1\nkind: choice\ndata: s.jsonl\nprompt: 'ask: {question}'\n")
    (tmp_path / "s.jsonl").write_text(json.dumps(ROWS_OF[4]) + "\n")
    corpus = open_corpus(tmp_path / "s.yaml")
    assert list(corpus) == [DOCUMENTS[4]]
    suite = load_suite(tmp_path / "s.yaml")
    report = audit({"pt": [DOCUMENTS[3], DOCUMENTS[4]]}, {"s": SuiteCorpus(suite)}, work=ONE)
    assert clean_ids(report, "s") == set()
    assert clean_ids(report, "s", levels=["ngram"]) == {"c"}


def test_all_that_a_model_reads_of_a_row_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out texts are planted in every place of training data that reaches the model, and all are found."""
    held, rng = items(words), random.Random(7)
    user, answer = {"role": "user", "content": words(rng, 20)}, {"role": "assistant", "content": words(rng, 20)}
    call = {"function": {"name": "search", "arguments": {"query": {"text": held[0].text}}}}
    tool = {"type": "function", "function": {"name": "search", "description": held[1].text}}
    rows: list[dict[str, Any]] = [
        {"messages": [user, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "x"}, answer]},
        {"messages": [user, answer], "tools": [tool]},
        {"messages": [{"role": "system", "content": held[2].text}, user, answer]},
        {"messages": [{"role": "assistant", "content": held[3].text}, user, answer]},
        {"messages": [user, answer, {"role": "assistant", "content": held[4].text}]},
        {
            "messages": [
                user,
                {**answer, "weight": 1},
                user,
                {"role": "assistant", "content": held[5].text, "weight": 0},
            ]
        },
        {"question": "which", "reference": "that", "messages": [{**user, "content": held[6].text}, answer]},
        {"question": "which", "reference": "that", "context": held[7].text, "source": "book"},
        {"question": "which", "options": ["a", "b"], "answer": 0, "passage": [held[8].text]},
        {"question": "which", "reference": held[9].text, "prompt": "no completion"},
        {"prompt": "first", "completion": "second", "reasoning": held[10].text},
        {"instruction": "x", "output": "y", "history": [["p", held[11].text]], "system": held[12].text},
    ]
    (tmp_path / "pt.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = audit({"pt": open_corpus(tmp_path / "pt.jsonl")}, {"v": held}, work=ONE)
    assert sorted(report.contaminated["v"]) == sorted(f"h{n}" for n in range(13))
    assert report.notes == ("pt: not looked at: source (1 rows), prompt (1 rows)",)
    # Of a held-out set what stands beside its items is not looked for, and that is said.
    held_out = ["--train", f"t={tmp_path / 'pt.jsonl'}", "--held-out", f"v={tmp_path / 'pt.jsonl'}"]
    assert run(["audit", *held_out, "-o", str(tmp_path / "out.json"), "--processes", "1"]) == 0
    said = "v: not looked at: system messages and tools (3 rows), source (1 rows), prompt (1 rows)"
    assert f"note: {said}" in " ".join(capsys.readouterr().err.split())
    assert said in json.loads((tmp_path / "out.json").read_text())["notes"]


def test_a_context_that_is_asked_is_looked_for(tmp_path: Path) -> None:
    rng = random.Random(1)
    row = {"q": words(rng, 10), "a": words(rng, 8), "abstract": words(rng, 60), "source": "book"}
    (tmp_path / "s.jsonl").write_text(json.dumps(row) + "\n")
    fields = "fields: {question: q, reference: a, context: abstract}\n"
    head = f"name: s\nversion: 1\nkind: generation\ndata: s.jsonl\n{fields}prompt: "
    (tmp_path / "s.yaml").write_text(f"{head}'{{context}} {{question}}'\n")
    (tmp_path / "t.yaml").write_text(f"{head}'{{question}}'\n".replace("name: s", "name: t"))
    train = [Document("abstract", f"{words(rng, 30)} {row['abstract']} {words(rng, 30)}")]
    sets = {name: open_corpus(tmp_path / f"{name}.yaml") for name in ("s", "t")}
    report = audit({"pt": train}, sets, work=ONE)
    assert report.contaminated["s"] == {"1": ("pt:ngram:whole",)}
    assert not report.contaminated["t"]
    assert report.notes == (
        "s: not looked at, as the suite does not read it: source",
        "t: not looked at, as the suite does not read it: abstract (the prompt has no {context}), source",
    )


BAD = {
    "a.jsonl": ('{"text": "x"}\n{"text": ""}\n', "a.jsonl, line 2: field 'text' must be a text that is not empty"),
    "b.jsonl": ('{"text": "x"\n', "b.jsonl, line 1: not JSON"),
    "c.jsonl": ('{"body": "x"}\n', r"c.jsonl, line 1: none of .*text among its fields \['body'\]"),
    "d.jsonl": ("[1]\n", "d.jsonl, line 1: an object is needed, not list"),
    "e.json": ('{"text": "x"}', "e.json must hold a list"),
    "f.json": ('[{"text": "x"} {"text": "y"}]', "f.json, after item 1: a comma or the end of the list is missing"),
    "g.json": ('[{"text": "x"}, {"text": "y]', "g.json, item 2: not JSON"),
    "h.json": ('[{"text": "x"}, ', "h.json, item 2: not JSON"),
    "i.jsonl": ("\n", "holds no documents"),
    "j.jsonl": (
        '{"messages": [{"role": "user", "content": "x"}]}',
        "line 1: there is no answer: the last message must be the assistant's, behind at least one other",
    ),
    "k.jsonl": ('{"question": "x", "options": ["a", "b"], "answer": 2}', "index of the 2 options, not 2"),
    "m.jsonl": ('{"text": "x"}\n{"text": "half \\ud83d"}', "m.jsonl, line 2: half a character"),
    "n.jsonl": ('{"question": "half \\ud83d", "reference": "x"}', "n.jsonl, line 1: half a character"),
    "l.json": ('[{"text": tru}' + " " * 50, "l.json, item 1: not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        audit({"pt": open_corpus(tmp_path / name)}, {"v": items(words)}, work=ONE)


def test_processes_load_no_torch() -> None:
    code = "import sys, crossmatch.evaluation.audit.audit; print({'torch', 'datasets', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_bad_arguments() -> None:
    held = items(words)
    with pytest.raises(DataError, match="v: id 'h3' appears 2 times"):
        audit({"pt": noise(words)}, {"v": [*held, held[3]]}, work=ONE)
    with pytest.raises(InputError, match="a train set, and a held-out set"):
        audit({"pt": held}, {})
    with pytest.raises(InputError, match="name of a train set and of a held-out set"):
        audit({"v": held}, {"v": held})
    with pytest.raises(InputError, match="share of n-grams"):
        Criteria(share=0)
    with pytest.raises(DataError, match="pt holds no documents"):
        audit({"pt": iter(())}, {"v": held})
    with pytest.raises(DataError, match="does not exist; give a"):
        list(open_corpus("no-such-file.jsonl"))
    report = audit({"pt": held}, {"v": held}, work=ONE)
    for wrong in ({"levels": ["exactly"]}, {"scopes": ["title"]}):
        with pytest.raises(InputError, match="the audit knows no"):
            clean_ids(report, "v", **wrong)
    with pytest.raises(InputError, match="no set 'w'"):
        clean_ids(report, "w")


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    held, train = items(words), noise(words)
    train[0] = Document("planted", held[0].text)
    rows = [{"id": d.id, "text": d.text} for d in train]
    (tmp_path / "pt.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, some in (("sft", held[5:8]), ("valid", held)):
        rows = [{"id": d.id, "prompt": d.question, "completion": d.answer} for d in some]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_command(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--train", f"pt={files / 'pt.jsonl'}", "--train", f"sft={files / 'sft.jsonl'}"]
    held = ["--held-out", f"define={files / 'valid.jsonl'}"]
    out = files / "out.json"
    assert run(["audit", *sets, *held, "-o", str(out), "--processes", "1"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("Training data hold text of test items: define (4 of 20).")
    assert first.count("\n") <= 15
    assert run(["audit", *sets, *held, "-o", str(out), "--processes", "1", "--detail"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "define in pt: 1 of 20 documents (5.00%)" in text
    assert re.search(r"exact +whole +1 +20 +5.0%\n    h0 in planted\n", text)
    assert "none found: exact question 20" in text
    assert "define: 4 of 20 items found, 16 are clean" in text
    assert str(out) in "".join(text.split())
    assert run(["audit", *sets, *held, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads(out.read_text())
    assert facts["schema_version"] == 1
    assert facts["held_out"]["define"]["share"] == 0.2
    assert len(facts["train"]["pt"]["digest"]) == 64
    assert [(p["train"], p["against"]) for p in facts["pairs"]] == [("pt", "define"), ("pt", "sft"), ("sft", "define")]
    assert {(o["level"], o["scope"]) for o in facts["pairs"][0]["overlaps"]} == {(a, b) for a in LEVELS for b in SCOPES}
    assert run(["audit", *sets, *held, "--fail-above", "0.2"]) == 0
    assert run(["audit", *sets, *held, "--fail-above", "0.19"]) == 1
    assert "failed: of define 20.00% were found, more than 19.00%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "pt=none.jsonl", "--held-out", "v=x/y"], "none.jsonl does not exist"),
        (["--train", "pt=.", "--held-out", "v=x/y"], ". is no file"),
        (["--train", "none.jsonl"], "write it as NAME=VALUE"),
        (["--train", "a=b", "--train", "a=c"], "given twice"),
        (["--train", "a=b/c"], "an audit needs a train set"),
        (["--train", "a=b", "--fail-above", "0.1"], "add --held-out"),
        (["--train", "a=b", "--held-out", "c=d", "--fail-above", "5"], "give a share from 0 to 1"),
        (["--train", "a=b/c", "--held-out", "c=d.yaml"], "d.yaml cannot be read"),
        (["--train", "a=b", "--held-out", "c=d", "-o", "no/such/out.json"], "cannot be written"),
    ],
)
def test_bad_commands_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
