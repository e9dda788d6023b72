"""Directions that figures are made of: as near to the exact ones as is said, where a sketch is not."""

import pytest
import torch
from torch import Tensor

from crossmatch.delta import Rows, Singular, converged_singular, figure_angle, sketch, top_singular
from crossmatch.errors import RuleError

M, N, K = 300, 360, 24


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix() -> Tensor:
    """A spectrum as flat as that of trained matrices."""
    u = torch.linalg.qr(torch.randn(M, M, generator=draw(0), dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(N, M, generator=draw(1), dtype=torch.float64)).Q
    return ((u * torch.arange(1, M + 1).double() ** -0.3) @ v.T).float()


def figures(found: Singular, u: Tensor, vh: Tensor, draws: int = 15) -> tuple[float, float]:
    """Largest error of the energy in the left directions, and on the diagonal, of random deltas, in deviations."""
    errors = []
    for seed in range(draws):
        b = torch.randn(M, 4, generator=draw(100 + seed), dtype=torch.float64)
        a = torch.randn(4, N, generator=draw(200 + seed), dtype=torch.float64)
        pairs = []
        for left, right in ((found.u.double(), found.vh.double()), (u, vh)):
            seen, reads = left.T @ b, a @ right.T
            pairs.append((float((seen @ a).square().sum()), float((seen * reads.T).sum(1).square().sum())))
        errors.append(pairs)
    table = torch.tensor(errors, dtype=torch.float64)
    off = (table[:, 0] - table[:, 1]).square().mean(0).sqrt() / table[:, 1].std(0)
    return float(off[0]), float(off[1])


def test_figures_are_within_one_percent_of_their_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "_SMALL", 100)
    monkeypatch.setattr(sketch, "_BLOCK", 8)
    given = matrix()
    u, _, vh = torch.linalg.svd(given.double(), full_matrices=False)
    found = converged_singular(given, K, angle=0.005, generator=draw(2))
    assert found.u.shape == (M, K)
    assert figure_angle(found) <= 0.005
    assert max(figures(found, u[:, :K], vh[:K])) <= 0.01
    # What is refused otherwise: the same from the sketch.
    assert max(figures(top_singular(given, K, generator=draw(2)), u[:, :K], vh[:K])) > 0.01
    assert float(found.residuals.max()) <= 1e-3 * float(found.s[0])


def test_a_small_matrix_is_taken_apart_exactly() -> None:
    given = matrix()
    found = converged_singular(given, K, angle=0.005, generator=draw(2))
    expected = torch.linalg.svdvals(given.double())[:K]
    assert found.s.tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert figure_angle(found) < 1e-6


def test_equal_values_end_at_the_limit_of_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "_SMALL", 50)
    monkeypatch.setattr(sketch, "_BLOCK", 8)
    values = torch.cat([torch.full((4,), 2.0), torch.linspace(1, 0.1, 196)]).double()
    u = torch.linalg.qr(torch.randn(200, 200, generator=draw(0), dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(220, 200, generator=draw(1), dtype=torch.float64)).Q
    found = converged_singular(((u * values) @ v.T).float(), 4, angle=0.005, generator=draw(2))
    # Any basis of the four is as good: the space is right.
    assert float((found.u.double().T @ u[:, :4]).square().sum()) == pytest.approx(4, abs=1e-4)
    assert figure_angle(found) > 0.005


def test_nan_is_refused() -> None:
    with pytest.raises(RuleError, match="NaN"):
        converged_singular(Rows.of(torch.full((4, 4), torch.nan)), 2, angle=0.005, generator=draw(0))
