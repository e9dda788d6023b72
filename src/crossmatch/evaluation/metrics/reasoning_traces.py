"""Reasoning traces in generated text: what a model thinks aloud, though it was told to answer.

Two levels, kept apart: structure (blocks by their markers, closed or not) and wording (openers such as "Okay, let me",
headings such as "Here's a thinking process:", hesitation such as "Wait,").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from crossmatch.data.reasoning_formats import FORMATS, ReasoningFormat
from crossmatch.data.text_forms import one_form
from crossmatch.data.trace_blocks import Span, State, find_blocks
from crossmatch.evaluation.metrics.trace_wording import LEXICAL, announces_trace, hesitations
from crossmatch.statistics.estimates import Array

# Openers whose probability as the beginning of an answer is measured; none is the beginning of another, and each is
# one that is counted below.
OPENERS = {
    "en": ("<think>", "Okay, let", "Let's think", "Let me think", "First, I need"),
    "zh": ("<think>", "好的，用户", "嗯，", "让我想", "首先我需要"),
}


def openers(language: str) -> tuple[str, ...]:
    """Beginnings of reasoning that are scored; models that answer in languages other than Chinese think in English."""
    return OPENERS.get(language, OPENERS["en"])


_BREAKS = re.compile(r"(?:\s*[\r\n])?")
WINDOW = 200


@dataclass(frozen=True)
class Trace:
    """What was found in one output.

    state: `closed` (a block with content), `empty`, `unclosed`, `close_only` (the block was opened by the prompt) or
    `none`; structural_spans: what of the text is trace by its markers; lexical_spans: openers among the first 200
    characters of the answer; share: characters of the structural spans over all; answer: the text without its trace;
    step: where in the text the answer begins, 0 unless a closed or empty block stands before it (None: it never does);
    format: name of the format of the first trace; untagged: whether the answer begins with the heading of a trace that
    nothing closes; hesitations: how often the answer hesitates ("Wait,", "hmm", "let me see", "等等，", "让我想").
    """

    state: State
    structural_spans: tuple[Span, ...]
    lexical_spans: tuple[Span, ...]
    share: float
    answer: str
    step: int | None
    format: str | None = None
    untagged: bool = False
    hesitations: int = 0

    @property
    def structural(self) -> bool:
        """Whether there is a trace by its markers; an empty block is none."""
        return self.state in ("closed", "unclosed", "close_only")

    @property
    def lexical(self) -> bool:
        """Whether the answer has an opener in its first 200 characters."""
        return bool(self.lexical_spans)


def parse_trace(text: str, formats: tuple[ReasoningFormat, ...] = FORMATS, opened: str | None = None) -> Trace:
    """Parse one output, decoded with its special tokens.

    formats: how traces are marked; opened: the format whose block the prompt opened (`opened_by`), None for none.
    Markers and openers inside code (fenced or inline) and quoted lines do not count; case, width and spaces inside
    markers do not matter. The state is that of the first trace; all of them are taken out of the answer and into the
    share. A block that is not closed runs to the end: there is no answer.
    """
    found = find_blocks(text, formats, opened)
    kept = found.kept
    answer = "".join(text[begin:end] for begin, end in kept).strip()
    structural = () if found.state in ("none", "empty") else found.blocks
    share = sum(end - begin for begin, end in structural) / len(text) if text else 0.0
    shown = "".join(found.visible[begin:end] for begin, end in kept)
    return Trace(
        found.state,
        structural,
        _openers(found.visible, kept),
        share,
        answer,
        _step(text, kept),
        found.format,
        announces_trace(shown),
        hesitations(shown),
    )


def _openers(visible: str, kept: Sequence[Span]) -> tuple[Span, ...]:
    """Openers in the first characters of what is kept, where they stand in the text."""
    places = [place for begin, end in kept for place in range(begin, end)]
    shown = "".join(visible[begin:end] for begin, end in kept)
    before = len(shown) - len(shown.lstrip())
    found = LEXICAL.finditer(one_form(shown.strip()[:WINDOW]))
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


def opener_statistics(outputs: Sequence[str | Trace], references: Sequence[str]) -> Array:
    """Whether the answer, and whether the reference, opens like a trace: (n, 2) of 0 and 1.

    outputs: as texts, or parsed already. The lexical level also fires on plain texts; how often it does on the
    references is its false alarm.
    """
    traces = [parse_trace(output) if isinstance(output, str) else output for output in outputs]
    rows = [[trace.lexical, _opens(reference)] for trace, reference in zip(traces, references, strict=True)]
    return np.array(rows, dtype=float).reshape(-1, 2)


@lru_cache(maxsize=4096)
def _opens(reference: str) -> bool:
    """Whether a reference opens like a trace: asked again for every variant and condition of an evaluation."""
    return parse_trace(reference).lexical


def calibrated(statistics: Array) -> Array:
    """Rate of lexical openers less their rate on the references, (draws, 2) to (draws,)."""
    return statistics[:, 0] - statistics[:, 1]
