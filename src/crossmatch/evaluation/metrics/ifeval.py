"""Verifiable instructions: IFEval's 25 kinds behind one registry, strict and loose, and their description in English.

Kinds and arguments have their published names (section_spliter too), so that published data sets can be read.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossmatch.errors import DataError
from crossmatch.evaluation.metrics import ifeval_checks as checks
from crossmatch.evaluation.metrics.language_id import LANGUAGES
from crossmatch.statistics.estimates import Array, Ratio

Arguments = Mapping[str, Any]
Constraint = tuple[str, Arguments]
Validator = tuple[str, Callable[[Any], bool]]

_COUNT: Validator = (
    "a whole number that is not negative",
    lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
)
_PLACE: Validator = ("a whole number from 1", lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1)
_TEXT: Validator = ("a text that is not empty", lambda v: isinstance(v, str) and bool(v.strip()))
_TEXTS: Validator = (
    "a list of one or more texts that are not empty",
    lambda v: isinstance(v, list | tuple) and bool(v) and all(isinstance(t, str) and t.strip() for t in v),
)
_LETTER: Validator = ("one character", lambda v: isinstance(v, str) and len(v) == 1 and not v.isspace())
_RELATION: Validator = ("'less than' or 'at least'", lambda v: v in checks.RELATIONS)
_LANGUAGE: Validator = (f"one of {', '.join(sorted(LANGUAGES))}", lambda v: isinstance(v, str) and v in LANGUAGES)


@dataclass(frozen=True)
class Kind:
    """One kind of instruction: its check of (response, arguments), what its arguments may be, and what it says."""

    check: Callable[..., bool]
    arguments: Mapping[str, Validator]
    text: str


KINDS: Mapping[str, Kind] = {
    "keywords:existence": Kind(
        checks.keywords_existence, {"keywords": _TEXTS}, "Use each of these words in your response: {keywords}."
    ),
    "keywords:frequency": Kind(
        checks.keywords_frequency,
        {"keyword": _TEXT, "frequency": _COUNT, "relation": _RELATION},
        "Use the word {keyword} {relation} {frequency} times.",
    ),
    "keywords:forbidden_words": Kind(
        checks.forbidden_words, {"forbidden_words": _TEXTS}, "Use none of these words: {forbidden_words}."
    ),
    "keywords:letter_frequency": Kind(
        checks.letter_frequency,
        {"letter": _LETTER, "let_frequency": _COUNT, "let_relation": _RELATION},
        "Let the letter {letter} occur {let_relation} {let_frequency} times.",
    ),
    "language:response_language": Kind(
        checks.response_language, {"language": _LANGUAGE}, "Write the whole response in {language} and nothing else."
    ),
    "length_constraints:number_sentences": Kind(
        checks.number_sentences,
        {"num_sentences": _COUNT, "relation": _RELATION},
        "Write {relation} {num_sentences} sentences.",
    ),
    "length_constraints:number_paragraphs": Kind(
        checks.number_paragraphs,
        {"num_paragraphs": _COUNT},
        "Write exactly this number of paragraphs: {num_paragraphs}. Divide them by a line of ***.",
    ),
    "length_constraints:number_words": Kind(
        checks.number_words, {"num_words": _COUNT, "relation": _RELATION}, "Use {relation} {num_words} words."
    ),
    "length_constraints:nth_paragraph_first_word": Kind(
        checks.nth_paragraph_first_word,
        {"num_paragraphs": _PLACE, "nth_paragraph": _PLACE, "first_word": _TEXT},
        "Write exactly this number of paragraphs: {num_paragraphs}. Divide them by an empty line, and let paragraph "
        "{nth_paragraph} begin with the word {first_word}.",
    ),
    "detectable_content:number_placeholders": Kind(
        checks.number_placeholders,
        {"num_placeholders": _COUNT},
        "Put at least {num_placeholders} placeholders in square brackets, such as [name].",
    ),
    "detectable_content:postscript": Kind(
        checks.postscript, {"postscript_marker": _TEXT}, "Add a postscript that begins with {postscript_marker}."
    ),
    "detectable_format:number_bullet_lists": Kind(
        checks.number_bullet_lists,
        {"num_bullets": _COUNT},
        "Use exactly this number of bullet points: {num_bullets}. Begin the line of each with *.",
    ),
    "detectable_format:constrained_response": Kind(
        checks.constrained_response, {}, "Answer with one of: " + " / ".join(checks.ANSWERS)
    ),
    "detectable_format:number_highlighted_sections": Kind(
        checks.number_highlighted_sections,
        {"num_highlights": _COUNT},
        "Highlight at least {num_highlights} parts of your response with asterisks, *like this*.",
    ),
    "detectable_format:multiple_sections": Kind(
        checks.multiple_sections,
        {"section_spliter": _TEXT, "num_sections": _COUNT},
        "Write {num_sections} sections and begin each with {section_spliter} and its number.",
    ),
    "detectable_format:json_format": Kind(
        checks.json_format, {}, "Give the whole response as JSON; a code fence around it is allowed."
    ),
    "detectable_format:title": Kind(
        checks.title, {}, "Give your response a title in double angular brackets: <<title>>."
    ),
    "combination:two_responses": Kind(
        checks.two_responses, {}, "Give two different responses and divide them by six asterisks: ******"
    ),
    "combination:repeat_prompt": Kind(
        checks.repeat_prompt,
        {"prompt_to_repeat": _TEXT},
        "Before you answer, repeat these words without any change: {prompt_to_repeat}",
    ),
    "startend:end_checker": Kind(
        checks.end_checker, {"end_phrase": _TEXT}, "End with exactly these words and nothing after them: {end_phrase}"
    ),
    "startend:quotation": Kind(checks.quotation, {}, "Put your whole response in double quotation marks."),
    "change_case:capital_word_frequency": Kind(
        checks.capital_word_frequency,
        {"capital_frequency": _COUNT, "capital_relation": _RELATION},
        "Write {capital_relation} {capital_frequency} words in capital letters only.",
    ),
    "change_case:english_capital": Kind(
        checks.english_capital, {}, "Write the whole response in English and in capital letters only."
    ),
    "change_case:english_lowercase": Kind(
        checks.english_lowercase, {}, "Write the whole response in English and without any capital letter."
    ),
    "punctuation:no_comma": Kind(checks.no_comma, {}, "Do not use any comma."),
}


def check(kind: str, arguments: Arguments, prompt: str, response: str) -> bool:
    """Whether a response does what an instruction asks, strictly; an empty response does nothing.

    kind: a name in `KINDS`; arguments: the published ones (None: not given); prompt: what `combination:repeat_prompt`
    wants repeated where its argument does not say. Raises DataError for an unknown kind or argument, a missing one, or
    one out of bounds.
    """
    known = validated(kind, arguments, prompt)
    return bool(response.strip()) and KINDS[kind].check(response, **known)


def check_loose(kind: str, arguments: Arguments, prompt: str, response: str) -> bool:
    """Whether any of 8 forms of a response does: without first line, last line or both, with or without asterisks."""
    known = validated(kind, arguments, prompt)
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    forms = [*cut, *(form.replace("*", "") for form in cut)]
    return any(form.strip() and KINDS[kind].check(form, **known) for form in forms)


def describe(kind: str, arguments: Arguments) -> str:
    """The instruction in English. Raises DataError as `check` does."""
    known = validated(kind, arguments, "the request")
    return KINDS[kind].text.format_map({name: _shown(name, value) for name, value in known.items()})


def validated(kind: str, arguments: Arguments, prompt: str = "") -> dict[str, Any]:
    """Arguments of a kind, checked, without those that are None. Raises DataError as `check` does."""
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DataError(f"unknown instruction {kind!r}{hint}")
    wanted = KINDS[kind].arguments
    given = {name: value for name, value in arguments.items() if value is not None}
    if "prompt_to_repeat" in wanted:
        given.setdefault("prompt_to_repeat", prompt)
    unknown, missing = [n for n in given if n not in wanted], [n for n in wanted if n not in given]
    if unknown or missing:
        fault = f"does not take {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
        raise DataError(f"instruction {kind} {fault}; its arguments are: {', '.join(wanted) or 'none'}")
    for name, (what, valid) in wanted.items():
        if not valid(given[name]):
            raise DataError(f"instruction {kind}: {name} must be {what}, not {given[name]!r}")
    if given.get("nth_paragraph", 0) > given.get("num_paragraphs", 0):
        raise DataError(
            f"instruction {kind}: there is no paragraph {given['nth_paragraph']} of {given['num_paragraphs']}"
        )
    return given


def followed(
    constraints: Sequence[Sequence[Constraint]],
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    loose: bool = False,
) -> Array:
    """Item statistics of instruction following, (n, 3): all followed (0 or 1), how many followed, how many asked.

    IFEval's prompt level is the mean of the first column, its instruction level `instruction_level`.
    """
    does = check_loose if loose else check
    rows = []
    for asked, prompt, response in zip(constraints, prompts, responses, strict=True):
        done = [does(kind, arguments, prompt, response) for kind, arguments in asked]
        rows.append([float(all(done)), sum(done), len(done)])
    return np.array(rows, dtype=float).reshape(-1, 3)


instruction_level = Ratio(1, 2)
"""Share of all instructions that were followed, (draws, 3) to (draws,); not a number where none was asked."""


def _shown(name: str, value: Any) -> str:
    if name == "language":
        return LANGUAGES[value]
    if isinstance(value, list | tuple):
        return ", ".join(f'"{v}"' for v in value)
    return f'"{value}"' if name in ("keyword", "letter", "first_word") else str(value)
