"""Reasoning traces in generated text: what a model thinks aloud, though it was told to answer.

Two levels, kept apart: structure (think tags, closed or not) and wording (openers such as "Okay, let me").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crossmatch.statistics.estimates import Array

State = Literal["none", "empty", "closed", "unclosed", "close_only"]
Span = tuple[int, int]
"""Begin and end of a piece of a text, in characters."""

# Openers whose probability as the beginning of an answer is measured; none is the beginning of another, and each is
# one that is counted below.
OPENERS = {
    "en": ("<think>", "Okay, let", "Let's think", "Let me think", "First, I need"),
    "zh": ("<think>", "好的，用户", "嗯，", "让我想", "首先我需要"),
    # Models that answer in Japanese think in English.
    "ja": ("<think>", "Okay, let", "Let's think", "Let me think", "First, I need"),
}
# What people and models say they do when they think, not what they tell a patient to do.
_MUST = r"(need( to)?|should|have to|must|ought to|want to)"
_MIND = (
    r"(think|figure|find|recall|remember|determine|decide|work|consider|look|identify|start|begin|check|clarify|define"
    r"|understand|analy[sz]e|examine|evaluate|go through|break|solve|answer|explain|reason)"
)
_PONDER = r"(想|看|分析|思考|考虑|回忆|回顾|推理|判断|确定|梳理|理清|弄清|搞清|回答|找)"
_PAUSE = r"(好的?|好吧|行|嗯|那么?)[，,。！]\s*"
_LEXICAL = re.compile(
    r"\b(okay|alright|hmm)[,.]? (so|let)\b"
    r"|\blet(['’]s| me| us) (think|break|see|analy|consider|recall|remember|look at|examine|figure|reason|work|check"
    r"|go through|start (by|with)|re-?read)"
    r"|\b(think|reason|work|walk|go|proceed|analy[sz]e|solve)\b[^.\n]{0,40}\bstep by step|^step by step"
    r"|^hmm+\b|^wait,|^thinking (this )?(through|about) (this|it)\b"
    r"|^(okay|ok|alright|well|now)[,.]? (i|we|first,? (i|we)|this is|the (user|question|problem))\b"
    r"|^(first|so),? let(['’]s| me| us)\b"
    rf"|^(first|so),? (i|we) {_MUST}\b|^(so,? )?(i|we) {_MUST} {_MIND}\b|^(so,? )?we( a|['’])re asked\b"
    r"|^(so,? )?the (user|question|problem) (asks|wants|is asking|says)\b"
    rf"|嗯[，,。]|让我们?(来|先|再|仔细|一起|逐一|逐个|好好)*({_PONDER}|从[^，。\n]{{1,8}}开始)|一步一步"
    rf"|(一步步|逐步)(来|地|的)?{_PONDER}|我(先|再|来){_PONDER}"
    rf"|^({_PAUSE})?首先[，,]?\s*(我(需要|要|得|应该)|我们(需要|要|得|应该)(先)?{_PONDER}|用户)"
    rf"|^({_PAUSE})?我们?(现在)?(需要|要|得|应该)先?{_PONDER}"
    rf"|^{_PAUSE}(用户|我(现在)?(需要|得|应该|先)|首先看|这(是一个|个|道)(问)?题)"
    r"|^用户(问|想|询问|提到|提问|希望|的问题)|^等(等|一下)[，,]|^(这道)?题目?(问|要求)",
    re.IGNORECASE,
)
_TAG = re.compile(r"<\s*(/\s*)?think(?:ing)?\s*>", re.IGNORECASE)
_FENCE = re.compile(r"```.*?```", re.DOTALL)
_INLINE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_QUOTED = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_BREAKS = re.compile(r"(?:\s*[\r\n])?")
WINDOW = 200


@dataclass(frozen=True)
class Trace:
    """What was found in one output.

    state: `closed` (a block with content), `empty`, `unclosed`, `close_only` (the tag was opened by the prompt) or
    `none`; structural_spans: what of the text is trace by its tags; lexical_spans: openers among the first 200
    characters of the answer; share: characters of the structural spans over all; answer: the text without its trace;
    step: where in the text the answer begins, 0 unless a closed or empty block stands before it (None: it never does).
    """

    state: State
    structural_spans: tuple[Span, ...]
    lexical_spans: tuple[Span, ...]
    share: float
    answer: str
    step: int | None

    @property
    def structural(self) -> bool:
        """Whether there is a trace by its tags; an empty block is none."""
        return self.state in ("closed", "unclosed", "close_only")

    @property
    def lexical(self) -> bool:
        """Whether the answer has an opener in its first 200 characters."""
        return bool(self.lexical_spans)


def parse_trace(text: str) -> Trace:
    """Parse one output, decoded with its special tokens.

    Tags and openers inside code (fenced or inline) and quoted lines do not count; case and spaces inside tags do not
    matter. The state is that of the first trace; all of them are taken out of the answer and into the share.
    """
    visible = _visible(text)
    state, kept = _blocks(text, visible)
    answer = "".join(text[begin:end] for begin, end in kept)
    structural = () if state in ("none", "empty") else _rest(kept, len(text))
    share = sum(end - begin for begin, end in structural) / len(text) if text else 0.0
    return Trace(state, structural, _openers(visible, kept), share, answer.strip(), _step(text, kept))


def _blocks(text: str, visible: str) -> tuple[State, list[Span]]:
    """The state, and what is left of the text when all blocks are taken out."""
    first: State = "none"
    kept: list[Span] = []
    opened: re.Match[str] | None = None
    at = 0
    for tag in _TAG.finditer(visible):
        if not tag.group(1):
            if not opened:
                kept.append((at, tag.start()))
                opened = tag
            continue
        state: State = "closed" if opened else "close_only"
        if opened and not text[opened.end() : tag.start()].strip():
            state = "empty"
        if not opened:
            # Everything before a tag that nothing opened was thought aloud.
            kept.clear()
        first = state if first in ("none", "empty") else first
        at, opened = tag.end(), None
    if opened:
        first = "unclosed" if first in ("none", "empty") else first
    else:
        kept.append((at, len(text)))
    return first, kept


def _rest(kept: Sequence[Span], length: int) -> tuple[Span, ...]:
    """What lies between these spans of a text."""
    edges = [0, *(edge for span in kept for edge in span), length]
    return tuple((begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if begin < end)


def _openers(visible: str, kept: Sequence[Span]) -> tuple[Span, ...]:
    """Openers in the first characters of what is kept, where they stand in the text."""
    places = [place for begin, end in kept for place in range(begin, end)]
    shown = "".join(visible[begin:end] for begin, end in kept)
    before = len(shown) - len(shown.lstrip())
    found = _LEXICAL.finditer(shown.strip()[:WINDOW])
    hits = [places[before + match.start() : before + match.end()] for match in found]
    return tuple(span for hit in hits for span in _runs(hit))


def _runs(places: Sequence[int]) -> list[Span]:
    """Ascending places as spans without gaps: a trace may stand in the middle of an opener."""
    begins = [p for i, p in enumerate(places) if i == 0 or places[i - 1] != p - 1]
    ends = [p + 1 for i, p in enumerate(places) if i + 1 == len(places) or places[i + 1] != p + 1]
    return list(zip(begins, ends, strict=True))


def _step(text: str, kept: Sequence[Span]) -> int | None:
    """Where the answer begins: line breaks behind a block are not yet answer, a space belongs to the token after it."""
    begin = next((begin for begin, end in kept if text[begin:end].strip()), None)
    if begin is not None:
        return begin + len(_BREAKS.match(text[begin:])[0]) if text[:begin].strip() else 0  # type: ignore[index]
    # A closed block and no more: what came behind it was the end.
    return (len(text) if text.strip() else 0) if kept and kept[-1][1] == len(text) else None


def utf16_spans(text: str, spans: Sequence[Span]) -> list[list[int]]:
    """Spans as JavaScript counts characters: in units of UTF-16, of which an emoji takes two."""
    return [[len(text[:place].encode("utf-16-le", "surrogatepass")) // 2 for place in span] for span in spans]


def opener_statistics(outputs: Sequence[str], references: Sequence[str]) -> Array:
    """Whether the answer, and whether the reference, opens like a trace: (n, 2) of 0 and 1.

    The lexical level also fires on plain texts; how often it does on the references is its false alarm.
    """
    pairs = zip(outputs, references, strict=True)
    rows = [[parse_trace(o).lexical, parse_trace(r).lexical] for o, r in pairs]
    return np.array(rows, dtype=float).reshape(-1, 2)


def calibrated(statistics: Array) -> Array:
    """Rate of lexical openers less their rate on the references, (draws, 2) to (draws,)."""
    return statistics[:, 0] - statistics[:, 1]


def _visible(text: str) -> str:
    """The text with code and quoted lines blanked, not removed, so that positions stay those of the text."""
    visible = _INLINE.sub(_blank, _FENCE.sub(_blank, text))
    fence = visible.find("```")
    # A fence that is never closed runs to the end, unless a trace holds it: then the trace's own end must be seen.
    if fence >= 0 and not _inside(visible[:fence]):
        visible = visible[:fence] + " " * (len(visible) - fence)
    return _QUOTED.sub(_blank, visible)


def _inside(text: str) -> bool:
    """Whether a trace is open where a text ends."""
    tags = [tag.group(1) for tag in _TAG.finditer(text)]
    return bool(tags) and not tags[-1]


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())
