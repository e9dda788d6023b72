"""One adapter kept out of another's way, or out of the way of inputs that must be answered as before."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from crossmatch.delta import Delta, LowRank, linear
from crossmatch.errors import RuleError
from crossmatch.rules.context import Site
from crossmatch.rules.factors import compact_delta, low_ranks, plain
from crossmatch.rules.registry import Share, rule

# Of the mean diagonal of X X^T, as RAIN has it: tokens that are nearly alike must not be told apart by rounding.
_RIDGE = 1e-4

Side = Literal["both", "column", "row"]


@rule("project", factors=True, idle=True)
def project(
    deltas: Sequence[Delta],
    weights: Sequence[float],
    site: Site,
    *,
    of: str = "",
    off: str = "",
    side: Side = "both",
    strength: Share = 1.0,
) -> Delta:
    """Take one adapter's delta off another's subspace, then sum.

    For the adapter `of`, with U S V^T the other's delta and g the strength: D' = (I - g U U^T) D (column: it no longer
    writes where the other writes), D (I - g V V^T) (row: it no longer reads what the other reads), or both. Of two
    adapters the first is taken off the second, if nothing else is said. The other's weight does not matter, and may be
    zero.
    If the calibration holds inputs X (N, d_in) for the module (the other's own, or the ones for all adapters), D is
    taken off those instead, which changes A alone: A' = A - g A X^T (X X^T + c I)^-1 X, c = 1e-4 of the mean diagonal
    of X X^T; `side` then has no meaning (after OSRM, Zhang & Zhou, 2505.22934, and RAIN, 2602.22538).
    Needs factors. Equals `linear` at strength 0, for subspaces that are orthogonal already, and where `of`, or what it
    is to be taken off, does not change the tensor.
    Raises RuleError if a delta is no factors, if it is not said which adapter is meant, or if a calibration is given
    that has no inputs of the module.
    """
    low = dict(zip(site.names, low_ranks(deltas, site), strict=True))
    of, off = _pair(site, of, off)
    inputs = site.calibration.inputs(off, site.tensor) if site.calibration else None
    if of in low and site.calibration is not None and inputs is None:
        raise RuleError(f"{site.tensor}: {site.calibration.path} holds no inputs of this module; calibrate it, too")
    if of in low and inputs is not None:
        x = site.inputs(off, low[of].columns)
        low[of] = _off_inputs(low[of], x, strength)
    elif of in low and off in low:
        low[of] = _off_delta(low[of], low[off], side, strength)
    return linear(list(low.values()), weights)


def _pair(site: Site, of: str, off: str) -> tuple[str, str]:
    """Whom to take off whom; an empty name for one that is neither given nor needed."""
    if of and of == off:
        raise RuleError(f"project: {of} cannot be taken off itself; name two adapters")
    if len(site.names) == 2:
        first, second = site.names
        of = of or (second if off == first else first)
        off = off or (second if of == first else first)
    if not of and (len(site.names) > 2 or site.calibration):
        raise RuleError(f"{site.tensor}: say which of {', '.join(site.names)} to project (of=NAME)")
    if not off and len(site.names) > 2 and not site.calibration:
        raise RuleError(f"{site.tensor}: say what to take {of} off (off=NAME)")
    return of, off


def _off_delta(x: LowRank, other: LowRank, side: Side, strength: float) -> LowRank:
    u, _, vh = compact_delta(other)
    b, a = x.b.double() * x.scale, x.a.double()
    if side != "row":
        b = b - strength * u @ (u.T @ b)
    if side != "column":
        a = a - strength * (a @ vh.T) @ vh
    return plain(b, a, x)


def _off_inputs(x: LowRank, inputs: Tensor, strength: float) -> LowRank:
    a = x.a.double()
    tokens, columns = inputs.shape
    damping = _RIDGE * float(inputs.square().sum()) / tokens
    if damping == 0.0:
        return x
    if tokens <= columns:
        gram = inputs @ inputs.T + damping * torch.eye(tokens, dtype=torch.float64)
        part = torch.linalg.solve(gram, inputs @ a.T).T @ inputs
    else:
        # X^T (X X^T + c)^-1 X = (X^T X + c)^-1 X^T X: the smaller of the two systems.
        gram = inputs.T @ inputs
        part = torch.linalg.solve(gram + damping * torch.eye(columns, dtype=torch.float64), gram @ a.T).T
    return LowRank(x.b.double(), a - strength * part, x.scale, x.dims)
