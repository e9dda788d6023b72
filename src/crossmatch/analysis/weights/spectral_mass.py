"""How much of a vector any one singular vector of a matrix can hold, where that singular vector is not known.

The squared cosines of a vector p with the left singular vectors of W are the masses of a measure on the squared
singular values. After k steps of Lanczos from p, the measure's first k orthonormal polynomials are known, and no point
x has more mass than the Christoffel function, 1 / sum_i p_i(x)^2 (Szegő, Orthogonal Polynomials, theorem 3.41.1): a
polynomial of degree < k that is 1 at x has at least that square mean. At the nodes of Gauss's rule it is their weight.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_STEPS = 32
# Peaks of the bound are at the nodes, and may be as narrow as rounding: it is read at distances that halve so often.
_HALVINGS = 40
# Products are of single precision, in units of the largest value that is asked for. Nodes that lie as close to each
# other as this may be one, which rounding took apart, and what is left of a vector may be rounding alone.
_ROUNDING = 1e-5
# Of 111 random matrices and vectors, in single precision, the bound fell short by 2e-4 at most.
_SLACK = 1e-3

Square = Callable[[Tensor], Tensor]


def largest_mass(square: Square, vectors: Tensor, known: Tensor, least: float, most: float) -> Tensor:
    """(c,): an upper bound of the squared cosine of each of the vectors (m, c), unit and orthogonal to `known` (m, K),
    with any further left singular vector of W whose squared singular value lies between `least` and `most`.

    square: W W^T x.
    """
    along, apart = _lanczos(lambda x: square(x) / most, vectors, known)
    jacobi = torch.diag_embed(along) + torch.diag_embed(apart, 1) + torch.diag_embed(apart, -1)
    nodes, first = torch.linalg.eigh(jacobi)
    weights = torch.where(nodes >= least / most - _ROUNDING, first[:, 0, :].square(), torch.zeros_like(nodes))
    weights = ((nodes[:, :, None] - nodes[:, None, :]).abs() <= _ROUNDING).to(nodes.dtype) @ weights[..., None]
    gaps = torch.diff(nodes, prepend=nodes[:, :1] - 1)
    steps = 2.0 ** -torch.arange(_HALVINGS, dtype=nodes.dtype)
    # Between two nodes, closer and closer to either.
    near = torch.cat(
        [nodes[..., None] - gaps[..., None] * steps, (nodes - gaps)[..., None] + gaps[..., None] * steps], -1
    )
    points = torch.cat([near.flatten(1), nodes[:, -1:] + steps], 1).clamp(least / most, 1.0)
    return torch.maximum(weights.amax((1, 2)), (1 / _squares(points, along, apart)).amax(1)).add(_SLACK).clamp_max(1.0)


def _lanczos(square: Square, vectors: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """(c, k) and (c, k - 1): diagonal and off-diagonal of the Jacobi matrix of each vector's measure."""
    basis, along, apart = [vectors], list[Tensor](), list[Tensor]()
    for step in range(_STEPS):
        image = square(basis[-1])
        image = image - known @ (known.T @ image)
        along.append((basis[-1] * image).sum(0))
        if step == _STEPS - 1:
            break
        for _ in range(2):
            for one in basis:
                image = image - (one * image).sum(0) * one
        size = torch.linalg.vector_norm(image, dim=0)
        # Of a vector that is a sum of few singular vectors nothing is left.
        alive = size > _ROUNDING
        apart.append(size * alive)
        basis.append(
            torch.where(alive, image / torch.where(alive, size, torch.ones_like(size)), torch.zeros_like(image))
        )
    return torch.stack(along, 1), torch.stack(apart, 1)


def _squares(points: Tensor, along: Tensor, apart: Tensor) -> Tensor:
    """(c, points): sum of the squares of the orthonormal polynomials; 0 of those behind a vector's last."""
    before, now, size = torch.zeros_like(points), torch.ones_like(points), torch.zeros_like(points[:, :1])
    total = now.square()
    for step in range(apart.shape[1]):
        new = apart[:, step : step + 1]
        alive = new > 0
        after = ((points - along[:, step : step + 1]) * now - size * before) / torch.where(
            alive, new, torch.ones_like(new)
        )
        before, now, size = now, torch.where(alive, after, torch.zeros_like(after)), new
        total = total + now.square()
    return total
