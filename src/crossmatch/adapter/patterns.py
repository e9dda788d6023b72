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
_PLAIN = re.compile(r"[\w.-]*", re.ASCII)


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches. Raises AdapterError for no regular expression, or one that cannot be bounded."""
    if _PLAIN.fullmatch(pattern):
        # Dots stand for any character; nothing else has a meaning.
        return len(pattern) == len(text) and all(p in (".", t) for p, t in zip(pattern, text, strict=True))
    walk = _Walk(text, pattern)
    return bool(walk.sequence(_parsed(pattern), 1) >> len(text) & 1)


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
    if parsed.state.flags & ~int(re.UNICODE):
        raise AdapterError(f"pattern {_shown(pattern)} has flags, which are not supported")
    return parsed


class _Walk:
    """One text against one expression. A set of positions is a number whose bits they are."""

    def __init__(self, text: str, pattern: str) -> None:
        self.text, self.pattern = text, pattern
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
        if kind == "in":
            taken = (mask for character, mask in self.where.items() if _in_set(tuple(value), character))
            return sum(taken)
        one = self.where.get("\n" if kind == "any" else chr(value), 0)
        return one if kind == "literal" else self.all & ~one

    def _branch(self, value: Any, starts: int) -> int:
        ends = 0
        for option in value[1]:
            ends |= self.sequence(option, starts)
        return ends

    def _subpattern(self, value: Any, starts: int) -> int:
        _, added, removed, items = value
        if added or removed:
            raise AdapterError(f"pattern {_shown(self.pattern)} has flags, which are not supported")
        return self.sequence(items, starts)

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
        if kind in ("at_beginning", "at_beginning_string"):
            return starts & 1
        if kind == "at_end":
            return starts & (1 << last | (1 << last - 1 if self.text.endswith("\n") else 0))
        if kind == "at_end_string":
            return starts & 1 << last
        if not last and kind == "at_non_boundary":
            # So it is in Python before 3.14.
            return 0
        words = [False, *(re.match(r"\w", c) is not None for c in self.text), False]
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
def _in_set(items: tuple[Any, ...], character: str) -> bool:
    negated = bool(items) and str(items[0][0]) == "NEGATE"
    return any(_is(item, character) for item in items[negated:]) != negated


def _is(item: Any, character: str) -> bool:
    kind, value = str(item[0]), item[1]
    if kind == "LITERAL":
        return ord(character) == value
    if kind == "RANGE":
        return value[0] <= ord(character) <= value[1]
    name = str(value).removeprefix("CATEGORY_")
    found = re.match({"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}[name.removeprefix("NOT_")], character)
    return (found is not None) != name.startswith("NOT_")


def _shown(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else pattern[:80] + "…")
