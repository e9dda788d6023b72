"""Scores equal to their references; parts that add up; traces that are seen and those that are not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from crossmatch.evaluation.comparison.bleu_decomposition import fall_parts, length_parts, lengthened
from crossmatch.evaluation.metrics.bleu_rouge import bleu, bleu_statistics, sentence_bleu, sentence_bleu_signature
from crossmatch.evaluation.metrics.chrf import chrf, chrf_signature, chrf_statistics
from crossmatch.evaluation.metrics.llamafactory import common_subsequence, factory_scores
from crossmatch.evaluation.metrics.reasoning_traces import calibrated, opener_statistics, parse_trace
from crossmatch.statistics.estimates import Array, mean_of
from crossmatch.statistics.resampling import bootstrap, paired_contrast, paired_difference

# (hypothesis, reference, BLEU-4, ROUGE-1, -2, -L) by LLaMA-Factory's recipe (its src/llamafactory/train/sft/metric.py
# without the rounding to 4 decimals): rouge_chinese 1.0.3, jieba 0.42.1, nltk 3.10.4, Python 3.11, November 2026.
FACTORY = [
    ("血压异常升高。", "血压升高的一种异常。", 15.40232556, 79.99999952, 0.0, 59.99999952),
    ("完全相同的句子。", "完全相同的句子。", 100.0, 99.9999995, 99.9999995, 99.9999995),
    ("心脏肥大", "肝脏体积增大", 11.52159099, 0.0, 0.0, 0.0),
    ("The cat sat on the mat.", "The cat is on the mat.", 79.44837206, 85.71428521, 66.66666617, 85.71428521),
    (
        "hypertension",
        "Abnormally increased blood pressure, or hypertension.",
        3.28216583,
        22.22222202,
        0.0,
        22.22222202,
    ),
    ("no match whatsoever", "其他内容", 0.0, 0.0, 0.0, 0.0),
    ("", "贫血", 0.0, 0.0, 0.0, 0.0),
    ("贫血", "", 0.0, 0.0, 0.0, 0.0),
    ("  \n ", "贫血", 0.0, 0.0, 0.0, 0.0),
    ("贫", "贫血", 13.00650238, 0.0, 0.0, 0.0),
    ("a b", "a b", 84.08964153, 99.9999995, 99.9999995, 99.9999995),
    (
        "糖尿病是一种慢性疾病。\n\n患者应控制饮食，并定期监测血糖。",
        "糖尿病是慢性病。\n患者需要控制饮食。监测血糖！",
        32.95103291,
        64.2857138,
        34.48275814,
        58.06451564,
    ),
    (
        "<think>\n嗯，让我想想……\n</think>\n\n高血压。",
        "高血压是血压持续升高。",
        4.79739252,
        21.05263115,
        0.0,
        17.39130396,
    ),
    (
        "What is it? It is anaemia......and fatigue.",
        "Anaemia? It causes fatigue...... and pallor.",
        55.01046555,
        63.15789424,
        22.22222173,
        49.99999951,
    ),
    (
        "医生说：“多喝水。”然后他走了。",
        "医生说：“多喝水！”他就走了。",
        55.33409599,
        86.95652124,
        54.54545405,
        83.33333283,
    ),
    ("the the the the cat", "the cat the dog", 49.88349435, 79.99999952, 39.99999952, 44.44444395),
    ("病人病人病人发烧", "病人发烧病人咳嗽", 41.11336169, 79.99999952, 39.99999952, 49.9999995),
    (
        "Take 500 mg of metformin 2.5 times/day.",
        "Metformin 500mg, twice a day.",
        37.10050263,
        23.52941128,
        13.33333285,
        23.52941128,
    ),
    ("？！。", "。！？", 29.73017788, 99.9999995, 0.0, 33.33333283),
    (
        "EGFR 突变阳性的非小细胞肺癌患者 PD-L1 高表达。",
        "非小细胞肺癌患者常有 EGFR 突变，PD-L1 表达较高。",
        60.71568601,
        73.33333283,
        35.71428521,
        53.33333283,
    ),
    ("a……b", "a…… b……”c", 18.30602643, 74.99999953, 66.66666622, 66.66666622),
    ("。\n。\n。", "。\n。", 39.76353644, 99.9999995, 99.9999995, 74.99999953),
    ("\n开头有空行。", "开头\n没有空行。", 44.04890495, 74.9999995, 33.33333283, 74.9999995),
    ("😀 ok", "ok 😀", 37.99178428, 99.9999995, 0.0, 49.9999995),
    (
        "，升高amg2.5”fever2.5……，应\nmg。",
        "。患者治疗a 治疗。fever患者糖尿病",
        14.71005213,
        13.33333285,
        0.0,
        9.99999951,
    ),
    ("......2.5 患者……，......治疗的\n 2.5!mga升高 血压糖尿病”是的", "治疗", 1.66435679, 13.33333321, 0.0, 10.52631569),
    ("......the......糖尿病\n，应thethe。 !糖尿病糖尿病......mg2.5", "fever fever患者", 1.09923307, 0.0, 0.0, 0.0),
    ("...... \n治疗 ，应fever!糖尿病治疗”......，应thefever？\n？", "治疗是", 1.66435679, 15.38461512, 0.0, 10.5263156),
    (
        "2.5糖尿病糖尿病是。。升高糖尿病 ",
        "”mgamgthe\n是，应，，应a!2.5是的……糖尿病......治疗患者2.5，应",
        3.48433225,
        31.57894698,
        0.0,
        19.99999961,
    ),
    (
        "......\nthe血压a患者the……？......，升高患者。the升高，应的 治疗是",
        "血压患者的",
        2.43154196,
        33.33333306,
        0.0,
        23.99999979,
    ),
]
MIXED = [
    ("the cat sat on the mat", "the cat is on the mat"),
    ("血压异常升高。", "血压升高的一种异常。"),
    ("", "a reference"),
    ("a", "b"),
    ("ab", "abcdefgh"),
    ("identical texts", "identical texts"),
    ("something long that has no match", ""),
]


def test_chrf_is_sacrebleu() -> None:
    hypotheses, references = zip(*MIXED, strict=True)
    rows = chrf_statistics(hypotheses, references)
    rng = np.random.default_rng(0)
    draws = [[i] for i in range(len(MIXED))]
    draws += [[int(i) for i in rng.integers(0, len(MIXED), len(MIXED))] for _ in range(50)]
    for chosen in draws:
        expected = CHRF().corpus_score([hypotheses[i] for i in chosen], [[references[i] for i in chosen]]).score
        assert float(chrf(rows[chosen].mean(0, keepdims=True))[0]) == pytest.approx(expected, abs=1e-9)
    assert "nc:6" in chrf_signature()
    assert "nw:0" in chrf_signature()


@given(st.lists(st.tuples(st.text("ab c贫血", max_size=12), st.text("ab c贫血", max_size=12)), min_size=1, max_size=4))
def test_chrf_of_any_texts(pairs: list[tuple[str, str]]) -> None:
    hypotheses, references = zip(*pairs, strict=True)
    expected = CHRF().corpus_score(list(hypotheses), [list(references)]).score
    found = chrf(chrf_statistics(hypotheses, references).mean(0, keepdims=True))
    assert float(found[0]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("language", "tokenizer"), [("en", "13a"), ("zh", "zh")])
def test_sentence_bleu_is_sacrebleu(language: str, tokenizer: str) -> None:
    hypotheses, references = zip(*MIXED, strict=True)
    found = sentence_bleu(hypotheses, references, language)
    metric = BLEU(tokenize=tokenizer, effective_order=True)
    expected = [metric.sentence_score(h, [r]).score for h, r in MIXED]
    assert found.shape == (len(MIXED), 1)
    assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-12)
    signature = sentence_bleu_signature(language)
    assert "eff:yes" in signature
    assert f"tok:{tokenizer}" in signature


def test_factory_scores_are_those_of_the_factory() -> None:
    found = factory_scores([row[0] for row in FACTORY], [row[1] for row in FACTORY])
    assert list(found) == ["lf_bleu4", "lf_rouge1", "lf_rouge2", "lf_rougeL"]
    for column, rows in enumerate(found.values()):
        assert rows[:, 0].tolist() == pytest.approx([float(row[2 + column]) for row in FACTORY], abs=1e-6)
    assert all(rows.shape == (0, 1) for rows in factory_scores([], []).values())


def test_words_are_cut_without_a_file_in_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    from crossmatch.evaluation.metrics.llamafactory import _segmenter

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _segmenter.cache_clear()
    assert list(_segmenter().cut("慢性疾病患者")) == ["慢性", "疾病", "患者"]
    assert not list(tmp_path.iterdir())


@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_common_subsequence_is_that_of_the_table(first: list[str], second: list[str]) -> None:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, one in enumerate(first, 1):
        for j, other in enumerate(second, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if one == other else max(table[i - 1, j], table[i, j - 1])
    assert common_subsequence(first, second) == table[-1, -1]


REFERENCES = [f"a disease of organ {i} that raises pressure in small vessels" for i in range(12)]
TRACE = "<think>okay so the user wants a definition of this term and I should be short</think> "
PLAIN = [f"a disease of organ {i} that raises blood pressure" for i in range(12)]
POORER = [f"disease of organ {i} with high blood pressure" for i in range(12)]


def rows_of(texts: list[str]) -> tuple[Array, Array]:
    answers = [parse_trace(t).answer for t in texts]
    return bleu_statistics(texts, REFERENCES, "en"), bleu_statistics(answers, REFERENCES, "en")


def corpus(columns: Array) -> Array:
    return bleu(columns, len(REFERENCES))


def value(part: tuple) -> float:
    return float(part[1](part[0].mean(0, keepdims=True))[0])


def test_a_fall_is_dilution_and_content() -> None:
    sft = fall_parts(*rows_of(PLAIN), corpus)
    traced = fall_parts(*rows_of([TRACE + t for t in PLAIN]), corpus)
    poorer = fall_parts(*rows_of([TRACE + t for t in POORER]), corpus)

    def change(mine: dict, part: str) -> float:
        found = paired_difference(mine[part][0], sft[part][0], mine[part][1])
        assert found is not None
        return found.value

    assert change(traced, "content") == 0.0
    assert change(traced, "dilution") == pytest.approx(change(traced, "total"))
    assert change(traced, "total") < -5
    assert change(poorer, "content") < -5
    assert change(poorer, "dilution") + change(poorer, "content") == pytest.approx(change(poorer, "total"))
    assert value(sft["dilution"]) == 0.0
    with pytest.raises(ValueError, match="same items"):
        fall_parts(np.zeros((3, 10)), np.zeros((2, 10)), mean_of)


@given(st.integers(0, 2**16))
def test_parts_add_up_in_every_draw(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mine = fall_parts(*rows_of([TRACE * int(rng.integers(0, 3)) + t for t in PLAIN]), corpus)
    draw = rng.multinomial(12, np.full(12, 1 / 12)) / 12
    parts = {name: float(s((draw @ rows)[None])[0]) for name, (rows, s) in mine.items()}
    assert parts["dilution"] + parts["content"] == pytest.approx(parts["total"], abs=1e-9)


def test_length_alone_explains_a_trace_that_matches_nothing() -> None:
    noise = "qqq " * 20
    plain, longer = rows_of(PLAIN)[0], rows_of([noise + t for t in PLAIN])[0]
    parts = length_parts(corpus)

    def change(mine: Array, part: str, other: Array = plain) -> float:
        return float(parts[part](mine.mean(0, keepdims=True), other.mean(0, keepdims=True))[0])

    assert change(longer, "length") == pytest.approx(change(longer, "total"))
    assert change(longer, "rest") == pytest.approx(0.0, abs=1e-9)
    poorer = rows_of(POORER)[0]
    assert change(poorer, "length") + change(poorer, "rest") == pytest.approx(change(poorer, "total"))
    assert abs(change(poorer, "length")) < 0.9 * abs(change(poorer, "total"))
    assert change(plain, "length") == 0.0
    # 2.74 times the length, no new match: the fall from 17.84 to 6.50 that two papers' versions differ by.
    mean = plain.mean(0, keepdims=True)
    stretched = lengthened(mean, 2.74 * mean[:, -2])
    assert float(corpus(stretched)[0] / corpus(lengthened(mean, mean[:, -1]))[0]) == pytest.approx(1 / 2.74, rel=0.15)
    tested = paired_contrast(longer, plain, parts["length"])
    assert tested is not None
    assert tested.high < 0
    assert tested.p == 2 / 2**12
    with pytest.raises(ValueError, match="paired items"):
        paired_contrast(plain[:3], plain, parts["length"])


@pytest.mark.parametrize(
    ("text", "state", "answer", "lexical"),
    [
        ("<think>a</think>one<think>b</think> two", "closed", "one two", False),
        ("<think></think>one<think>b", "unclosed", "one", False),
        ("<think>a<think>b</think>c</think>one", "closed", "one", False),
        ("<THINKING>a</THINKING>one", "closed", "one", False),
        ("so it is</ think >one", "close_only", "one", False),
        ("Qwen opens with `<think>` and goes on.", "none", "Qwen opens with `<think>` and goes on.", False),
        ("```\n<think>\n```", "none", "```\n<think>\n```", False),
        ("```\n<think> never closed", "none", "```\n<think> never closed", False),
        ("<think>```python\nx = 1</think>one", "closed", "one", False),
        ("  > <think> quoted\none", "none", "> <think> quoted\none", False),
        ("> Let's think step by step.\nAnaemia.", "none", "> Let's think step by step.\nAnaemia.", False),
        ("```\nOkay, let me see\n```\nAnaemia.", "none", "```\nOkay, let me see\n```\nAnaemia.", False),
        ("OKAY, LET ME SEE.", "none", "OKAY, LET ME SEE.", True),
        ("Let's break this down.", "none", "Let's break this down.", True),
        ("We should work through it step by step.", "none", "We should work through it step by step.", True),
        ("The device is fitted step by step.", "none", "The device is fitted step by step.", False),
        ("It is, therefore, anaemia.", "none", "It is, therefore, anaemia.", False),
        (
            "First, blood is drawn. Second, it is kept cold.",
            "none",
            "First, blood is drawn. Second, it is kept cold.",
            False,
        ),
        ("首先，治疗贫血。", "none", "首先，治疗贫血。", False),
        ("首先，我需要考虑病史。", "none", "首先，我需要考虑病史。", True),
        ("好的，让我来分析一下。", "none", "好的，让我来分析一下。", True),
        ("让我们一步一步来。", "none", "让我们一步一步来。", True),
        ("因此，综上，结论是贫血。", "none", "因此，综上，结论是贫血。", False),
    ],
)
def test_traces_in_odd_places(text: str, state: str, answer: str, lexical: bool) -> None:
    found = parse_trace(text)
    assert (found.state, found.answer, found.lexical) == (state, answer, lexical)
    assert (found.share > 0) == found.structural


def test_share_is_that_of_all_traces() -> None:
    assert parse_trace("<think>ab</think>cd<think>ef</think>gh").share == pytest.approx(34 / 38)
    assert parse_trace("<think> </think>ab").share == 0.0
    assert parse_trace("<think>ab").share == 1.0


@given(st.text("ab <>/`\n", max_size=20), st.sampled_from(["<think>", "</think>", "```", ""]))
def test_an_answer_holds_no_more_than_the_text(text: str, piece: str) -> None:
    found = parse_trace(text + piece + text)
    assert 0.0 <= found.share <= 1.0
    assert len(found.answer) <= len(text + piece + text)


def test_lexical_rate_is_calibrated_on_the_references() -> None:
    outputs = ["Okay, let me think.", "Let's see, anaemia.", "Anaemia.", "嗯，贫血。"]
    references = ["Let's consider the heart.", "Anaemia.", "Anaemia.", "贫血。"]
    rows = opener_statistics(outputs, references)
    assert rows.mean(0).tolist() == [0.75, 0.25]
    assert value((rows, calibrated)) == 0.5
    assert bootstrap(opener_statistics(references, references), calibrated).value == 0.0
    assert opener_statistics([], []).shape == (0, 2)
