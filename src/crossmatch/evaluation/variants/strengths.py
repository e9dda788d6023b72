"""A vector at many strengths, and less its nulls: what is asked to see whether it is critical."""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from crossmatch.errors import InputError, RuleError
from crossmatch.evaluation.variants.random_controls import Null
from crossmatch.evaluation.variants.variants import Variant, distinct, merge_name, standard_variants
from crossmatch.rules import Weight

# base + g v of g = 0 is the base, of g = 1 the tuned model: both are measured anyway.
MOST = 64
_RANGE = re.compile(r"(-?[\d.]+):(-?[\d.]+):([\d.]+)")


def parse_strengths(value: str | float | Sequence[float]) -> tuple[float, ...]:
    """Strengths from `-0.5:1.5:0.25` (first:last:step, both ends included), from `0.5,1,1.5`, or from numbers.

    Ascending, each once. Raises InputError for what is none of these, not finite, or more than 64.
    """
    try:
        if isinstance(value, str) and (match := _RANGE.fullmatch(value.strip())):
            # Decimals: a third tenth is 0.3, and the last strength is reached.
            first, last, step = (Decimal(text) for text in match.groups())
            count = int((last - first) / step) + 1 if step > 0 else 0
            found = [float(first + number * step) for number in range(min(count, MOST + 1))]
        elif isinstance(value, str):
            found = [float(text) for text in value.split(",")]
        else:
            found = [float(value)] if isinstance(value, int | float) else [float(number) for number in value]
    except (ValueError, ArithmeticError, TypeError):
        found = []
    if not found or not all(map(math.isfinite, found)) or len(found) > MOST:
        raise InputError(f"strengths {value}: give first:last:step or numbers, as in -0.5:1.5:0.25; at most {MOST}")
    return tuple(sorted({number + 0.0 for number in found}))


def strength_variants(strengths: Mapping[str, Sequence[float]]) -> list[Variant]:
    """base + g v for every strength g of every vector; 0 and 1 are the base and the adapter themselves."""
    return [
        Variant(merge_name({name: strength}), "strength", {name: strength})
        for name, wanted in strengths.items()
        for strength in wanted
        if strength not in (0.0, 1.0)
    ]


def removal_variants(names: Sequence[str], seeds: int) -> list[Variant]:
    """base + v - R of every vector v, for `seeds` nulls R of either kind: of equal norm, and shuffled by layer."""
    return [
        Variant(f"{name}-{kind}{seed}", "removal", {name: 1.0}, (Null(name, kind, seed, -1.0),))
        for name in names
        for kind in ("norm", "shuffled")
        for seed in range(seeds)
    ]


def all_variants(
    adapters: Mapping[str, object],
    merges: Sequence[Mapping[str, Weight]],
    reference: str | None,
    *,
    strengths: Mapping[str, Sequence[float]],
    nulls: int = 0,
    more: Sequence[Variant] = (),
) -> list[Variant]:
    """The standard variants, those of strengths and removals, and more; each model once.

    Raises RuleError for an unknown reference or adapter, and for two variants of one name.
    """
    unknown = next((name for name in strengths if name not in adapters), None)
    if unknown is not None:
        raise RuleError(f"strengths of {unknown!r}, which is none of the adapters {', '.join(adapters)}")
    found = [*standard_variants(adapters, merges, reference, nulls=nulls), *more]
    return distinct([*found, *strength_variants(strengths), *removal_variants(list(strengths), nulls)])
