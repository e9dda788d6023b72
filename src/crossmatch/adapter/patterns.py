"""Regular expressions from files of strangers, matched in bounded time.

The keys of rank_pattern and the targets of an adapter are regular expressions, which Python's matcher may try for
longer than the universe lasts: (a+)+$ on thirty letters. Here all positions that an expression can reach are followed
at once, as the bits of one number: no path is tried twice. Whether there is a match is the same; groups are not kept,
and back-references, whose cost has no such bound, are refused.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from crossmatch.errors import AdapterError

MAX_LENGTH = 20_000
MAX_STEPS = 200_000
# Flags that decide which characters are one.
_OF_CHARACTERS = int(re.IGNORECASE | re.ASCII)
_PLAIN = re.compile(r"[\w.-]*", re.ASCII)


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches. Raises AdapterError for no regular expression, or one that cannot be bounded."""
    if _PLAIN.fullmatch(pattern):
        # Dots stand for any character; nothing else has a meaning.
        return len(pattern) == len(text) and all(p in (".", t) for p, t in zip(pattern, text, strict=True))
    parsed = _parsed(pattern)
    walk = _Walk(text, pattern, parsed.state.flags)
    return bool(walk.sequence(parsed, 1) >> len(text) & 1)


def ends_in(pattern: str, text: str) -> bool:
    """Whether the text, or what follows one of its dots, matches as a whole."""
    if _PLAIN.fullmatch(pattern):
        cut = len(text) - len(pattern)
        return (cut == 0 or (cut > 0 and text[cut - 1] == ".")) and matches(pattern, text[cut:])
    return matches(rf"(?:.*\.)?(?:{pattern})", text)


@lru_cache(maxsize=4096)
def _parsed(pattern: str) -> Any:
    if len(pattern) > MAX_LENGTH:
        raise AdapterError(f"pattern {pattern[:60]!r}… has {len(pattern)} characters; at most {MAX_LENGTH} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        raise AdapterError(f"pattern {_shown(pattern)} is no regular expression: {error}") from error
    return parsed


class _Walk:
    """One text against one expression. A set of positions is a number whose bits they are.

    flags: those of Python's matcher that hold where the walk is; a group may have its own.
    """

    def __init__(self, text: str, pattern: str, flags: int) -> None:
        self.text, self.pattern, self.flags = text, pattern, flags
        self.all = (1 << len(text)) - 1
        self.steps = 0
        self.where: dict[str, int] = {}
        for i, character in enumerate(text):
            self.where[character] = self.where.get(character, 0) | 1 << i

    def sequence(self, items: Sequence[Any], starts: int) -> int:
        """Where a sequence of items can end that begins at one of `starts`."""
        for item in items:
            if not starts:
                break
            starts = self._item(item, starts)
        return starts

    def _item(self, item: Any, starts: int) -> int:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise AdapterError(f"pattern {_shown(self.pattern)} takes too long on {self.text[:60]!r}; write it simpler")
        kind, value = str(item[0]).lower(), item[1]
        method: Callable[[Any, int], int] | None = getattr(self, f"_{kind}", None)
        if method is not None:
            return method(value, starts)
        if kind in ("literal", "not_literal", "any", "in"):
            return (starts & self._where(kind, value)) << 1
        raise AdapterError(f"pattern {_shown(self.pattern)} has what is not supported here: {kind.replace('_', ' ')}")

    def _where(self, kind: str, value: Any) -> int:
        """Positions whose character an item of one character takes."""
        if kind == "any":
            return self.all if self.flags & re.DOTALL else self.all & ~self.where.get("\n", 0)
        if kind == "in":
            return self._those(lambda character: _in_set(tuple(value), character, self.flags))
        if not self.flags & re.IGNORECASE:
            one = self.where.get(chr(value), 0)
        else:
            one = self._those(lambda character: _is_letter(value, character, self.flags))
        return one if kind == "literal" else self.all & ~one

    def _those(self, is_taken: Callable[[str], bool]) -> int:
        """Positions of the characters that are taken."""
        return sum(mask for character, mask in self.where.items() if is_taken(character))

    def _branch(self, value: Any, starts: int) -> int:
        ends = 0
        for option in value[1]:
            ends |= self.sequence(option, starts)
        return ends

    def _subpattern(self, value: Any, starts: int) -> int:
        _, added, removed, items = value
        before = self.flags
        # Of the two ways to read characters one holds.
        reading = re.ASCII | re.UNICODE if added & (re.ASCII | re.UNICODE) else 0
        self.flags = (before & ~reading | added) & ~removed
        ends = self.sequence(items, starts)
        self.flags = before
        return ends

    def _max_repeat(self, value: Any, starts: int) -> int:
        low, high, items = value
        # After as many rounds as there are positions, nothing changes any more.
        rounds = len(self.text) + 2
        for _ in range(min(low, rounds)):
            starts = self.sequence(items, starts)
        reached, fresh = starts, starts
        for _ in range(min(int(high) - low, rounds)):
            fresh = self.sequence(items, fresh) & ~reached
            if not fresh:
                break
            reached |= fresh
        return reached

    _min_repeat = _max_repeat

    def _at(self, value: Any, starts: int) -> int:
        kind, last = str(value).lower(), len(self.text)
        lines = self.where.get("\n", 0) if self.flags & re.MULTILINE else 0
        if kind in ("at_beginning", "at_beginning_string"):
            return starts & (1 | (lines << 1 if kind == "at_beginning" else 0))
        if kind == "at_end":
            return starts & (1 << last | lines | (1 << last - 1 if self.text.endswith("\n") else 0))
        if kind == "at_end_string":
            return starts & 1 << last
        if not last and kind == "at_non_boundary":
            # So it is in Python before 3.14.
            return 0
        words = [False, *(_category("WORD", c, self.flags) for c in self.text), False]
        edges = sum(1 << i for i in range(last + 1) if words[i] != words[i + 1])
        return starts & edges if kind == "at_boundary" else starts & ~edges

    def _assert(self, value: Any, starts: int, *, wanted: bool = True) -> int:
        direction, items = value
        width = items.getwidth()[0] if direction < 0 else 0
        kept = 0
        for i in range(len(self.text) + 1):
            if starts >> i & 1:
                ends = self.sequence(items, 1 << i - width) if i >= width else 0
                kept |= (bool(ends >> i & 1 if direction < 0 else ends) == wanted) << i
        return kept

    def _assert_not(self, value: Any, starts: int) -> int:
        return self._assert(value, starts, wanted=False)


@lru_cache(maxsize=4096)
def _in_set(items: tuple[Any, ...], character: str, flags: int) -> bool:
    negated = bool(items) and str(items[0][0]) == "NEGATE"
    return any(_is(item, character, flags) for item in items[negated:]) != negated


def _is(item: Any, character: str, flags: int) -> bool:
    kind, value = str(item[0]), item[1]
    if kind == "LITERAL":
        return _is_letter(value, character, flags)
    if kind == "RANGE":
        # Python's own matcher says which letters are one but for their case; of a range that is not at once clear.
        first, last = (re.escape(chr(end)) for end in value)
        return re.fullmatch(f"[{first}-{last}]", character, flags & _OF_CHARACTERS) is not None
    return _category(str(value).removeprefix("CATEGORY_"), character, flags)


def _is_letter(code: int, character: str, flags: int) -> bool:
    """Whether a character is that of a code, or differs from it in case only, where that does not count."""
    if ord(character) == code or not flags & re.IGNORECASE:
        return ord(character) == code
    return re.fullmatch(re.escape(chr(code)), character, flags & _OF_CHARACTERS) is not None


def _category(name: str, character: str, flags: int) -> bool:
    classes = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}
    found = re.match(classes[name.removeprefix("NOT_")], character, flags & re.ASCII)
    return (found is not None) != name.startswith("NOT_")


def _shown(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else pattern[:80] + "…")
