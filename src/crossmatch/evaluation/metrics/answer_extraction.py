"""Multiple choice as generated text: which option an answer names.

No output is asked again: what names no option, or more than one, is invalid and is counted as such.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crossmatch.data.text_forms import one_form
from crossmatch.errors import DataError
from crossmatch.evaluation.metrics import choice_phrases as phrases
from crossmatch.evaluation.metrics.reasoning_traces import parse_trace

INVALID = -1
MAX_OPTIONS = 26
_SHORT = 4
# Of a long answer the beginning and the end are read, this many characters of each: it may be one word, without end.
_READ = 1500

Found = tuple[int, int]
"""Where in a text an option is named, and its index (INVALID: several at once)."""


def extract_choice(output: str, options: Sequence[str], language: str = "en") -> int | None:
    """Index of the option that a generated text names, or None: an invalid answer. `read_choice` without its trace."""
    return read_choice(parse_trace(output).answer, options, language)


def read_choice(answer: str, options: Sequence[str], language: str = "en") -> int | None:
    """Index of the option that an answer without trace names, or None: an invalid answer.

    Strongest first, what is read is what a box says; a final answer; an "answer is" or "答案"; a letter or an option at
    the beginning; "I choose", "选" or "B is correct"; a letter that concludes ("So B."); a letter in brackets or after
    "option"; the one option whose text is quoted in full. The first of these that says anything decides: what is said
    about other options further down does not. It is invalid if it names two options, unless words between them take
    the first one back ("Wait", "不对"), or one that is not offered. An option that is called wrong where it is named is
    not named. A letter stands even if another option's text follows it.

    language: of the suite; its words of one letter ("a") name no option where a word follows. Labels ("Answer:",
    "答案：", "Antwort:") are read in every language.
    Raises DataError for fewer than 2 or more than 26 options, or an empty one.
    """
    if not 2 <= len(options) <= MAX_OPTIONS or not all(o.strip() for o in options):
        raise DataError(
            f"2 to {MAX_OPTIONS} options that are not empty are needed to read an answer, not {len(options)}"
        )
    answer = phrases.TOKENS.sub("", answer)
    if len(answer) > 2 * _READ:
        answer = f"{answer[:_READ]}\n{answer[-_READ:]}"
    text = phrases.NEXT.sub("", _plain(answer))
    reader = _Reader(tuple(_plain(option).casefold().rstrip(" .。;,") for option in options), language)
    boxed = [
        (m.start(), place) for m in phrases.BOXED.finditer(text) if (place := reader.place(m[1].strip())) is not None
    ]
    text = phrases.NOT_BUT.sub("", phrases.BOXED.sub(lambda m: m.group(1), text))
    for found in (boxed, *reader.evidence(text)):
        if found:
            place = _decided(found, text)
            return place if 0 <= place < len(options) else None
    return None


def _decided(found: Sequence[Found], text: str) -> int:
    """The one option that is named, or the last one where the text takes back what it said before; else INVALID."""
    ordered = sorted(found)
    at, last = ordered[-1]
    others = [place for place, index in ordered if index != last]
    if not others or phrases.CORRECTED.search(text, max(others), max(at, max(others))):
        return last
    return INVALID


@dataclass(frozen=True)
class _Reader:
    """Options as plain texts in lower case, and the language of the suite."""

    texts: tuple[str, ...]
    language: str

    def evidence(self, text: str) -> Iterator[list[Found]]:
        """What names options, strongest first; each is looked for only if nothing stronger was found."""
        yield self._after(phrases.FINAL, text)
        yield self._after(phrases.STATED, text)
        yield self._ticked(text)
        yield self._beginning(text)
        right = [*phrases.RIGHT.finditer(text), *phrases.JUDGED_RIGHT.finditer(text)]
        yield [*self._after(phrases.CHOSEN, text), *((m.start(1), _index(m[1])) for m in right)]
        yield [(m.start(), _index(m[1] or m[2] or m[3])) for m in phrases.CLOSING.finditer(text)]
        yield list(self._mentioned(text))
        yield self._quoted(text)

    def place(self, text: str) -> int | None:
        """What a text names at its beginning: an option's index, INVALID for several at once, None for nothing."""
        lead = phrases.LEAD.match(text)
        rest = text[lead.end() :] if lead else text
        opening = self._opening(rest.casefold())
        letter = phrases.NAMED.match(rest)
        if not letter or self._genus(rest[letter.end() :]) or (opening is not None and len(self.texts[opening]) > 1):
            return opening
        place, after = _index(letter[1]), rest[letter.end() :]
        more = phrases.MORE.match(after)
        if more and _index(more[1]) != place and max(place, _index(more[1])) < len(self.texts):
            return INVALID
        own = self._own(place, after.strip(" .:)-"))
        # "a" is also a word and "C" may begin a term: a letter counts only where nothing else follows it.
        word = letter[1] in phrases.WORDS.get(self.language, "a") and re.match(r"\s*[^\W\d_]", after)
        named = own or (phrases.AFTER.match(after) and not word)
        return place if named and not phrases.WRONG.match(after) else opening

    def _ticked(self, text: str) -> list[Found]:
        """Options that a list ticks, in front if it crosses another one out."""
        lines = phrases.TICKED.finditer(text) if phrases.CROSSED.search(text) else ()
        return [(m.start(1), _index(m[1])) for m in (*lines, *phrases.TICKED_BEHIND.finditer(text))]

    def _own(self, place: int, after: str) -> bool:
        return place < len(self.texts) and after.casefold().startswith(self.texts[place])

    def _after(self, phrase: re.Pattern[str], text: str) -> list[Found]:
        found = ((m.end(), self.place(text[m.end() :])) for m in phrase.finditer(text))
        return [(at, place) for at, place in found if place is not None]

    def _genus(self, after: str) -> bool:
        match = phrases.GENUS.match(after)
        return bool(match) and not any(after[match.start(1) :].startswith(option) for option in self.texts)

    def _opening(self, text: str) -> int | None:
        """The longest option with which a text begins, if nothing but a reason follows it; INVALID with another one."""
        place = self._longest(text)
        if place is None:
            return None
        after = text[len(self.texts[place]) :]
        more = phrases.JOINED.match(after)
        if more and self._longest(after[more.end() :]) not in (None, place):
            return INVALID
        return place if phrases.AFTER.match(after) else None

    def _longest(self, text: str) -> int | None:
        found = (i for i, option in enumerate(self.texts) if text.startswith(option))
        return max(found, key=lambda i: len(self.texts[i]), default=None)

    def _beginning(self, text: str) -> list[Found]:
        """What a text begins with: a letter or an option; INVALID where it names several; nothing where it lists the
        options one after the other, or calls wrong what it begins with."""
        letter = phrases.LEADING.match(text)
        if not letter or self._genus(text[letter.end() - 1 :]):
            place = self.place(text)
            return [] if place is None else [(0, place)]
        place = _index(letter[1])
        lone = {_index(line.strip(" .()")) for line in text.split("\n") if re.fullmatch(r"\s*\(?[A-Z]\)?\.?\s*", line)}
        if len(lone) > 1 or self.place(text) == INVALID:
            several = phrases.SEVERAL.match(text)
            return [] if several and phrases.WRONG.match(text[several.end() :]) else [(0, INVALID)]
        if self._lists(text):
            return []
        line = text[letter.end(1) :].split("\n", 1)[0]
        said = line.lstrip(" .:)]>、-\"'”】")
        if self._own(place, said):
            line = said[len(self.texts[place]) :]
        return [] if phrases.WRONG.match(line) else [(0, place)]

    def _lists(self, text: str) -> bool:
        """Whether a text begins with the options, A and then B; "A. ..." and then reasons about (B) is an answer."""
        listed = list(phrases.MARKER.finditer(text))[:2]
        if [_index(m[1]) for m in listed] != [0, 1]:
            return False
        second = listed[1]
        return text[: second.start()].rstrip("( -•").endswith("\n") or self._own(1, text[second.end() :].lstrip())

    def _mentioned(self, text: str) -> Iterator[Found]:
        for match in phrases.MENTIONED.finditer(text):
            if not phrases.NEGATED.search(text[max(0, match.start() - 24) : match.start()]):
                rest, place = text[match.end() :], _index(next(filter(None, match.groups())))
                if self._own(place, rest.lstrip(" .:-")):
                    rest = rest.lstrip(" .:-")[len(self.texts[place]) :]
                if not phrases.WRONG.match(rest.split("\n", 1)[0]):
                    yield match.start(), place

    def _quoted(self, text: str) -> list[Found]:
        """Options whose whole text occurs; one inside a longer one that occurs too does not count."""
        if any(len(option) < (_SHORT if option.isascii() else 2) for option in self.texts):
            return []  # "no" is in many texts, and an option that cannot be looked for would never be found
        folded, found = text.casefold(), []
        for place in sorted(range(len(self.texts)), key=lambda i: -len(self.texts[i])):
            option = self.texts[place]
            edge = r"(?<![a-z0-9])" if option[0].isascii() else ""
            end = r"(?![a-z0-9])" if option[-1].isascii() else ""
            for match in list(re.finditer(edge + re.escape(option) + end, folded)):
                before = folded[max(0, match.start() - 24) : match.start()]
                if not phrases.NEGATED.search(before) and not phrases.WRONG.match(folded[match.end() :]):
                    found.append((match.start(), place))
                folded = folded[: match.start()] + "\0" * len(match.group()) + folded[match.end() :]
        return found


def _plain(text: str) -> str:
    """Full-width forms made plain, Han characters in one form, mark-up taken out."""
    plain = unicodedata.normalize("NFKC", one_form(text)).replace("’", "'")
    faceless = phrases.FACE.sub(lambda m: m[1] or " ", phrases.FACE.sub(lambda m: m[1] or " ", plain))
    return phrases.MARKS.sub("", faceless).strip()


def _index(letter: str) -> int:
    return ord(letter.upper()) - ord("A")
