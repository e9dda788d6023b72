"""Where in an output its trace stands, by the formats of `crossmatch.data.reasoning_formats`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from crossmatch.data.reasoning_formats import FORMATS, HEAD, THINKING_FENCE, ReasoningFormat, fold

State = Literal["none", "empty", "closed", "unclosed", "close_only"]
Span = tuple[int, int]
"""Begin and end of a piece of a text, in characters."""

_FENCE = re.compile(r"```.*?```", re.DOTALL)
_THINKING_FENCE = re.compile(THINKING_FENCE, re.IGNORECASE | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_QUOTED = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_FLAGS = re.IGNORECASE | re.MULTILINE
# How far from the end of a prompt or an output is looked for what ends it.
_TAIL = 2000
# Special tokens that end turns and sequences, as public models write them.
SPECIAL_TOKENS = (
    r"<[|｜][^|｜<>]{1,60}[|｜]>|</?s>|<(?:eos|bos|pad|end_of_turn|end_of_utterance|turn\||SPECIAL_\d+)>"
    r"|<seed:(?:eos|bos|pad)>|</?longcat_s>|\[\|\w{1,20}\|\]|\[e~\["
)
# Those that may stand behind the end of an answer.
_TOKENS = rf"(?:\s|{SPECIAL_TOKENS})*"
# What a template writes before the assistant's text; behind it an opening is the prompt's, not the user's.
_TURN = ("|>", "|]", "assistant", "assistant:", "model", "]ai", "[/inst]", "response:", "answer:")
_TURN_TOKEN = re.compile(
    r"<\|[^<>]*\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<turn\|>|\[\|\w+\|\]|\]~b\]|^### ",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Blocks:
    """The traces of an output.

    state: of the first trace; format: its name; blocks: what of the text is trace, with its markers; kept: the rest,
    without what only stands around the answer; visible: the text with code and quoted lines blanked.
    """

    state: State
    format: str | None
    blocks: tuple[Span, ...]
    kept: tuple[Span, ...]
    visible: str


def find_blocks(text: str, formats: tuple[ReasoningFormat, ...] = FORMATS, opened: str | None = None) -> Blocks:
    """Find the traces of an output, decoded with its special tokens.

    opened: name of the format whose block the prompt has opened, so that the output begins inside it. Markers inside
    code (fenced or inline) and quoted lines do not count. A closing that nothing opened makes all before it trace; a
    block that is never closed runs to the end, or to the tagged answer that the output ends with. Raises KeyError for
    an unknown name.
    """
    markers = _markers(formats)
    visible = _visible(text, markers, opened)
    scan = _scan(fold(visible), markers, opened)
    return Blocks(scan.state, scan.format, _rest(scan.kept, len(text)), _framed(visible, scan, markers), visible)


def opened_by(prompt: str, formats: tuple[ReasoningFormat, ...] = FORMATS) -> str | None:
    """Name of the format whose block a prompt leaves open, None if it leaves none open.

    A prompt opens a block if it ends with the opening; or if the assistant's turn begins with one, and text without
    closing and without a token of another turn follows. A tag that the user wrote opens nothing.
    """
    folded = fold(prompt[-_TAIL:])
    tail = folded.rstrip()
    for form in formats:
        # A heading is one at the beginning of an output, which a prompt is not.
        opening = form.opening.replace(HEAD, "^[#*_]*")
        for match in re.finditer(opening, folded, _FLAGS):
            rest = tail[match.end() :]
            if not rest.strip():
                return form.name
            begins = folded[: match.start()].rstrip().lower().endswith(_TURN)
            if begins and not re.search(form.closing, rest, _FLAGS) and not _TURN_TOKEN.search(rest):
                return form.name
    return None


@dataclass(frozen=True)
class _Markers:
    """The expressions of several formats together.

    outside: openings (`o0`, ...) and bare closings (`b0`, ...); answer: what an answer begins with; tagged: the same
    where an end belongs to it.
    """

    formats: tuple[ReasoningFormat, ...]
    openings: tuple[re.Pattern[str], ...]
    closings: tuple[re.Pattern[str], ...]
    outside: re.Pattern[str]
    answer: re.Pattern[str]
    tagged: re.Pattern[str]
    end: re.Pattern[str]


@lru_cache(maxsize=64)
def _markers(formats: tuple[ReasoningFormat, ...]) -> _Markers:
    outside = [f"(?P<o{n}>{form.opening})" for n, form in enumerate(formats)]
    outside += [f"(?P<b{n}>{form.bare})" for n, form in enumerate(formats) if form.bare]
    answers = "|".join(dict.fromkeys(form.answer.removeprefix(HEAD) for form in formats if form.answer))
    ends = "|".join(dict.fromkeys(form.end for form in formats if form.end))
    return _Markers(
        formats,
        tuple(re.compile(form.opening, _FLAGS) for form in formats),
        tuple(re.compile(form.closing, _FLAGS) for form in formats),
        re.compile("|".join(outside), _FLAGS),
        re.compile(rf"[\s#*_]*(?:{answers})", _FLAGS),
        re.compile("|".join(dict.fromkeys(form.answer for form in formats if form.answer and form.end)), _FLAGS),
        re.compile(rf"(?:{ends}){_TOKENS}\Z", _FLAGS),
    )


@dataclass
class _Scan:
    state: State
    format: str | None
    kept: list[Span]
    open: bool


def _scan(text: str, markers: _Markers, opened: str | None) -> _Scan:
    """Read a folded text from marker to marker."""
    names = {form.name: number for number, form in enumerate(markers.formats)}
    scan = _Scan("none", None, [], False)
    inside = None if opened is None else names[opened]
    begin = at = 0
    while True:
        if inside is not None:
            closing = _closing(text, at, inside, markers)
            if closing is None:
                _note(scan, "unclosed", markers.formats[inside].name)
                scan.open = True
                return scan
            by_prompt = begin == at == 0 and opened is not None
            again = markers.openings[inside].match(text, at) if by_prompt else None
            blank = not text[again.end() if again else at : closing[0]].strip()
            _note(scan, "empty" if blank else "close_only" if by_prompt else "closed", markers.formats[inside].name)
            begin = at = closing[1]
            inside = None
        match = markers.outside.search(text, at)
        if match is None:
            scan.kept.append((begin, len(text)))
            return scan
        kind, number = str(match.lastgroup)[0], int(str(match.lastgroup)[1:])
        if kind == "o":
            scan.kept.append((begin, match.start()))
            begin = at = match.end()
            inside = number
        elif not text[: match.start()].strip() and markers.answer.match(text, match.start()):
            # An answer alone, with what stands before answers.
            at = match.end()
        elif scan.state != "none" and text[begin : match.start()].strip() and not text[match.end() :].strip():
            # A closing once more, behind the answer: it ends nothing.
            scan.kept.append((begin, match.start()))
            begin = at = match.end()
        else:
            # Everything before a closing that nothing opened was thought aloud.
            scan.kept.clear()
            blank = not text[: match.start()].strip()
            _note(scan, "empty" if blank else "close_only", markers.formats[number].name)
            begin = at = match.end()


def _note(scan: _Scan, state: State, name: str) -> None:
    """The state is that of the first trace with content."""
    if scan.state in ("none", "empty"):
        scan.state, scan.format = state, name


def _closing(text: str, at: int, number: int, markers: _Markers) -> Span | None:
    """What closes a block: its own closing, else one of another format that was not opened inside it, else the place
    before the tagged answer that a text ends with."""
    own = markers.closings[number].search(text, at)
    if own is not None:
        return own.span()
    for match in markers.outside.finditer(text, at):
        if str(match.lastgroup)[0] == "b":
            other = int(str(match.lastgroup)[1:])
            if not markers.openings[other].search(text, at, match.start()):
                return match.span()
    end = markers.end.search(text, max(at, len(text) - _TAIL))
    begins = list(markers.tagged.finditer(text, at, end.start())) if end else []
    return (begins[-1].start(), begins[-1].start()) if begins else None


def _framed(visible: str, scan: _Scan, markers: _Markers) -> tuple[Span, ...]:
    """What is kept, without the markers around the answer."""
    folded, kept = fold(visible), list(scan.kept)
    filled = [number for number, (begin, end) in enumerate(kept) if folded[begin:end].strip()]
    if not filled:
        return tuple(kept)
    begin, end = kept[filled[0]]
    match = markers.answer.match(folded, begin, end)
    if match:
        kept[filled[0]] = match.end(), end
    begin, end = kept[filled[-1]]
    if end == len(folded):
        match = markers.end.search(folded, max(begin, end - _TAIL))
        if match:
            kept[filled[-1]] = begin, match.start()
    return tuple(kept)


def _rest(kept: Sequence[Span], length: int) -> tuple[Span, ...]:
    """What lies between these spans of a text."""
    edges = [0, *(edge for span in kept for edge in span), length]
    return tuple((begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if begin < end)


def _visible(text: str, markers: _Markers, opened: str | None) -> str:
    """The text with code and quoted lines blanked, not removed, so that positions stay those of the text."""
    visible = _INLINE.sub(_blank, _FENCE.sub(_blank_code, text))
    fence = visible.find("```", max((match.end() for match in _FENCE.finditer(text)), default=0))
    # A fence that is never closed runs to the end, unless a trace holds it: then the trace's own end must be seen.
    if (
        fence >= 0
        and not _THINKING_FENCE.match(visible, fence)
        and not _scan(fold(visible[:fence]), markers, opened).open
    ):
        visible = visible[:fence] + " " * (len(visible) - fence)
    return _QUOTED.sub(_blank, visible)


def _blank_code(match: re.Match[str]) -> str:
    """A fence blanked; one that is called a trace stays."""
    return match.group() if _THINKING_FENCE.match(match.string, match.start()) else _blank(match)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())
