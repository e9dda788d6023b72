"""Honest merges, made with torch's own operations in the dtypes that a program names: nothing of the prover is used.

What tools do, as one program: the base is loaded in some dtype, the factors are kept in one, weight and scaling are
multiplied somewhere, the product is formed in single precision or in the factors' dtype, and what it gives is added to
the base at once, one after the other, or by way of a model each.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
DTYPES = (F32, BF16, F16)


@dataclass(frozen=True)
class Factors:
    """One adapter on one matrix: delta = scale * b @ a at weight one; a (rank, columns), b (rows, rank)."""

    a: Tensor
    b: Tensor
    scale: float = 1.0


@dataclass(frozen=True)
class HonestProgram:
    """How a tool merges.

    base, factors, stored: dtypes; place: where weight and scaling are multiplied (`product`, `a`, `b`, `roots`); native:
    the product is formed in the factors' dtype; delta: the dtype that it is cast to; steps: weight and scaling are two
    multiplications; order: `sum`, `cat`, `after`, `before` (the other way round), `stored between` (after the other, each
    merge stored before the next), `other end` (the last one in the dtype `then`, its delta rounded to that if
    `then_safe`), `cat, then` (the last one merged after the others were combined), `models` (their differences from the base), `models wide` (in single precision), `mean`
    (of the models and what the base lacks to a sum of one), or `mean wide`; detour: the result passes
    through the other 16-bit dtype on its way to the stored one; tf32: single precision as a matrix unit reads it, to the
    `nearest` or `cut` off.
    """

    base: torch.dtype = F32
    factors: torch.dtype = F32
    place: str = "product"
    native: bool = False
    delta: torch.dtype | None = None
    steps: bool = False
    order: str = "sum"
    stored: torch.dtype = F32
    detour: bool = False
    tf32: str = ""
    then: torch.dtype = F32
    then_safe: bool = False

    def __str__(self) -> str:
        short = {F32: "fp32", BF16: "bf16", F16: "fp16", None: "-"}
        flags = "".join(x for x, on in ((" native", self.native), (" two steps", self.steps)) if on)
        names = f"{short[self.base]}/{short[self.factors]}/{short[self.delta]}/{short[self.stored]}"
        then = f" {short[self.then]}{' safe' * self.then_safe}" if self.order == "other end" else ""
        return f"{names} {self.place} {self.order}{then}{flags}"

    @property
    def kind(self) -> str:
        """What it is called in tables: by what is coarsest in it."""
        if self.detour:
            return "converted once more"
        if self.tf32:
            return "TF32"
        if self.order in ("after", "before", "stored between", "other end"):
            return "one after the other"
        if self.order.startswith("models"):
            return "a model each"
        if self.order.startswith("mean"):
            return "mean of models"
        if self.order == "cat, then":
            return "combined, then one more"
        if self.factors != F32:
            return f"factors in 16 bits, {'combined' if self.order == 'cat' else 'summed'}"
        if self.delta not in (None, F32):
            return "delta rounded"
        return "once" if self.base in (F32, self.stored) else "base cast"

    def merge(self, base: Tensor, adapters: Sequence[Factors], weights: Sequence[float]) -> Tensor:
        """One matrix; (rows, columns), as it is stored."""
        if self.detour:
            wide = replace(self, detour=False, base=F32, stored=F32).merge(base, adapters, weights)
            return wide.to(F16 if self.stored == BF16 else BF16).to(self.stored)
        w = base.to(self.base)
        if self.order == "models":
            mixed = torch.zeros_like(w)
            for adapter, weight in zip(adapters, weights, strict=True):
                mixed = mixed + ((w + self._delta(adapter, 1.0)).to(self.base) - w) * weight
            return (w + mixed).to(self.stored)
        if self.order.startswith(("mean", "models")):
            models = [(w + self._delta(adapter, 1.0)).to(self.base) for adapter in adapters]
            if self.order == "models wide":
                pairs = zip(models, weights, strict=True)
                return (w.float() + sum(x * (m.float() - w.float()) for m, x in pairs)).to(self.stored)
            return self.mean(w, models, weights).to(self.stored)
        if self.order == "cat, then":
            combined = replace(self, factors=self.base, delta=self.base, place="a", order="cat", stored=self.base)
            first = combined.merge(base, adapters[:-1], weights[:-1])
            return replace(self, order="sum").merge(first, adapters[-1:], weights[-1:])
        if self.order == "cat":
            placed = list(map(self._placed, adapters, weights))
            a, b = torch.cat([a for a, _ in placed], 0), torch.cat([b for _, b in placed], 1)
            return (w + self._cast(b @ a if self.native else self._product(b, a))).to(self.base).to(self.stored)
        deltas = [self._delta(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True)]
        if self.order == "sum":
            total = sum(d.float() for d in deltas)
            return (w + total).to(self.base).to(self.stored)
        if self.order == "stored between":
            for delta in deltas:
                w = (w + delta).to(self.stored).to(self.base)
            return w.to(self.stored)
        if self.order == "other end":
            for delta in deltas[:-1]:
                w = (w + delta).to(self.base)
            own = replace(self, delta=self.then if self.then_safe else None)
            last = own._delta(adapters[-1], weights[-1])
            return (w.to(self.then) + last).to(self.then).to(self.stored)
        for delta in deltas if self.order == "after" else deltas[::-1]:
            w = (w + delta).to(self.base)
        return w.to(self.stored)

    def mean(self, base: Tensor, models: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Models and base, weighted to a sum of one, as tools that know no base take the mean of all."""
        dtype = F32 if self.order == "mean wide" else self.base
        stack = torch.stack([*models, base]).to(dtype)
        scales = torch.tensor([*weights, 1 - sum(weights)], dtype=dtype).reshape(-1, *[1] * base.ndim)
        return (scales * stack).sum(0) / scales.sum(0)

    def _product(self, b: Tensor, a: Tensor) -> Tensor:
        """B A in single precision."""
        b, a = b.float(), a.float()
        if self.tf32:
            scale = [2.0 ** (torch.frexp(x).exponent - 11) for x in (b, a)]
            half = 0.0 if self.tf32 == "cut" else 0.5
            b, a = (((x.abs() / u + half).floor() * u).copysign(x) for x, u in zip((b, a), scale, strict=True))
        return b @ a

    def _placed(self, adapter: Factors, weight: float) -> tuple[Tensor, Tensor]:
        a, b = adapter.a.to(self.factors), adapter.b.to(self.factors)
        by = [weight, adapter.scale] if self.steps else [weight * adapter.scale]
        for number in by:
            if self.place == "a":
                a = a * number
            elif self.place == "b":
                b = b * number
            elif self.place == "roots":
                root = abs(number) ** 0.5
                a, b = a * root, b * (root if number > 0 else -root)
        return a, b

    def _delta(self, adapter: Factors, weight: float) -> Tensor:
        if self.place != "product":
            a, b = self._placed(adapter, weight)
            return self._cast(b @ a if self.native else self._product(b, a))
        a, b = adapter.a.to(self.factors), adapter.b.to(self.factors)
        if not self.native:
            return self._cast(self._product(b, a) * (adapter.scale * weight))
        value = b @ a
        for number in [adapter.scale, weight] if self.steps else [adapter.scale * weight]:
            value = value * number
        return value

    def _cast(self, value: Tensor) -> Tensor:
        return value if self.delta is None else value.to(self.delta)


def draw(rng: random.Random, adapters: int) -> HonestProgram:
    """A program as some tool has it; half of them one that many tools have."""
    base = rng.choice(DTYPES)
    stored = base if rng.random() < 0.7 else rng.choice(DTYPES)
    plain = HonestProgram(base=base, stored=stored)
    # Drawn aside, so that what other numbers draw stays as it was.
    aside = random.Random(str(rng.getstate()[1][:3]))
    if adapters > 1 and aside.random() < 0.1:
        then = aside.choice([dtype for dtype in DTYPES if dtype != base])
        safe = (None, base) if base != F32 else (None,)
        other = replace(plain, order="other end", then=then, delta=aside.choice(safe), then_safe=aside.random() < 0.3)
        return replace(other, stored=then if aside.random() < 0.7 else stored)
    common = [
        plain,
        replace(plain, delta=base),
        replace(plain, factors=base, delta=base, place="a", order="cat"),
        replace(plain, factors=base, delta=base),
        replace(plain, order="after"),
        replace(plain, order=rng.choice(("mean", "mean wide", "models wide"))),
    ]
    common += [replace(plain, order="cat, then")] if adapters == 3 else []
    common += [replace(plain, order="stored between")] if adapters > 1 and base == F32 else []
    if rng.random() < 0.5:
        return rng.choice(common)
    factors = rng.choice((F32, F32, base, rng.choice(DTYPES)))
    place = rng.choice(("product", "a", "b", "roots")) if factors != F32 else "product"
    # A product of two 16-bit matrices comes out in 16 bits, or is formed in single precision.
    native = factors != F32 and rng.random() < 0.5
    delta = factors if native else rng.choice((None, base, factors))
    orders = ["sum", "after", "before"] if adapters > 1 else ["sum"]
    orders += ["cat"] if place in ("a", "b", "roots") else []
    orders += ["models"] if base != F32 and not native and place == "product" else []
    steps = rng.random() < 0.5 and place in ("product", "a", "b")
    drawn = HonestProgram(base, factors, place, native, delta, steps, rng.choice(orders), stored)
    if factors == F32 and delta in (None, F32) and rng.random() < 0.3:
        return replace(plain, tf32=rng.choice(("nearest", "cut")))
    detour = stored != F32 and rng.random() < 0.1
    return HonestProgram(stored=stored, detour=True) if detour else drawn
