"""Goals and constraints in words."""

from pathlib import Path

import pytest

from crossmatch.data.suites import load_suite
from crossmatch.errors import RecipeError
from crossmatch.statistics.estimates import Difference, Figure
from crossmatch.sweeping.goals import parse_constraint, parse_goal
from crossmatch.sweeping.parts import check_sizes, fewest, place_of, split

NAMES = ("base", "pt", "sft")


@pytest.fixture(scope="module")
def suites(searched: Path) -> list:
    return [load_suite(searched / "ask.yaml"), load_suite(searched / "pick.yaml")]


def gain(value: float, low: float, high: float) -> Difference:
    return Difference(value, low, high, 40, 0.5, "randomisation")


def test_a_goal_is_found_by_its_words(suites: list) -> None:
    assert parse_goal("rougeL", suites).name == "ask.rougeL"
    assert parse_goal("accuracy", suites).name == "pick.acc"
    assert not parse_goal("trace rate", suites).higher
    assert parse_goal("ask.BLEU", suites).metric == "bleu"
    assert not parse_goal("minimise output_tokens", suites).higher


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rogueL", "did you mean rougeL"),
        ("pick.rougeL", "suite pick has no metric"),
        ("output_tokens", "is more output_tokens better"),
    ],
)
def test_a_goal_that_no_suite_has_is_refused(suites: list, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_goal(text, suites)


def test_a_margin_at_95_percent_asks_for_the_whole_interval(suites: list) -> None:
    sure = parse_constraint("rougeL >= sft - 1 at 95%", suites, NAMES)
    assert sure.judge(gain(-0.2, -0.9, 0.5)).holds
    assert not sure.judge(gain(-0.2, -1.1, 0.5)).holds
    assert not sure.judge(gain(-0.2, -1.1, 0.5)).broken
    assert sure.judge(gain(-3, -4, -2)).broken
    plain = parse_constraint("rougeL >= sft - 1", suites, NAMES)
    assert plain.judge(gain(-0.2, -1.1, 0.5)).holds


def test_points_of_percent_are_points(suites: list) -> None:
    found = parse_constraint("acc >= sft - 1", suites, NAMES)
    assert found.judge(gain(-0.01, -0.05, 0.03)).holds
    assert not found.judge(gain(-0.02, -0.05, 0.03)).holds
    assert parse_constraint("trace rate <= 1%", suites, NAMES).judge(Figure(0.005, 0, 0.1, 40)).holds


def test_not_below_means_that_a_loss_is_not_shown(suites: list) -> None:
    found = parse_constraint("acc not below sft", suites, NAMES)
    assert found.judge(gain(-0.05, -0.11, 0.0)).holds
    assert found.judge(gain(-0.05, -0.11, -0.01)).broken
    assert not found.judge(None).holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rougeL over sft", "write it as"),
        ("acc >= dpo - 1", "neither a number nor one of base, pt, sft"),
        ("acc >= stf - 1", "did you mean sft?"),
        ("acc >= 0.6", "write 0.6% or 60%"),
        ("acc >= sft at 90%", "intervals are of 95%"),
        ("acc not below 60%", "is followed by a variant"),
        ("blue >= sft", "did you mean bleu"),
    ],
)
def test_a_constraint_that_is_not_understood_is_refused(suites: list, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_constraint(text, suites, NAMES)


def test_a_bound_that_no_number_of_items_here_can_show_says_how_many_could(suites: list) -> None:
    assert parse_constraint("trace rate <= 1% at 95%", suites, NAMES).items_needed == 381
    assert parse_constraint("trace rate <= 1%", suites, NAMES).items_needed is None


def test_the_same_question_is_in_one_part_whatever_its_suite_and_id(suites: list) -> None:
    from dataclasses import replace

    parts = split(suites, 0.5)
    for suite in suites:
        name = suite.settings.name
        both = {*parts.search.ids[name], *parts.confirmation.ids[name]}
        assert both == {item.id for item in suite.items}
        assert not set(parts.search.ids[name]) & set(parts.confirmation.ids[name])
    item = suites[0].items[0]
    assert place_of(replace(item, id="other", subject="heart", reference="x")) == place_of(item)
    assert parts.search.first(0.01).ids["ask"] == parts.search.ids["ask"][:6]


def test_too_few_confirmation_items_say_how_many_are_needed(suites: list) -> None:
    assert fewest(1) == 6
    assert 2 ** (1 - fewest(3)) <= 0.05 / 3 < 2 ** (2 - fewest(3))
    with pytest.raises(RecipeError, match=r"can show nothing: 7 are needed for 3 finalists"):
        check_sizes(split(suites, 0.02), ["ask"], 3, 0.02)
