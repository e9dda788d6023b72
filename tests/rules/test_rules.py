"""The merge rules: each against its formula written out densely here, and the laws that hold for all of them."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.merge_utils import ties as peft_ties
from safetensors.torch import save_file
from torch import Tensor

from crossmatch.delta import Blockwise, Delta, Dense, LowRank, Replacement, Stack, cat, dense, linear, low_rank
from crossmatch.errors import InputError, RuleError
from crossmatch.rules import RULES, Calibration, Site, Weights, bind, elements, get_rule, uniform, weight_at
from crossmatch.rules.elements import histogram, thresholds

TENSOR = "model.layers.0.self_attn.q_proj.weight"
MODULE = TENSOR.removesuffix(".weight")
ELEMENTWISE = ["ties", "dare-linear", "dare-ties", "della", "breadcrumbs", "fisher", "obim"]
FACTORS = ["core-linear", "core-ties", "core-tsv", "core-iso", "project", "regmean", "factor-average"]


def low(seed: int, rows: int = 12, columns: int = 9, rank: int = 3, dtype: torch.dtype = torch.float32) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(rows, rank, generator=generator).to(dtype)
    return low_rank(b, torch.randn(rank, columns, generator=generator).to(dtype), 0.5 + seed)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)


def site(count: int = 2, calibration: Calibration | None = None, seed: int = 0) -> Site:
    return Site(TENSOR, ("pt", "sft", "third")[:count], seed, calibration)


def merge(
    name: str, deltas: Sequence[Delta], weights: Sequence[float], where: Site | None = None, **params: str | float
) -> Delta:
    return bind(name, params)(deltas, weights, where or site(len(deltas)))


def assert_close_to(actual: Tensor | Delta, expected: Tensor | Delta, tolerance: float = 1e-12) -> None:
    one, other = (dense(x) if isinstance(x, Delta) else x.double() for x in (actual, expected))
    assert float((one - other).norm()) <= tolerance * float(other.norm()), f"{one}\n{other}"


def calibrated(path: Path, rows: int = 12, columns: int = 9, tokens: int = 5) -> Calibration:
    """Inputs and gradients of two adapters, of different lengths."""
    tensors = {}
    for i, name in enumerate(("pt", "sft")):
        tensors[f"{name}/{MODULE}.inputs"] = draw(i, tokens + i, columns)
        tensors[f"{name}/{MODULE}.gradients"] = draw(10 + i, tokens + i, rows)
    save_file(tensors, path / "calibration.safetensors")
    return Calibration(path / "calibration.safetensors")


weights = st.floats(-3, 3, allow_nan=False).map(lambda w: round(w, 3))
ranks = st.integers(1, 10)


# --- sums


@settings(max_examples=40, deadline=None)
@given(w=st.tuples(weights, weights, weights), r=st.tuples(ranks, ranks, ranks), count=st.integers(1, 3))
def test_core_space_and_cat_are_linear(w: tuple[float, ...], r: tuple[int, ...], count: int) -> None:
    deltas = [low(i, rank=r[i]) for i in range(count)]
    total = sum(w[i] * dense(d) for i, d in enumerate(deltas))
    assert isinstance(total, Tensor)
    scale = max(float(dense(d).norm()) for d in deltas)
    for name in ("linear", "core-linear"):
        merged = merge(name, deltas, w[:count])
        assert isinstance(merged, LowRank)
        assert float((dense(merged) - total).norm()) <= 1e-12 * scale
    assert float((dense(cat([d.scaled(x) for d, x in zip(deltas, w, strict=False)])) - total).norm()) <= 1e-12 * scale


def test_core_space_leaves_out_what_no_delta_has() -> None:
    merged = merge("core-linear", [low(1, rank=3), low(1, rank=3)], [0.3, 0.7])
    assert isinstance(merged, LowRank)
    assert merged.a.shape[0] == 3
    assert_close_to(merged, low(1))
    # An adapter a billion times smaller is still there.
    small = low(2).scaled(1e-9)
    merged = merge("core-linear", [low(1), small], [1.0, 1.0])
    assert_close_to(dense(merged) - dense(low(1)), small, 1e-5)


@settings(max_examples=30, deadline=None)
@given(w1=st.floats(0.05, 2), w2=st.floats(0.05, 2), seed=st.integers(0, 50))
def test_slerp(w1: float, w2: float, seed: int) -> None:
    x, y = low(seed), low(seed + 1, rank=2)
    t, angle = w2 / (w1 + w2), torch.acos((dense(x) * dense(y)).sum() / dense(x).norm() / dense(y).norm())
    expected = (w1 + w2) * (torch.sin((1 - t) * angle) * dense(x) + torch.sin(t * angle) * dense(y)) / torch.sin(angle)
    merged = merge("slerp", [x, y], [w1, w2])
    assert isinstance(merged, LowRank)
    assert_close_to(merged, expected, 1e-10)
    assert_close_to(merge("slerp", [Dense(dense(x)), y], [w1, w2]), expected, 1e-10)
    assert_close_to(merge("slerp", [x, x.scaled(2.5)], [w1, w2]), linear([x, x.scaled(2.5)], [w1, w2]), 1e-7)


def test_slerp_keeps_the_length_of_equally_long_deltas() -> None:
    x, y = Dense(draw(1, 6, 5) / draw(1, 6, 5).norm()), Dense(draw(2, 6, 5) / draw(2, 6, 5).norm())
    for w in (0.1, 0.5, 0.8):
        assert float(dense(merge("slerp", [x, y], [w, 1 - w])).norm()) == pytest.approx(1.0, abs=1e-12)


def test_slerp_refuses_what_has_no_arc() -> None:
    with pytest.raises(RuleError, match="q_proj.*pt and sft are opposite"):
        merge("slerp", [low(1), low(1).scaled(-2)], [0.5, 0.5])
    with pytest.raises(RuleError, match="q_proj.*zero"):
        merge("slerp", [low(1), low(1).scaled(0)], [0.5, 0.5])
    with pytest.raises(RuleError, match="two adapters"):
        merge("slerp", [low(1), low(2), low(3)], [0.5, 0.5, 1.0])
    with pytest.raises(RuleError, match="no negative weight"):
        merge("slerp", [low(1), low(2)], [0.5, -0.5])


def test_factor_average_is_another_operator() -> None:
    x, y = low(1), low(2)
    left = 0.3 * 1.5 * x.b.double() + 0.7 * 2.5 * y.b.double()
    assert_close_to(merge("factor-average", [x, y], [0.3, 0.7]), left @ (0.3 * x.a.double() + 0.7 * y.a.double()))
    assert_close_to(merge("factor-average", [x], [0.3]), 0.09 * dense(x))
    assert float((dense(merge("factor-average", [x, y], [0.3, 0.7])) - dense(linear([x, y], [0.3, 0.7]))).norm()) > 1
    shared = LowRank(y.b, x.a, y.scale)
    assert_close_to(merge("factor-average", [x, shared], [0.3, 0.7]), linear([x, shared], [0.3, 0.7]))
    with pytest.raises(RuleError, match="pt 3, sft 2"):
        merge("factor-average", [x, low(2, rank=2)], [0.5, 0.5])


# --- trimming and elections


def top_share(d: Tensor, density: float) -> Tensor:
    """D where it is among the largest entries, by sorting."""
    order = d.float().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(d.numel(), dtype=torch.bool)
    mask[order[: max(1, int(density * d.numel()))]] = True
    return torch.where(mask.view_as(d), d, 0.0)


def elect(parts: Sequence[Tensor], w: Sequence[float], election: str) -> Tensor:
    """The election entry by entry, in plain Python."""
    result = torch.zeros_like(parts[0])
    for at in np.ndindex(*result.shape):
        entries = [float(p[at]) * math.copysign(1, x) for p, x in zip(parts, w, strict=True)]
        sizes = [abs(x) for x in w]
        vote = sum(s * e for s, e in zip(sizes, entries, strict=True)) if election == "weighted" else sum(entries)
        agreeing = [(s, e) for s, e in zip(sizes, entries, strict=True) if (e > 0 if vote >= 0 else e < 0)]
        if agreeing:
            share = sum(s for s, _ in agreeing) if election == "weighted" else len(agreeing)
            result[at] = sum(s * e for s, e in agreeing) / share
    return result


@settings(max_examples=25, deadline=None)
@given(
    w=st.tuples(weights, weights, weights).filter(all),
    density=st.floats(0.01, 1),
    election=st.sampled_from(["weighted", "unweighted"]),
    count=st.integers(1, 3),
)
def test_ties(w: tuple[float, ...], density: float, election: str, count: int) -> None:
    deltas, w = [low(i) for i in range(count)], w[:count]
    merged = merge("ties", deltas, w, density=density, election=election)
    assert isinstance(merged, Blockwise)
    assert_close_to(merged, elect([top_share(dense(d), density) for d in deltas], w, election))


@pytest.mark.parametrize("density", [0.05, 0.2, 0.7])
def test_ties_with_the_unweighted_election_is_pefts(density: float) -> None:
    deltas, w = [low(1), low(2), low(3)], [0.3, 0.7, 1.1]
    theirs = peft_ties([dense(d) for d in deltas], torch.tensor(w, dtype=torch.float64), density)
    assert_close_to(merge("ties", deltas, w, density=density, election="unweighted"), theirs)


def test_ties_where_all_agree() -> None:
    x = Dense(draw(1, 8, 5).abs() + 0.1)
    y = Dense(draw(2, 8, 5).abs() + 0.1)
    assert_close_to(merge("ties", [x, y], [0.3, 0.7], density=1), linear([x, y], [0.3, 0.7]))
    assert_close_to(merge("ties", [x, y], [0.6, 1.4], density=1), linear([x, y], [0.3, 0.7]))
    assert_close_to(merge("ties", [x, y], [0.3, 0.7], density=1, election="unweighted"), linear([x, y], [0.15, 0.35]))
    assert_close_to(merge("ties", [x, y.scaled(-1)], [0.3, -0.7], density=1), linear([x, y], [0.3, 0.7]))


@pytest.mark.parametrize("election", ["weighted", "unweighted"])
def test_a_tied_election_goes_to_plus(election: str) -> None:
    x = Dense(torch.tensor([[2.0, -2.0, 1e-9, 0.0]]))
    merged = dense(merge("ties", [x, x.scaled(-1)], [0.5, 0.5], density=1, election=election))
    one = 1.0 if election == "weighted" else 0.5
    assert merged.abs().tolist() == [[2 * one, 2 * one, pytest.approx(1e-9 * one), 0.0]]
    assert bool((merged >= 0).all())


@settings(max_examples=15, deadline=None)
@given(density=st.floats(0.02, 1), gamma=st.floats(0, 0.5))
def test_breadcrumbs(density: float, gamma: float) -> None:
    deltas, w = [low(1), low(2)], [0.3, -0.7]
    if density + gamma > 1:
        with pytest.raises(RuleError, match="more than 1"):
            merge("breadcrumbs", deltas, w, density=density, gamma=gamma)
        return
    expected = torch.zeros(12, 9, dtype=torch.float64)
    for d, x in zip(deltas, w, strict=True):
        flat = dense(d).flatten()
        order = flat.float().abs().argsort(descending=True)
        top, keep = int(gamma * 108), max(1, int(density * 108))
        mask = torch.zeros(108, dtype=torch.bool)
        mask[order[top : top + keep]] = True
        expected += x * torch.where(mask, flat, 0.0).view(12, 9)
    assert_close_to(merge("breadcrumbs", deltas, w, density=density, gamma=gamma), expected)


def test_breadcrumbs_with_nothing_dropped_is_linear() -> None:
    assert_close_to(
        merge("breadcrumbs", [low(1), low(2)], [0.3, 0.7], density=1, gamma=0), linear([low(1), low(2)], [0.3, 0.7])
    )


@settings(max_examples=30, deadline=None)
@given(data=st.data(), size=st.integers(1, 200), seed=st.integers(0, 10**6), coarse=st.booleans())
def test_thresholds_are_the_exact_order_statistics(data: st.DataObject, size: int, seed: int, coarse: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(size, 3, generator=generator) * torch.randn(size, 1, generator=generator).exp() ** 5
    value = value.round() if coarse else value  # rounded: many ties, many zeros
    x = Dense(value)
    counts = data.draw(st.lists(st.integers(1, size * 3), min_size=1, max_size=3))

    def ranked(start: int, stop: int) -> Tensor:
        return value[start:stop].abs()

    flat = value.abs().flatten()
    expected = [float(flat.kthvalue(flat.numel() - count + 1).values) for count in counts]
    assert thresholds(ranked, x, histogram(ranked, x), counts) == expected


# --- dropping


def test_uniform_belongs_to_the_element() -> None:
    whole = uniform(3, "pt", TENSOR, 0, 1000)
    assert whole.dtype == torch.float64
    assert 0 <= float(whole.min()) < 0.01
    assert 0.99 < float(whole.max()) < 1
    assert abs(float(whole.mean()) - 0.5) < 0.05
    for start, count in ((0, 1), (1, 5), (4, 4), (7, 100), (998, 2), (5, 0)):
        assert torch.equal(uniform(3, "pt", TENSOR, start, count), whole[start : start + count])
    for other in (
        uniform(4, "pt", TENSOR, 0, 1000),
        uniform(3, "sft", TENSOR, 0, 1000),
        uniform(3, "pt", "x", 0, 1000),
    ):
        assert abs(float(torch.corrcoef(torch.stack([whole, other]))[0, 1])) < 0.15


def test_uniform_is_the_stream_of_philox() -> None:
    from blake3 import blake3

    key = int.from_bytes(blake3(b"3\0pt\0x").digest(16), "big")
    expected = np.random.Generator(np.random.Philox(key=key)).random(50)
    assert uniform(3, "pt", "x", 0, 50).tolist() == expected.tolist()


def thinned(d: Tensor, keep: Tensor | float, name: str, seed: int = 0) -> Tensor:
    return torch.where(uniform(seed, name, TENSOR, 0, d.numel()).view_as(d) < keep, d / keep, 0.0)


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_dare(density: float) -> None:
    x, y, w = low(1), low(2), [0.3, -0.7]
    parts = [thinned(dense(x), density, "pt"), thinned(dense(y), density, "sft")]
    assert_close_to(merge("dare-linear", [x, y], w, density=density), 0.3 * parts[0] - 0.7 * parts[1])
    for election in ("weighted", "unweighted"):
        merged = merge("dare-ties", [x, y], w, density=density, election=election)
        assert_close_to(merged, elect(parts, w, election))
    if density == 1.0:
        assert_close_to(merge("dare-linear", [x, y], w, density=1), linear([x, y], w))


def test_dare_is_right_in_the_mean() -> None:
    x, y = low(1), low(2)
    total = sum(dense(merge("dare-linear", [x, y], [0.3, 0.7], site(seed=s), density=0.4)) for s in range(1500)) / 1500
    exact = dense(linear([x, y], [0.3, 0.7]))
    # Each entry's standard error is |w D| sqrt((1 - p) / p / 1500).
    error = torch.sqrt((0.3 * dense(x)) ** 2 + (0.7 * dense(y)) ** 2) * math.sqrt(0.6 / 0.4 / 1500)
    assert float(((total - exact) / error).abs().max()) < 5
    assert float(((total - exact) / error).square().mean()) == pytest.approx(1.0, abs=0.4)


def test_dare_does_not_depend_on_the_order_of_adapters() -> None:
    one = merge("dare-linear", [low(1), low(2)], [0.3, 0.7])
    other = merge("dare-linear", [low(2), low(1)], [0.7, 0.3], Site(TENSOR, ("sft", "pt")))
    assert_close_to(one, other, 1e-15)
    assert not torch.equal(dense(one), dense(merge("dare-linear", [low(1), low(2)], [0.3, 0.7], site(seed=1))))


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.2), (0.3, 0.6 - 1e-9), (1.0, 0.0), (0.7, 0.6)])
def test_della(density: float, epsilon: float) -> None:
    w, parts = [0.3, 0.7], []
    for d, name in ((low(1), "pt"), (low(2), "sft")):
        full = dense(d)
        keep = torch.zeros_like(full)
        for j in range(12):
            ascending = sorted(range(9), key=lambda k, j=j, full=full: abs(float(full[j, k])))
            for rank, k in enumerate(ascending):
                keep[j, k] = density - epsilon / 2 + epsilon * rank / 8
        parts.append(thinned(full, keep, name))
    assert_close_to(merge("della", [low(1), low(2)], w, density=density, epsilon=epsilon), elect(parts, w, "weighted"))


def test_della_keeps_large_entries_more_often() -> None:
    x = Dense(torch.arange(1.0, 11.0).repeat(4000, 1))
    share = (dense(merge("della", [x], [1.0], density=0.5, epsilon=0.4)) != 0).double().mean(0)
    expected = torch.linspace(0.3, 0.7, 10, dtype=torch.float64)
    assert float((share - expected).abs().max()) < 0.04
    for bad in ({"density": 0.1, "epsilon": 0.4}, {"density": 0.9, "epsilon": 0.4}):
        with pytest.raises(RuleError, match="smaller epsilon"):
            merge("della", [x], [1.0], **bad)


# --- core space


def test_core_ties_in_joint_singular_coordinates() -> None:
    deltas, w = [low(1), low(2, rank=2)], [0.3, 0.7]
    units = [dense(d) / dense(d).norm() for d in deltas]
    u = torch.linalg.svd(torch.cat(units, 1)).U[:, :5]
    vh = torch.linalg.svd(torch.cat(units, 0)).Vh[:5]
    for density, election in ((0.2, "weighted"), (0.6, "unweighted"), (1.0, "weighted")):
        small = [top_share(u.T @ dense(d) @ vh.T, density) for d in deltas]
        merged = merge("core-ties", deltas, w, density=density, election=election)
        assert isinstance(merged, LowRank)
        assert merged.rank == 5
        assert_close_to(merged, u @ elect(small, w, election) @ vh, 1e-10)


@pytest.mark.parametrize("name", ["core-linear", "core-ties", "core-tsv", "core-iso"])
def test_core_rules_do_not_depend_on_the_factoring(name: str) -> None:
    x, y = low(1), low(2)
    mixing = draw(3, 3, 3)
    other = low_rank(x.b.double() @ mixing, torch.linalg.inv(mixing) @ x.a.double(), 1.5)
    assert_close_to(merge(name, [other, y], [0.3, 0.7]), merge(name, [x, y], [0.3, 0.7]), 1e-9)


def polar(x: Tensor) -> Tensor:
    """X (X^T X)^-1/2, by the eigenvalues of the Gram matrix."""
    values, vectors = torch.linalg.eigh(x.T @ x)
    return x @ (vectors * values.rsqrt()) @ vectors.T


def test_core_tsv() -> None:
    deltas, w = [low(1), low(2, rank=2)], [0.3, -0.7]
    triples = [torch.linalg.svd(dense(d)) for d in deltas]
    us = torch.cat([t.U[:, :r] for t, r in zip(triples, (3, 2), strict=True)], dim=1)
    vs = torch.cat([t.Vh[:r].T for t, r in zip(triples, (3, 2), strict=True)], dim=1)
    s = torch.cat([x * t.S[:r] for x, t, r in zip(w, triples, (3, 2), strict=True)])
    assert_close_to(merge("core-tsv", deltas, w), (polar(us) * s) @ polar(vs).T, 1e-9)


def test_core_tsv_where_nothing_overlaps_or_everything() -> None:
    left, right = torch.linalg.qr(draw(1, 12, 6)).Q, torch.linalg.qr(draw(2, 9, 6)).Q
    x = low_rank(left[:, :3] @ draw(3, 3, 3), draw(4, 3, 3) @ right[:, :3].T)
    y = low_rank(left[:, 3:] @ draw(5, 3, 3), draw(6, 3, 3) @ right[:, 3:].T)
    assert_close_to(merge("core-tsv", [x, y], [0.3, 0.7]), linear([x, y], [0.3, 0.7]))
    assert_close_to(merge("core-tsv", [x], [0.3]), x.scaled(0.3))
    assert_close_to(merge("core-tsv", [x, x], [1.0, 1.0]), x, 1e-9)


def test_core_iso_flattens_the_spectrum_and_keeps_its_sum() -> None:
    deltas, w = [low(1), low(2, rank=2)], [0.3, 0.7]
    u, s, vh = torch.linalg.svd(dense(linear(deltas, w)), full_matrices=False)
    merged = torch.linalg.svdvals(dense(merge("core-iso", deltas, w)))
    torch.testing.assert_close(merged[:5], s[:5].mean().expand(5), rtol=1e-12, atol=0)
    assert float(merged[5:].max()) < 1e-12
    assert float(merged.sum()) == pytest.approx(float(s.sum()), rel=1e-12)
    assert_close_to(merge("core-iso", deltas, w), s[:5].mean() * (u[:, :5] @ vh[:5]), 1e-9)
    # What is left where deltas cancel is rounding, and is not raised to the mean.
    both = cat([low(1), low(3)])
    assert_close_to(
        merge("core-iso", [both, low(3).scaled(1.0)], [1.0, -1.0]), merge("core-iso", [low(1)], [1.0]), 1e-9
    )
    assert_close_to(merge("core-iso", [low(1), low(1)], [1.0, -1.0]), torch.zeros(12, 9))


# --- projection


def span(x: Tensor) -> Tensor:
    return x @ torch.linalg.pinv(x)


@pytest.mark.parametrize("side", ["column", "row", "both"])
@pytest.mark.parametrize("strength", [1.0, 0.4, 0.0])
def test_project(side: str, strength: float) -> None:
    x, y = low(1), low(2, rank=2)
    left = torch.eye(12, dtype=torch.float64) - strength * span(dense(y)) * (side != "row")
    right = torch.eye(9, dtype=torch.float64) - strength * span(dense(y).T) * (side != "column")
    changed = left @ dense(x) @ right
    merged = merge("project", [x, y], [0.3, 0.7], side=side, strength=strength)
    assert isinstance(merged, LowRank)
    assert_close_to(merged, 0.3 * changed + 0.7 * dense(y), 1e-10)
    other = merge("project", [y, x], [0.7, 0.3], Site(TENSOR, ("sft", "pt")), side=side, strength=strength, of="pt")
    assert_close_to(other, merged, 1e-10)
    if strength == 1.0:
        alone = dense(merge("project", [x, y], [1.0, 0.0], side=side))
        assert abs(float((alone * dense(y)).sum())) < 1e-10 * float(dense(x).norm() * dense(y).norm())
        if side != "row":
            assert float((dense(y).T @ alone).norm()) < 1e-10
        if side != "column":
            assert float((alone @ dense(y).T).norm()) < 1e-10


def test_project_of_three() -> None:
    deltas = [low(1), low(2), low(3)]
    merged = merge("project", deltas, [1.0, 0.5, 0.2], of="third", off="pt", side="column")
    left = torch.eye(12, dtype=torch.float64) - span(dense(deltas[0]))
    assert_close_to(merged, dense(deltas[0]) + 0.5 * dense(deltas[1]) + 0.2 * left @ dense(deltas[2]), 1e-10)
    assert_close_to(merge("project", deltas[:1], [0.4]), deltas[0].scaled(0.4))
    assert_close_to(merge("project", deltas[:2], [0.4, 0.5], of="elsewhere", off="pt"), linear(deltas[:2], [0.4, 0.5]))
    with pytest.raises(RuleError, match="say which of pt, sft, third"):
        merge("project", deltas, [1.0, 1.0, 1.0])
    with pytest.raises(RuleError, match="say what to take pt off"):
        merge("project", deltas, [1.0, 1.0, 1.0], of="pt")
    with pytest.raises(RuleError, match="cannot be taken off itself"):
        merge("project", deltas, [1.0, 1.0, 1.0], of="pt", off="pt")


@pytest.mark.parametrize("tokens", [4, 30])
def test_project_off_inputs(tokens: int, tmp_path: Path) -> None:
    x, y, inputs = low(1), low(2), draw(7, tokens, 9)
    save_file({f"{MODULE}.inputs": inputs.float()}, tmp_path / "protect.safetensors")
    where = site(calibration=Calibration(tmp_path / "protect.safetensors"))
    inputs = inputs.float().double()
    gram = inputs @ inputs.T
    for strength in (1.0, 0.5):
        inverse = torch.linalg.inv(gram + 1e-4 * gram.diagonal().mean() * torch.eye(tokens, dtype=torch.float64))
        changed = dense(x) @ (torch.eye(9, dtype=torch.float64) - strength * inputs.T @ inverse @ inputs)
        merged = merge("project", [x, y], [0.3, 0.7], where, strength=strength)
        assert_close_to(merged, 0.3 * changed + 0.7 * dense(y), 1e-9)
    assert isinstance(merged, LowRank)
    alone = merge("project", [x], [1.0], Site(TENSOR, ("pt",), 0, where.calibration), of="pt")
    assert float((dense(alone) @ inputs.T).norm()) < 0.05 * float((dense(x) @ inputs.T).norm())
    with pytest.raises(RuleError, match="say which of pt to project"):
        merge("project", [x], [1.0], Site(TENSOR, ("pt",), 0, where.calibration))
    # A module without protected inputs is not silently projected off something else.
    elsewhere = Site("model.layers.1.mlp.up_proj.weight", ("pt", "sft"), 0, where.calibration)
    with pytest.raises(RuleError, match="holds no inputs of this module"):
        merge("project", [x, y], [1.0, 1.0], elsewhere)


# --- data


@pytest.mark.parametrize("tokens", [3, 20])
@pytest.mark.parametrize("alpha", [0.9, 1.0, 0.0])
def test_regmean(tokens: int, alpha: float, tmp_path: Path) -> None:
    where = site(calibration=calibrated(tmp_path, tokens=tokens))
    x, y, grams = low(1), low(2, rank=2), []
    for i in range(2):
        inputs = draw(i, tokens + i, 9)
        gram = inputs.T @ inputs / len(inputs)
        mean = gram.diagonal().mean()
        gram = alpha * gram + (1 - alpha) * torch.diag(gram.diagonal())
        grams.append(gram + 1e-6 * mean * torch.eye(9, dtype=torch.float64))
    total = 0.3 * dense(x) @ grams[0] - 0.7 * dense(y) @ grams[1]
    merged = merge("regmean", [x, y], [0.3, -0.7], where, alpha=alpha)
    assert isinstance(merged, LowRank)
    assert merged.rank == 5
    assert_close_to(merged, 2 * total @ torch.linalg.inv(grams[0] + grams[1]), 1e-8)


def test_regmean_minimises_what_it_says(tmp_path: Path) -> None:
    where = site(calibration=calibrated(tmp_path, tokens=40))
    deltas, w = [low(1), low(2)], [0.5, 0.5]
    inputs = [draw(i, 40 + i, 9) for i in range(2)]

    def loss(d: Tensor) -> float:
        return sum(float(((d - dense(x)) @ i.T).square().sum()) / len(i) for x, i in zip(deltas, inputs, strict=True))

    best = dense(merge("regmean", deltas, w, where, alpha=1.0))
    assert all(loss(best) < loss(best + 0.01 * draw(s, 12, 9)) for s in range(20))
    assert loss(best) < loss(dense(linear(deltas, w)))


@pytest.mark.parametrize("name", ["regmean", "fisher"])
def test_equal_data_gives_linear(name: str, tmp_path: Path) -> None:
    shared = draw(1, 4, 9)
    shared[:, 2] = 0.0  # an input that never occurs
    data = {f"{MODULE}.inputs": shared} | {f"{who}/{MODULE}.gradients": draw(2, 4, 12) for who in ("pt", "sft")}
    save_file(data, tmp_path / "shared.safetensors")
    where = site(calibration=Calibration(tmp_path / "shared.safetensors"))
    for w in ([0.3, 0.7], [1.0, -2.0]):
        assert_close_to(merge(name, [low(1), low(2)], w, where), linear([low(1), low(2)], w), 1e-9)


def test_fisher(tmp_path: Path) -> None:
    where = site(calibration=calibrated(tmp_path))
    x, y = low(1), low(2)
    f = [torch.einsum("nj,nk->jk", draw(10 + i, 5 + i, 12) ** 2, draw(i, 5 + i, 9) ** 2) / (5 + i) for i in range(2)]
    expected = 2 * (0.3 * f[0] * dense(x) - 0.7 * f[1] * dense(y)) / (f[0] + f[1])
    assert_close_to(merge("fisher", [x, y], [0.3, -0.7], where), expected)
    # Its entries can be formed as the base's rows come.
    base = draw(9, 12, 9)
    saved = Replacement(base + dense(x))
    assert_close_to(merge("fisher", [saved, y], [0.3, -0.7], where).rows(0, 12, torch.float64, base), expected)


def test_obim(tmp_path: Path) -> None:
    where, deltas, w = site(calibration=calibrated(tmp_path)), [low(1), low(2)], [0.3, -0.7]
    saliency = [dense(d) ** 2 * draw(i, 5 + i, 9).square().mean(0) for i, d in enumerate(deltas)]
    ranks = [s.flatten().argsort().argsort().view_as(s) for s in saliency]
    for density in (0.1, 0.5, 1.0):
        kept = [r >= 108 - int(density * 108) for r in ranks]
        merged = dense(merge("obim", deltas, w, where, density=density))
        theirs = [torch.isclose(merged, x * dense(d), rtol=1e-12, atol=0) for x, d in zip(w, deltas, strict=True)]
        # Every entry is one adapter's that kept it, or nobody's if none did.
        assert bool(((theirs[0] & kept[0]) | (theirs[1] & kept[1]) | ((merged == 0) & ~kept[0] & ~kept[1])).all())
        both = kept[0] & kept[1]
        # The ranking is read off a histogram: near ties may go either way.
        clear = both & ((ranks[0] - ranks[1]).abs() > 2)
        assert torch.equal(theirs[0][clear], (ranks[0] > ranks[1])[clear])
        assert density < 0.5 or 0.2 < float(theirs[0][both].double().mean()) < 0.8


def test_obim_of_disjoint_deltas_is_linear(tmp_path: Path) -> None:
    where, mask = site(calibration=calibrated(tmp_path)), draw(1, 12, 9) > 0
    deltas = [Dense(torch.where(mask, dense(low(1)), 0.0)), Dense(torch.where(mask, 0.0, dense(low(2))))]
    assert_close_to(merge("obim", deltas, [0.3, 0.7], where, density=1), linear(deltas, [0.3, 0.7]))


def test_calibration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="crossmatch calibrate"):
        Calibration(tmp_path / "missing.safetensors")
    save_file({"x.outputs": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"x.outputs of shape \[2, 2\] is no calibration"):
        Calibration(tmp_path / "other.safetensors")
    save_file({f"{MODULE}.inputs": torch.full((2, 9), float("nan"))}, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="NaN"):
        Calibration(tmp_path / "nan.safetensors").inputs("pt", TENSOR)
    found = calibrated(tmp_path)
    assert found.inputs("third", TENSOR) is None
    assert torch.equal(found.inputs("sft", TENSOR), draw(1, 6, 9))  # type: ignore[arg-type]
    assert found.gradients("sft", TENSOR).shape == (6, 12)  # type: ignore[union-attr]
    save_file({f"{MODULE}.inputs": draw(1, 4, 9), f"pt/{MODULE}.inputs": draw(2, 4, 9)}, tmp_path / "mixed.safetensors")
    mixed = Calibration(tmp_path / "mixed.safetensors")
    assert torch.equal(mixed.inputs("pt", TENSOR), draw(2, 4, 9))  # type: ignore[arg-type]
    assert torch.equal(mixed.inputs("sft", TENSOR), draw(1, 4, 9))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["regmean", "fisher", "obim"])
def test_missing_data_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="needs calibration data for .*q_proj.*crossmatch calibrate"):
        merge(name, [low(1), low(2)], [1.0, 1.0])
    found = calibrated(tmp_path)
    with pytest.raises(RuleError, match="inputs of pt at x.weight are missing"):
        merge(name, [low(1), low(2)], [1.0, 1.0], Site("x.weight", ("pt", "sft"), 0, found))
    with pytest.raises(RuleError, match="9 wide, 8 expected"):
        merge(name, [low(1, columns=8), low(2, columns=8)], [1.0, 1.0], site(calibration=found))


# --- laws for all


def test_the_rules_there_are() -> None:
    assert set(RULES) == {"linear", "slerp", *ELEMENTWISE, *FACTORS}
    assert {name for name, rule in RULES.items() if rule.factors} == set(FACTORS)
    assert {name for name, rule in RULES.items() if rule.data} == {"regmean", "fisher", "obim"}
    assert all(rule.function.__doc__ for rule in RULES.values())


def in_parts(delta: Delta, cuts: Sequence[int]) -> Tensor:
    edges = [0, *sorted(set(cuts)), delta.height]
    return torch.cat([delta.rows(a, b, torch.float64) for a, b in pairwise(edges)])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_rows_do_not_depend_on_what_is_asked_for_together(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = site(calibration=calibrated(tmp_path, rows=40, columns=7))
    deltas = [low(1, rows=40, columns=7), low(2, rows=40, columns=7)]
    whole = dense(merge(name, deltas, [0.3, 0.7], where))
    for elements_of_a_block in (21, 7, 1, 80):
        monkeypatch.setattr(elements, "GRID_ELEMENTS", elements_of_a_block)
        merged = merge(name, deltas, [0.3, 0.7], where)
        at_once = dense(merged)
        assert_close_to(at_once, whole, 1e-14)
        for cuts in ([1, 2, 39], [20], list(range(1, 40)), [5, 5, 17]):
            assert torch.equal(in_parts(merged, cuts), at_once)


class Restless(Dense):
    """Entries that depend a little on the rows asked for together, as products of large matrices do."""

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        return super().rows(start, stop, dtype, base) * (1 + 1e-3 * (stop - start) + 1e-3 * start)


def test_deltas_are_read_on_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "GRID_ELEMENTS", 21)
    for name in ("ties", "breadcrumbs", "della"):
        merged = merge(name, [Restless(draw(1, 40, 7)), Restless(draw(2, 40, 7))], [0.3, 0.7])
        assert torch.equal(in_parts(merged, [1, 5, 6, 33]), dense(merged))
        assert torch.equal(merged.rows(4, 4, torch.float64), torch.zeros(0, 7, dtype=torch.float64))


@pytest.mark.parametrize("name", sorted(RULES))
def test_order_weight_zero_and_one_alone(name: str, tmp_path: Path) -> None:
    found = calibrated(tmp_path)
    x, y, where = low(1), low(2), site(calibration=found)
    params = {"of": "pt", "off": "sft"} if name == "project" else {}
    merged = merge(name, [x, y], [0.3, 0.7], where, **params)
    swapped = merge(name, [y, x], [0.7, 0.3], Site(TENSOR, ("sft", "pt"), 0, found), **params)
    assert_close_to(swapped, merged, 1e-9)
    assert merged.shape == (12, 9)
    zero = merge(name, [x, y], [0.0, 0.0], where, **params)
    assert float(dense(zero).abs().max()) == 0.0
    alone = merge(name, [x], [0.4], Site(TENSOR, ("pt",), 0, found), **params)
    if name != "project":
        assert_close_to(merge(name, [x, y], [0.4, 0.0], where), alone, 1e-15)
    if name in ("linear", "slerp", "core-linear", "core-tsv", "regmean", "fisher"):
        assert_close_to(alone, x.scaled(0.4))


@pytest.mark.parametrize("name", FACTORS)
def test_rules_on_factors(name: str, tmp_path: Path) -> None:
    where = site(calibration=calibrated(tmp_path))
    w = [0.3, 0.7]
    stacked = merge(name, [Stack((low(1), low(3))), Stack((low(2), low(4)))], w, where)
    assert isinstance(stacked, Stack)
    for part, (x, y) in zip(stacked.parts, ((low(1), low(2)), (low(3), low(4))), strict=True):
        assert_close_to(part, merge(name, [x, y], w, where))
    convolution = [LowRank(d.b, d.a, d.scale, (12, 3, 3, 1)) for d in (low(1), low(2))]
    merged = merge(name, convolution, w, where)
    assert merged.shape == (12, 3, 3, 1)
    assert_close_to(dense(merged).view(12, 9), merge(name, [low(1), low(2)], w, where))
    with pytest.raises(RuleError, match="q_proj.*sft changes it by a Dense"):
        merge(name, [low(1), Dense(torch.ones(12, 9))], w, where)
    half = [d.b.bfloat16() for d in (low(1), low(2))]
    assert_close_to(
        merge(name, [LowRank(half[0], low(1).a, low(1).scale), low(2)], w, where),
        merge(name, [LowRank(half[0].double(), low(1).a, low(1).scale), low(2)], w, where),
    )


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "obim", "slerp"])
def test_what_needs_its_base_cannot_be_ranked(name: str, tmp_path: Path) -> None:
    where = site(calibration=calibrated(tmp_path))
    with pytest.raises(RuleError, match="q_proj.weight: pt .*Replacement"):
        merge(name, [Replacement(torch.ones(12, 9)), low(1)], [1.0, 1.0], where)


@pytest.mark.parametrize("name", ["dare-linear", "dare-ties", "della"])
def test_what_needs_its_base_can_be_dropped_from(name: str) -> None:
    base, x, y = draw(1, 12, 9), low(1), low(2)
    saved = merge(name, [Replacement(base + dense(x)), y], [0.3, 0.7])
    assert saved.needs_base
    assert_close_to(saved.rows(0, 12, torch.float64, base), merge(name, [x, y], [0.3, 0.7]))
    assert_close_to(saved.rows(5, 9, torch.float64, base[5:9]), saved.rows(0, 12, torch.float64, base)[5:9])


def test_elementwise_rules_on_experts_and_biases() -> None:
    stacks = [Stack((low(1), low(3))), Stack((low(2), low(4)))]
    whole = [Dense(dense(s)) for s in stacks]
    for name in ("ties", "dare-linear", "della", "breadcrumbs"):
        assert merge(name, stacks, [0.3, 0.7]).shape == (2, 12, 9)
        assert_close_to(merge(name, stacks, [0.3, 0.7]), merge(name, whole, [0.3, 0.7]))
        assert merge(name, [Dense(draw(1, 7)), Dense(draw(2, 7))], [0.3, 0.7]).shape == (7,)


def test_what_a_rule_is_given_is_checked() -> None:
    with pytest.raises(RuleError, match="did you mean dare-ties"):
        get_rule("dare-tie")
    with pytest.raises(RuleError, match="ties has no parameter 'densty'; did you mean density"):
        bind("ties", {"densty": "0.2"})
    with pytest.raises(RuleError, match="linear has no parameter 'density'; there is: none"):
        bind("linear", {"density": 0.2})
    for bad in ("0", "1.01", "-1", "nan", "inf", "much", ""):
        with pytest.raises(RuleError, match="ties: density is a number above 0 to 1"):
            bind("ties", {"density": bad})
    with pytest.raises(RuleError, match="election is one of weighted, unweighted, not 'most'"):
        bind("ties", {"election": "most"})
    with pytest.raises(RuleError, match="strength is a number from 0 to 1"):
        bind("project", {"strength": "2"})
    assert get_rule("ties").resolve({"density": "0.5"}) == {"density": 0.5, "election": "weighted"}
    x = low(1)
    for deltas, w, count in (([], [], 0), ([x], [1.0, 2.0], 2), ([x, x], [1.0, 2.0], 1)):
        with pytest.raises(RuleError, match="one weight and one name per delta"):
            merge("ties", deltas, w, site(count))
    with pytest.raises(RuleError, match="different shapes"):
        merge("ties", [x, low(1, rows=5)], [1.0, 1.0])
    with pytest.raises(RuleError, match="finite"):
        merge("ties", [x], [float("nan")])


# --- weights by module


NAMES = [
    f"model.layers.{layer}.{module}.weight"
    for layer in range(30)
    for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj")
] + ["model.embed_tokens.weight", "lm_head.weight", "model.layers.3.mlp.experts.gate_up_proj"]


def test_the_last_weight_that_matches_holds() -> None:
    parsed = Weights.parse(
        "0.3, mlp:0.2,layers[20:]:0.1,layers[20:].mlp:0.05,q_proj:0,lm_head:-1e-3,layers[4]:2,layers[:2].attn:7"
    )
    expected = {
        "model.layers.19.self_attn.o_proj.weight": 0.3,
        "model.layers.19.mlp.down_proj.weight": 0.2,
        "model.layers.20.self_attn.o_proj.weight": 0.1,
        "model.layers.20.mlp.down_proj.weight": 0.05,
        "model.layers.20.self_attn.q_proj.weight": 0.0,
        "model.layers.4.self_attn.q_proj.weight": 2.0,
        "model.layers.1.self_attn.q_proj.weight": 7.0,
        "model.layers.1.mlp.down_proj.weight": 0.2,
        "model.layers.2.self_attn.o_proj.weight": 0.3,
        "model.layers.3.mlp.experts.gate_up_proj": 0.2,
        "model.embed_tokens.weight": 0.3,
        "lm_head.weight": -0.001,
    }
    for name, weight in expected.items():
        assert parsed.at(name) == weight_at(parsed, name) == weight, name
    parsed.check(NAMES)
    assert weight_at(0.4, NAMES[0]) == 0.4
    assert Weights.parse("1") == Weights(1.0)
    assert str(Weights.parse("1.0")) == "1"


numbers = st.floats(allow_nan=False, allow_infinity=False)
ends = st.one_of(st.just(""), st.integers(0, 99).map(str))
slices = st.one_of(st.integers(0, 99).map(str), st.tuples(ends, ends).map(":".join)).map(lambda s: f"layers[{s}]")
selectors = st.lists(st.sampled_from(["attn", "mlp", "q_proj", "lm_head"]), max_size=2).flatmap(
    lambda names: st.one_of(st.just(names), slices.map(lambda s: [s, *names])).filter(bool).map(".".join)
)


@settings(max_examples=60, deadline=None)
@given(default=numbers, overrides=st.lists(st.tuples(selectors, numbers), max_size=3))
def test_weights_as_text_and_back(default: float, overrides: list[tuple[str, float]]) -> None:
    made = Weights(default, tuple(overrides))
    assert Weights.parse(str(made)) == made


def test_weights_that_say_nothing() -> None:
    cases: dict[str, str | Callable[[], object]] = {
        "many": "'many' in the weights",
        "": "'' in the weights",
        "mlp:0.2": "'mlp:0.2' in the weights",
        "0.3,mlp": "is not SELECTOR:NUMBER",
        "0.3,mlp:much": "'much' in the weights",
        "0.3,layers[-4:]:1": "not a negative one",
        "0.3,layers[1:2:3]:1": "selects nothing",
        "0.3,layers[2].layers[3]:1": "selects nothing",
        "0.3,:1": "selects nothing",
        "nan": "finite",
        "0.3,mlp:inf": "finite",
    }
    for text, message in cases.items():
        with pytest.raises(RuleError, match=str(message)):
            Weights.parse(text)
    for selector in ("layers[40:]", "layers[5:3]", "k_proj", "layers[2].lm_head"):
        with pytest.raises(RuleError, match="applies to none of the 93 tensors"):
            Weights(1.0, ((selector, 0.5),)).check(NAMES)
