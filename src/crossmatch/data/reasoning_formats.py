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


# An angle bracket and a slash as they come out of templates, web pages and JSON: escaped once or more often.
_LEFT = r"(?=[<&\\])(?:<|&(?:amp;)*(?:lt|\#0*60|\#x0*3c);|\\u003c)"
_RIGHT = r"\s*(?:>|&(?:amp;)*(?:gt|\#0*62|\#x0*3e);|\\u003e)"
_SLASH = r"(?:\\?/|\\|&(?:amp;)*(?:\#0*47|\#x0*2f|sol);|\\u002f)\s*"
_ATTRIBUTES = r"""(?:\s+[\w:.-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))*"""
ANSWER_TAGS = (
    "answer|response|output|solution|conclusion|final(?:_answer|_response)?|(?:最终|最終)?答案|(?:最终|最終)?回答"
)
_CHANNEL = r"(?:<\|start\|>assistant\s*)?<\|channel\|>"
_MESSAGE = r"[^<]*(?:<\|constrain\|>\w+\s*)?<\|message\|>"
_HARMONY_OPEN, _HARMONY_FINAL = rf"{_CHANNEL}(?:analysis|commentary){_MESSAGE}", rf"{_CHANNEL}final{_MESSAGE}"
_K3_RESPONSE = r"response\s*<\|sep\|>"
# What special tokens call a trace, and a vendor before or behind it.
_NAMES = r"(?:think(?:ing)?|thoughts?|reasoning|cot)"
_VENDOR, _BY_VENDOR = r"(?:\w{1,16}:)?", r"(?::\w{1,16})?"
# Where a fence of code holds a trace.
THINKING_FENCE = r"^```[^\S\n]*(?:think(?:ing)?|thoughts?|reasoning)\b"
# White space and mark-up before a heading.
HEAD = r"\A[\s#*_]*"


def _tag(name: str, names: str) -> ReasoningFormat:
    """A pair of tags in angle brackets, with attributes and white space as models write them.

    White space behind the bracket of an opening is there at the beginning of a line alone: `x < think > y` compares.
    """
    closing = rf"{_LEFT}\s*{_SLASH}(?:{names}){_RIGHT}"
    return ReasoningFormat(
        name,
        opening=rf"{_LEFT}(?:(?<=^.)\s*)?(?:{names}){_ATTRIBUTES}{_RIGHT}",
        closing=closing,
        bare=closing,
        answer=rf"{_LEFT}\s*(?:{ANSWER_TAGS}){_ATTRIBUTES}{_RIGHT}",
        end=rf"{_LEFT}\s*{_SLASH}(?:{ANSWER_TAGS}){_RIGHT}",
        example=f"<{name}>musing</{name}>B",
    )


def _pair(name: str, opening: str, closing: str, example: str, answer: str = "", end: str = "") -> ReasoningFormat:
    """An opening and a closing that nothing else is written with."""
    return ReasoningFormat(name, opening, closing, closing, answer, end, example)


FORMATS: tuple[ReasoningFormat, ...] = (
    # DeepSeek-R1, Qwen, GLM, Nemotron and most others; vendors put a name before or behind it (`seed:think`,
    # `longcat_think`, `ifm|think_fast`, `think:opensource`).
    _tag("think", r"(?:\w{1,16}[:_|]|ant)?think(?:ing)?(?:_\w{1,16})?(?::[\w.-]{1,40})?"),
    _tag("chain_of_thought", "cot|chain[_-]of[_-]thoughts?"),
    _tag("thought", r"(?:\w{1,16}[:_-])?thoughts?(?:_process)?"),
    _tag("reasoning", "reasoning(?:_process|_content|_steps)?|analysis"),
    # A tag in Chinese; in other brackets the same words are the title of a book.
    _tag("思考", "(?:思考|推理|思维|思維)(?:过程|過程)?"),
    ReasoningFormat(
        "book-brackets",
        opening=r"《think(?:ing)?》",
        closing=rf"《{_SLASH}think(?:ing)?》",
        bare=rf"《{_SLASH}think(?:ing)?》",
        answer="",
        end="",
        example="《think》musing《/think》B",
    ),
    _tag("reflection", "reflection"),
    _tag("scratchpad", "scratch_?pad"),
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
        opening=rf"{HEAD}(?-i:analysis(?=[^\W\d_a-z]|[\"“']|[\s\S]*?assistant\s*final))",
        closing=r"(?-i:assistant\s*final)",
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
    # OpenThinker, Sky-T1, PLaMo (`<|plamo:begin_think:plamo|>`) and others with one token for the beginning and one for
    # the end.
    _pair(
        "begin_of_thought",
        rf"<\|{_VENDOR}(?:(?:begin|start)_(?:of_)?{_NAMES}|{_NAMES}_(?:begin|start)){_BY_VENDOR}\|>",
        rf"<\|{_VENDOR}(?:(?:end|stop)_(?:of_)?{_NAMES}|{_NAMES}_(?:end|stop)){_BY_VENDOR}\|>",
        "<|begin_of_thought|>musing<|end_of_thought|><|begin_of_solution|>B<|end_of_solution|>",
        answer=r"<\|(?:begin|start)_of_(?:solution|answer)\|>",
        end=r"<\|end_of_(?:solution|answer)\|>",
    ),
    # Apertus.
    _pair("apertus", r"<\|inner_prefix\|>", r"<\|inner_suffix\|>", "<|inner_prefix|>musing<|inner_suffix|>B"),
    # Kimi K3.
    _pair(
        "kimi-k3",
        r"<\|open\|>\s*think\s*<\|sep\|>",
        r"<\|close\|>\s*think\s*<\|sep\|>",
        "<|open|>think<|sep|>musing<|close|>think<|sep|><|open|>response<|sep|>B<|close|>response<|sep|>",
        answer=rf"<\|open\|>\s*{_K3_RESPONSE}",
        end=rf"<\|close\|>\s*{_K3_RESPONSE}(?:<\|close\|>\s*message\s*<\|sep\|>)?",
    ),
    # Messages with a recipient: to itself, then to the user (Muse).
    ReasoningFormat(
        "to-self",
        opening=r"(?:<\|start\|>assistant {0,2})?to=self<\|message\|>",
        closing=r"<\|eom\|>|<\|eot\|>|(?=<\|start\|>assistant)",
        bare="",
        answer=r"(?:<\|start\|>assistant {0,2})?(?:to=user)?<\|message\|>",
        end=r"<\|eo[mt]\|>",
        example="to=self<|message|>musing<|eom|><|start|>assistant to=user<|message|>B<|eot|>",
    ),
    # HyperCLOVA X Think: the trace is a turn of its own, and so is the answer.
    ReasoningFormat(
        "hyperclova",
        opening=r"(?:\A\s*|(?<=assistant))/think\s*\n",
        closing=r"<\|im_end\|>\s*<\|im_start\|>assistant\s*",
        bare="",
        answer="",
        end="",
        example="/think\nmusing<|im_end|>\n<|im_start|>assistant\nB",
    ),
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
    # A fence with the trace's name, as prompts ask for it.
    ReasoningFormat(
        "fence",
        opening=rf"{THINKING_FENCE}[^\S\n]*$",
        closing=r"^```[^\S\n]*$",
        bare="",
        answer="",
        end="",
        example="```thinking\nmusing\n```\nB",
    ),
    # What web pages fold.
    ReasoningFormat(
        "details",
        opening=r"<details[^<>]*>\s*<summary>[^<>\n]{0,20}(?:think|thought|reason|思考|推理)[^<>\n]{0,40}</summary>"
        r"|<details\s[^<>]*(?:reasoning|thinking)[^<>]*>(?:\s*<summary>[^<>\n]*</summary>)?",
        closing="</details>",
        bare="",
        answer="",
        end="",
        example="<details><summary>Thinking</summary>musing</details>B",
    ),
)


def written(name: str, opening: str, closing: str, answer: str = "", end: str = "") -> ReasoningFormat:
    """A format whose markers are given as they are written, as a suite gives them."""
    marks = [re.escape(fold(text.strip())) for text in (opening, closing, answer, end)]
    begin, close, answer_begin, answer_end = marks
    example = f"{opening}musing{closing}{answer}B"
    return ReasoningFormat(name, begin, close, close, answer_begin, answer_end, example)


# Full-width forms, other angle brackets and the blanks of DeepSeek's tokens, character by character, so that places in
# a text stay.
_FOLDED = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_FOLDED |= {ord(c): ord("<") for c in "〈⟨‹"} | {ord(c): ord(">") for c in "〉⟩›"} | {ord("▁"): ord("_")}


def fold(text: str) -> str:
    """A text with full-width forms made plain; places stay."""
    return text if text.isascii() else text.translate(_FOLDED)
