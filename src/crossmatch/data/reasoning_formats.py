"""How models mark what they think before they answer: a table of formats, one row a way of writing it.

A row is added where a model writes its trace in a way that no row describes; a suite can bring rows of its own.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ReasoningFormat:
    """One way to mark a trace.

    opening, closing: regular expressions of what stands around the trace, matched without regard to case and width;
    bare: a closing that ends a trace even if nothing opened it (the prompt may have opened it), "" for none;
    answer, end: what stands around the answer and does not belong to it, "" for nothing; example: an output, in which
    the trace is `musing` and the answer is `B`.
    """

    name: str
    opening: str
    closing: str
    bare: str
    answer: str
    end: str
    example: str


_LEFT, _RIGHT = r"(?:<|&lt;)\s*", r"\s*(?:>|&gt;)"
_ATTRIBUTES = r"""(?:\s+[\w:.-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))*"""
_ANSWER_TAGS = "answer|response|output|solution|conclusion|final(?:_answer|_response)?"
_CHANNEL = r"(?:<\|start\|>assistant\s*)?<\|channel\|>"
_MESSAGE = r"[^<]*(?:<\|constrain\|>\w+\s*)?<\|message\|>"
_HARMONY_OPEN, _HARMONY_FINAL = rf"{_CHANNEL}(?:analysis|commentary){_MESSAGE}", rf"{_CHANNEL}final{_MESSAGE}"
# White space and mark-up before a heading.
HEAD = r"\A[\s#*_]*"


def _tag(name: str, names: str) -> ReasoningFormat:
    """A pair of tags in angle brackets, with attributes and white space as models write them."""
    closing = rf"{_LEFT}/\s*(?:{names}){_RIGHT}"
    return ReasoningFormat(
        name,
        opening=rf"{_LEFT}(?:{names}){_ATTRIBUTES}{_RIGHT}",
        closing=closing,
        bare=closing,
        answer=rf"{_LEFT}(?:{_ANSWER_TAGS}){_ATTRIBUTES}{_RIGHT}",
        end=rf"{_LEFT}/\s*(?:{_ANSWER_TAGS}){_RIGHT}",
        example=f"<{name}>musing</{name}>B",
    )


def _pair(name: str, opening: str, closing: str, example: str, answer: str = "", end: str = "") -> ReasoningFormat:
    """An opening and a closing that nothing else is written with."""
    return ReasoningFormat(name, opening, closing, closing, answer, end, example)


FORMATS: tuple[ReasoningFormat, ...] = (
    # DeepSeek-R1, Qwen, GLM, Nemotron and most others; vendors put a name before it (`seed:think`, `longcat_think`).
    _tag("think", r"(?:\w{1,16}[:_])?think(?:ing)?(?:_\w{1,16})?"),
    _tag("thought", "thoughts?|thought_process"),
    _tag("reasoning", "reasoning"),
    _tag("reflection", "reflection"),
    _tag("scratchpad", "scratch_?pad"),
    _tag("chain_of_thought", "cot|chain[_-]of[_-]thoughts?"),
    _tag("inner_monologue", "(?:inner|internal)[_-]?monologue"),
    # Magistral, Ministral: tokens, always in capitals.
    _pair("mistral", r"(?-i:\[THINK\])", r"(?-i:\[/THINK\])", "[THINK]musing[/THINK]B"),
    # Kimi-VL.
    _pair("kimi", r"◁\s*think\s*▷", r"◁\s*/\s*think\s*▷", "◁think▷musing◁/think▷B"),
    # gpt-oss: every channel but the last is not for the reader. An end of message closes only what was opened.
    ReasoningFormat(
        "harmony",
        opening=_HARMONY_OPEN,
        closing=rf"(?:<\|end\|>\s*)?{_HARMONY_FINAL}|<\|end\|>|<\|call\|>|<\|return\|>",
        bare=rf"(?:<\|end\|>\s*)?{_HARMONY_FINAL}",
        answer=_HARMONY_FINAL,
        end=r"<\|(?:end|return)\|>",
        example="<|channel|>analysis<|message|>musing<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>",
    ),
    # The same, decoded without special tokens: the channel's name runs into the text.
    ReasoningFormat(
        "harmony-plain",
        opening=rf"{HEAD}(?-i:analysis(?=[^\W\d_a-z]|[\"“']|[\s\S]*?assistantfinal))",
        closing=r"(?-i:assistantfinal)",
        bare="",
        answer=rf"{HEAD}(?-i:final(?=[A-Z]))",
        end="",
        example="analysisMusing.assistantfinalB",
    ),
    # Gemma 4, MedGemma 1.5.
    _pair("gemma", r"<\|channel>(?:thought|analysis)?", r"<channel\|>", "<|channel>thought\nmusing<channel|>B"),
    _pair("medgemma", r"<unused94>(?:thought)?", r"<unused95>", "<unused94>thought\nmusing<unused95>B"),
    # openPangu.
    _pair("pangu", r"\[unused16\]", r"\[unused17\]", "[unused16]musing[unused17]B"),
    # Command R7B, Command A.
    _pair(
        "cohere",
        r"<\|START_THINKING\|>",
        r"<\|END_THINKING\|>",
        "<|START_THINKING|>musing<|END_THINKING|><|START_RESPONSE|>B<|END_RESPONSE|>",
        answer=r"<\|START_(?:RESPONSE|TEXT)\|>",
        end=r"<\|END_(?:RESPONSE|TEXT)\|>",
    ),
    # OpenThinker, Sky-T1.
    _pair(
        "begin_of_thought",
        r"<\|(?:begin|start)_of_(?:thought|thinking|reasoning)\|>",
        r"<\|end_of_(?:thought|thinking|reasoning)\|>",
        "<|begin_of_thought|>musing<|end_of_thought|><|begin_of_solution|>B<|end_of_solution|>",
        answer=r"<\|(?:begin|start)_of_(?:solution|answer)\|>",
        end=r"<\|end_of_(?:solution|answer)\|>",
    ),
    # Apertus.
    _pair("apertus", r"<\|inner_prefix\|>", r"<\|inner_suffix\|>", "<|inner_prefix|>musing<|inner_suffix|>B"),
    # Solar Open.
    ReasoningFormat(
        "solar",
        opening=r"(?:<\|begin\|>assistant)?<\|think(?:ing)?\|>",
        closing=r"(?:<\|end\|>\s*)?(?:<\|begin\|>assistant)?<\|content\|>|<\|/think(?:ing)?\|>|<\|end\|>",
        bare=r"<\|/think(?:ing)?\|>",
        answer=r"(?:<\|begin\|>assistant)?<\|content\|>",
        end=r"<\|end\|>",
        example="<|think|>musing<|end|><|begin|>assistant<|content|>B<|end|>",
    ),
    # Granite 3.2, in plain words: only at the beginning of an output.
    ReasoningFormat(
        "granite",
        opening=rf"{HEAD}here(?:['’]s| is) my thought process:[*_]*",
        closing=r"here(?:['’]s| is) my response:[*_]*",
        bare="",
        answer=rf"{HEAD}here(?:['’]s| is) my response:[*_]*",
        end="",
        example="Here is my thought process:\nmusing\n\nHere is my response:\nB",
    ),
    # Apriel: its prompt ends with the opening.
    ReasoningFormat(
        "apriel",
        opening=rf"{HEAD}here are my reasoning steps:[*_]*",
        closing=r"\[BEGIN FINAL RESPONSE\]",
        bare=r"\[BEGIN FINAL RESPONSE\]",
        answer="",
        end=r"\[END FINAL RESPONSE\]",
        example="Here are my reasoning steps:\nmusing\n[BEGIN FINAL RESPONSE]\nB\n[END FINAL RESPONSE]",
    ),
    # HuatuoGPT-o1.
    ReasoningFormat(
        "huatuo",
        opening=rf"{HEAD}(?<=#) *thinking\s*\n",
        closing=r"^#{1,4} *final response\s*$",
        bare="",
        answer=rf"{HEAD}(?<=#) *final response\s*\n",
        end="",
        example="## Thinking\n\nmusing\n\n## Final Response\n\nB",
    ),
)


def written(name: str, opening: str, closing: str, answer: str = "", end: str = "") -> ReasoningFormat:
    """A format whose markers are given as they are written, as a suite gives them."""
    marks = [re.escape(fold(text.strip())) for text in (opening, closing, answer, end)]
    begin, close, answer_begin, answer_end = marks
    example = f"{opening}musing{closing}{answer}B"
    return ReasoningFormat(name, begin, close, close, answer_begin, answer_end, example)


# Full-width forms and other angle brackets, character by character, so that places in a text stay.
_FOLDED = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_FOLDED |= {ord(c): ord("<") for c in "〈⟨‹"} | {ord(c): ord(">") for c in "〉⟩›"}


def fold(text: str) -> str:
    """A text with full-width forms made plain; places stay."""
    return text if text.isascii() else text.translate(_FOLDED)
