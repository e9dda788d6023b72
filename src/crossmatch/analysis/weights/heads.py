"""How a change of attention spreads over heads: by key-value head, with the query heads that read it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crossmatch.analysis.weights.delta_matrix import Change, Place
from crossmatch.delta import Rows
from crossmatch.errors import RuleError
from crossmatch.results.analysis import HeadGroupJson
from crossmatch.rules import Heads
from crossmatch.rules.heads import head_axis


@dataclass(frozen=True)
class HeadGroup:
    """The part of one attention matrix that belongs to one key-value head and the query heads that read it.

    For q, k, v rows of D, for o columns. energy: its share of ||D||_F^2; null: 1 / groups; share: its norm over that of
    the same part of W.
    """

    place: Place
    group: int
    heads: int
    energy: float | None
    null: float
    frobenius: float
    share: float | None

    def to_dict(self) -> HeadGroupJson:
        """As plain JSON."""
        return {
            **self.place.to_dict(),
            "group": self.group,
            "query_heads": self.heads,
            "energy": self.energy,
            "null": self.null,
            "frobenius": self.frobenius,
            "share": self.share,
        }


def head_groups(
    change: Change, config: Mapping[str, Any], bases: dict[int, Tensor] | None
) -> list[HeadGroup] | str | None:
    """Energy of an attention matrix by key-value head; None if it is none, or in words why it cannot be cut.

    Heads as the base's config has them. bases: energies of the rows (0) and
    columns (1) of W, filled here and good for every change of one W; None: W is not read.
    """
    if change.place.part != "attn" or change.single or not change.tensor.endswith(".weight"):
        return None
    try:
        side = head_axis(change.tensor)
    except RuleError as error:
        return str(error)
    if side is None:
        return f"a module called {change.place.module} has no heads that are known by its name"
    heads = Heads.of(config, change.place.tower)
    if heads is None:
        whose = f" of its {change.place.tower} tower" if change.place.tower else ""
        return f"the config does not give the heads{whose} (num_attention_heads, num_key_value_heads)"
    count, each = heads.groups, heads.queries // heads.groups
    width, odd = divmod(change.place.shape[side], count)
    if odd:
        return f"{change.place.shape[side]} rows are not {count} groups of heads"
    energies = _slice_energies(change, side, width)
    total = sum(energies)
    if bases is not None and side not in bases:
        bases[side] = _energy_by(change.base, side)
    below = bases[side].reshape(-1, width).sum(1).tolist() if bases is not None else [0.0] * count
    return [
        HeadGroup(
            place=change.place,
            group=g,
            heads=each,
            energy=energies[g] / total if total > 0 else None,
            null=1 / count,
            frobenius=math.sqrt(energies[g]),
            share=math.sqrt(energies[g] / below[g]) if below[g] > 0 else None,
        )
        for g in range(count)
    ]


def _slice_energies(change: Change, side: int, width: int) -> list[float]:
    """||D||_F^2 of slices of `width` rows (side 0) or columns (side 1)."""
    if change.factors is not None:
        left, right = change.factors.b.double() * change.factors.scale, change.factors.a.double()
        own, other = (left, right @ right.T) if side == 0 else (right.T, left.T @ left)
        each = ((own @ other) * own).sum(1).clamp_min(0)
    else:
        each = _energy_by(change.rows, side)
    return each.reshape(-1, width).sum(1).tolist()


def _energy_by(rows: Rows, side: int) -> Tensor:
    """Energy of every row (side 0) or column (side 1), float64."""
    # Squares of single numbers in single precision are right to seven digits; only their sums are long.
    parts = [block.square().sum(1 - side, dtype=torch.float64) for _, block in rows.blocks()]
    return torch.cat(parts) if side == 0 else torch.stack(parts).sum(0)
