"""Weight space: planted changes are recovered by every measure, nulls hold over random ones, factors equal dense."""

import math
from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor

from crossmatch.analysis.weights import alignment
from crossmatch.analysis.weights import overlap as pairs
from crossmatch.analysis.weights import spectral_shifts as readings
from crossmatch.analysis.weights.delta_matrix import Change, Place
from crossmatch.analysis.weights.heads import head_groups
from crossmatch.analysis.weights.norms import entropy_bounds, grouped, size
from crossmatch.analysis.weights.overlap import sign_conflict
from crossmatch.analysis.weights.paper_claims import ClaimPart, claims
from crossmatch.analysis.weights.random_baselines import SplitNull, inside, overlap_of_spaces, purity
from crossmatch.analysis.weights.spectral_bases import ACTIVE
from crossmatch.analysis.weights.spectral_mass import largest_mass
from crossmatch.delta import LowRank, Rows, Singular, all_singular, dense, low_rank, random_like, top_singular
from crossmatch.errors import DataError

M, N = 60, 90


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=draw(seed), dtype=torch.float64)).Q


SPECTRUM = 10 * torch.arange(1, M + 1).double() ** -0.6
U, V = orthonormal(M, M, 1), orthonormal(N, M, 2)
BASE = (U * SPECTRUM) @ V.T
SPACE = top_singular(BASE, M, generator=draw(0))
# The vectors are known up to a sign for each pair: planted changes are made of those that were found.
U, V = SPACE.u, SPACE.vh.T


def change(delta: LowRank | Tensor, module: str = "q_proj", part: str = "attn", layer: int = 0) -> Change:
    """A change of BASE."""
    name = f"model.layers.{layer}.{'self_attn' if part == 'attn' else part}.{module}.weight"
    factors = delta if isinstance(delta, LowRank) else None
    rows = (
        Rows(M, N, partial(delta.rows, dtype=torch.float64), torch.float64)
        if isinstance(delta, LowRank)
        else Rows.of(delta)
    )
    return Change(Place(name, layer, module, part, (M, N)), factors, rows, Rows.of(BASE), name)


def factors(left: Tensor, sigma: Tensor, right: Tensor) -> LowRank:
    """left diag(sigma) right^T."""
    return LowRank(left, right.T.contiguous(), sigma.double())


def random(seed: int, sigma: Tensor) -> LowRank:
    """A random delta of a spectrum."""
    return factors(orthonormal(M, len(sigma), 1000 + seed), sigma, orthonormal(N, len(sigma), 5000 + seed))


SIGMA = torch.tensor([3.0, 2.0, 1.0, 0.5]).double()


def parts_at(delta: LowRank | Tensor, k: int) -> dict[str, float | None]:
    (row,) = alignment.align(change(delta), SPACE, [(str(k), k)])
    return {name: figure.value for name, figure in row.parts.items()} | {"gain": row.gain.value}


def test_size_of_a_planted_spectrum_from_factors_and_dense() -> None:
    delta = random(0, SIGMA)
    p = SIGMA.square() / SIGMA.square().sum()
    entropy = math.exp(float(-(p * p.log()).sum()))
    for given, method in ((delta, "factors"), (dense(delta), "exact")):
        found = size(change(given), 2.0)
        assert found.method == method
        assert found.frobenius == pytest.approx(float(SIGMA.norm()), rel=1e-10)
        assert found.spectral == pytest.approx(3.0, rel=1e-10)
        assert found.stable_rank == pytest.approx(14.25 / 9, rel=1e-10)
        assert found.effective_rank == pytest.approx(entropy, rel=1e-10)
        assert found.share == pytest.approx(float(SIGMA.norm()) / 2, rel=1e-10)
        assert found.values[:4] == pytest.approx(SIGMA.tolist(), rel=1e-10)
    whole = grouped([size(change(delta), 2.0), size(change(delta, "up_proj", "mlp", 1), 2.0)])
    assert [(g.level, g.key, g.n) for g in whole] == [
        ("type", "q_proj", 1), ("type", "up_proj", 1), ("layer", 0, 1), ("layer", 1, 1), ("all", None, 2)
    ]  # fmt: skip
    assert whole[-1].frobenius == pytest.approx(math.sqrt(2) * float(SIGMA.norm()))
    assert whole[-1].share == pytest.approx(float(SIGMA.norm()) / 2)


def test_the_effective_rank_of_a_large_dense_change_is_bounded() -> None:
    squares = (torch.arange(1, 201).double() ** -1.5).square()
    p = squares / squares.sum()
    true = math.exp(float(-(p * p.log()).sum()))
    for known in (5, 20, 60):
        low, high = entropy_bounds(squares[:known].tolist(), float(squares[known:].sum()), 200 - known)
        assert low <= true <= high
    assert high - low < 0.5
    assert entropy_bounds(squares.tolist(), 0.0, 0) == pytest.approx((true, true))


def test_heads_by_key_value_group_from_factors_dense_and_by_hand() -> None:
    config = {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10}
    delta = random(3, SIGMA)
    whole = dense(delta)
    for module, side in (("q_proj", 0), ("k_proj", 0), ("o_proj", 1)):
        width = (M, N)[side] // 3
        by_hand = [float(whole.narrow(side, g * width, width).square().sum()) for g in range(3)]
        for given in (delta, whole):
            found = head_groups(change(given, module), config, {})
            assert isinstance(found, list)
            assert [g.energy for g in found] == pytest.approx([e / sum(by_hand) for e in by_hand], rel=1e-9)
            assert sum(g.energy or 0 for g in found) == pytest.approx(1.0)
            assert found[1].share == pytest.approx(
                math.sqrt(by_hand[1] / float(BASE.narrow(side, width, width).square().sum()))
            )
    assert head_groups(change(delta, "up_proj", "mlp"), config, {}) is None
    assert "several kinds of heads" in str(head_groups(change(delta, "qkv_proj"), config, {}))
    assert "does not give" in str(head_groups(change(delta), {}, {}))
    assert "not 7 groups" in str(head_groups(change(delta), {"num_attention_heads": 7, "head_dim": 8}, {}))


def test_an_amplifying_change_lies_on_the_diagonal_with_its_gain() -> None:
    delta = factors(U[:, :4], 0.1 * SPECTRUM[:4], V[:, :4])
    found = parts_at(delta, 10)
    assert found["ee"] == pytest.approx(1.0, abs=1e-9)
    assert found["diagonal"] == pytest.approx(1.0, abs=1e-9)
    assert found["write_new"] == pytest.approx(0.0, abs=1e-9)
    expected = 0.1 * float(SPECTRUM[:4].square().sum() / SPECTRUM[:10].square().sum())
    assert found["gain"] == pytest.approx(expected, rel=1e-8)
    assert parts_at(delta.scaled(-1.0), 4)["gain"] == pytest.approx(-0.1, rel=1e-8)
    (row,) = alignment.align(change(delta), SPACE, [("6", 6)])
    assert row.gains == pytest.approx([0.1] * 4 + [0.0] * 2, abs=1e-9)
    read = readings.read(change(delta), SPACE)
    assert isinstance(read, readings.Readings)
    assert read.figures["amplified"].value == pytest.approx(0.04, rel=1e-6)
    assert read.figures["intruders"].value == 0.0
    assert read.figures["turned"].value == pytest.approx(0.0, abs=1e-6)
    assert (read.figures["amplified"].z or 0) > 3


@pytest.mark.parametrize("k", [4, 16])
def test_a_change_that_writes_new_directions(k: int) -> None:
    # Written: directions beyond the k leading ones; read: half of it existing ones.
    new = U[:, k : k + 4]
    for right, block in ((V[:, :4], "er"), (V[:, k : k + 4], "nn")):
        found = parts_at(factors(new, SIGMA, right), k)
        assert found[block] == pytest.approx(1.0, abs=1e-9)
        assert found["write_new"] == pytest.approx(1.0, abs=1e-9)
        assert found["diagonal"] == pytest.approx(0.0, abs=1e-9)
    half = factors(torch.cat([U[:, :2], new[:, :2]], 1), torch.ones(4), V[:, 2:6])
    assert parts_at(half, k)["write_new"] == pytest.approx(0.5, abs=1e-9)


def test_intruders_are_counted_and_a_rotation_is_seen_as_one() -> None:
    strong = factors(U[:, 50:53], torch.full((3,), 20.0), V[:, 50:53])
    known = SPACE.first(40)
    read = readings.read(change(strong), known)
    assert isinstance(read, readings.Readings)
    assert read.figures["intruders"].value == pytest.approx(0.3)
    # u_1 and u_2 turned by 30 degrees on both sides: W' = R W R'.
    angle, turn = math.pi / 6, torch.eye(M).double()
    cosine, sine = math.cos(angle), math.sin(angle)
    turn[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]]).double()
    rotated = (U @ turn * SPECTRUM) @ (V @ turn).T
    for given in (rotated - BASE, _as_factors(rotated - BASE)):
        read = readings.read(change(given), SPACE)
        assert isinstance(read, readings.Readings)
        assert read.figures["turned"].value == pytest.approx(0.2 * sine, rel=1e-4)
        assert read.figures["coordination"].value == pytest.approx(1.0, abs=1e-6)
        assert read.figures["spread"].value == pytest.approx(0.0, abs=1e-6)
        assert read.figures["intruders"].value == 0.0


def _as_factors(matrix: Tensor) -> LowRank:
    found = top_singular(matrix, 6, generator=draw(3))
    return factors(found.u, found.s, found.vh.T)


def test_uniform_scaling_has_no_spread_and_no_rotation() -> None:
    read = readings.read(change(0.05 * BASE), SPACE)
    assert isinstance(read, readings.Readings)
    assert read.figures["amplified"].value == pytest.approx(0.05, rel=1e-6)
    assert read.figures["spread"].value == pytest.approx(0.0, abs=1e-6)
    assert read.figures["turned"].value == pytest.approx(0.0, abs=1e-5)


def test_factors_give_what_the_dense_matrix_gives() -> None:
    delta, other = random(7, SIGMA), random(8, SIGMA.flip(0) + 1)
    ks = [("4", 4), ("20", 20), ("50", 50)]
    thin, thick = (alignment.align(change(x), SPACE, ks) for x in (delta, dense(delta)))
    for one, two in zip(thin, thick, strict=True):
        for name in alignment.PARTS:
            assert one.parts[name].value == pytest.approx(two.parts[name].value, abs=1e-10)
            assert one.parts[name].null_sd == pytest.approx(two.parts[name].null_sd, rel=1e-6)
        assert one.gain.value == pytest.approx(two.gain.value, abs=1e-10)
        assert sum(one.parts[name].value or 0.0 for name in ("ee", "ew", "er", "nn")) == pytest.approx(1, abs=1e-6)
    first = pairs.compare(change(delta), change(other), (0.3, 0.7))
    second = pairs.compare(change(dense(delta)), change(dense(other)), (0.3, 0.7))
    assert first.cosine.value == pytest.approx(second.cosine.value, abs=1e-10)
    assert first.interference.value == pytest.approx(second.interference.value, abs=1e-10)
    for name in pairs.ENERGIES:
        assert first.energies[name].value == pytest.approx(second.energies[name].value, abs=1e-10)
    assert first.columns is not None
    assert second.columns is not None
    assert first.columns.cosines == pytest.approx(second.columns.cosines, abs=1e-8)
    by_hand = 0.3 * dense(delta) + 0.7 * dense(other)
    apart = 0.09 * dense(delta).square().sum() + 0.49 * dense(other).square().sum()
    assert first.interference.value == pytest.approx(float(by_hand.square().sum() / apart) - 1, abs=1e-10)
    assert sum(part for _, part in first.shared) == pytest.approx(first.interference.value, abs=1e-10)


@pytest.mark.parametrize("degrees", [0.0, 20.0, 60.0, 90.0])
def test_two_changes_at_a_planted_angle(degrees: float) -> None:
    angle = math.radians(degrees)
    left, right = orthonormal(M, 6, 11), orthonormal(N, 3, 12)
    turned = math.cos(angle) * left[:, :3] + math.sin(angle) * left[:, 3:]
    one, two = factors(left[:, :3], SIGMA[:3], right), factors(turned, SIGMA[:3], right)
    for pair in (pairs.compare(change(one), change(two)), pairs.compare(change(dense(one)), change(dense(two)))):
        assert pair.cosine.value == pytest.approx(math.cos(angle), abs=1e-9)
        assert pair.columns is not None
        assert pair.rows is not None
        assert pair.columns.cosines == pytest.approx([math.cos(angle)] * 3, abs=1e-8)
        assert pair.columns.grassmann == pytest.approx(math.sqrt(3) * angle, abs=1e-5)
        assert pair.rows.grassmann == pytest.approx(0.0, abs=1e-5)
        assert pair.energies["second_in_columns"].value == pytest.approx(math.cos(angle) ** 2, abs=1e-9)
        assert pair.energies["first_in_rows"].value == pytest.approx(1.0, abs=1e-9)
        assert pair.interference.value == pytest.approx(math.cos(angle), abs=1e-9)


def test_groups_of_pairs_are_one_vector_each() -> None:
    one, two = random(1, SIGMA), random(2, SIGMA)
    rows = [
        pairs.compare(change(one), change(two)),
        pairs.compare(change(two.scaled(3), layer=1), change(two, layer=1)),
    ]
    whole = pairs.grouped(rows)[-1]
    x, y = torch.cat([dense(one), 3 * dense(two)]), torch.cat([dense(two), dense(two)])
    assert whole.cosine.value == pytest.approx(float((x * y).sum() / x.norm() / y.norm()), abs=1e-12)
    assert whole.interference.value == pytest.approx(
        float((x + y).square().sum() / (x.square().sum() + y.square().sum())) - 1
    )


def test_sign_conflict_counts_weighted_elements() -> None:
    one, two = dense(random(1, SIGMA)), dense(random(2, SIGMA))
    least = one.abs().minimum(two.abs())
    by_hand = float(least[one * two < 0].sum() / least.sum())
    found = sign_conflict(change(random(1, SIGMA)), change(two))
    assert found.value == pytest.approx(by_hand, abs=1e-12)
    assert sign_conflict(change(one), change(one)).value == 0.0
    assert sign_conflict(change(one), change(-one)).value == 1.0
    assert sign_conflict(change(one), change(0 * one)).value is None


def test_nulls_hold_over_two_hundred_random_changes() -> None:
    count, k, q = 200, 12, purity(SIGMA.square())
    spread = SplitNull(M, N, k, q).parts() | {"write_existing": SplitNull(M, N, k, q).parts()["left"]}
    drawn = [parts_at(random(seed, SIGMA), k) for seed in range(count)]
    for name in ("ee", "ew", "er", "nn", "diagonal", "write_existing"):
        assert_agrees([float(row[name] or 0.0) for row in drawn], *spread[name])
    (row,) = alignment.align(change(random(0, SIGMA)), SPACE, [("12", k)])
    assert_agrees([float(row["gain"] or 0.0) for row in drawn], 0.0, row.gain.null_sd or 0.0)
    fixed = change(random(9999, SIGMA[:3]))
    found = [pairs.compare(fixed, change(random(seed, SIGMA))) for seed in range(count)]
    assert_agrees([f.cosine.value or 0.0 for f in found], 0.0, found[0].cosine.null_sd or 0.0)
    null = inside(None, 3, M, q)
    assert_agrees([f.energies["second_in_columns"].value or 0.0 for f in found], null.null or 0.0, null.null_sd or 0.0)
    null = overlap_of_spaces(None, 3, 4, N)
    assert_agrees([f.rows.overlap.value or 0.0 for f in found if f.rows], null.null or 0.0, null.null_sd or 0.0)


def assert_agrees(values: list[float], mean: float, sd: float) -> None:
    """Mean within four, deviation within five standard errors of what the null says."""
    n, found = len(values), torch.tensor(values, dtype=torch.float64)
    assert float(found.mean()) == pytest.approx(mean, abs=4 * sd / math.sqrt(n))
    assert float(found.std()) == pytest.approx(sd, rel=5 / math.sqrt(n))


def test_the_random_deltas_of_the_readings_are_those_of_whole_matrices() -> None:
    delta = change(random(5, 30 * SIGMA))
    found = readings.read(delta, SPACE.first(30), draws=30)
    assert isinstance(found, readings.Readings)
    whole = []
    for seed in range(15):
        drawn = random_like(random(5, 30 * SIGMA), draw(seed))
        one = readings.read(change(drawn), SPACE.first(30), draws=1)
        assert isinstance(one, readings.Readings)
        whole.append([one.figures[name].value or 0.0 for name in readings.NAMES])
    means = torch.tensor(whole, dtype=torch.float64).mean(0).tolist()
    for name, mean in zip(readings.NAMES, means, strict=True):
        figure = found.figures[name]
        assert figure.null == pytest.approx(mean, abs=6 * (figure.null_sd or 0.0) / math.sqrt(15) + 1e-9)


def planted_claims(writes: float, amplifies: float, layers: int = 8) -> dict[str, str]:
    """Verdicts for some layers: MLP modules that write new directions with a share, attention that amplifies."""
    rows = []
    for layer in range(layers):
        for module, part in (("q_proj", "attn"), ("v_proj", "attn"), ("up_proj", "mlp"), ("down_proj", "mlp")):
            noise = random(10 * layer + len(rows), SIGMA)
            if part == "mlp":
                left = torch.cat([U[:, 30 + layer : 32 + layer], U[:, layer : layer + 1], U[:, 9:10]], 1)
                delta = factors(left, torch.tensor([writes, writes, 0.1, 0.1]), orthonormal(N, 4, layer))
            else:
                left, right = U[:, :4], V[:, :4]
                delta = factors(left, amplifies * torch.ones(4), right) if amplifies else noise
            rows += alignment.align(change(delta, module, part, layer), SPACE, [("64", 12), ("r", 4)])
    found = claims("x", rows)
    assert {(c.id, c.label, c.primary) for c in found} == {
        ("mlp-writes", "64", True),
        ("attention-amplifies", "64", True),
        ("mlp-writes", "r", False),
        ("attention-amplifies", "r", False),
    }
    return {claim.id: claim.verdict for claim in found if claim.primary}


@pytest.mark.parametrize("layers", [3, 8])
def test_claims_are_supported_contradicted_and_left_open(layers: int) -> None:
    assert set(planted_claims(3.0, 1.0, layers).values()) == {"supported"}
    # MLP modules write existing directions alone; attention shrinks its own.
    assert set(planted_claims(0.0, -1.0, layers).values()) == {"contradicted"}
    assert planted_claims(3.0, 0.0, layers)["attention-amplifies"] == "no difference that matters"


def test_a_part_within_the_margin_is_no_difference_that_matters() -> None:
    def part(low: float | None, high: float | None) -> ClaimPart:
        return ClaimPart("x", 0.0, low, high, high, 0.0, 8, "layers")

    assert part(-0.026, 0.014).negligible
    assert not any(part(*bounds).negligible for bounds in ((-0.06, 0.01), (0.01, 0.06), (None, 0.0), (0.0, None)))


def test_a_claim_without_enough_layers_says_why() -> None:
    few = alignment.align(change(random(1, SIGMA)), SPACE, [("64", 12)])
    assert [(c.verdict, bool(c.why)) for c in claims("x", few)] == [("not decided at this size", True)] * 2


@pytest.mark.parametrize("layers", [3, 6])
def test_random_vectors_leave_claims_open(layers: int) -> None:
    answers = Counter[str]()
    for seed in range(4):
        rows, place = [], 0
        for layer in range(layers):
            for module, part in (("q_proj", "attn"), ("k_proj", "attn"), ("up_proj", "mlp"), ("down_proj", "mlp")):
                place += 1
                one = change(random(100 * seed + place, SIGMA), module, part, layer)
                rows += alignment.align(one, SPACE, [("64", 12)])
        answers.update(claim.verdict for claim in claims("x", rows))
    assert set(answers) <= {"not decided at this size", "no difference that matters"}


def test_a_change_of_nothing_and_shapes_that_differ() -> None:
    nothing = change(low_rank(torch.zeros(M, 2), torch.zeros(2, N)))
    found = size(nothing, 1.0)
    assert (found.frobenius, found.stable_rank, found.effective_rank) == (0.0, None, None)
    assert set(parts_at(low_rank(torch.zeros(M, 2), torch.zeros(2, N)), 8).values()) == {None}
    assert readings.read(nothing, SPACE) == "nothing was changed"
    pair = pairs.compare(nothing, change(random(1, SIGMA)))
    assert pair.cosine.value is None
    assert pair.columns is None
    smaller = Change(Place("x", 0, "q_proj", "attn", (3, 4)), None, Rows.of(torch.ones(3, 4)), Rows.of(BASE), "x")
    with pytest.raises(DataError, match="cannot be compared"):
        pairs.compare(nothing, smaller)


def test_a_space_says_how_many_directions_hold_ninety_percent() -> None:
    shares = SPECTRUM.square().cumsum(0) / SPECTRUM.square().sum()
    from crossmatch.analysis.weights.base_directions import Space

    assert Space(SPACE, cached=False).k90 == int((shares < 0.9).sum()) + 1
    few = Singular(SPACE.u[:, :2], SPACE.s[:2], SPACE.vh[:2], SPACE.residuals[:2], SPACE.energy, 0.0)
    assert Space(few, cached=False).k90 is None


@pytest.mark.parametrize("shape", [(160, 200), (200, 160), (180, 180)])
@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0, 2.0])
def test_no_direction_holds_more_of_a_vector_than_the_bound(shape: tuple[int, int], decay: float) -> None:
    """Against all singular vectors of W: of vectors at random, of single directions, and of sums of a few."""
    rank, known = min(shape), 24
    u, v = orthonormal(shape[0], rank, 71), orthonormal(shape[1], rank, 72)
    sigma = torch.arange(1, rank + 1).double() ** -decay * (1 + 0.1 * torch.rand(rank, generator=draw(3)).double())
    sigma = sigma.sort(descending=True).values
    base = (u * sigma) @ v.T
    mixed = torch.randn(rank, 12, generator=draw(4), dtype=torch.float64)
    mixed[:, 4:8] = torch.eye(rank, dtype=torch.float64)[:, [24, 60, 90, 150]]
    mixed[:, 8:] *= torch.arange(1, rank + 1).double()[:, None] ** -2
    vectors = torch.cat([u @ mixed, torch.randn(shape[0], 4, generator=draw(5), dtype=torch.float64)], 1)
    vectors = vectors - u[:, :known] @ (u[:, :known].T @ vectors)
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=0)
    counted = (sigma >= ACTIVE * sigma[0]) & (torch.arange(rank) >= known)
    if not counted.any():
        return
    truth = (u[:, counted].T @ vectors).square().amax(0)
    least, most = (ACTIVE * float(sigma[0])) ** 2, float(sigma[known - 1]) ** 2
    found = largest_mass(lambda x: base @ (base.T @ x), vectors, u[:, :known], least, most)
    assert (found >= truth - 1e-6).all()
    assert (found <= 1 + 1e-9).all()


def test_an_old_weak_direction_is_no_certain_intruder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of W the leading 24 directions are known: its 90th made strong is no intruder, a new one is."""
    monkeypatch.setattr(readings, "KNOWN", 24)
    rows, columns = 600, 700
    u, v = orthonormal(rows, rows, 71), orthonormal(columns, rows, 72)
    base = (u * torch.arange(1, rows + 1).double() ** -0.3) @ v.T
    space = top_singular(base, 24, generator=draw(0))
    new = [orthonormal(size, 1, seed) for size, seed in ((rows, 8), (columns, 9))]
    # Half of the new one's direction is in no direction of W by more than a few percent.
    old = low_rank(3 * u[:, 89:90], v[:, 89:90].T.contiguous())
    other = low_rank(3 * new[0], new[1].T.contiguous())
    for delta, exact, bounded, least, certain in ((old, 0.0, 0.1, 0.0, False), (other, 0.1, 0.1, 0.1, True)):
        for factored, every in ((delta, all_singular(base)), (None, all_singular(base)), (delta, None), (None, None)):
            one = Change(
                Place("m", 0, "q_proj", "attn", (rows, columns)), factored, Rows.of(dense(delta)), Rows.of(base), "m"
            )
            found = readings.read(one, space, every, draws=1)
            assert isinstance(found, readings.Readings)
            assert found.figures["intruders"].value == pytest.approx(bounded if every is None else exact)
            assert found.least == pytest.approx(least if every is None else exact)
            assert found.certain == (certain or every is not None)


@pytest.mark.parametrize("strength", [0.3, 2.0])
def test_readings_of_strong_changes_hold_beyond_the_known_directions(
    strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "KNOWN", 24)
    rows, columns, count = 160, 200, readings.TOP
    u, v = orthonormal(rows, rows, 71), orthonormal(columns, rows, 72)
    base = (u * torch.arange(1, rows + 1).double() ** -0.3) @ v.T
    b = torch.randn(rows, 8, generator=draw(5), dtype=torch.float64) / rows**0.5
    a = torch.randn(8, columns, generator=draw(6), dtype=torch.float64) / columns**0.5
    delta = low_rank(strength * b, a)
    space = top_singular(base, rows, generator=draw(0))
    left, s, _ = torch.linalg.svd(base + dense(delta))
    turned = (1 - (space.u[:, :count] * left[:, :count]).sum(0).square()).clamp_min(0).sqrt()
    # Of a matrix of which all triples are known, all directions count.
    nearest = {
        known: (space.u[:, :number].T @ left[:, :count]).abs().max(0).values
        for known, number in ((False, 24), (True, rows))
    }
    for given, factored, every in (
        (delta, delta, None),
        (delta, delta, all_singular(base)),
        (dense(delta), None, None),
    ):
        held = given if isinstance(given, Tensor) else dense(given)
        one = Change(Place("m", 0, "q_proj", "attn", (rows, columns)), factored, Rows.of(held), Rows.of(base), "m")
        found = readings.read(one, space, every, draws=1)
        assert isinstance(found, readings.Readings)
        assert found.certain or found.least < found.figures["intruders"].value  # type: ignore[operator]
        figures = {name: figure.value for name, figure in found.figures.items()}
        assert figures["amplified"] == pytest.approx(float((s[:count] / space.s[:count]).mean()) - 1, abs=1e-4)
        assert figures["turned"] == pytest.approx(float(turned.mean()), abs=0.005)
        assert figures["intruders"] == pytest.approx(
            float((nearest[every is not None] < readings.THRESHOLD).double().mean())
        )
