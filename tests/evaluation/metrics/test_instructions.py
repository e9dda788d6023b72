"""Verifiable instructions: every kind with answers that do and do not, and constraints that were met already."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmatch.errors import DataError
from crossmatch.evaluation.metrics.ifeval import KINDS, check, check_loose, describe, followed, instruction_level
from crossmatch.evaluation.metrics.language_id import LANGUAGES, language_of
from crossmatch.evaluation.metrics.sustain import already_met, sustain, sustained, with_constraints
from crossmatch.statistics.estimates import mean_of
from crossmatch.statistics.resampling import bootstrap

PROMPT = "What is anaemia?"
# kind, arguments, responses that follow, responses that do not
EXAMPLES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "keywords:existence",
        {"keywords": ["blood", "iron"]},
        ["Iron carries oxygen in the BLOOD.", "bloodless, ironic"],
        ["Blood only.", "Neither.", ""],
    ),
    (
        "keywords:frequency",
        {"keyword": "blood", "frequency": 2, "relation": "at least"},
        ["Blood is blood.", "blood, blood and blood"],
        ["Blood once.", "None."],
    ),
    (
        "keywords:frequency",
        {"keyword": "贫血", "frequency": 2, "relation": "less than"},
        ["贫血。", "没有。"],
        ["贫血就是贫血。"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["red", "cell"]},
        ["It is a reduction of cells.", "No such word."],
        ["Red is bad.", "Each cell is bad.", "(cell)"],
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["心脏", "a.b"]}, ["肝脏", "axb"], ["他的心脏病", "an a.b here"]),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_frequency": 2, "let_relation": "less than"},
        ["Blood", "Anaemia"],
        ["Eel", "see"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 2, "let_relation": "at least"},
        ["Rest! Now!", "!!"],
        ["Rest!"],
    ),
    (
        "language:response_language",
        {"language": "en"},
        ["It is a lack of red cells.", "42"],
        ["Es ist ein Mangel an roten Zellen und das ist nicht gut.", "贫血是一种疾病。"],
    ),
    (
        "language:response_language",
        {"language": "zh"},
        ["贫血是一种疾病。", "血红蛋白 (Hb) 低于正常值的一种疾病状态。"],
        ["これは血液の病気です。", "It is a disease."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        ["One. Two.", "Dr. Smith takes 2.5 mg, e.g. at night. Fine.", "贫血。出血。"],
        ["One. Two! Three?", "一。二！三？", "One.\nTwo.\nAnd three"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two", '"One." Two.'],
        ["One", "J. Smith wrote it."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["One\n***\nTwo", "***\nOne\n***\nTwo\n***"],
        ["One", "One\n***\n\n***\nTwo", "One\n\nTwo", "***"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        ["one two three four", "贫血疾病"],
        ["one two three", "贫血"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, ["one two"], ["one two three"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Anaemia"},
        ["First.\n\nanaemia, it is.", 'First.\n\n"Anaemia" it is.'],
        ["Anaemia.\n\nSecond.", "Anaemia", "One\n\nAnaemias here", "One\n\nAnaemia\n\nThree"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["Dear [name], of [city]", "[a][b][c]"],
        ["Dear [name]", "(name) (city)"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Rest.\n\nP.S. Drink.", "Rest.\np. s. drink"],
        ["Rest.", "PS drink"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Rest.\nP.P.S. Drink.", "P. P. S drink"],
        ["P.S. drink"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n* two", "- one\n  - two", "Two:\n* one\n- two\nEnd"],
        ["* one", "* one\n* two\n* three", "**bold** text"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well: My answer is maybe. Really."],
        ["yes", "my answer is no"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "**one** *two*"],
        ["*one*", "** ** one", "* one\n* two"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "Section 1 Section 2 Section 3"],
        ["Section 1\na", "SECTION 1\nSECTION 2", "Section one, Section two"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', '```json\n{"a": [1]}\n```', "```\n[]\n```"],
        ["{'a': 1}", 'Here: {"a": 1}', "[" * 100_000],
    ),
    (
        "detectable_format:title",
        {},
        ["<<On blood>>\nText", "Text <<title>> text"],
        ["<On blood>", "<< >>", "<<a\nb>>"],
    ),
    (
        "combination:two_responses",
        {},
        ["One\n******\nTwo", "******One******Two******"],
        ["One", "One******One", "One******Two******Three", "One************Two"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say it."},
        ["Say it. It.", "  say IT. Done"],
        ["It. Say it.", "Say: it."],
    ),
    ("combination:repeat_prompt", {}, [PROMPT + " A lack of red cells."], ["A lack of red cells. " + PROMPT]),
    (
        "startend:end_checker",
        {"end_phrase": "Any questions?"},
        ["Rest. any questions?", '"Rest. Any questions?"'],
        ["Any questions? Rest.", "Rest."],
    ),
    ("startend:quotation", {}, ['"Rest."', ' "Rest." '], ['"Rest.', "Rest.", '"', "'Rest.'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["WHO and NHS", "COVID-19 is a DISEASE", "I'm sure I am"],
        ["WHO says", "Blood Pressure", "nothing"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 1, "capital_relation": "less than"},
        ["nothing here", "Blood Pressure", "O'Neil"],
        ["The WHO"],
    ),
    (
        "change_case:english_capital",
        {},
        ["IT IS A DISEASE.", "ANAEMIA!"],
        ["It IS A DISEASE.", "DAS IST EINE KRANKHEIT."],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["it is a disease of 2 kinds.", "anaemia"],
        ["It is a disease.", "das ist eine krankheit.", "贫血"],
    ),
    ("punctuation:no_comma", {}, ["No pause here.", "没有停顿。"], ["Well, one.", "有，停顿。"]),
]
SENTENCES = {
    "en": "The patient has high blood pressure and should rest.|Anaemia is a lack of red cells.|HYPERTENSION IS A DISEASE.|Eat less salt!",
    "de": "Der Patient hat hohen Blutdruck und sollte sich ausruhen.|Das ist ein Test.|Bluthochdruck ist eine Krankheit.",
    "fr": "Le patient a une tension élevée et doit se reposer.|C'est une maladie du sang.|Il est important de manger des légumes.",
    "es": "El paciente tiene la presión alta y debe descansar.|Es una enfermedad de la sangre.|¿Cómo está usted?",
    "pt": "O paciente tem pressão alta e deve descansar.|É uma doença do sangue que não tem cura.|Você pode comer mais legumes.",
    "it": "Il paziente ha la pressione alta e deve riposare.|È una malattia del sangue.|Non si può mangiare più del necessario.",
    "pl": "Pacjent ma wysokie ciśnienie krwi i powinien odpocząć.|To jest choroba krwi.",
    "fi": "Potilaalla on korkea verenpaine ja hänen pitäisi levätä.|Se on veren sairaus.",
    "sw": "Mgonjwa ana shinikizo la damu na anapaswa kupumzika.|Hii ni ugonjwa wa damu.",
    "vi": "Bệnh nhân bị cao huyết áp và nên nghỉ ngơi.|Đây là một bệnh về máu.",
    "ru": "У пациента высокое давление, и он должен отдыхать.|Это болезнь крови.",
    "uk": "У пацієнта високий тиск, і він повинен відпочивати.|Це хвороба крові.",
    "bg": "Пациентът има високо кръвно налягане и трябва да почива.|Това е болест на кръвта.",
    "ar": "المريض يعاني من ارتفاع ضغط الدم ويجب أن يرتاح.|هذا مرض في الدم.",
    "fa": "بیمار فشار خون بالا دارد و باید استراحت کند.|این یک بیماری خون است.",
    "ur": "مریض کو ہائی بلڈ پریشر ہے اور اسے آرام کرنا چاہیے۔|یہ خون کی بیماری ہے۔",
    "hi": "रोगी को उच्च रक्तचाप है और उसे आराम करना चाहिए।|यह रक्त की बीमारी है।",
    "mr": "रुग्णाला उच्च रक्तदाब आहे आणि त्याने विश्रांती घ्यावी.|हा रक्ताचा आजार आहे.",
    "ne": "बिरामीलाई उच्च रक्तचाप छ र उसले आराम गर्नुपर्छ।|यो रगतको रोग हो।",
    "ja": "患者は高血圧で、休むべきです。|これは血液の病気です。",
    "zh": "患者患有高血压，应当休息。|贫血。",
    "ko": "환자는 고혈압이 있으며 쉬어야 합니다.|빈혈",
    "he": "לחולה יש לחץ דם גבוה.",
    "bn": "রোগীর উচ্চ রক্তচাপ আছে।",
    "pa": "ਮਰੀਜ਼ ਨੂੰ ਹਾਈ ਬਲੱਡ ਪ੍ਰੈਸ਼ਰ ਹੈ।",
    "gu": "દર્દીને હાઈ બ્લડ પ્રેશર છે.",
    "ta": "நோயாளிக்கு உயர் இரத்த அழுத்தம் உள்ளது.",
    "te": "రోగికి అధిక రక్తపోటు ఉంది.",
    "kn": "ರೋಗಿಗೆ ಅಧಿಕ ರಕ್ತದೊತ್ತಡವಿದೆ.",
    "ml": "രോഗിക്ക് ഉയർന്ന രക്തസമ്മർദ്ദമുണ്ട്.",
    "th": "ผู้ป่วยมีความดันโลหิตสูง",
}


@pytest.mark.parametrize(("kind", "arguments", "good", "bad"), EXAMPLES)
def test_examples(kind: str, arguments: dict[str, Any], good: list[str], bad: list[str]) -> None:
    for response in good:
        assert check(kind, arguments, PROMPT, response), response
        assert check_loose(kind, arguments, PROMPT, response), response
    for response in bad:
        assert not check(kind, arguments, PROMPT, response), response
    assert not check(kind, arguments, PROMPT, " \n ")
    shown = describe(kind, arguments)
    assert shown[0].isupper()
    assert "{" not in shown
    for name, value in arguments.items():
        for part in value if isinstance(value, list) else [LANGUAGES.get(str(value), value)]:
            assert str(part) in shown, name


def test_all_25_kinds_have_examples() -> None:
    assert {kind for kind, *_ in EXAMPLES} == set(KINDS)
    assert len(KINDS) == 25


@pytest.mark.parametrize(
    ("kind", "arguments", "response"),
    [
        ("punctuation:no_comma", {}, "Sure, here it is:\nAn answer without one."),
        ("punctuation:no_comma", {}, "An answer without one.\nHope it helps, bye"),
        ("punctuation:no_comma", {}, "Sure, here:\nAn answer.\nBye, now"),
        ("startend:quotation", {}, '**"Rest."**'),
        ("startend:end_checker", {"end_phrase": "the end"}, "This is *the* end"),
        ("detectable_format:json_format", {}, 'Here it is:\n{"a": 1}'),
    ],
)
def test_loose_forgives_what_strict_does_not(kind: str, arguments: dict[str, Any], response: str) -> None:
    assert not check(kind, arguments, PROMPT, response)
    assert check_loose(kind, arguments, PROMPT, response)
    assert not check_loose("punctuation:no_comma", {}, PROMPT, "a, b\nc, d\ne, f")


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("keyword:existence", {}, "unknown instruction 'keyword:existence'; did you mean keywords:existence"),
        ("keywords:existence", {}, "needs 'keywords'"),
        ("keywords:existence", {"keywords": None}, "needs 'keywords'"),
        ("keywords:existence", {"keywords": "blood"}, "keywords must be a list"),
        ("keywords:existence", {"keywords": []}, "keywords must be a list"),
        ("keywords:existence", {"keywords": ["a"], "n": 1}, "does not take 'n'"),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "not negative, not -1"),
        ("length_constraints:number_words", {"num_words": True, "relation": "at least"}, "not negative, not True"),
        (
            "length_constraints:number_words",
            {"num_words": 5, "relation": "at most"},
            "'less than' or 'at least', not 'at most'",
        ),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "one character",
        ),
        ("language:response_language", {"language": "xx"}, "language must be one of ar, bg, .*not 'xx'"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"},
            "no paragraph 2 of 1",
        ),
        ("combination:repeat_prompt", {"prompt_to_repeat": " "}, "text that is not empty"),
    ],
)
def test_arguments_that_cannot_be_checked(kind: str, arguments: dict[str, Any], message: str) -> None:
    for use in (check, check_loose):
        with pytest.raises(DataError, match=message):
            use(kind, arguments, PROMPT, "An answer.")
    with pytest.raises(DataError, match=message):
        describe(kind, arguments)


def test_null_arguments_are_not_given() -> None:
    assert check("punctuation:no_comma", {"num_words": None, "relation": None}, PROMPT, "An answer.")


@pytest.mark.parametrize(("language", "text"), [(k, t) for k, texts in SENTENCES.items() for t in texts.split("|")])
def test_languages(language: str, text: str) -> None:
    assert language_of(text) == language
    assert check("language:response_language", {"language": language}, PROMPT, text)


def test_text_without_a_language() -> None:
    assert set(SENTENCES) == set(LANGUAGES)
    for text in ("", "42", "…!", "☺"):
        assert language_of(text) is None
    assert language_of("Metformin 500 mg") == "en"


def test_levels_of_following() -> None:
    constraints = [
        [("punctuation:no_comma", {}), ("startend:quotation", {})],
        [("punctuation:no_comma", {})],
        [("startend:quotation", {}), ("keywords:existence", {"keywords": ["blood"]})],
    ]
    responses = ["no pause", "none", '"Blood"']
    rows = followed(constraints, [PROMPT] * 3, responses)
    assert rows.tolist() == [[0, 1, 2], [1, 1, 1], [1, 2, 2]]
    assert bootstrap(rows, mean_of).value == pytest.approx(2 / 3)
    assert bootstrap(rows, instruction_level).value == pytest.approx(4 / 5)
    strict = followed([[("startend:quotation", {})]], [PROMPT], ['*"Rest"*'])
    loose = followed([[("startend:quotation", {})]], [PROMPT], ['*"Rest"*'], loose=True)
    assert (strict[0, 0], loose[0, 0]) == (0.0, 1.0)
    # A trace before the answer breaks what the answer keeps.
    traced = followed([[("punctuation:no_comma", {})]], [PROMPT], ["<think>Well, so</think>none"])
    assert traced[0, 0] == 0.0
    assert followed([], [], []).shape == (0, 3)


ANSWERS = [
    "Hypertension is high blood pressure, which strains the heart and the vessels.",
    "no capitals here",
    "贫血是血红蛋白浓度低于正常值的疾病。患者应当补铁，并查明原因。",
    "* one\n* two\n\n**Rest** and [drink]",
    'A <<title>>\n***\n"Quoted", P.S. I KNOW',
    '{"answer": "B"}',
    "42",
    "B",
    "…",
]


@given(st.one_of(st.sampled_from(ANSWERS), st.text(max_size=80)), st.integers(0, 2**32), st.integers(1, 20))
def test_constraints_that_are_met_already_are_met(answer: str, seed: int, count: int) -> None:
    found = already_met(answer, seed, count)
    assert len(found) <= count
    assert len({kind for kind, _ in found}) == len(found)
    for kind, arguments in found:
        assert check(kind, arguments, "", answer)
        assert check_loose(kind, arguments, "", answer)
    assert found == already_met(answer, seed, count)
    assert found == already_met(answer, seed, 30)[:count]


def test_constraints_tell_nothing_of_the_answer() -> None:
    seen = {kind for seed in range(60) for kind, _ in already_met(ANSWERS[0], seed, 3)}
    assert len(seen) >= 6
    for answer in ANSWERS[:2]:
        content = {"hypertension", "pressure", "strains", "heart", "vessels"}
        for seed in range(30):
            text = with_constraints("Define it.", already_met(answer, seed, 30)).lower()
            assert not {w.strip('".,') for w in text.split()} & content
    assert already_met("", 0, 3) == []
    assert len(already_met(ANSWERS[0], 0, 3)) == len(already_met(ANSWERS[2], 0, 3)) == 3
    with pytest.raises(DataError, match="1 or more"):
        already_met("x", 0, 0)


def test_constraints_go_below_the_prompt() -> None:
    asked = with_constraints("What is it?\n", [("punctuation:no_comma", {}), ("startend:quotation", {})])
    assert asked == "What is it?\n\nDo not use any comma.\nPut your whole response in double quotation marks."
    assert with_constraints("What is it?", []) == "What is it?"


def test_what_is_sustained() -> None:
    rows = sustain([1, 1, 0, 1], [1, 0, 1, 1])
    assert rows.tolist() == [[1, 1], [0, 1], [0, 0], [1, 1]]
    assert bootstrap(rows, sustained).value == pytest.approx(2 / 3)
    assert bootstrap(sustain([1, 1], [1, 1]), sustained).value == 1.0
    assert np.isnan(sustained(sustain([0, 0], [1, 0]).mean(0, keepdims=True))[0])
    with pytest.raises(DataError, match="same items"):
        sustain([1], [1, 0])
    with pytest.raises(DataError, match="from 0 to 1"):
        sustain([1.5], [0])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["<<", "[", "\n", "* ", "Dr. ", ".", "a-", '"', "- \n"])
def test_a_response_without_end_is_checked_in_no_time(piece: str) -> None:
    already_met(piece * 100_000, 0, 30)
    for kind, arguments, *_ in EXAMPLES:
        check(kind, arguments, PROMPT, piece * 100_000)
