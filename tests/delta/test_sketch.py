"""Singular values by a sketch: against torch's, on spectra that are planted."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from crossmatch.delta import Dense, LowRank, Replacement, Rows, dense, low_rank, random_like, top_singular
from crossmatch.delta import sketch as module
from crossmatch.errors import RuleError


def planted(m: int, n: int, spectrum: Tensor, seed: int = 0) -> Tensor:
    """A float64 matrix with these singular values and random vectors."""
    size = len(spectrum)
    seen = LowRank(torch.eye(m, size).double(), torch.eye(size, n).double(), spectrum.double())
    return dense(random_like(seen, torch.Generator().manual_seed(seed)))


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SPECTRA = {
    "power law": torch.arange(1, 121).double() ** -0.7,
    "steps": torch.cat([torch.full((5,), 9.0), torch.full((115,), 1.0)]),
    "low rank": torch.cat([torch.linspace(3, 1, 12).double(), torch.zeros(108).double()]),
}


@pytest.mark.parametrize("shape", [(300, 120), (120, 300)])
@pytest.mark.parametrize("name", SPECTRA)
def test_values_errors_and_the_rest_of_a_planted_spectrum(name: str, shape: tuple[int, int]) -> None:
    spectrum = SPECTRA[name]
    matrix = planted(*shape, spectrum)
    found = top_singular(matrix, 12, generator=generator())
    assert found.s[:5].tolist() == pytest.approx(spectrum[:5].tolist(), rel=1e-4)
    # What the residuals say holds: a singular value of W lies within them.
    distance = (found.s[:, None] - spectrum[None]).abs().min(1).values
    assert (distance <= found.residuals + 1e-12).all()
    for left in (found.u.T @ found.u, found.vh @ found.vh.T):
        assert torch.allclose(left, torch.eye(12, dtype=left.dtype), atol=1e-10)
    rest = matrix - (found.u * found.s) @ found.vh
    assert found.left == pytest.approx(float(rest.square().sum()), rel=1e-9, abs=1e-9 * found.energy)
    assert found.energy == pytest.approx(float(spectrum.square().sum()), rel=1e-12)
    largest = float(torch.linalg.matrix_norm(rest, 2))
    assert found.spectral is not None
    assert largest <= found.spectral * (1 + 1e-9) + 1e-9 * math.sqrt(found.energy)
    # A bound that says something: within three times what it bounds.
    assert found.spectral <= 3 * largest + 1e-9 or found.spectral == math.sqrt(found.left)
    assert torch.allclose((rest @ found.vh.T).abs().max(), torch.zeros((), dtype=torch.float64), atol=1e-10)


def test_the_bound_on_what_is_left_holds_over_many_draws() -> None:
    matrix = planted(90, 120, torch.arange(1, 91).double() ** -0.3).float()
    for seed in range(12):
        found = top_singular(matrix, 8, power=1, generator=generator(seed))
        rest = matrix.double() - (found.u.double() * found.s) @ found.vh.double()
        largest = float(torch.linalg.matrix_norm(rest, 2))
        assert found.spectral is not None
        assert largest <= found.spectral <= 3 * largest
        some = found.first(4)
        rest = matrix.double() - (some.u.double() * some.s) @ some.vh.double()
        assert some.spectral is not None
        assert float(torch.linalg.matrix_norm(rest, 2)) <= some.spectral * (1 + 1e-6)


def test_float32_work_gives_float32_accuracy() -> None:
    spectrum = torch.cat([torch.tensor([100.0, 10.0, 1.0]), torch.full((97,), 1e-2)])
    found = top_singular(planted(400, 100, spectrum).float(), 3, generator=generator())
    assert found.u.dtype == torch.float32
    assert found.s.dtype == torch.float64
    assert found.s.tolist() == pytest.approx([100, 10, 1], rel=2e-6)
    assert float(found.residuals.max()) < 1e-4


@pytest.mark.parametrize("shape", [(90, 60), (60, 90)])
def test_all_directions_of_a_matrix_of_deficient_rank(shape: tuple[int, int]) -> None:
    spectrum = torch.cat([torch.linspace(2, 1, 20), torch.full((10,), 1e-5), torch.zeros(30)]).double()
    matrix = planted(*shape, spectrum)
    found = top_singular(matrix, 60, generator=generator())
    assert found.s.tolist() == pytest.approx(spectrum.tolist(), abs=3e-8)
    assert found.left == 0.0
    assert found.spectral == 0.0
    assert torch.allclose(found.u.T @ found.u, torch.eye(60).double(), atol=1e-10)
    assert torch.allclose((found.u * found.s) @ found.vh, matrix, atol=1e-10)


def test_a_share_of_the_energy_is_reached_and_not_passed() -> None:
    spectrum = torch.arange(1, 401).double() ** -0.8
    matrix = planted(450, 400, spectrum)
    exact = spectrum.square().cumsum(0) / spectrum.square().sum()
    for share in (0.5, 0.9):
        found = top_singular(matrix, energy=share, generator=generator())
        right = int((exact < share).sum()) + 1
        assert right <= len(found.s) <= right + max(1, right // 50)
        assert float(found.shares()[-1]) >= share > float(found.shares()[-2])
    capped = top_singular(matrix, 30, energy=0.99, generator=generator())
    assert len(capped.s) == 30
    assert float(capped.shares()[-1]) < 0.99
    assert len(top_singular(matrix, energy=1.0, generator=generator()).s) == 400


def test_factors_are_exact_and_nothing_of_their_product_is_formed() -> None:
    torch.manual_seed(0)
    delta = low_rank(torch.randn(70, 5), torch.randn(5, 40), 0.3)
    found = top_singular(delta, 9, generator=generator())
    assert len(found.s) == 5
    assert found.s.tolist() == pytest.approx(torch.linalg.svdvals(dense(delta))[:5].tolist(), rel=1e-10)
    assert torch.allclose((found.u * found.s) @ found.vh, dense(delta), atol=1e-12)
    huge = low_rank(torch.randn(400_000, 2), torch.randn(2, 300_000))
    assert len(top_singular(huge, energy=1.0, generator=generator()).s) == 2


def test_blocks_of_rows_give_what_the_tensor_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = planted(220, 130, SPECTRA["power law"])
    whole = top_singular(matrix, 6, generator=generator())
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 130 * 17)
    most = 0

    def read(start: int, stop: int) -> Tensor:
        nonlocal most
        most = max(most, stop - start)
        return matrix[start:stop]

    for given in (Rows(220, 130, read), Dense(matrix.reshape(22, 10, 130))):
        found = top_singular(given, 6, generator=generator())
        assert found.s[:4].tolist() == pytest.approx(whole.s[:4].tolist(), rel=1e-5)
    assert most == 17


def test_a_delta_on_its_base_is_read_with_it() -> None:
    torch.manual_seed(0)
    base, tuned = torch.randn(40, 30), torch.randn(40, 30)
    rows = Rows.of(Replacement(tuned), lambda start, stop: base[start:stop])
    found = top_singular(rows, 3, generator=generator())
    assert found.s.tolist() == pytest.approx(torch.linalg.svdvals(tuned - base)[:3].tolist(), rel=1e-4)
    with pytest.raises(RuleError, match="relative to its base"):
        Rows.of(Replacement(tuned))


def test_the_same_seed_gives_the_same_bits_and_bad_input_is_refused() -> None:
    matrix = planted(200, 100, SPECTRA["power law"][:100]).float()
    first, second = (top_singular(matrix, 4, generator=generator(7)) for _ in range(2))
    assert torch.equal(first.u, second.u)
    assert torch.equal(first.s, second.s)
    assert first.spectral == second.spectral
    zero = top_singular(torch.zeros(50, 30), 4, generator=generator())
    assert zero.s.tolist() == [0.0] * 4
    assert zero.left == 0.0
    assert zero.shares().tolist() == [0.0] * 4
    assert torch.isfinite(zero.u).all()
    bad_settings: list[dict[str, Any]] = [{}, {"k": 0}, {"energy": 1.5}]
    for bad in bad_settings:
        with pytest.raises(RuleError, match="give a number k"):
            top_singular(matrix, generator=generator(), **bad)
    broken = matrix.clone()
    broken[3, 4] = math.nan
    with pytest.raises(RuleError, match="NaN"):
        top_singular(broken, 3, generator=generator())
