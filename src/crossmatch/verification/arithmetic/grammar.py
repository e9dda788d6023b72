"""The grammar of honest merges: every way in which the tools of this field round, as a program to be run again.

    W_c  = c(W)                                the base cast to c
    S_i  = w_i s_i f(B_i) f(A_i)               factors cast to f; weight and scaling on the product, or, rounded too,
                                               on A, on B, or as roots on both
    S_i  = p(S_i)                              the delta rounded to p, before or after scaling and weight
    M    = s(c(W_c + sum_i S_i))               added at once, or one adapter after the other with a rounding between
    M    = s(sum_i w_i c(W_c + S_i))           or the mean of models of their own

c, f, p: single precision or better (None here), bfloat16 or float16, f TF32 as well; s is what is stored. A file that
was converted once more passes through a dtype before s. The operations are known, the order of the additions inside a
product is not. So a program is run twice, at the ends of the interval in which the product must lie whatever that
order; every operation is monotone, so an honest element lies between the two results: nearly always they are one value.
No share of elements is left to chance.

    |computed - exact| <= (r + 6) 2^-24 (|B| |A|)      for a product of rank r in single precision (Higham, 2002, 3.1)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

# A matrix unit reads single precision with 10 bits behind the point, to the nearest or cut off.
Factor = torch.dtype | Literal["tf32", "tf32-cut"]
TF32: tuple[Factor, ...] = ("tf32", "tf32-cut")
Place = Literal["product", "a", "b", "roots"]
Multiplied = Literal["wide", "once", "twice"]
Chain = Literal["whole", "weight", "scaling", "both"]
Step = int | tuple[int, ...]
Order = (
    Literal["sum", "cat", "each", "models", "models-scalar", "models-summed", "models-wide"]
    | Literal["mean", "mean-wide", "stochastic"]
    | tuple[Step, ...]
)
HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class LastMerge:
    """How the last of several merges is made, where it is another tool's than those before: c, to which their result is
    cast (None: it is added in single precision), f and p."""

    base: torch.dtype | None = None
    factors: Factor | None = None
    delta: torch.dtype | None = None

    def in_words(self) -> str:
        """What it does otherwise, behind a list of merges."""
        text = f", the last in {_name(self.base) if self.base else 'single precision'}"
        text += f" with factors rounded to {_name(self.factors)}" if self.factors else ""
        return text + (f" and its delta rounded to {_name(self.delta)}" if self.delta else "")


@dataclass(frozen=True)
class OwnModel:
    """How the models of a merge by models are made, where they are stored in another dtype than the base: it is added
    to the base as that is stored, or (`cast`) to the base in the model's dtype."""

    dtype: torch.dtype
    cast: bool = False

    def in_words(self) -> str:
        """Behind `a model of its own`."""
        return f" in {_name(self.dtype)}{', of the base cast to it' if self.cast else ''}"


@dataclass(frozen=True)
class Program:
    """One honest way to compute a merge.

    base: c; factors: f; place: where weight and scaling are multiplied; multiplied: a factor by both in single
    precision before it is rounded (`wide`), or rounded first and then by both at `once`, or one after the other
    (`twice`); delta: p; chain: what is multiplied after the product was rounded; order: how shares are added (`sum`:
    each by itself, in single precision; `cat`: as one product; `each`: in p; a tuple: one merge after the other, each
    rounded to c or, where the base is not cast, to s, of one adapter or of some that were combined before, to which f,
    place and p are then confined; `models`: every adapter into a model of its own, the differences weighted, by numbers
    of c or (`scalar`) by wider ones, and summed; `mean`: the models themselves weighted and summed, the base with what
    is missing to a sum of one; `wide`: in single precision); terms: in which order a mean is summed, the base with
    number -1 (default: as they are claimed, the base last); model: how each model is made; last: the last merge of a
    tuple, where it is made in another way; between: the dtype in which the file lies between two merges, where it is
    that of neither; long: an SVD lies between the factors and their sum; via: a dtype through which the sum passes
    before it is stored.
    """

    base: torch.dtype | None = None
    factors: Factor | None = None
    place: Place = "product"
    multiplied: Multiplied = "wide"
    delta: torch.dtype | None = None
    chain: Chain = "whole"
    order: Order = "sum"
    long: bool = False
    via: torch.dtype | None = None
    last: LastMerge | None = None
    between: torch.dtype | None = None
    terms: tuple[int, ...] = ()
    model: OwnModel | None = None

    @property
    def by_models(self) -> bool:
        """Whether every adapter becomes a model of its own first."""
        return isinstance(self.order, str) and self.order.startswith(("models", "mean"))

    @property
    def is_mean(self) -> bool:
        """Whether the models themselves are summed, and not their differences from the base."""
        return isinstance(self.order, str) and self.order.startswith("mean")

    @property
    def is_wide(self) -> bool:
        """Whether models are summed in single precision."""
        return self.order in ("models-wide", "mean-wide")

    @property
    def is_grouped(self) -> bool:
        """Whether some adapters were combined, and others merged before or after."""
        return isinstance(self.order, tuple) and any(isinstance(step, tuple) for step in self.order)

    def last_of(self, adapter: int) -> LastMerge | None:
        """The last merge, where it is of that adapter and made in another way."""
        return self.last if isinstance(self.order, tuple) and self.order[-1] == adapter else None

    @property
    def rounds_weight(self) -> bool:
        """Whether a weight is multiplied into a factor that is then rounded: others may give the same factors."""
        return self.factors is not None and self.place != "product"

    @property
    def final(self) -> torch.dtype | None:
        """The dtype in which the last sum lies before it is stored; None for single precision."""
        return self.last.base if self.last else self.base

    def of(self, adapter: int) -> "Program":
        """What is done with one adapter's factors: nothing, if others alone were combined."""
        if own := self.last_of(adapter):
            return Program(own.base, own.factors, delta=own.delta, long=self.long)
        alone = self.is_grouped and isinstance(self.order, tuple) and adapter in self.order
        return replace(self, factors=None, place="product", multiplied="wide") if alone else self

    @property
    def once(self) -> bool:
        """Whether the sum is rounded once, from the base as it is stored."""
        return self in (Program(), Program(long=True))

    def grains(self, stored: torch.dtype) -> list[torch.dtype]:
        """The dtypes in which the sum lies on its way to what is stored, the coarsest first; near zero float16 is the
        coarser of two that have 16 bits."""
        ways = {stored, self.base, self.via, self.final, self.between, self.model.dtype if self.model else None}
        return [dtype for dtype in (*HALVES, torch.float32) if dtype in ways]

    def describe(self, names: Sequence[str], stored: torch.dtype, *, tool: bool = True) -> str:
        """In words: what was rounded to what, in the order in which it happens; tool: with the one that does so."""
        if self.once:
            way = " after an SVD in single precision" if self.long else ""
            return f"summed in float32 or better, rounded once to {_name(stored)}{way}"
        if self.order == "stochastic":
            return f"rounded up or down at random to {_name(stored)}"
        common = _COMMON.get((self.factors, self.place, self.delta, self.order)) if self.base and tool else None
        parts = [f"base in {_name(self.base)}"] if self.base else []
        if self.factors:
            on = {"a": ", weight on A", "b": ", weight on B", "roots": ", weight on both"}.get(self.place, "")
            parts.append(f"factors rounded to {_name(self.factors)}{on}")
        if self.delta:
            parts.append(f"delta rounded to {_name(self.delta)}")
        if isinstance(self.order, tuple):
            parts.append(
                f"one merge after the other ({_steps(self.order, names)}){self.last.in_words() if self.last else ''}"
                + (f", the file between them in {_name(self.between)}" if self.between else "")
            )
        elif self.is_mean:
            parts.append(f"each adapter merged into a model of its own{_own(self.model)}, the mean of the models")
        elif self.by_models:
            parts.append(f"each adapter merged into a model of its own{_own(self.model)}, the differences summed")
        if self.via:
            parts.append(f"the sum stored in {_name(self.via)}, then in {_name(stored)}")
        text = ", ".join(parts) + (", after an SVD in single precision" if self.long else "")
        return f"{common}: {text}" if common else text

    def identifier(self, names: Sequence[str]) -> str:
        """A short name for `rounding.replay.route`."""
        if self.once:
            return "once"
        if isinstance(self.order, str) and self.order in ("stochastic", *MODELS, *MEANS):
            return self.order
        order = f" {_steps(self.order, names)}".replace(", ", ",") if isinstance(self.order, tuple) else ""
        kinds = {"converted": self.via, "sequential": order, "combined": self.factors, "delta-rounded": self.delta}
        first = next((name for name, is_so in kinds.items() if is_so), "base-cast")
        end = "" if self.last is None else "-other-end" if self.last.base else "-wide-end"
        rounded = f"{'-rounded' if order and self.delta else ''}{end}"
        factors = f"-factors-{self.place}" if self.factors else ""
        return f"{first}{rounded}{factors}{order}"


def goes_through_16_bits(program: Program) -> bool:
    """Whether something lies in 16 bits on the way to what is stored."""
    model = program.model.dtype if program.model else None
    return not {program.base, program.between, model}.isdisjoint(HALVES)


def adds_columns(program: Program) -> bool:
    """Whether columns of several adapters' factors may be added up as one product."""
    return program.order in ("sum", "cat") or program.is_grouped


def base_of(program: Program) -> torch.dtype | None:
    """The 16 bits in which the base was read, or what was made of it was stored."""
    if program.model:
        return program.model.dtype if program.model.cast else None
    return program.base if program.base in HALVES else program.via


MODELS = ("models", "models-scalar", "models-summed", "models-wide")
MEANS: tuple[Literal["mean", "mean-wide"], ...] = ("mean", "mean-wide")
_COMMON = {}
for _half in HALVES:
    _short = str(_half).removeprefix("torch.")
    _COMMON[None, "product", None, "sum"] = "PEFT merge"
    _COMMON[None, "product", _half, "sum"] = "PEFT safe_merge"
    _COMMON[_half, "a", _half, "cat"] = f"PEFT, combined in {_short}"
    _COMMON[_half, "product", _half, "sum"] = f"PEFT, adapters in {_short}"


def _own(model: OwnModel | None) -> str:
    return model.in_words() if model else ""


def _name(dtype: Factor | None) -> str:
    named = {"tf32": "TF32", "tf32-cut": "TF32 (cut off)"}
    return named.get(str(dtype), str(dtype).removeprefix("torch."))


def _steps(order: Sequence[Step], names: Sequence[str]) -> str:
    each = ((step,) if isinstance(step, int) else step for step in order)
    return ", ".join("+".join(names[i] for i in step) for step in each)
