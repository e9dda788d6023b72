"""Answers in words to questions with options: what counts as naming one, and what becomes of choices."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmatch.errors import DataError
from crossmatch.evaluation.metrics.answer_extraction import extract_choice
from crossmatch.evaluation.metrics.choice_accuracy import Flips, flips, order_statistics, original, permutations_of

DRUGS = ("Aspirin", "Metformin", "Insulin glargine", "Insulin")
DISEASES = ("糖尿病", "高血压", "2型糖尿病", "贫血")
TRUTH = ("yes", "no", "maybe")
A, B, C, D = range(4)

ENGLISH = [
    ("B", B),
    ("b", B),
    ("B.", B),
    ("(B)", B),
    ("[C]", C),
    (" B\n", B),
    ("**B**", B),
    ("`D`", D),
    ("B) Metformin", B),
    ("B. Metformin", B),
    ("B: Metformin", B),
    ("B Metformin", B),
    ("(b) metformin", B),
    ("Answer: B", B),
    ("answer: b", B),
    ("Answer: (C)", C),
    ("Answer:\nD", D),
    ("**Answer:** B. Metformin", B),
    ("The answer is B.", B),
    ("The answer is **B**", B),
    ("The correct answer is: (C) Insulin glargine.", C),
    ("The correct answer is option D, because it acts fast.", D),
    ("The correct option is B because it lowers hepatic output.", B),
    ("I would choose B.", B),
    ("I'd go with option C.", C),
    ("Option A is wrong, so the answer must be B.", B),
    ("Final answer: D", D),
    ("The answer is A. On reflection... Final Answer: B", B),
    ("So we get \\boxed{B}.", B),
    ("$\\boxed{\\text{C}}$", C),
    ("B is correct.", B),
    ("B is the most likely answer.", B),
    ("A is incorrect. B is the best choice here.", B),
    ("B, since it is first-line.", B),
    ("B because it is first-line.", B),
    ("Metformin", B),
    ("metformin.", B),
    ("Metformin is the first-line therapy.", B),
    ("The patient should be given metformin.", B),
    ("The answer is metformin.", B),
    ("First-line therapy is metformin, not aspirin.", B),
    ("She needs insulin glargine once daily.", C),
    ("She needs insulin.", D),
    ("I think (B) fits best.", B),
    ("Of these, option C fits.", C),
    ("<think>It could be A. The answer is A?</think>\n\nB", B),
    ("<think>\n\n</think>\n\nThe answer is C.", C),
    ("A seems tempting.</think>Answer: D", D),
    ("<THINK>Okay, A or B...</THINK>(A)", A),
    ("#### B", B),
    ("A. Aspirin\nB. Metformin\nC. Insulin glargine\nD. Insulin\nThe answer is B.", B),
    ("B<|im_end|>", B),
    ("The answer is B</s>", B),
    ("Answer - B", B),
    ("Ans: B", B),
    ("<answer>B</answer>", B),
    ('{"answer": "B"}', B),
    ("\\boxed{\\mathrm{B}}", B),
    ("It's B", B),
    ("Thus, B.", B),
    ("The answer cannot be A, so it is B.", B),
    ("Let's analyze: A. Aspirin - no. B. Metformin - yes. So B.", B),
    ("The answer is most likely B.", B),
    ("The answer is B (Metformin), not A (Aspirin).", B),
    ("The correct answer is Metformin (B).", B),
    ("Neither A nor B; the answer is C.", C),
    ("**B. Metformin**\n\nExplanation:\nA. Aspirin: pain\nB. Metformin: sugar\nC. Insulin glargine: later", B),
    ("Answer: B\n\nQuestion: What next?\nAnswer: C", B),
    # Invalid: nothing is named, or too much, or what is not there.
    ("", None),
    ("<think>It must be B, because", None),
    ("I am not sure.", None),
    ("A patient with diabetes needs care.", None),
    ("The answer is a drug for diabetes.", None),
    ("A is wrong.", None),
    ("A. Aspirin is wrong.", None),
    ("A) Aspirin is wrong. B) Metformin is correct.", B),
    ("She has hepatitis B.", None),
    ("B\nC", None),
    ("ABCD", None),
    ("Metformin is not indicated.", None),
    ("Aspirin is wrong, so metformin it is.", B),
    ("A and B", None),
    ("A, B", None),
    ("Answer: A or B", None),
    ("Answer: A, C", None),
    ("A. Aspirin\nB. Metformin\nC. Insulin glargine\nD. Insulin", None),
    ("The answer is E.", None),
    ("The answer is A. No, the answer is B.", B),
    ("The answer is A. The answer is B.", None),
    ("Aspirin or metformin could be used.", None),
    ("Aspirin, metformin", None),
    ("The answer is aspirin or metformin.", None),
    ("It is not metformin.", None),
    ("The answer is not B.", None),
    ("Vitamin C deficiency is seen here.", None),
    ("Vitamin A is the best choice of all.", None),
    ("C. difficile is the likely cause.", None),
    ("The answer is C. difficile.", None),
    ("I think about it and B cells come to mind", None),
    ("Okay, let me think about this step by step.", None),
]
CHINESE = [
    ("B", B),
    ("B。", B),
    ("Ｂ", B),
    ("（B）", B),
    ("选B", B),
    ("选择B。", B),
    ("我选择C。", C),
    ("应选D", D),
    ("故选：B", B),
    ("答案：B", B),
    ("答案: B", B),
    ("答案是B", B),
    ("答案为 C。", C),
    ("答案应该是D。", D),
    ("正确答案是：B. 高血压", B),
    ("正确答案是B，因为血压升高。", B),
    ("**答案：B**", B),
    ("答案：（C）", C),
    ("正确选项为D", D),
    ("最终答案：A", A),
    ("B选项正确。", B),
    ("B是正确的。", B),
    ("A不正确，因此选B。", B),
    ("选项B", B),
    ("B、高血压", B),
    ("B.高血压", B),
    ("高血压", B),
    ("高血压。", B),
    ("答案是高血压。", B),
    ("该患者的诊断是高血压。", B),
    ("该患者的诊断是2型糖尿病。", C),
    ("该患者的诊断是糖尿病，不是高血压。", A),
    ("<think>嗯，让我想想，可能选A。</think>\n\n答案：B", B),
    ("可能是A吧</think>选D", D),
    ("【答案】B 【解析】A错", B),
    ("答案B", B),
    ("B对", B),
    ("综上，B。", B),
    ("应该是B", B),
    ("选B而不是A", B),
    ("A、C、D错误，B正确。", B),
    ("B\n解析：A项是糖尿病的表现。", B),
    ("", None),
    ("患者感染了乙型肝炎，即hepatitis B。", None),
    ("<think>嗯，答案是B", None),
    ("我不知道。", None),
    ("答案：AB", None),
    ("答案：A、B", None),
    ("选A或B", None),
    ("答案：E", None),
    ("糖尿病和高血压都有可能。", None),
    ("不选B。", None),
    ("不是高血压。", None),
    ("首先，需要考虑病史。", None),
]


@pytest.mark.parametrize(("output", "expected"), ENGLISH)
def test_english_answers(output: str, expected: int | None) -> None:
    assert extract_choice(output, DRUGS) == expected


@pytest.mark.parametrize(("output", "expected"), CHINESE)
def test_chinese_answers(output: str, expected: int | None) -> None:
    assert extract_choice(output, DISEASES) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("yes", 0),
        ("No.", 1),
        ("Maybe, the evidence is mixed.", 2),
        ("The answer is no.", 1),
        ("Answer: maybe", 2),
        ("There is no evidence.", None),
        ("No evidence supports this.", None),
        ("Not really.", None),
        ("Nobody knows.", None),
    ],
)
def test_short_options_count_only_where_they_are_the_answer(output: str, expected: int | None) -> None:
    assert extract_choice(output, TRUTH) == expected


@given(st.integers(2, 26), st.data())
def test_any_number_of_options(n: int, data: st.DataObject) -> None:
    options = [f"substance {i + 100}" for i in range(n)]
    place = data.draw(st.integers(0, n - 1))
    letter = chr(65 + place)
    form = data.draw(st.sampled_from(["{}", "({})", "{}.", "Answer: {}", "The answer is **{}**.", "答案：{}", "选{}"]))
    assert extract_choice(form.format(letter), options) == place
    assert extract_choice(f"It is {options[place]}.", options) == place
    outside = chr(65 + n)
    if n < 26:
        assert extract_choice(form.format(outside), options) is None


@given(st.text(max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    assert extract_choice(text, DRUGS) in (None, A, B, C, D)


def test_germs_are_no_letters() -> None:
    germs = ("E. coli", "C. difficile", "S. aureus")
    assert extract_choice("C. difficile", germs) == 1
    assert extract_choice("The answer is C. difficile.", germs) == 1
    assert extract_choice("B. C. difficile", germs) == 1
    assert extract_choice("The answer is C.", germs) == 2


def test_a_text_of_negation_is_an_option_too() -> None:
    options = ("Treat at once", "Treatment is not needed", "Wait")
    assert extract_choice("B. Treatment is not needed.", options) == 1
    assert extract_choice("Treatment is not needed", options) == 1


def test_options_that_cannot_be_read() -> None:
    for options in (["one"], ["x"] * 27, ["a", " "]):
        with pytest.raises(DataError, match="2 to 26 options"):
            extract_choice("A", options)


def test_flips() -> None:
    right = [0, 1, 2, 3, 0]
    before, after = [0, 1, None, 2, 1], [0, 2, 2, 2, None]
    table = flips(before, after, right)
    assert table == Flips(kept=1, gained=1, lost=1, wrong_alike=1, wrong_otherwise=1)
    back = flips(after, before, right)
    assert (back.gained, back.lost) == (table.lost, table.gained)


@given(st.integers(2, 7), st.integers(1, 30), st.integers(0, 5))
def test_orders(n: int, count: int, seed: int) -> None:
    if count > math.factorial(n):
        with pytest.raises(DataError, match="different orders"):
            permutations_of(n, count, seed)
        return
    orders = permutations_of(n, count, seed)
    assert len(set(orders)) == len(orders) == count
    assert orders == permutations_of(n, count, seed)
    assert orders[0] == tuple(range(n))
    assert all(sorted(order) == list(range(n)) for order in orders)
    if count >= n:
        for place in range(n):
            assert sorted(order[place] for order in orders[:n]) == list(range(n))


def test_all_orders_and_the_way_back() -> None:
    assert sorted(permutations_of(4, 24, 3)) == sorted(itertools.permutations(range(4)))
    for order in permutations_of(4, 6, 1):
        shown = [DRUGS[i] for i in order]
        place = shown.index("Metformin")
        answer = extract_choice(f"({chr(65 + place)})", shown)
        assert original(order, answer) == B
    assert original((1, 0), None) is None


def test_statistics_over_orders() -> None:
    chosen = [[1, 1, 1], [1, 0, 1], [0, 1, None], [None, None, None]]
    found = {name: rows[:, 0].tolist() for name, rows in order_statistics(chosen, [1, 1, 1, 1]).items()}
    assert found["mean"] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert found["majority"] == [1, 1, 0, 0]
    assert found["worst"] == [1, 0, 0, 0]
    assert found["consistency"] == pytest.approx([1, 1 / 3, 0, 0])
    # Someone who always picks the first place is inconsistent and no better than chance.
    orders = permutations_of(4, 4, 0)
    first = order_statistics([[original(order, 0) for order in orders]], [2])
    assert (first["mean"][0, 0], first["consistency"][0, 0]) == (0.25, 0.0)
    assert "consistency" not in order_statistics([[1], [0]], [1, 1])
    assert all(rows.shape == (0, 1) for rows in order_statistics([], []).values())
    with pytest.raises(DataError, match="same number of option orders"):
        order_statistics([[1], [1, 2]], [1, 1])


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["answer ", "<think>", "</think>", "**", "A. ", "选", "\n", "(", "\\boxed{", "答案】", "<<"]
)
def test_an_answer_without_end_is_read_in_no_time(piece: str) -> None:
    assert extract_choice(piece * 100_000, DRUGS) in (None, A)
