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

# As today's models write them; `HELD_OUT` was labelled with them and only measured.
SEEN = {
    "#### 42": "42",
    "**42**": "42",
    "42 mg/dL": "42",
    "24 kg/m2": "24",
    "1.73 m2": "173/100",
    "5 cm3": "5",
    "3⁄4": "3/4",
    "−1⁄2": "-1/2",
    "10**6": "1000000",
    "2*10**-3": "1/500",
    "2 X 10^3": "2000",
    "½ tablet": "1/2",
    "1 ½": "3/2",
    "\\frac{-3}{4}": "-3/4",
    "\\frac 34": "3/4",
    "\\boxed{\\frac{5}{2}}": "5/2",
    "(-5)": "-5",
    "x=-5": "-5",
    "≈−0.5": "-1/2",
    "$-0.5$": "-1/2",
    "−5 °C": "-5",
    "５０": "50",
    "５．５": "11/2",
    "1．5": "3/2",
    "$1,200.50": "2401/2",
    "is −.5": "-1/2",
    "+3.0e+2": "300",
    "5e−3": "1/200",
    "7 mL of vitamin B12": "7",
    "98% SpO2": "98",
    "A 5": "5",
    "1.5·10⁻³": "3/2000",
    "6.02×10^{23}": "602000000000000000000000",
    "42<｜end▁of▁sentence｜>": "42",
    "42<|im_end|>": "42",
    "3/4 of 100": "100",
    "1,234,567": "1234567",
    "0.5.": "1/2",
    "5,": "5",
    "=42.": "42",
    "42\\%": "42",
    "\\$42": "42",
    "42[|endofturn|]": "42",
    "42<end_of_turn>": "42",
    "5<SPECIAL_12>": "5",
    "1 1/2 cups": "3/2",
    "-1½": "-3/2",
    "1e-3M": "1/1000",
}
HELD_OUT = {
    "\\boxed{42}": "42",
    "**Answer:** 42": "42",
    "7 mmol/L": "7",
    "30 kg/m2": "30",
    "2.5 m3": "5/2",
    "5⁄8": "5/8",
    "2∕3": "2/3",
    "10**-2": "1/100",
    "3*10**4": "30000",
    "5 x 10^-2": "1/20",
    "¼": "1/4",
    "2 ¾": "11/4",
    "\\frac{7}{-2}": "-7/2",
    "\\tfrac34": "3/4",
    "\\dfrac{ 1 }{ 3 }": "1/3",
    "[-7]": "-7",
    "y = −7": "-7",
    "~ -0.25": "-1/4",
    "−.25": "-1/4",
    "−12 %": "-12",
    "３／４": "3/4",
    "１，０２４": "1024",
    "€3.50": "7/2",
    "2.0E-2": "1/50",
    "4e+3": "4000",
    "12 mm3": "12",
    "40 mmHg PaCO2": "40",
    "5 L O2": "5",
    "8.5·10³": "8500",
    "1.2×10^{-4}": "3/25000",
    "17<｜end▁of▁sentence｜>": "17",
    "17</s>": "17",
    "17<turn|>": "17",
    "17[e~[": "17",
    "17<SPECIAL_12>": "17",
    "17<|eot_id|>": "17",
    "2,500,000": "2500000",
    ".75.": "3/4",
    "100\\%": "100",
    "\\$7.25": "29/4",
    "2½": "5/2",
    "-2 1/4": "-9/4",
    "5e-6M": "1/200000",
    "10^{-7}": "1/10000000",
    "1/2": "1/2",
    "-1/3": "-1/3",
}


@pytest.mark.parametrize(("text", "value"), [*NUMBERS.items(), *SEEN.items(), *HELD_OUT.items()])
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
