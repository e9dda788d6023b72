"""The 25 checks of verifiable instructions (IFEval, Zhou et al., 2311.07911), one small function each.

A check takes a response and the published arguments. Where IFEval uses a downloaded model or reads a keyword as a
pattern, this does not: sentences end at their marks (abbreviations aside), the language is told by `language`, keywords
are plain text. Chinese, Japanese and Korean characters count as words, and their comma as a comma.
"""

import json
import re
from collections.abc import Sequence
from typing import Literal

from crossmatch.evaluation.metrics.language_id import language_of

Relation = Literal["less than", "at least"]
RELATIONS = ("less than", "at least")
ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_TOKENS = re.compile(r"\w+(?:[-./&'’]\w+)*")
_CONTRACTED = re.compile(r"['’](?:m|s|d|t|ll|re|ve)$", re.IGNORECASE)
_ENDS = re.compile(r"(?<![.!?])[.!?]++[\"'”’)\]]*+(?=\s|$)|[。！？]+[”’」』）]*")
_ABBREVIATED = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|e\.g|i\.e|approx|no|fig|cf|inc|ltd)|(?<![^\s(])[A-Z]|\b[A-Z]\.[A-Z])\.$",
    re.IGNORECASE,
)


def compared(count: int, relation: Relation, threshold: int) -> bool:
    """Whether count < threshold (`less than`) or count >= threshold (`at least`)."""
    return count < threshold if relation == "less than" else count >= threshold


def count_words(text: str) -> int:
    """Words of a text: runs of letters, digits and underscores; each CJK character is one."""
    return len(_WORDS.findall(text))


def count_sentences(text: str) -> int:
    """Sentences of a text: what ends with . ! ? or 。！？ and holds a word, and a last one without an end."""
    count, start, last = 0, 0, len(text.rstrip())
    for end in _ENDS.finditer(text):
        piece = text[start : end.end()]
        if end.group() == "." and end.end() < last and _abbreviated(text[max(start, end.end() - 12) : end.end()]):
            continue
        count += bool(_WORDS.search(piece))
        start = end.end()
    return count + bool(_WORDS.search(text, start))


def _abbreviated(piece: str) -> bool:
    match = _ABBREVIATED.search(piece)
    # "I." and "a." end sentences; "J. Smith" does not.
    return bool(match) and not re.search(r"\b(?:I|a)\.$", piece) and not piece.lower().endswith(" no.")


def count_capital_words(text: str) -> int:
    """Words without a small letter; what hyphens, dots and slashes join is one word, and the I of "I'm" is one."""
    return sum(_CONTRACTED.sub("", token).isupper() for token in _TOKENS.findall(text))


def count_bullets(text: str) -> int:
    """Lines that begin with a bullet, - or a single *."""
    return len(re.findall(r"^[^\S\n]*\*[^*].*$|^[^\S\n]*-.*$", text, re.MULTILINE))


def keywords_existence(response: str, keywords: Sequence[str]) -> bool:
    """Whether every keyword occurs, as any part of the text, in whatever case."""
    return all(word.lower() in response.lower() for word in keywords)


def keywords_frequency(response: str, keyword: str, frequency: int, relation: Relation) -> bool:
    """Whether a keyword occurs so often, as any part of the text, in whatever case."""
    return compared(response.lower().count(keyword.lower()), relation, frequency)


def forbidden_words(response: str, forbidden_words: Sequence[str]) -> bool:
    """Whether no such word occurs by itself, in whatever case; a CJK word occurs wherever its characters do."""
    return not any(re.search(_whole(word), response, re.IGNORECASE) for word in forbidden_words)


def _whole(word: str) -> str:
    joined = re.compile(rf"[^\W{_CJK}]")
    before = r"(?<!\w)" if joined.match(word[0]) else ""
    return before + re.escape(word) + (r"(?!\w)" if joined.match(word[-1]) else "")


def letter_frequency(response: str, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    """Whether a character occurs so often, in whatever case."""
    return compared(response.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(response: str, language: str) -> bool:
    """Whether the response is in a language; one without letters is in any."""
    return not re.search(r"[^\W\d_]", response) or language_of(response) == language


def number_sentences(response: str, num_sentences: int, relation: Relation) -> bool:
    """Whether the response has so many sentences."""
    return compared(count_sentences(response), relation, num_sentences)


def number_words(response: str, num_words: int, relation: Relation) -> bool:
    """Whether the response has so many words."""
    return compared(count_words(response), relation, num_words)


def number_paragraphs(response: str, num_paragraphs: int) -> bool:
    """Whether *** divides the response into exactly so many paragraphs; none between the first and last is empty."""
    parts = [part.strip() for part in response.split("***")]
    if not parts[0]:
        parts = parts[1:]
    if parts and not parts[-1]:
        parts = parts[:-1]
    return all(parts) and len(parts) == num_paragraphs


def nth_paragraph_first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Whether empty lines divide the response into so many paragraphs and the n-th (from 1) begins with a word."""
    parts = response.split("\n\n")
    filled = sum(bool(part.strip()) for part in parts)
    if filled != num_paragraphs or nth_paragraph > filled or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def number_placeholders(response: str, num_placeholders: int) -> bool:
    """Whether there are at least so many placeholders such as [address]."""
    count = 0
    for line in response.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) >= 0:
            count += 1
            start = line.find("[", end)
    return count >= num_placeholders


def postscript(response: str, postscript_marker: str) -> bool:
    """Whether there is a postscript, known by its marker; spaces inside P.S. and P.P.S do not matter."""
    known = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s", "P.P.S.": r"p\.\s?p\.\s?s"}
    marker = known.get(postscript_marker.strip(), re.escape(postscript_marker.strip().lower()))
    return bool(re.search(marker, response.lower()))


def number_bullet_lists(response: str, num_bullets: int) -> bool:
    """Whether exactly so many lines begin with a bullet, * or -."""
    return count_bullets(response) == num_bullets


def constrained_response(response: str) -> bool:
    """Whether the response holds one of the three answers that may be given."""
    return any(answer in response for answer in ANSWERS)


def number_highlighted_sections(response: str, num_highlights: int) -> bool:
    """Whether at least so many parts are *highlighted* or **highlighted**."""
    single = [m for m in re.findall(r"\*[^\n*]*\*", response) if m.strip("*").strip()]
    double = [m for m in re.findall(r"\*\*[^\n*]*\*\*", response) if m.strip("*").strip()]
    return len(single) + len(double) >= num_highlights


def multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    """Whether at least so many sections are marked, as "Section 1" is."""
    return len(re.findall(re.escape(section_spliter.strip()) + r"\s?\d+", response)) >= num_sections


def json_format(response: str) -> bool:
    """Whether the whole response is JSON, in a code fence or not."""
    body = re.sub(r"^```(?:json|Json|JSON)?|```$", "", response.strip()).strip()
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def title(response: str) -> bool:
    """Whether there is a title in double angular brackets."""
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end and line[start : end + 2].strip("<>").strip():
            return True
    return False


def two_responses(response: str) -> bool:
    """Whether ****** divides the text into exactly two different responses."""
    parts = [part.strip() for part in response.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    """Whether the response begins with the prompt, in whatever case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(response: str, end_phrase: str) -> bool:
    """Whether the response ends with a phrase, in whatever case, closing quotation marks aside."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_word_frequency(response: str, capital_frequency: int, capital_relation: Relation) -> bool:
    """Whether so many words are all in capital letters."""
    return compared(count_capital_words(response), capital_relation, capital_frequency)


def english_capital(response: str) -> bool:
    """Whether the response is English without a small letter."""
    return response.isupper() and language_of(response) == "en"


def english_lowercase(response: str) -> bool:
    """Whether the response is English without a capital letter."""
    return response.islower() and language_of(response) == "en"


def no_comma(response: str) -> bool:
    """Whether there is no comma, Chinese ones included."""
    return not re.search("[,，]", response)


def quotation(response: str) -> bool:
    """Whether the whole response stands in double quotation marks."""
    body = response.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'
