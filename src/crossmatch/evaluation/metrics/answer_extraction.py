"""Multiple choice as generated text: which option an answer names, option orders, and what changes between variants.

No output is asked again: what names no option, or more than one, is invalid and is counted as such.
"""

import re
import unicodedata
from collections.abc import Sequence

from crossmatch.errors import DataError
from crossmatch.evaluation.metrics.reasoning_traces import parse_trace

INVALID = -1
MAX_OPTIONS = 26

_MARKS = re.compile(r"\*+|`+|~~|\$|\\\(|\\\)|(?<!\w)_+|_+(?!\w)|^#+ *", re.MULTILINE)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\[a-z]+\{)?\s*([^{}]*)\}+")
# Special tokens, and a next question that a model without a chat template goes on to ask itself.
_TOKENS = re.compile(r"<\|[^|<>]*\|>|</?s>")
_NEXT = re.compile(r"\n\s*(?:question|problem|问题|题目)\s*\d*\s*[:.].*", re.IGNORECASE | re.DOTALL)
_FINAL = re.compile(
    r"\bfinal (?:answer|choice)(?: is| would be)?\s*[:=]?\s*|FINAL\s*:\s*"
    r"|最终(?:的)?(?:答案|选择|选项)(?:应?该?[是为选])?\s*:?\s*",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"\b(?:answer|choice|option|response|selection)(?: to (?:the|this) question)?"
    r"(?: (?:is|was|would be|should be|must be|has to be)(?:(?: most| very)? likely| probably| therefore)?\s*[:=]?"
    r"|\"?\s*[:=]| [-–—])\s*|<answer>\s*|\bans(?:\.|\s*:)\s*"
    r"|\b(?:i|we)(?: would| will|'d|'ll)? (?:choose|pick|select|go with|answer)\s*:?\s*"
    r"|(?:正确选项|正确的选项|正确的是|选项)(?:应该|应当|应|就)?(?:是|为|选)?\s*:\s*"
    r"|(?:正确选项|正确的选项|正确的)(?:应该|应当|应|就)?(?:是|为|选)\s*"
    r"|答案\s*】?(?:应该|应当|应|就)?(?:是|为|选)?\s*:?\s*"
    r"|(?<![不未挑可备])(?:选择|应选|故选|所以选|因此选|我选|选)(?:择)?(?:的是)?\s*:?\s*",
    re.IGNORECASE,
)
# Words that may stand between such a phrase and what it names.
_LEAD = re.compile(r"(?:(?:the )?(?:option|choice|letter|answer)\s+|选项\s*|第\s*)?[(\[<\"'“‘「{]*\s*", re.IGNORECASE)
_NAMED = re.compile(r"([A-Za-z])(?![A-Za-z0-9])")
_AFTER = re.compile(
    r"\s*(?:$|[\n()\]<>}.,:;!?\"'”’」。、【|—]|[-–]\s|because\b|since\b|as\b|which\b|and this\b"
    r"|因为|由于|是因为|而|项|选项|正确)"
)
_MORE = re.compile(
    r"[)\].\"]*\s*(?:,|、|/|&|\+|和|与|或|及|and|or)+\s*(?:or |and )?[(\[]*([A-Z])(?![A-Za-z0-9'])"
    r"(?!\s*(?!and\b|or\b)[A-Za-z])"
)
_JOINED = re.compile(r"\s*(?:,|、|/|&|\+|和|与|或|及|and\b|or\b)+\s*(?:(?:or|and)\s+)?", re.IGNORECASE)
_RIGHT = re.compile(
    # Not after any word: "vitamin A is the best" speaks of no option.
    r"(?:^|[^A-Za-z0-9\s]\s*|\b(?:option|choice|answer|so|thus|therefore|hence|that|think|believe|say)\s+)"
    r"[(\[]?([A-Z])[)\].]?(?![A-Za-z0-9])\s*(?:选项|项)?\s*"
    r"(?:(?:is|seems|appears)(?: to be)?(?: the)?(?: most| single)?(?: likely)? ?"
    r"(?:correct|right|best|appropriate|answer|accurate)"
    r"|(?:是|为)(?:最)?(?:正确|对|合适|佳|恰当)|正确(?![吗与])|对(?=$|[。,;!\s]))",
    re.IGNORECASE | re.MULTILINE,
)
# A genus: "C. difficile" names a germ, no option.
_GENUS = re.compile(r"\. ?([a-z]{3,})")
_LEADING = re.compile(
    r"[(\[<\"'“]*([A-Za-z])(?:[)\]>\"'”]+|[.:、,;!](?=\s|$|[^\x00-\x7f]|[A-Z])|(?=\s*$))", re.MULTILINE
)
_MARKER = re.compile(r"(?:^|(?<=[\s(]))([A-Z])[.):](?=\s|$|[^\x00-\x7f])", re.MULTILINE)
_WRONG = re.compile(
    r"\b(?:wrong|incorrect|false|unlikely|is not|isn't|ruled out|excluded)\b|错|不对|不正确|不是|不符|排除"
)
# The last words, where they conclude: a bare letter may also end "hepatitis B".
_CLOSING = re.compile(
    r"(?:^|[\s.,;。])(?:so|thus|therefore|hence|it's|it is|it must be|综上|因此|所以"
    r"|(?:应该|应|就|我认为|我觉得|^)(?:是|为))"
    r"(?: it is| it's)?[,:]?\s*[(\[]?([A-Z])[)\]]?\s*[.!。]?\s*$",
    re.IGNORECASE,
)
_MENTIONED = re.compile(
    r"[(\[]([A-Z])[)\]]|\b(?:[Oo]ption|[Cc]hoice|OPTION)\s+([A-Z])(?![A-Za-z0-9])|选项\s*([A-Z])(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9])([A-Z])\s*(?:选项|项)"
)
_NEGATED = re.compile(
    r"(?:\b(?:not|isn't|never|except|excluding|than|without|no|rules? out)\s+(?:an?\s+|the\s+)?"
    r"|不是|并非|而非|不选|排除|除了?)$",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\s*(?:(?:is|was|are|would be|cannot be) (?:wrong|incorrect|false|not|unlikely|ruled out|excluded)\b|isn't\b"
    r"|(?:是)?(?:错|不对|不正确|不是|不符))"
)
_SHORT = 4
# Of a long answer the beginning and the end are read, this many characters of each: it may be one word, without end.
_READ = 1500


def extract_choice(output: str, options: Sequence[str], language: str = "en") -> int | None:
    """Index of the option that a generated text names, or None: an invalid answer.

    The trace is taken out first. Then, strongest first, what is read is what a final answer or a box says; what an
    "answer is" or "选" says; "B is correct"; a letter or an option at the beginning; a letter that concludes ("So B.");
    a letter in brackets or after "option"; the one option whose text is quoted in full. The first of these that says
    anything decides, and it is invalid if it names two options or one that is not offered. A letter stands even if
    another option's text follows it.
    Raises DataError for fewer than 2 or more than 26 options, or an empty one.
    """
    if not 2 <= len(options) <= MAX_OPTIONS or not all(o.strip() for o in options):
        raise DataError(
            f"2 to {MAX_OPTIONS} options that are not empty are needed to read an answer, not {len(options)}"
        )
    return read_choice(parse_trace(output).answer, options, language)


def read_choice(answer: str, options: Sequence[str], language: str = "en") -> int | None:
    """The same of an answer whose trace has been taken out."""
    if not 2 <= len(options) <= MAX_OPTIONS or not all(o.strip() for o in options):
        raise DataError(
            f"2 to {MAX_OPTIONS} options that are not empty are needed to read an answer, not {len(options)}"
        )
    answer = _TOKENS.sub("", answer)
    if len(answer) > 2 * _READ:
        answer = f"{answer[:_READ]}\n{answer[-_READ:]}"
    text = _NEXT.sub("", _plain(answer))
    texts = [_plain(option).casefold().rstrip(" .。;,") for option in options]
    boxed = [_place(m.group(1).strip(), texts) for m in _BOXED.finditer(text)]
    text = _BOXED.sub(lambda m: m.group(1), text)
    for found in (
        boxed,
        _after(_FINAL, text, texts),
        [*_after(_STATED, text, texts), *(_index(m.group(1)) for m in _RIGHT.finditer(text))],
        _beginning(text, texts),
        [_index(m.group(1)) for m in _CLOSING.finditer(text)],
        [_index(next(filter(None, m.groups()))) for m in _MENTIONED.finditer(text) if not _negated(text, m.start())],
        _quoted(text, texts),
    ):
        named = {place for place in found if place is not None}
        if named:
            place = named.pop()
            return place if not named and 0 <= place < len(options) else None
    return None


def _plain(text: str) -> str:
    """Full-width forms made plain, mark-up taken out."""
    return _MARKS.sub("", unicodedata.normalize("NFKC", text).replace("’", "'")).strip()


def _index(letter: str) -> int:
    return ord(letter.upper()) - ord("A")


def _after(phrase: re.Pattern[str], text: str, texts: Sequence[str]) -> list[int | None]:
    return [_place(text[m.end() :], texts) for m in phrase.finditer(text)]


def _place(text: str, texts: Sequence[str]) -> int | None:
    """What a text names at its beginning: an option's index, INVALID for several at once, None for nothing."""
    lead = _LEAD.match(text)
    rest = text[lead.end() :] if lead else text
    opening = _opening(rest.casefold(), texts)
    letter = _NAMED.match(rest)
    if letter and not _genus(rest[letter.end() :], texts) and (opening is None or len(texts[opening]) == 1):
        place, after = _index(letter.group(1)), rest[letter.end() :]
        more = _MORE.match(after)
        if more and _index(more.group(1)) != place and max(place, _index(more.group(1))) < len(texts):
            return INVALID
        own = place < len(texts) and after.strip(" .:)-").casefold().startswith(texts[place])
        # "a" is also a word and "C" may begin a term: a letter counts only where nothing else follows it.
        if own or (_AFTER.match(after) and not (letter.group(1) == "a" and re.match(r"\s*[a-z]", after))):
            return place
    return opening


def _genus(after: str, texts: Sequence[str]) -> bool:
    match = _GENUS.match(after)
    return bool(match) and not any(after[match.start(1) :].startswith(option) for option in texts)


def _opening(text: str, texts: Sequence[str]) -> int | None:
    """The longest option with which a text begins, if nothing but a reason follows it; INVALID with another one."""
    place = _longest(text, texts)
    if place is None:
        return None
    after = text[len(texts[place]) :]
    more = _JOINED.match(after)
    if more and _longest(after[more.end() :], texts) not in (None, place):
        return INVALID
    return place if _AFTER.match(after) else None


def _longest(text: str, texts: Sequence[str]) -> int | None:
    return max((i for i, t in enumerate(texts) if text.startswith(t)), key=lambda i: len(texts[i]), default=None)


def _beginning(text: str, texts: Sequence[str]) -> list[int | None]:
    """What a text begins with: a letter or an option; INVALID where it lists the options or names several."""
    letter = _LEADING.match(text)
    if not letter or _genus(text[letter.end() - 1 :], texts):
        return [_place(text, texts)]
    place = _index(letter.group(1))
    lone = {_index(line.strip(" .()")) for line in text.split("\n") if re.fullmatch(r"\s*\(?[A-Z]\)?\.?\s*", line)}
    listed = [_index(m.group(1)) for m in _MARKER.finditer(text)]
    # A list begins with A and goes on with B; "B. ..." and then reasons option by option is an answer.
    if len(lone) > 1 or listed[:2] == [0, 1] or _place(text, texts) == INVALID:
        return [INVALID]
    claim = text[letter.end() :].strip()
    if place < len(texts) and claim.casefold().startswith(texts[place]):
        claim = claim[len(texts[place]) :]
    return [] if _WRONG.search(re.split(r"[.;。\n]", claim.lstrip(" .:"), maxsplit=1)[0]) else [place]


def _negated(text: str, at: int) -> bool:
    return bool(_NEGATED.search(text[max(0, at - 24) : at]))


def _quoted(text: str, texts: Sequence[str]) -> list[int | None]:
    """Options whose whole text occurs; one inside a longer one that occurs too does not count."""
    if any(len(option) < (_SHORT if option.isascii() else 2) for option in texts):
        return []  # "no" is in many texts, and an option that cannot be looked for would never be found
    folded, found = text.casefold(), []
    for place in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
        edge = r"(?<![a-z0-9])" if texts[place][0].isascii() else ""
        end = r"(?![a-z0-9])" if texts[place][-1].isascii() else ""
        for match in list(re.finditer(edge + re.escape(texts[place]) + end, folded)):
            if not _negated(folded, match.start()) and not _DENIED.match(folded, match.end()):
                found.append(place)
            folded = folded[: match.start()] + "\0" * len(match.group()) + folded[match.end() :]
    return found
