"""Reasoning traces in generated text: what a model thinks aloud, though it was told to answer.

Two levels, kept apart: structure (think tags, closed or not) and wording (openers such as "Okay, let me").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crossmatch.evaluation.statistics import Array

State = Literal["none", "empty", "closed", "unclosed", "close_only"]

# Openers whose probability as the beginning of an answer is measured; none is the beginning of another.
OPENERS = {
    "en": ("<think>", "Okay, let", "Let's think", "Let me think", "First, I need"),
    "zh": ("<think>", "好的，", "嗯，", "让我们", "首先我需要"),
}
_LEXICAL = re.compile(
    r"\b(okay|alright|hmm)[,.]? (so|let)|\blet(['’]s| me| us) (think|break|see|analy|consider)"
    r"|\b(think|reason|work|walk|go|proceed|analy[sz]e|solve)\b[^.\n]{0,40}\bstep by step"
    r"|^(first,|so,) (i|we|let)\b|^step by step"
    r"|嗯[，,]|让我(们)?(来)?(先)?(想|看|分析|思考|考虑)|一步一步|首先[，,]?我(需要|要)",
    re.IGNORECASE,
)
_TAG = re.compile(r"<\s*(/\s*)?think(?:ing)?\s*>", re.IGNORECASE)
_FENCE = re.compile(r"```.*?```", re.DOTALL)
_INLINE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_QUOTED = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
WINDOW = 200


@dataclass(frozen=True)
class Trace:
    """What was found in one output.

    state: `closed` (a block with content), `empty`, `unclosed`, `close_only` (the tag was opened by the prompt) or
    `none`; lexical: an opener among the first 200 characters of the answer; share: characters of the trace over all;
    answer: the text without its trace.
    """

    state: State
    lexical: bool
    share: float
    answer: str

    @property
    def structural(self) -> bool:
        """Whether there is a trace by its tags; an empty block is none."""
        return self.state in ("closed", "unclosed", "close_only")


def parse_trace(text: str) -> Trace:
    """Parse one output, decoded with its special tokens.

    Tags and openers inside code (fenced or inline) and quoted lines do not count; case and spaces inside tags do not
    matter. The state is that of the first trace; all of them are taken out of the answer and into the share.
    """
    visible = _visible(text)
    first: State = "none"
    kept: list[slice] = []
    opened: re.Match[str] | None = None
    at = 0
    for tag in _TAG.finditer(visible):
        if not tag.group(1):
            if not opened:
                kept.append(slice(at, tag.start()))
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
        kept.append(slice(at, len(text)))
    answer, shown = ("".join(whole[piece] for piece in kept) for whole in (text, visible))
    share = 1 - len(answer) / len(text) if text and first not in ("none", "empty") else 0.0
    return Trace(first, bool(_LEXICAL.search(shown.strip()[:WINDOW])), share, answer.strip())


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
