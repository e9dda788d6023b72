"""The items of a sweep in two parts: those of the search, and those of the confirmation, which no trial ever sees."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from crossmatch.checkpoint import value_digest
from crossmatch.data.suites import Item, Suite
from crossmatch.errors import RecipeError
from crossmatch.statistics.resampling import FEWEST

_UNIT = 16**12


@dataclass(frozen=True)
class Part:
    """Items by suite, in the order in which they are asked; name: `search` or `confirmation`."""

    name: str
    ids: Mapping[str, tuple[str, ...]]

    def first(self, share: float) -> "Part":
        """The first items of every suite: this share of them, at least as many as any test needs."""
        if share >= 1:
            return self
        counts = {name: max(FEWEST, math.ceil(share * len(ids))) for name, ids in self.ids.items()}
        return Part(self.name, {name: ids[: counts[name]] for name, ids in self.ids.items()})

    def of(self, suites: Collection[str]) -> "Part":
        """The items of these suites alone."""
        return Part(self.name, {name: ids if name in suites else () for name, ids in self.ids.items()})

    def joined(self, other: "Part") -> "Part":
        """What is in either, where of each suite one begins as the other does."""
        return Part(self.name, {name: max(ids, other.ids[name], key=len) for name, ids in self.ids.items()})

    def share_of(self, whole: "Part | None", suite: str) -> float:
        """Items of a suite over those of another part that holds these too; 1 without one."""
        return len(self.ids[suite]) / len(whole.ids[suite]) if whole is not None else 1.0

    @property
    def items(self) -> int:
        """Of all suites."""
        return sum(len(ids) for ids in self.ids.values())


@dataclass(frozen=True)
class Parts:
    """The two parts."""

    search: Part
    confirmation: Part


def place_of(item: Item) -> float:
    """Where an item stands between 0 and 1, by the digest of what it asks: the same question with the same options
    always in one place, whatever its id, its suite, its right answer and the items beside it."""
    content = [item.question, item.context, sorted(item.options)]
    return int(value_digest(content)[:12], 16) / _UNIT


def split(suites: Sequence[Suite], confirm: float) -> Parts:
    """Items below `confirm` are the confirmation's, the others the search's, in the order of their places.

    An item that is added later moves no other one. Items of one content are in one part.
    """
    search: dict[str, tuple[str, ...]] = {}
    later: dict[str, tuple[str, ...]] = {}
    for suite in suites:
        placed = sorted((place_of(item), item.id) for item in suite.items)
        search[suite.settings.name] = tuple(key for place, key in placed if place >= confirm)
        later[suite.settings.name] = tuple(key for place, key in placed if place < confirm)
    return Parts(Part("search", search), Part("confirmation", later))


def fewest(finalists: int) -> int:
    """Items without which no test of so many finalists together can come out: 2^(1 - n) <= 5% / finalists."""
    return math.ceil(1 + math.log2(finalists / 0.05))


def check_sizes(parts: Parts, suites: Sequence[str], finalists: int, confirm: float) -> None:
    """Raise RecipeError where one of the suites that decide has too few items in a part to show anything."""
    for part, needed in ((parts.confirmation, fewest(finalists)), (parts.search, FEWEST)):
        for name in suites:
            count, total = len(part.ids[name]), len(parts.search.ids[name]) + len(parts.confirmation.ids[name])
            if count >= needed:
                continue
            raise RecipeError(
                f"suite {name}: {count} of its {total} items are in the {part.name} part, which can show nothing: "
                f"{needed} are needed for {finalists} finalists; add items (a suite of about "
                f"{_wanted(part.name, needed, confirm)} would do), or change confirm from {confirm:g}"
            )


def _wanted(part: str, needed: int, confirm: float) -> int:
    return math.ceil(1.5 * needed / (confirm if part == "confirmation" else 1 - confirm))
