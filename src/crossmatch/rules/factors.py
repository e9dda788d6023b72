"""What the rules on factors share: small spectra, and the space in which several low-rank deltas are small."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.delta import Delta, LowRank
from crossmatch.errors import RuleError
from crossmatch.rules.context import Site

# Singular values this small beside the largest are rounding of zeros, in float64.
NULL = 1e-13


def low_ranks(deltas: Sequence[Delta], site: Site) -> list[LowRank]:
    """The deltas as factors. Raises RuleError at the first that is none."""
    found = []
    for delta, name in zip(deltas, site.names, strict=True):
        if not isinstance(delta, LowRank):
            raise RuleError(
                f"{site.tensor}: {name} changes it by a {type(delta).__name__}, and this rule works on low-rank "
                "factors; use linear there"
            )
        found.append(delta)
    return found


def plain(b: Tensor, a: Tensor, like: LowRank) -> LowRank:
    """B A of the tensor's shape of `like`."""
    return LowRank(b, a, torch.ones(a.shape[0], dtype=torch.float64), like.dims)


def compact(x: Tensor, size: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """U, s, V^T without the directions that are null; size: the norm of what was added up to x, if that is more."""
    u, sigma, vh = torch.linalg.svd(x, full_matrices=False)
    rank = int((sigma > NULL * sigma[:1].clamp_min(size)).sum())
    return u[:, :rank], sigma[:rank], vh[:rank]


def compact_delta(x: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """U (d_out, k), s (k,), V^T (k, d_in) of a low-rank delta, k its numerical rank."""
    core = core_space([x])
    u, sigma, vh = compact(core.small[0])
    return core.left @ u, sigma, vh @ core.right


@dataclass(frozen=True)
class CoreSpace:
    """Deltas in common coordinates, without loss: D_i = U M_i V^T (Panariello et al., 2509.17786).

    left: U (d_out, k), orthonormal columns that span those of all D_i; right: V^T (l, d_in), orthonormal rows;
    small: the M_i, (k, l), with k and l at most the sum of the ranks.
    """

    left: Tensor
    right: Tensor
    small: tuple[Tensor, ...]
    like: LowRank

    def delta(self, merged: Tensor) -> LowRank:
        """U M V^T."""
        return plain(self.left @ merged, self.right, self.like)


def core_space(deltas: Sequence[LowRank]) -> CoreSpace:
    """The core space of some deltas, with axes that depend on the deltas alone, not on how they were factored.

    QR of [B_1 B_2 ..] and of [A_1; A_2; ..]^T gives the spaces. The axes in them are the left singular vectors of
    [D_1 D_2 ..] and the right ones of [D_1; D_2; ..], each delta at norm one: rules that act on entries of M_i depend
    on the axes, and B A = (B R)(R^-1 A) must not matter. Directions that no delta has are left out.
    """
    q_left, r_left = torch.linalg.qr(torch.cat([d.b.double() for d in deltas], dim=1))
    q_right, r_right = torch.linalg.qr(torch.cat([d.a.double() for d in deltas], dim=0).T)
    small, at = [], 0
    for delta in deltas:
        part = slice(at, at + delta.rank)
        small.append((r_left[:, part] * delta.scale) @ r_right[:, part].T)
        at += delta.rank
    tiny = torch.finfo(torch.float64).tiny
    units = [m / torch.linalg.vector_norm(m).clamp_min(tiny) for m in small]
    u = compact(torch.cat(units, dim=1))[0]
    v = compact(torch.cat(units, dim=0).T)[0]
    return CoreSpace(q_left @ u, (q_right @ v).T, tuple(u.T @ m @ v for m in small), deltas[0])
