"""Suites: what is asked, as versioned data. A YAML file names a data file beside it, or a data set of the hub.

In this project's own form, one object a line:

generation     {"id": "...", "question": "...", "reference": "..."}
choice         {"id": "...", "question": "...", "options": ["...", "..."], "answer": 0}
instructions   {"id": "...", "question": "...", "checks": [{"kind": "...", "arguments": {...}}]}
text           {"id": "...", "text": "..."}

Other forms are read by naming their columns under `fields`; see `crossmatch.data.suite_config`.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from crossmatch.checkpoint import value_digest
from crossmatch.data.columns import Item, read_item, taken
from crossmatch.data.rows import SUFFIXES, Row, read_file, read_hub
from crossmatch.data.suite_config import LETTERS, SuiteSettings, closest, parse_settings, read_yaml
from crossmatch.data.suite_use import unused_columns
from crossmatch.errors import DataError

__all__ = ["Item", "Suite", "SuiteSettings", "known_recipes", "load_suite", "parse_settings", "read_yaml"]

RECIPE = "recipe:"
_RECIPES = Path(__file__).parent / "recipes"
# More faulty rows than this are no accident of the data: the columns are read wrongly.
_FAULTY_SHARE = 0.01


@dataclass(frozen=True)
class Suite:
    """A suite ready to run.

    digest: of its settings and its data; shots: item id -> solved examples shown before it; left_out: rows that could
    not be asked, where `faulty: leave_out` allows it; source: the data, in words; places: item id -> file and line;
    unused: columns of the data that are not read.
    """

    settings: SuiteSettings
    items: tuple[Item, ...]
    digest: str
    shots: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    left_out: int = 0
    source: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def messages(self, item: Item) -> list[dict[str, str]]:
        """The dialogue that asks an item; solved examples are earlier turns of it."""
        system = _join(self.settings.system or "", self._description(item))
        turns = [{"role": "system", "content": system}] if system else []
        for shot in self.shots.get(item.id, ()):
            turns.append({"role": "user", "content": self._asked(shot)})
            turns.append({"role": "assistant", "content": self.solution(shot)})
        return [*turns, {"role": "user", "content": self._asked(item)}]

    def prompt_text(self, item: Item) -> str:
        """The plain text that asks an item, for models without a chat template; it ends where the answer begins."""
        shots = self.shots.get(item.id, ())
        solved = [f"{self._asked(shot)}{self.settings.between}{self.solution(shot)}\n\n" for shot in shots]
        return _join(self.settings.system or "", "".join([self._description(item), *solved, self._asked(item)]))

    def continuations(self, item: Item) -> tuple[str, ...]:
        """What is scored after the prompt for each option: its letter or its text, behind the delimiter."""
        forms = LETTERS[: len(item.options)] if self.settings.form == "letters" else item.options
        return tuple(self.settings.between + form for form in forms)

    def _asked(self, item: Item) -> str:
        line = self.settings.option_line
        options = [_fill(line, {"letter": LETTERS[i], "text": text}) for i, text in enumerate(item.options)]
        parts = {"question": item.question, "context": item.context, "options": "\n".join(options)}
        return _fill(self.settings.prompt, {**parts, "subject": self._subject(item)})

    def solution(self, item: Item) -> str:
        """The right answer as it is written: an option's letter or text, or the reference."""
        if self.settings.kind == "generation":
            return item.reference
        return LETTERS[item.answer] if self.settings.form == "letters" else item.options[item.answer]

    def _description(self, item: Item) -> str:
        return _fill(self.settings.description, {"subject": self._subject(item)})

    def _subject(self, item: Item) -> str:
        return self.settings.subjects.get(item.subject, item.subject)


def known_recipes() -> tuple[str, ...]:
    """Names of the suites that come with crossmatch, for `recipe:NAME`."""
    return tuple(sorted(file.stem for file in _RECIPES.glob("*.yaml")))


def load_suite(file: str | Path) -> Suite:
    """Read a suite: a YAML file, a `recipe:NAME`, or `recipe:NAME:DATA` on a file, or a directory, of one's own.

    Raises DataError with file, place and reason for whatever cannot be asked.
    """
    settings, home = _settings(str(file))
    if settings.hub is not None:
        rows, content = read_hub(settings.hub, home), ""
        source = f"{settings.hub.path} ({settings.hub.split})"
    else:
        path = home / str(settings.data)
        rows, content = read_file(path)
        source = path.name
    items, places, left_out = _items(rows, settings, source)
    unused = unused_columns([row.values for row in rows], settings, source)
    shots, pool = _shots(items, settings, home)
    if settings.hub is not None:
        content = value_digest([settings.hub.model_dump(), [asdict(item) for item in items]])
    digest = value_digest([settings.to_dict(), content, [asdict(item) for item in pool]])
    return Suite(settings, items[: settings.limit], digest, shots, left_out, source, places, unused)


def _settings(name: str) -> tuple[SuiteSettings, Path]:
    """The settings of a file or a recipe, and the directory at which paths in it begin."""
    if not name.startswith(RECIPE):
        path = Path(name)
        if path.suffix in SUFFIXES:
            raise DataError(f"{path} is a suite's data; give the YAML file that names it; `crossmatch init` writes one")
        return parse_settings(read_yaml(path), path), path.parent
    recipe, _, data = name.removeprefix(RECIPE).partition(":")
    if recipe not in known_recipes():
        known = ", ".join(known_recipes())
        raise DataError(f"there is no recipe {recipe!r}{closest(recipe, known_recipes())}; known are {known}")
    path = _RECIPES / f"{recipe}.yaml"
    raw = read_yaml(path)
    settings = parse_settings(raw, path)
    if data:
        settings = _with_data(raw, settings, data, path)
    elif settings.data is not None:
        raise DataError(f"recipe {recipe} has no data of its own; give yours as in recipe:{recipe}:valid.jsonl")
    return settings, Path()


def _with_data(raw: dict[str, object], settings: SuiteSettings, data: str, file: Path) -> SuiteSettings:
    """A recipe on other data of the same columns: a directory that has the form of the hub's, or one file."""
    if settings.hub is not None and Path(data).is_dir():
        hub = {**settings.hub.model_dump(), "path": str(Path(data).absolute()), "revision": None}
        return parse_settings({**raw, "hub": hub}, file)
    # A template is for many files: the answers to each need a name of their own.
    stem = re.sub(r"[^\w.-]+", "_", Path(data).stem)
    name = settings.name if settings.hub is not None else f"{settings.name}-{stem}"
    return parse_settings({**{k: v for k, v in raw.items() if k != "hub"}, "data": data, "name": name}, file)


def _items(rows: Sequence[Row], settings: SuiteSettings, source: str) -> tuple[tuple[Item, ...], dict[str, str], int]:
    """Items of the rows that `where` takes, the places where they stand by id, and how many could not be asked."""
    items: dict[str, Item] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    for row in rows:
        try:
            if not taken(row, settings.where):
                continue
            item = read_item(row, settings)
            if item.id in items:
                raise DataError(f"id {item.id!r} appears twice")
            items[item.id], places[item.id] = item, row.place
        except DataError as error:
            problems.append(f"{row.place}: {error}")
    allowed = (len(items) + len(problems)) * _FAULTY_SHARE if settings.faulty == "leave_out" else 0
    if len(problems) > allowed:
        more = f" (and {len(problems) - 1} more bad rows)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    if not items:
        raise DataError(f"{source} holds no items{' of those that `where` takes' if settings.where else ''}")
    return tuple(items.values()), places, len(problems)


def _shots(
    items: Sequence[Item], settings: SuiteSettings, home: Path
) -> tuple[dict[str, tuple[Item, ...]], tuple[Item, ...]]:
    """Solved examples of every item that is asked, and those that they were taken from if they are not the items."""
    if not settings.fewshot:
        return {}, ()
    others: tuple[Item, ...] = ()
    if settings.fewshot_data and settings.hub is not None:
        others, *_ = _items(read_hub(settings.hub, home, settings.fewshot_data), settings, settings.fewshot_data)
    elif settings.fewshot_data:
        others, *_ = _items(read_file(home / settings.fewshot_data)[0], settings, settings.fewshot_data)
    pools: dict[str, list[Item]] = {}
    for item in others or items:
        pools.setdefault(item.subject, []).append(item)
    asked = Counter(_asks(item) for pool in pools.values() for item in pool)
    # Drawn as many more as there are that ask the same as the item: those are passed over.
    return {
        item.id: _examples(item, pools.get(item.subject, []), settings, asked[_asks(item)])
        for item in items[: settings.limit]
    }, others


def _examples(item: Item, pool: Sequence[Item], settings: SuiteSettings, same: int) -> tuple[Item, ...]:
    """Examples of its subject for one item, never one that asks the same; drawn by the seed and the item's id alone."""
    drawn = settings.fewshot_order == "drawn"
    rng = random.Random(f"{settings.seed}:{item.id}")
    order = rng.sample(range(len(pool)), min(len(pool), settings.fewshot + same)) if drawn else range(len(pool))
    others = (pool[i] for i in order if _asks(pool[i]) != _asks(item))
    found = tuple(islice(others, settings.fewshot))
    if len(found) < settings.fewshot:
        of = f" of subject {item.subject}" if item.subject else ""
        raise DataError(
            f"fewshot: {settings.fewshot} examples{of} are asked for, item {item.id} has {len(found)} others"
        )
    return found


def _asks(item: Item) -> tuple[str, str]:
    return item.question, item.context


def _fill(text: str, parts: Mapping[str, str]) -> str:
    """Fill in {name} once: what is filled in may itself hold braces."""
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], text)


def _join(head: str, rest: str) -> str:
    """Two texts, with an empty line between them unless one brings its own white space."""
    if head and rest and not (head[-1].isspace() or rest[0].isspace()):
        return f"{head}\n\n{rest}"
    return head + rest
