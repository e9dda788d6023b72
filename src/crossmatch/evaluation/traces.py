"""Reasoning traces in generated text: what a model thinks aloud, though it was told to answer.

Two levels, kept apart: structure (think tags, closed or not) and wording (openers such as "Okay, let me").
"""

import re
from dataclasses import dataclass
from typing import Literal

State = Literal["none", "empty", "closed", "unclosed", "close_only"]

# Openers whose probability as the beginning of an answer is measured; none is the beginning of another.
OPENERS = {
    "en": ("<think>", "Okay, let", "Let's think", "Let me think", "First, I need"),
    "zh": ("<think>", "好的，", "嗯，", "让我们", "首先我需要"),
}
_LEXICAL = re.compile(
    r"\b(okay|alright|hmm)[,.]? (so|let)|\blet(['’]s| me| us) (think|break|see|analy|consider)|step by step"
    r"|^(first,|so,) (i|we|let)\b|嗯[，,]|让我(们)?(想|看|分析)|一步一步|首先[，,]?我(需要|要)",
    re.IGNORECASE,
)
_OPEN = re.compile(r"<\s*think(ing)?\s*>", re.IGNORECASE)
_CLOSE = re.compile(r"<\s*/\s*think(ing)?\s*>", re.IGNORECASE)
_FENCE = re.compile(r"```.*?(```|\Z)", re.DOTALL)
_QUOTED = re.compile(r"^\s*>.*$", re.MULTILINE)
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

    Tags inside code fences and quoted lines do not count; case and spaces inside tags do not matter.
    """
    # Blanked, not removed, so that positions stay those of the text.
    visible = _QUOTED.sub(_blank, _FENCE.sub(_blank, text))
    opened, closed = _OPEN.search(visible), _CLOSE.search(visible)
    state, start, stop = _block(visible, opened, closed)
    answer = (text[:start] + text[stop:]).strip()
    share = (stop - start) / len(text) if text and state not in ("none", "empty") else 0.0
    return Trace(state, bool(_LEXICAL.search(answer[:WINDOW])), share, answer)


def _block(text: str, opened: re.Match[str] | None, closed: re.Match[str] | None) -> tuple[State, int, int]:
    if opened and closed and closed.start() >= opened.end():
        empty = not text[opened.end() : closed.start()].strip()
        return ("empty" if empty else "closed"), opened.start(), closed.end()
    if closed:
        return "close_only", 0, closed.end()
    if opened:
        return "unclosed", opened.start(), len(text)
    return "none", 0, 0


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())
