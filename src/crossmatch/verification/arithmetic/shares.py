"""What one adapter adds in a program of the grammar: factors as they are multiplied, and how far that may be off."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossmatch.delta import Delta, Dense, Dora, LowRank, Stack
from crossmatch.verification.arithmetic.dora_in_16_bits import RoundedDora
from crossmatch.verification.arithmetic.grammar import HALVES, TF32, Factor, Program, adds_columns, goes_through_16_bits

UNIT = 2.0**-24
# Operations on a product beside its r additions: two scalings of a factor, of the product, and a sum.
_FURTHER = 6
# Matrix units cut sums off where others round them.
_CUT = 4.0
# Of an SVD in single precision between the factors and their sum: 24 units of 2^-24 were seen, relative to what
# `absolute` gives for it; and relative to |B| |A|, as a rule, 2^-18.
_LONG = 2.0**-17
# Of the same relative to what `absolute` gives for it, where nothing is rounded to 16 bits: a 14th of 2^-17 was seen,
# over 102 shapes, ranks and spectra.
_TURNED = 2.0**-20
# Of a factor after two multiplications by numbers of single precision.
_NUMBER = 2.0**-22
# Deltas that are no product: relative to |D| and the mean size of its row, by what is stored.
_PLAIN = {torch.float32: 2.0**-20, torch.bfloat16: 2.0**-17, torch.float16: 2.0**-17}


@dataclass(frozen=True)
class Share:
    """One adapter's part of the sum in a program, before the delta is rounded.

    value: the exact product of what is multiplied; after: numbers that multiply it once it was rounded; magnitude:
    |B| |A| in the same units (None: |value|); spread: how far factors may lie off, since a weight is not known exactly;
    slack: of the magnitude; doubt: of |value|, for that weight; weight: the adapter's, for programs by models, which
    multiply it later: it is known to `off`.
    """

    value: Delta
    after: tuple[float, ...] = ()
    magnitude: Delta | None = None
    spread: Delta | None = None
    slack: float = 0.0
    doubt: float = 0.0
    weight: float = 1.0
    off: float = 0.0


def shares_of(
    program: Program, parts: Mapping[int, Delta], weights: Sequence[float], doubts: Sequence[float], stored: torch.dtype
) -> dict[int, Share]:
    """Every adapter's share of one tensor, by its number; parts: deltas at weight one."""
    # Combined factors are summed over all their columns at once, and the bound of a sum grows with its terms.
    terms = sum(_rank(delta) for delta in parts.values()) if adds_columns(program) else 0
    return {i: share(program.of(i), d, weights[i], doubts[i], stored=stored, terms=terms) for i, d in parts.items()}


def _rank(delta: Delta) -> int:
    """Columns of a delta's factors, of the expert that has most; 0 where it has none."""
    if isinstance(delta, Stack):
        return max(_rank(part) for part in delta.parts)
    return delta.rank if isinstance(delta, LowRank) else 0


def share(
    program: Program, delta: Delta, weight: float, doubt: float = 0.0, *, stored: torch.dtype, terms: int = 0
) -> Share:
    """One adapter's share; doubt: how far its weight may be off; terms: of the sum that it is part of, if more than its
    own."""
    relative = doubt / abs(weight) if weight else 0.0
    unit = program.by_models
    if isinstance(delta, Stack):
        each = [share(program, part, weight, doubt, stored=stored, terms=terms) for part in delta.parts]
        return replace(
            each[0],
            value=Stack(tuple(s.value for s in each)),  # type: ignore[arg-type]
            magnitude=Stack(tuple(s.magnitude for s in each)),  # type: ignore[arg-type]
            spread=_stacked(each),
            slack=max(s.slack for s in each),
        )
    half = program.factors
    if isinstance(delta, Dora) and isinstance(half, torch.dtype) and _as_a_whole(program, delta, weight):
        low, after = _factors(program, delta.low, 1.0)
        value = RoundedDora.of(delta, low, after, half, (low.rank + _FURTHER) * UNIT)
        return Share(value, spread=value.reach)
    if not isinstance(delta, LowRank):
        if isinstance(delta, Dense) and program.factors is not None:
            # The bias of an adapter that was cast as a whole.
            delta = replace(delta, tensor=_to(delta.tensor, program.factors))
        own = delta if unit else delta.scaled(weight)
        return Share(own, slack=_PLAIN[stored], doubt=0.0 if unit else relative, weight=weight, off=doubt)
    value, after = _factors(program, delta, 1.0 if unit else weight)
    slack = (max(terms, delta.rank) + _FURTHER) * UNIT
    if program.factors in TF32:
        slack *= _CUT
    if program.long and (stored in HALVES or goes_through_16_bits(program)):
        slack = max(slack, _LONG)
    spread = None
    if program.factors and program.place != "product":
        own = 1.0 if unit else weight
        spread = _spread(program, delta, value, own, max(0.0 if unit else doubt, _NUMBER * abs(own)))
    level = program.long and program.base in HALVES
    magnitude = absolute(value, level=level)
    if program.long and not level:
        # On a base in single precision the singular vectors' own error is all that is left open beside the sums.
        errs = absolute(value, level=True)
        spread = replace(errs, scale=errs.scale * _TURNED)
    return Share(value, after, magnitude, spread, slack, 0.0 if unit else relative, weight, doubt)


def _as_a_whole(program: Program, delta: Dora, weight: float) -> bool:
    """Whether DoRA is rounded at every step: where nothing but the layer's own weight and scaling act on it, and its
    norms are those of rows, which a block of rows knows."""
    return program.place == "product" and weight * delta.scale == 1.0 and not (delta.by_column or program.by_models)


def product(program: Program, delta: Delta, weight: float) -> Delta:
    """What is multiplied alone, without how far that may be off, at a weight."""
    if isinstance(delta, Stack):
        return Stack(tuple(product(program, part, weight) for part in delta.parts))  # type: ignore[arg-type]
    return _factors(program, delta, weight)[0] if isinstance(delta, LowRank) else delta.scaled(weight)


def _stacked(each: Sequence[Share]) -> Stack | None:
    """The spreads of experts as one, zero where an expert has none."""
    if all(s.spread is None for s in each):
        return None
    return Stack(tuple(s.spread or s.value.scaled(0.0) for s in each))  # type: ignore[arg-type]


def _factors(program: Program, delta: LowRank, weight: float) -> tuple[LowRank, tuple[float, ...]]:
    """The factors as a program multiplies them, and what is multiplied after the product was rounded."""
    f, scale = program.factors, delta.scale
    if program.place == "product":
        b, a = (delta.b, delta.a) if f is None else (_to(delta.b, f), _to(delta.a, f))
        alone = float(scale[0]) if len(scale) else 1.0
        even = bool((scale == alone).all())
        if program.chain == "weight":
            return replace(delta, b=b, a=a), (weight,)
        if program.chain in ("scaling", "both") and even:
            after = (alone * weight,) if program.chain == "scaling" else (alone, weight)
            return replace(delta, b=b, a=a, scale=torch.ones_like(scale)), after
        return replace(delta, b=b, a=a, scale=scale * weight), ()
    assert f is not None
    one = torch.ones_like(scale)
    if program.place == "roots":
        root = (scale * weight).abs().sqrt()
        b, a = _multiplied(delta.b, [root[None, :]], program), _multiplied(delta.a, [root[:, None]], program)
        return replace(delta, b=b, a=a, scale=one * (scale * weight).sign()), ()
    even = torch.full_like(scale, weight)
    if program.place == "a":
        a = _multiplied(delta.a, [even[:, None], scale[:, None]], program)
        return replace(delta, b=_to(delta.b, f), a=a, scale=one), ()
    b = _multiplied(delta.b, [even[None, :], scale[None, :]], program)
    return replace(delta, b=b, a=_to(delta.a, f), scale=one), ()


def _multiplied(factor: Tensor, by: Sequence[Tensor], program: Program) -> Tensor:
    """A factor times some numbers, as the program has it."""
    f = program.factors
    assert f is not None
    value = factor.float() if program.multiplied == "wide" else _to(factor, f).float()
    if program.multiplied != "twice":
        by = [math.prod(by[1:], start=by[0])]
    for number in by:
        value = _to(value * number.float(), f).float()
    return _to(value, f)


def _to(value: Tensor, f: Factor) -> Tensor:
    """A tensor rounded to what factors are kept or read in."""
    if isinstance(f, torch.dtype):
        return value.to(f)
    bits = value.float().view(torch.int32)
    # The magnitude's lowest 13 bits go; half of their unit is added first where it is rounded to the nearest.
    return ((bits + (0x1000 if f == "tf32" else 0)) & ~0x1FFF).view(torch.float32)


def _spread(program: Program, delta: LowRank, value: LowRank, weight: float, doubt: float) -> LowRank | None:
    """By how much the product may be off since its rounded factors depend on a weight that is known to `doubt`, or
    since two multiplications in single precision end on either side of a boundary; None if no factor does."""
    ends = [_factors(program, delta, weight + sign * doubt)[0] for sign in (-1, 1)]
    off_a = torch.stack([(e.a.double() - value.a.double()).abs() for e in ends]).amax(0)
    off_b = torch.stack([(e.b.double() - value.b.double()).abs() for e in ends]).amax(0)
    if not bool(off_a.any()) and not bool(off_b.any()):
        return None
    b, a = value.b.double().abs(), value.a.double().abs()
    scale = torch.ones(2 * value.rank, dtype=torch.float64)
    return LowRank(torch.cat([off_b, b + off_b], 1), torch.cat([a, off_a], 0), scale, value.dims)


def absolute(delta: LowRank, *, level: bool = False) -> LowRank:
    """|B| |A|: the sum of the absolute products, which does not vanish where they cancel.

    level: of the matrix that an SVD makes of them: its singular vectors err by the same everywhere, so that a row or
    column errs as its largest one does, however small it is itself.
    """
    b, a = delta.b.abs(), delta.a.abs()
    if level:
        b, a = b + b.amax(0, keepdim=True), a + a.amax(1, keepdim=True)
    return LowRank(b, a, delta.scale.abs(), delta.dims)
