"""The sample's own verifiable instructions: every kind is there, every request can be followed, and says what is checked."""

from pathlib import Path

import pytest

from crossmatch.errors import InputError
from crossmatch.evaluation import Suite, load_suite
from crossmatch.evaluation.metrics.ifeval import KINDS, check, describe, validated
from crossmatch.evaluation.metrics.metrics import measure
from crossmatch.study.sample import SampleSize, write_data
from crossmatch.study.sample.instructions import REQUESTS, write_instructions

LONG = "It is a finding that doctors see in the clinic. " * 5
# An answer to each request that does what is asked; {term} as in the request.
ANSWERS = (
    "Your doctor can tell you what it is.",
    "By examination and by the history.",
    "A patient has it. Another patient does not. Ask the patient.",
    "It is a finding with one symptom.",
    "A change of the body.",
    "It is when a part of the body is different.",
    "It is a change of the body.",
    "The presence of these features everywhere.",
    "Das ist eine Veränderung des Körpers, die ein Arzt bei der Untersuchung sieht und nicht immer behandelt.",
    "Es un cambio del cuerpo que el médico ve en la exploración y que no siempre se trata en el hospital.",
    "It is a change of the body. Doctors see it.",
    "It is one. It is two. It is three. It is four.",
    "It is a change.\n***\nIt is seen in the clinic.",
    "One.\n***\nTwo.\n***\nThree.",
    "A change of the body that doctors see.",
    LONG,
    "It is a change.\n\nDoctors see it.",
    "Clinically it is seen.\n\nIt is a change.\n\nIt stays.",
    "Dear [name], please see this patient. Yours, [signature]",
    "Date: [date], name: [name], finding: [finding]",
    "Dear colleague, I saw it.\n\nP.S. It stays.",
    "* one\n* two\n* three",
    "* Since when?\n* Where?",
    "My answer is maybe.",
    "It is a *change* of the body.",
    "It is a *change* of the *body*.",
    "Section 1\nWhat it is.\nSection 2\nHow it is seen.",
    '{{"name": "{term}", "definition": "a change"}}',
    "<<{term}>>\nA change of the body.",
    "A change of the body.\n******\nA finding of the clinic.",
    "What does {term} mean? It means a change.",
    "It is a change. Please see a doctor.",
    '"A change of the body."',
    "It is a REAL CHANGE of the body.",
    "IT IS A CHANGE OF THE BODY THAT DOCTORS SEE.",
    "it is a change of the body that doctors see.",
    "It is a change of the body.",
    "It is a change of the body that doctors see.",
    "* a change\n* of the body\nThat is all.",
    "<<{term}>>\nA patient has it.",
)

SAID = {
    "1": ("1", "one", "at all", "first", "once"),
    "2": ("2", "second"),
    "3": ("3",),
    "less than": ("fewer than", "not occur"),
    "at least": ("at least",),
    "de": ("german",),
    "es": ("spanish",),
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    root = tmp_path_factory.mktemp("sample")
    card = write_data(root, SampleSize(pt_terms=60, sft_terms=80, define=10, name=20, seed=3))
    suite = load_suite(root / "instructions.yaml")
    assert [item.id.partition("-")[2] for item in suite.items] == card["instructed"]
    used = {name for part in card["terms"].values() for name in part} | set(card["unread"])
    assert not used & set(card["instructed"])
    probe = load_suite(root / "sustain.yaml")
    assert probe.items == load_suite(root / "define.yaml").items
    assert probe.settings.sustain == 1
    return suite


def test_forty_requests_over_all_kinds(suite: Suite) -> None:
    assert len(suite.items) == len(REQUESTS) == 40
    assert {kind for item in suite.items for kind, _ in item.checks} == set(KINDS)
    assert len({item.question for item in suite.items}) == 40
    for item in suite.items:
        for kind, arguments in item.checks:
            validated(kind, arguments)
            assert describe(kind, arguments)
            # What is looked for can be read in the request, but for small numbers that are said in words.
            asked = item.question.casefold()
            for value in arguments.values():
                for word in value if isinstance(value, list) else [value]:
                    said = SAID.get(str(word), (str(word).casefold(),))
                    assert any(form in asked for form in said), (item.question, arguments)


def test_every_request_can_be_followed(suite: Suite) -> None:
    for item, answer, request in zip(suite.items, ANSWERS, [r["question"] for r in REQUESTS], strict=True):
        term = item.question[len(request.partition("{term}")[0]) :][: len(item.question) - len(request) + len("{term}")]
        if request.count("{term}") == 1:
            assert request.format(term=term) == item.question
        given = answer.format(term=term)
        for kind, arguments in item.checks:
            assert check(kind, arguments, item.question, given), (kind, given)
    # Nothing is followed by saying nothing, and no one answer follows all.
    for item in suite.items:
        assert not all(check(kind, arguments, item.question, "") for kind, arguments in item.checks)
    followed = [all(check(k, a, item.question, "It is a change.") for k, a in item.checks) for item in suite.items]
    assert sum(followed) < 15


def test_figures_of_the_set(suite: Suite) -> None:
    rows = [
        {
            "id": item.id, "question": item.question, "seed": 0, "output": text, "answer": text, "truncated": False,
            "checks": [[kind, dict(arguments)] for kind, arguments in item.checks],
            "trace": {"state": "none", "lexical": False, "share": 0.0},
        }
        for item, text in zip(suite.items, ANSWERS, strict=True)
    ]  # fmt: skip
    table, _ = measure(rows, suite)["followed_strict"]
    # Those with the term in the answer were not filled in here.
    assert 0.9 <= table[:, 0].mean() < 1


def test_too_few_terms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="40 more terms are needed for instructions, 1 are left"):
        write_instructions(tmp_path, {"HP:1": "anaemia"})
    assert not list(tmp_path.iterdir())
