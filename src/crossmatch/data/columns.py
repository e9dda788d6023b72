"""From the columns of anybody's data to an item: one question with what answers it."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.checkpoint import value_digest
from crossmatch.data.messages import json_text
from crossmatch.data.rows import Row
from crossmatch.data.suite_config import LETTERS, Fields, OptionsField, SuiteSettings, TextField, closest, shown
from crossmatch.data.text_forms import NO_WIDTH, one_form
from crossmatch.errors import DataError

Check = tuple[str, Mapping[str, Any]]
_LETTERED = re.compile(r"\s*[(（]?([A-Za-z])[)）.．、:：\s]+(.*)")
_MISSING = object()
_ANSWER_LETTER = re.compile(r"\s*[(（\[]?([A-Za-z])[)）\]]?\s*[.．、:：]?(.*)", re.DOTALL)
# How Unicode calls characters that say more than what they are made of.
_MEANS_MORE = re.compile("<(?:super|sub|fraction|circle)>")
# What options of a yes-or-no question are called -> the answer that means it.
_MEANINGS = {
    **dict.fromkeys(("yes", "true", "是", "对", "正确"), True),
    **dict.fromkeys(("no", "false", "否", "错", "不是", "错误"), False),
}


@dataclass(frozen=True)
class Item:
    """One question with a reference (generation), options and the index of the right one (choice), or checks.

    question: of a text suite the document; context: a text that the question is about; subject: what field it belongs
    to; checks: (kind, arguments).
    """

    id: str
    question: str
    reference: str = ""
    options: tuple[str, ...] = ()
    answer: int = -1
    context: str = ""
    subject: str = ""
    checks: tuple[Check, ...] = ()


def read_item(row: Row, settings: SuiteSettings) -> Item:
    """One row as an item. Raises DataError with the reason if it cannot be asked or judged."""
    fields, values = settings.fields, row.values
    item_id = _text(values, fields.id, "id") if fields.id else row.key
    subject = row.config or (_text(values, fields.subject, "subject") if fields.subject else "")
    if settings.kind == "text":
        return Item(item_id, _text(values, fields.text, "text"), subject=subject)
    question = _text(values, fields.question, "question")
    context = _context(values, settings)
    if settings.kind == "generation":
        reference = _text(values, fields.reference, "reference")
        return Item(item_id, question, reference, context=context, subject=subject)
    if settings.kind == "instructions":
        return Item(item_id, question, context=context, subject=subject, checks=_checks(values, fields))
    options = _options(values, fields.options)
    if len(options) < 2 or not all(option.strip() for option in options):
        raise DataError("options must be at least two texts that are not empty")
    if len(options) > len(LETTERS):
        raise DataError(f"at most {len(LETTERS)} options can be lettered, not {len(options)}")
    _tell_apart(options, settings.language)
    answer = _ANSWERS[fields.answer.form](_value(values, fields.answer.columns[0]), options)
    return Item(item_id, question, "", options, answer, context, subject)


def _tell_apart(options: Sequence[str], language: str) -> None:
    """Raise DataError for two options that are one text to whoever reads them."""
    first: dict[str, int] = {}
    for place, option in enumerate(options):
        other = first.setdefault(_as_read(option, language), place)
        if other == place:
            continue
        spelt = "" if options[other].strip() == option.strip() else f" (spelt otherwise: {shown(option)!r})"
        raise DataError(
            f"options {LETTERS[other]} and {LETTERS[place]} are the same text, {shown(options[other])!r}{spelt}, so "
            "that no choice between them can be right; mend the row, or leave it out"
        )


def _as_read(text: str, language: str) -> str:
    """A text without what readers do not see: which code points spell it, its width, its white space.

    Superscripts, subscripts, fractions and circled digits stay what they are: 10² is not 102. In a Chinese suite,
    traditional and simplified forms of a character are one.
    """
    plain = "".join(
        c if _MEANS_MORE.match(unicodedata.decomposition(c)) else unicodedata.normalize("NFKC", c) for c in text
    )
    composed = unicodedata.normalize("NFC", NO_WIDTH.sub("", plain))
    return " ".join((one_form(composed) if language == "zh" else composed).split())


def taken(row: Row, where: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a row has, in every column of `where`, one of its values. Raises DataError for an unknown column."""
    found = {column: _value(row.values, column) for column in where}
    return all(str(found[column]) in {str(v) for v in allowed} for column, allowed in where.items())


def _context(values: Mapping[str, Any], settings: SuiteSettings) -> str:
    if settings.fields.context is None and "{context}" not in settings.prompt:
        return ""
    return _text(values, settings.fields.context or TextField(columns=("context",)), "context")


def _value(values: Any, column: str) -> Any:
    """What a column holds; `a.b` is b inside a. Raises DataError for an unknown one, with the closest known."""
    if isinstance(values, Mapping) and column in values:
        return values[column]
    outer, _, inner = column.partition(".")
    if inner and isinstance(values, Mapping) and isinstance(values.get(outer), Mapping):
        return _value(values[outer], inner)
    known = sorted(str(k) for k in values) if isinstance(values, Mapping) else []
    advice = closest(column, known) or f"; there are {shown(', '.join(known))}: say under `fields:` which is which"
    raise DataError(f"there is no field {column!r}{advice}")


def _text(values: Mapping[str, Any], field: TextField, name: str) -> str:
    parts = []
    for column in field.columns:
        spare = column.endswith("?") and column not in values
        found = _optional(values, column[:-1]) if spare else _value(values, column)
        if found is _MISSING:
            continue
        part = _plain(found, column, field.join)
        if part.strip():
            parts.append(part)
        elif not spare:
            raise DataError(f"field {column!r} must be a text that is not empty, for the {name}")
    text = field.join.join(parts)
    if not text.strip():
        raise DataError(f"the {name} is empty")
    return text.strip() if field.strip else text


def _optional(values: Mapping[str, Any], column: str) -> Any:
    try:
        found = _value(values, column)
    except DataError:
        return _MISSING
    return _MISSING if found is None else found


def _plain(value: Any, column: str, join: str) -> str:
    number = isinstance(value, float) and math.isfinite(value)
    if isinstance(value, bool) or not (number or isinstance(value, str | int | list | tuple)):
        raise DataError(f"field {column!r} must be a text that is not empty, not {shown(value)}")
    if isinstance(value, list | tuple):
        return join.join(_plain(part, column, join) if isinstance(part, str) else _no_part(column) for part in value)
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"field {column!r} holds half a character (a lone surrogate)") from error
    return text


def _no_part(column: str) -> str:
    raise DataError(f"field {column!r} must be a list of texts")


def _options(values: Mapping[str, Any], field: OptionsField) -> tuple[str, ...]:
    if field.values:
        return field.values
    if len(field.columns) > 1:
        return tuple(_plain(_value(values, column), column, "\n") for column in field.columns)
    column = next(iter(field.columns))
    # In CSV a list or an object is a JSON text.
    found = json_text(_value(values, column))
    if isinstance(found, str):
        found = _lettered_lines(found, column)
    elif isinstance(found, list) and any(isinstance(option, Mapping) for option in found):
        found = [(_value(option, "key"), _value(option, "value")) for option in found]
    elif isinstance(found, Mapping) and set(found) == {"key", "value"}:
        # The same pairs, as `datasets` may give them: one list a field.
        found = _pairs(found["key"], found["value"], "keys", "values")
    elif isinstance(found, Mapping):
        found = [(key, text) for key, text in found.items() if text is not None]
    elif isinstance(found, list):
        return tuple(_plain(option, column, "\n") for option in found)
    else:
        raise DataError(f"field {column!r} must hold options: a list, letters with texts, or a line an option")
    return _in_order(found, column)


def _pairs(left: Any, right: Any, first: str, second: str) -> list[tuple[Any, Any]]:
    if not (isinstance(left, list) and isinstance(right, list) and len(left) == len(right)):
        raise DataError(f"{first} and {second} must be lists of one length")
    return list(zip(left, right, strict=True))


def _lettered_lines(text: str, column: str) -> list[tuple[Any, Any]]:
    found = [_LETTERED.fullmatch(line) for line in text.split("\n") if line.strip()]
    if not all(found):
        raise DataError(f"field {column!r}: every line must be an option that begins with its letter")
    return [(match[1], match[2]) for match in found if match]


def _in_order(pairs: Sequence[tuple[Any, Any]], column: str) -> tuple[str, ...]:
    by_letter = {
        str(key).strip().upper(): "" if text is None else _plain(text, column, "\n").strip() for key, text in pairs
    }
    given = len(by_letter) == len(pairs)
    # Tables of five options have an empty E for questions of four.
    while by_letter and not by_letter[last := max(by_letter)]:
        del by_letter[last]
    letters = LETTERS[: len(by_letter)]
    if not given or sorted(by_letter) != list(letters):
        raise DataError(f"field {column!r}: options must be lettered A, B, C, ..., not {shown(', '.join(by_letter))}")
    return tuple(by_letter[letter] for letter in letters)


def _whole(value: Any) -> int | None:
    """A whole number, also one of a CSV cell or of a table that has decimals."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}(\.0+)?\s*", value):
        return int(float(value))
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _by_index(value: Any, options: Sequence[str]) -> int:
    index = _by_meaning(value, options) if isinstance(value, bool) else _whole(value)
    if index is None or not 0 <= index < len(options):
        raise DataError(f"answer must be an index from 0 to {len(options) - 1}, not {shown(repr(value))}")
    return index


def _by_meaning(value: bool, options: Sequence[str]) -> int | None:
    """The option that means true, or false; None if not one does."""
    same = [i for i, option in enumerate(options) if _MEANINGS.get(option.strip().lower()) is value]
    return same[0] if len(same) == 1 else None


def _by_number(value: Any, options: Sequence[str]) -> int:
    number = _whole(value)
    if number is None or not 1 <= number <= len(options):
        raise DataError(f"answer must be a number from 1 to {len(options)}, not {shown(repr(value))}")
    return number - 1


def _by_letter(value: Any, options: Sequence[str]) -> int:
    match = _ANSWER_LETTER.fullmatch(value) if isinstance(value, str) else None
    letter = match[1].upper() if match else ""
    # Behind its letter may stand the option: that, and no other.
    text = (match[2] or "").strip() if match else ""
    if not letter or letter not in LETTERS[: len(options)] or text not in ("", options[LETTERS.index(letter)].strip()):
        raise DataError(f"answer must be a letter from A to {LETTERS[len(options) - 1]}, not {shown(repr(value))}")
    return LETTERS.index(letter)


def _by_text(value: Any, options: Sequence[str]) -> int:
    if isinstance(value, bool):
        meant = _by_meaning(value, options)
        same = [] if meant is None else [meant]
    else:
        text = str(value).strip()
        same = [i for i, option in enumerate(options) if option.strip() == text]
    if len(same) != 1:
        raise DataError(f"answer must be the text of one option, not {shown(repr(value))}")
    return same[0]


_ANSWERS: dict[str, Callable[[Any, Sequence[str]], int]] = {
    "index": _by_index,
    "number": _by_number,
    "letter": _by_letter,
    "text": _by_text,
}


def _checks(values: Mapping[str, Any], fields: Fields) -> tuple[Check, ...]:
    columns = fields.checks.columns
    found: Any = [_value(values, column) for column in columns]
    if not all(isinstance(part, list) and part for part in found):
        raise DataError(f"checks must be a list of {{kind, arguments}} that is not empty, in {' and '.join(columns)}")
    if len(columns) == 2:
        pairs = _pairs(found[0], found[1], columns[0], columns[1])
    else:
        if not all(isinstance(check, Mapping) and set(check) <= {"kind", "arguments"} for check in found[0]):
            raise DataError("every check must be an object of kind and arguments")
        pairs = [(check.get("kind"), check.get("arguments") or {}) for check in found[0]]
    for kind, arguments in pairs:
        if not isinstance(kind, str) or not kind or not isinstance(arguments or {}, Mapping):
            raise DataError("every check needs a kind, a text, and arguments, an object")
        try:
            value_digest(arguments)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"the arguments of check {shown(kind)!r} are not plain JSON") from error
    # A table has all arguments for all kinds; those that a kind does not take are null there.
    return tuple((kind, {k: v for k, v in (given or {}).items() if v is not None}) for kind, given in pairs)
