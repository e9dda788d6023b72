"""audit.json: held-out items in training data."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.answers import AnswerJson


class TrainSetJson(TypedDict):
    """A training set."""

    documents: int
    source: NotRequired[str]
    digest: NotRequired[str | None]


class HeldOutSetJson(TypedDict):
    """A held-out set and its items."""

    n: int
    found: int
    share: float | None
    contaminated: dict[str, list[str]]
    """Item -> where it was found, as `train:level:scope`."""
    clean: list[str]
    """Ids of the clean items."""
    source: NotRequired[str]
    digest: NotRequired[str | None]


class FoundExampleJson(TypedDict):
    """An item that was found, and the document it was found in."""

    id: str
    train_id: str
    value: float | None
    """Share of its n-grams, Jaccard index, or null."""


class LevelJson(TypedDict):
    """One level and scope."""

    level: str
    scope: str
    n: int
    """Judged items."""
    too_short: int
    found: int
    any_hit: int | None
    examples: list[FoundExampleJson]
    share: float | None


class SetPairJson(TypedDict):
    """A training set, and the set that was looked for in it."""

    train: str
    against: str
    held_out: bool
    documents: int
    found: int
    cut: int
    overlaps: list[LevelJson]


class GateResultJson(TypedDict):
    """--fail-above: the limit, and the sets above it."""

    fail_above: float
    failed: list[str]


class AuditJson(TypedDict):
    """What training data and held-out sets share; counts are of all items, not of a sample."""

    schema_version: Literal[1]
    signature: str
    """How items are found."""
    train: dict[str, TrainSetJson]
    held_out: dict[str, HeldOutSetJson]
    pairs: list[SetPairJson]
    notes: NotRequired[list[str]]
    """Fields and texts that were not looked at, by set."""
    gate: NotRequired[GateResultJson | None]
    answers: NotRequired[list[AnswerJson]]
