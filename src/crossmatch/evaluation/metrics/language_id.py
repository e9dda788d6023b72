"""Which language a text is in, by script, letters and function words: enough to check an instruction, no more.

The languages are the 30 that IFEval can ask for, and Chinese; `languages.jsonl` has of each its name and, where several
are written in its script, its function words and the letters that stand in it and hardly in its neighbours.
"""

import json
import re
from collections import Counter
from pathlib import Path

# Scripts by code points; a script of one language decides alone.
_SCRIPTS = {
    "latin": "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ",
    "cyrillic": "Ѐ-ӿ",
    "arabic": "\u0600-\u06ff\u0750-\u077f",
    "devanagari": "\u0900-\u097f",
    "kana": "\u3040-\u30ff",
    "han": "\u3400-\u4dbf\u4e00-\u9fff",
    "ko": "\u1100-\u11ff\uac00-\ud7af",
    "he": "\u0590-\u05ff",
    "bn": "\u0980-\u09ff",
    "pa": "\u0a00-\u0a7f",
    "gu": "\u0a80-\u0aff",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",
    "kn": "\u0c80-\u0cff",
    "ml": "\u0d00-\u0d7f",
    "th": "\u0e00-\u0e7f",
}
_PATTERNS = {script: re.compile(f"[{points}]") for script, points in _SCRIPTS.items()}
_FILE = Path(__file__).with_name("languages.jsonl")
_TABLE = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
LANGUAGES = {row["code"]: row["name"] for row in _TABLE}
FUNCTION_WORDS = {row["code"]: row["function_words"] for row in _TABLE if "function_words" in row}
_LETTERS = {row["code"]: row.get("letters", "") for row in _TABLE}
# Languages of a script, the likelier first.
_GROUPS: dict[str, list[str]] = {}
for _row in _TABLE:
    if "script" in _row:
        _GROUPS.setdefault(_row["script"], []).append(_row["code"])
_SETS = {code: frozenset(words.split()) for code, words in FUNCTION_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f\u0900-\u0903\u093a-\u094f]+[^\W\d_]*)*")
_LETTER_SHARE = 0.5
# Below this share of function words, plain ASCII is English: terms, names and lists have none.
_WEAK = 0.2


def language_of(text: str) -> str | None:
    """Code of the language that most of a text's letters are in; None where letters do not tell.

    The commonest script decides first (Japanese: kana among Han), then, within a script, the share of function words
    and of letters of one's own. Plain ASCII with next to neither is English.
    """
    counts = Counter({script: len(pattern.findall(text)) for script, pattern in _PATTERNS.items()})
    east = counts["kana"] + counts["han"]
    if east > max((n for script, n in counts.items() if script not in ("kana", "han")), default=0):
        # Japanese prose is a third kana or more; a Chinese text quotes a few at most.
        return "ja" if counts["kana"] > 0.1 * east else "zh"
    script, count = counts.most_common(1)[0]
    if not count:
        return None
    if script not in _GROUPS:
        return script
    lowered = text.lower()
    words = _WORD.findall(lowered)
    scores = {code: _score(code, words, lowered) for code in _GROUPS[script]}
    best = max(scores, key=lambda code: scores[code])
    if script == "latin" and text.isascii() and scores[best] < _WEAK:
        return "en"
    return best if scores[best] > 0 else None


def _score(code: str, words: list[str], text: str) -> float:
    functions = sum(word in _SETS[code] for word in words) / max(1, len(words))
    own = sum(text.count(letter) for letter in _LETTERS[code]) / max(1, len(words))
    return functions + _LETTER_SHARE * min(own, 1.0)
