"""Numbers as models write them: signs, exponents, fractions, decimals, thousands."""

from fractions import Fraction

import pytest

from crossmatch.evaluation.metrics.exact_match import last_number, number_matches

NUMBERS = {
    "\u22125": "-5",
    "is \u22120.5": "-1/2",
    "\uff0d5": "-5",
    "\u20135": "-5",
    "$-5$": "-5",
    "\\boxed{-5}": "-5",
    "+5": "5",
    "between 3\u20135": "5",
    "3 - 5": "5",
    "COVID-19": "19",
    "2024-05-06": "6",
    "12/25/2024": "2024",
    "1.5e3": "1500",
    "1.5E-3 mol": "3/2000",
    "1e5": "100000",
    "1,000e-3": "1",
    "2 × 10^3": "2000",
    "2\u00d710\u207b\u00b3": "1/500",
    "10\u2076": "1000000",
    "2 \\times 10^{23}": "2" + "0" * 23,
    "2^10": "1024",
    "3/4": "3/4",
    "-3/4": "-3/4",
    "\\frac{3}{4}": "3/4",
    "-\\dfrac{3}{4}": "-3/4",
    "\\frac12": "1/2",
    "\u00bd": "1/2",
    "1\u00bd": "3/2",
    "1 1/2": "3/2",
    "-1 1/2": "-3/2",
    "9 3/4 cups": "39/4",
    "10/0": "0",
    ".5": "1/2",
    "-.5": "-1/2",
    "is .25.": "1/4",
    "5.": "5",
    "v.5": "5",
    "1,024": "1024",
    "1\u202f024": "1024",
    "1\u00a0024": "1024",
    "1'024.5": "2049/2",
    "1_000": "1000",
    "1{,}024": "1024",
    "1\\,024": "1024",
    "1,00,000": "100000",
    "12,34": "34",
    "20%": "20",
    "x^2 = 16": "16",
    "x\u00b2 is 9 cm\u00b2": "9",
    "24 hours / 7 days": "7",
}


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_the_last_number(text: str, value: str) -> None:
    assert last_number(text) == Fraction(value)
    assert last_number(f"So the answer is {text}") == Fraction(value)


IN_LANGUAGES = {
    ("de", "0,5"): "1/2",
    ("de", "1.024"): "1024",
    ("de", "1.024,5"): "2049/2",
    ("de", "-1.234.567,25 €"): "-4938269/4",
    ("de", "0.512"): "64/125",
    ("de", "3,5e3"): "3500",
    ("de", "1,2,3"): "3",
    ("de", "12,5 %"): "25/2",
    ("de", "\\frac{1,5}{3}"): "1/2",
    ("fr", "1 024,5"): "2049/2",
    ("fr", "1\u202f024,5"): "2049/2",
    ("fr", "en 2020 150"): "150",
    ("fr", "1.024"): "128/125",
    ("ru", "12 345"): "12345",
    ("es", "1.000"): "1000",
    ("zh", "1,024"): "1024",
    ("ja", "0,5"): "5",
}


@pytest.mark.parametrize(("given", "value"), IN_LANGUAGES.items())
def test_the_last_number_where_commas_are_decimal(given: tuple[str, str], value: str) -> None:
    language, text = given
    assert last_number(text, language) == Fraction(value)
    assert number_matches([f"= {text}"], [text], language).item() == 1


def test_one_number_in_two_ways_is_the_same() -> None:
    texts, references = ["\u22120.50", "1.5e3", "50%", "3/4"], ["-1/2", "1,500", "0.5", "0.75"]
    assert number_matches(texts, references).T.tolist() == [[1, 1, 0, 1]]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["1 ", "1,", "1/", "9", "^", "1e", "\\frac{1", "-", "½", "1 1/"])
def test_a_number_without_end_is_read_in_no_time(piece: str) -> None:
    assert last_number(piece * 100_000) == last_number(piece * 1_000)
