"""Training sets: a file of any format, or a hub data set, read into documents or dialogues; every row is checked.

Formats are those of `crossmatch.data.row_files`, forms of a row those of `crossmatch.data.dialogues`.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import value_digest
from crossmatch.data.dialogues import KNOWN, parse_row, refuse_half_characters
from crossmatch.data.messages import ROLES, Dialogue, Document, Example
from crossmatch.data.rows import stream_rows
from crossmatch.data.suite_config import closest
from crossmatch.errors import DataError

__all__ = [
    "ROLES",
    "Dialogue",
    "Document",
    "Example",
    "dialogues",
    "documents",
    "examples_digest",
    "load_examples",
    "load_sets",
    "notes",
    "parse_example",
]


def load_examples(source: str | Path, columns: Mapping[str, str] | None = None) -> list[Example]:
    """Read a data file, or a hub data set `org/name[@config][:split]`.

    columns: known field name -> name in the file, as in {"instruction": "question"}. Raises DataError with the file,
    the line and the reason at the first bad line, and how many more there are.
    """
    return _load(source, columns or {})[0]


def load_sets(sources: Sequence[str | Path], columns: Mapping[str, str] | None, seed: int) -> list[Example]:
    """The examples of several sets as one, shuffled by the seed; of one set as they stand.

    Raises DataError, also for a column that no row of any set has.
    """
    loaded = [_load(source, columns or {}) for source in sources]
    missing = set((columns or {}).values()).difference(*(seen for _, seen in loaded))
    if missing:
        name = min(missing)
        names = set().union(*(seen for _, seen in loaded))
        raise DataError(f"columns: no row of {', '.join(map(str, sources))} has {name!r}{closest(name, sorted(names))}")
    examples = [example for found, _ in loaded for example in found]
    if len(sources) > 1:
        random.Random(f"sets:{seed}").shuffle(examples)
    return examples


def parse_example(row: Any, columns: Mapping[str, str]) -> Example:
    """One row that holds one example. Raises DataError with the reason."""
    found = parse_row(row, columns)
    refuse_half_characters(found)
    if len(found) > 1:
        raise DataError(f"the row holds {len(found)} answers to be learnt; `load_examples` gives each")
    return found[0]


def notes(examples: Iterable[Example]) -> list[str]:
    """What a user has to know of examples that are as they should be: fields and answers that are not used, and
    speakers who do not take turns."""
    unused, earlier = Counter[str](), 0
    odd: dict[str, dict[str, None]] = {}
    for number, example in enumerate(examples, 1):
        unused.update(example.unused)
        if isinstance(example, Dialogue):
            earlier += sum(role == "assistant" for role, _ in example.turns) > 1
            for what in _out_of_turn(example):
                # A row with several answers is a dialogue for each.
                odd.setdefault(what, {})[example.place or f"example {number}"] = None
    found = []
    if unused:
        names = ", ".join(f"{name} ({times:,} rows)" for name, times in unused.most_common(8))
        more = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
        found.append(f"note: fields that are not used: {names}{more}")
    if earlier:
        found.append(
            f"note: {earlier:,} dialogues have earlier answers, which are read and not learnt; "
            "give messages a weight of 0 or 1 to choose"
        )
    found += [f"note: {len(places):,} dialogues {what}, {next(iter(places))} first" for what, places in odd.items()]
    return found


def _out_of_turn(dialogue: Dialogue) -> Iterator[str]:
    """How a dialogue does not go from user to assistant and back; calls of tools and what these give aside."""
    roles = [role for role, _ in dialogue.turns if role != "system"]
    if roles[0] != "user":
        yield f"begin with a message of role {roles[0]}"
    for role in ("user", "assistant"):
        if (role, role) in pairwise(roles):
            yield f"have two messages of role {role} in a row"


def documents(examples: Sequence[Example]) -> list[str]:
    """The texts for PT; a dialogue becomes its turns in order, without any template, once for all its answers.

    Raises DataError for thoughts and tool calls, which are no part of these, and for answers of weight 0.
    """
    texts = []
    for number, (example, following) in enumerate(zip(examples, [*examples[1:], None], strict=True), 1):
        if isinstance(example, Document):
            texts.append(example.text)
            continue
        place = example.place or f"example {number}"
        if not example.plain:
            raise DataError(
                f"{place}: a thought or tools would be lost in plain text; train with --stage sft, or leave the "
                "fields out"
            )
        if example.unlearnt:
            raise DataError(
                f"{place}: an answer has weight 0, and PT learns every token; train with --stage sft, or leave it out"
            )
        # A row with several answers is a dialogue for each, and the last one holds them all.
        if not (isinstance(following, Dialogue) and example.place and following.place == example.place):
            texts.append("\n".join(content for _, content in example.turns))
    return texts


def dialogues(examples: Sequence[Example], source: str | Path) -> list[Dialogue]:
    """The dialogues for SFT. Raises DataError for a plain document."""
    for number, example in enumerate(examples, 1):
        if isinstance(example, Document):
            place = example.place or f"{source}, example {number}"
            raise DataError(f"{place}: a text has no response to learn; SFT needs prompt/completion")
    return [e for e in examples if isinstance(e, Dialogue)]


def examples_digest(examples: Iterable[Example]) -> str:
    """One digest of the examples' content, whatever file form they came in."""
    return value_digest([_content(example) for example in examples])


def _content(example: Example) -> Any:
    if isinstance(example, Document):
        return example.text
    turns = [list(turn) for turn in example.turns]
    if example.plain:
        return turns
    more = {str(number): dict(fields) for number, fields in example.more.items()}
    return {"turns": turns, "more": more, "tools": [dict(tool) for tool in example.tools]}


def _load(source: str | Path, columns: Mapping[str, str]) -> tuple[list[Example], set[str]]:
    """Examples of one set, and the names of all fields in it."""
    for known in columns:
        if known not in KNOWN:
            raise DataError(
                f"columns: {known!r} is no known field{closest(known, KNOWN)}; known are {', '.join(KNOWN)}"
            )
    examples: list[Example] = []
    problems: list[str] = []
    seen: set[str] = set()
    for row in stream_rows(source):
        seen.update(row.values if isinstance(row.values, dict) else ())
        try:
            found = parse_row(row.values, columns, row.place)
            refuse_half_characters(found)
            examples += found
        except DataError as error:
            problems.append(f"{row.place}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more bad lines)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    if not examples:
        raise DataError(f"{source} holds no examples")
    return examples, seen
