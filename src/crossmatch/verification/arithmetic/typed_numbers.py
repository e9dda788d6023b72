"""Numbers that people type or divide by, near one that is known with an error."""

from collections.abc import Sequence
from fractions import Fraction

# Denominators that people divide by, and digits that they type.
_DENOMINATOR, _DIGITS = 12, 4
# Standard errors within which a weight lies.
DOUBT = 4.5


def typed(known: tuple[float, ...], errors: Sequence[float]) -> list[tuple[float, ...]]:
    """Decimals of few digits and fractions that the recovered weights allow."""
    pairs = list(zip(known, errors, strict=True))
    options = [
        tuple(_decimal(w, e) for w, e in pairs),
        tuple(_fraction(w, e) for w, e in pairs),
        tuple(_decimal(w, e, 3) for w, e in pairs),
        *(tuple(_decimal(w, e, least=digits) for w, e in pairs) for digits in (3, 4)),
    ]
    return [weights for weights in dict.fromkeys(options) if None not in weights]  # type: ignore[misc]


def _decimal(value: float, stderr: float, sigmas: float = DOUBT, digits: int = _DIGITS, least: int = 1) -> float | None:
    """The decimal of fewest digits, at least so many, within some standard errors; none of more than four."""
    within = (r for d in range(least, digits + 1) if abs((r := round(value, d)) - value) <= sigmas * stderr)
    return next(within, None)


def _fraction(value: float, stderr: float) -> float | None:
    """The fraction of the smallest denominator within some standard errors."""
    for denominator in range(1, _DENOMINATOR + 1):
        near = Fraction(round(value * denominator), denominator)
        if abs(float(near) - value) <= DOUBT * stderr:
            return float(near)
    return None


def shortest(value: float, stderr: float) -> float:
    """The decimal with the fewest digits within three standard errors; the value itself if there is none of six."""
    found = _decimal(value, stderr, 3, 6)
    return value if found is None else found
