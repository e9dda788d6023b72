"""SustainScore: what a task's score loses when a constraint is inserted that the answer met already (2601.22047).

A model that solved a question is asked it again with constraints that its own right answer meets. Whatever it loses is
the price of following instructions, not of the constraints, which asked for nothing new.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from crossmatch.errors import DataError
from crossmatch.evaluation.metrics import ifeval_checks as checks
from crossmatch.evaluation.metrics.ifeval import Constraint, check, describe
from crossmatch.evaluation.metrics.language_id import FUNCTION_WORDS, language_of
from crossmatch.statistics.estimates import Array, Ratio

# Words that a plain answer seldom holds; one that it does hold is not forbidden.
_SELDOM = ("however", "certainly", "perhaps", "unfortunately", "basically", "obviously", "delve", "frankly")
_LETTERS = "jkqvwxz"


def already_met(answer: str, seed: int, count: int) -> list[Constraint]:
    """At most `count` constraints that an answer meets already, of different kinds; the same for the same seed.

    They ask for length, form, case, letters, language and function words, never for words of content: those would tell
    the answer. Fewer come back where the answer meets fewer; none for an answer without text.
    Raises DataError for a count below 1.
    """
    if count < 1:
        raise DataError(f"1 or more constraints can be inserted, not {count}")
    rng = np.random.default_rng(seed)
    found = [c for c in _candidates(answer, rng) if check(*c, prompt="", response=answer)]
    order = [found[int(i)] for i in rng.permutation(len(found))]
    return order[:count]


def with_constraints(prompt: str, constraints: Sequence[Constraint]) -> str:
    """The prompt, and the constraints below it, one a line, in English; without constraints the prompt itself."""
    lines = [describe(kind, arguments) for kind, arguments in constraints]
    return "\n".join([prompt.rstrip() + "\n", *lines]) if lines else prompt


def sustain(before: Sequence[float], after: Sequence[float]) -> Array:
    """Item statistics of the drop, (n, 2): score after, score before, both 0 where there was nothing to lose.

    before, after: task scores (0 to 1) without and with the constraints. Take `sustained` of their means; what
    is missing to 1 is the drop. Raises DataError if the two differ in length or a score is out of bounds.
    """
    one, other = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if one.shape != other.shape or one.ndim != 1:
        raise DataError(f"scores before and after need the same items, not {one.shape} and {other.shape}")
    if not all(0.0 <= float(v) <= 1.0 for v in (*one, *other)):
        raise DataError("scores before and after must be from 0 to 1")
    solved = one > 0
    return np.stack([np.where(solved, other, 0.0), one], axis=1)


sustained = Ratio(0, 1)
"""Score after over score before, on items solved before; (draws, 2) to (draws,), not a number where none was."""


def _candidates(answer: str, rng: np.random.Generator) -> Iterator[Constraint]:
    """One constraint of each kind that may fit, with arguments taken from the answer."""
    yield from _counted(answer, rng)
    words = _function_words(answer)
    if words:
        word = words[int(rng.integers(len(words)))]
        yield "keywords:existence", {"keywords": [word]}
        yield "keywords:frequency", {"keyword": word, "frequency": 1, "relation": "at least"}
    absent = [word for word in _SELDOM if word not in answer.lower()]
    if absent:
        yield "keywords:forbidden_words", {"forbidden_words": [absent[int(rng.integers(len(absent)))]]}
    language = language_of(answer)
    if language:
        yield "language:response_language", {"language": language}
    for kind in (
        "punctuation:no_comma",
        "change_case:english_lowercase",
        "change_case:english_capital",
        "startend:quotation",
        "detectable_format:title",
    ):
        yield kind, {}
    # A bare number is JSON too, but who asks for JSON wants an object or a list.
    if re.match(r"(?:```\w*)?\s*[{\[]", answer.strip()):
        yield "detectable_format:json_format", {}


def _counted(answer: str, rng: np.random.Generator) -> Iterator[Constraint]:
    """Constraints on counts, with some room, so that they do not ask for one certain answer."""
    words, sentences = checks.count_words(answer), checks.count_sentences(answer)
    if rng.random() < 0.5:
        yield "length_constraints:number_words", {"num_words": 10 * (words // 10 + 2), "relation": "less than"}
    else:
        yield "length_constraints:number_words", {"num_words": max(1, words // 2), "relation": "at least"}
    yield "length_constraints:number_sentences", {"num_sentences": sentences + 2, "relation": "less than"}
    letter = _LETTERS[int(rng.integers(len(_LETTERS)))]
    room = answer.lower().count(letter) + 3
    yield "keywords:letter_frequency", {"letter": letter, "let_frequency": room, "let_relation": "less than"}
    capitals = checks.count_capital_words(answer) + 3
    yield "change_case:capital_word_frequency", {"capital_frequency": capitals, "capital_relation": "less than"}
    bullets = checks.count_bullets(answer)
    if bullets:
        yield "detectable_format:number_bullet_lists", {"num_bullets": bullets}
    # Paragraphs are those between dividers; an answer with empty lines would not be thought one of them.
    if "***" in answer or "\n" not in answer.strip():
        yield "length_constraints:number_paragraphs", {"num_paragraphs": answer.count("***") + 1}
    yield "detectable_format:number_highlighted_sections", {"num_highlights": 1}
    yield "detectable_content:number_placeholders", {"num_placeholders": 1}


def _function_words(answer: str) -> list[str]:
    language = language_of(answer)
    known = FUNCTION_WORDS.get(language or "", "").split()
    if language == "zh":
        return [word for word in "的是在和有了与或为中" if word in answer]
    present = set(re.findall(r"[^\W\d_]+", answer.lower()))
    return [word for word in known if word in present]
