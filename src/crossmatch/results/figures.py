"""Figures as JSON: estimates, differences and correlations, with their intervals."""

from typing_extensions import TypedDict


class BoundsJson(TypedDict):
    """A value with its 95% interval; null where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


class FigureJson(BoundsJson):
    """A value with its 95% interval, over n items."""

    n: int
    """Items that carry information."""


class DifferenceJson(TypedDict):
    """A paired difference over the same items, with its 95% interval and a two-sided test."""

    value: float
    low: float
    high: float
    n: int
    """Items that carry information."""
    p: float
    """Two-sided p-value of this difference alone."""
    test: str
    """How p was made: `mcnemar-exact` or `randomisation`."""
    gained: int | None
    """Items that only the first variant has right (shares only)."""
    lost: int | None
    """Items that only the second variant has right (shares only)."""
    mde: float | None
    """Smallest difference detectable with 80% power by a test of 5% on as many items like these."""
    p_holm: float | None
    """p, adjusted by Holm's procedure for the other differences of its family."""


class EstimateJson(TypedDict):
    """A ratio of sums over tokens with its standard error, texts as clusters; null where it is not defined."""

    value: float | None
    stderr: float | None


class NullFigureJson(TypedDict):
    """A measured value beside what a random delta of the same spectrum gives."""

    value: float | None
    null: float | None
    """Mean under the random delta."""
    null_sd: float | None
    """Standard deviation of one random draw."""
    lift: float | None
    """value / null."""
    z: float | None
    """(value - null) / null_sd."""
