"""Representations of base and tuned model: figures from their definitions, known answers, the streams, the claim."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from crossmatch.adapter import Adapter
from crossmatch.analysis.checkpoint_difference import Difference
from crossmatch.analysis.decoder_layers import check_configs
from crossmatch.analysis.representations.compare import Scope, compare
from crossmatch.analysis.representations.layerwise import (
    Streams,
    choose,
    own,
    random_side,
    with_difference,
    with_vector,
)
from crossmatch.analysis.representations.principal_angles import Subspaces, rotations
from crossmatch.analysis.representations.similarity import Cloud, CloudPair, Shift, massive, random_share
from crossmatch.analysis.representations.subspace_claim import LayerPart, small_subspace
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.passages import Passage
from crossmatch.delta import Dense, TuningVector, dense, same_spectrum
from crossmatch.errors import AdapterError, DataError, InputError
from crossmatch.statistics.influence import Figure, from_draws, from_influence, resamples
from helpers import copy, make_adapter, make_gpt2, make_llama

N, D, TEXTS = 240, 12, 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in float32 whose activations differ, an adapter on it, and their merge."""
    root = tmp_path_factory.mktemp("representations")
    make_llama(root / "base", dtype=torch.float32, initializer_range=0.15, tied=True, num_hidden_layers=3)
    make_adapter(root / "base", root / "sft", seed=2, size=0.2)
    merged: Any = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
    for name, delta in Adapter(root / "sft").items():
        merged.get_parameter(name).data += dense(delta).float()
    merged.save_pretrained(root / "merged")
    return root


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(5, 24, (30,), generator=generator).tolist()
    return [Passage(tuple(torch.randint(3, 256, (n,), generator=generator).tolist())) for n in lengths]


def normal(seed: int, n: int = N, d: int = D) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(n: int = N, texts: int = TEXTS) -> Tensor:
    return torch.arange(n) % texts


def pair(x: Tensor, y: Tensor, texts: int = TEXTS) -> CloudPair:
    text = numbers(len(x), texts)
    return CloudPair(Cloud(x, text, texts), Cloud(y, text, texts))


def shift(x: Tensor, s: Tensor, texts: int = TEXTS) -> Shift:
    return Shift(Cloud(x, numbers(len(x), texts), texts), s)


# Independent implementations, from the definitions, over positions.


def hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Unbiased HSIC (Song et al., 2012, equation 5) from kernel matrices."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    middle = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + middle - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3)))


def kernel_cka(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    k, m = x @ x.T, y @ y.T
    if debiased:
        return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))
    h = np.eye(len(k)) - 1 / len(k)
    k, m = h @ k @ h, h @ m @ h
    return float((k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m))


def definition_svcca(x: np.ndarray, y: np.ndarray) -> float:
    """Mean canonical correlation from the eigenvalues of Sxx^-1 Sxy Syy^-1 Syx after PCA to 99% of the variance."""
    kept = []
    for z in (x - x.mean(0), y - y.mean(0)):
        u, s, _ = np.linalg.svd(z, full_matrices=False)
        count = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), 0.99)) + 1
        kept.append(u[:, :count] * s[:count])
    a, b = kept
    product = np.linalg.solve(a.T @ a, a.T @ b) @ np.linalg.solve(b.T @ b, b.T @ a)
    values = np.sort(np.real(np.linalg.eigvals(product)))[::-1][: min(a.shape[1], b.shape[1])]
    return float(np.sqrt(np.clip(values, 0, 1)).mean())


def definition_angles(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Cosines one by one: the pair of unit vectors with the largest product, then the next across it."""
    bases = [np.linalg.svd(z - z.mean(0), full_matrices=False)[2][:k].T for z in (x, y)]
    product = bases[0] @ bases[0].T @ bases[1] @ bases[1].T
    values = np.sort(np.real(np.linalg.eigvals(product)))[::-1][:k]
    return np.sqrt(np.clip(values, 0, 1))


@pytest.mark.parametrize("noise", [0.05, 0.5, 5.0])
def test_figures_are_those_of_their_definitions(noise: float) -> None:
    x = normal(1) * torch.linspace(3, 0.2, D) + 4
    y = x @ rotations(D, 1, 3)[0] + noise * normal(2)
    both, a, b = pair(x, y), x.numpy(), y.numpy()
    debiased, plain = both.cka()
    assert debiased.value == pytest.approx(kernel_cka(a, b, True), abs=1e-10)
    assert plain.value == pytest.approx(kernel_cka(a, b, False), abs=1e-10)
    assert both.svcca()[0].value == pytest.approx(definition_svcca(a, b), abs=1e-8)
    for k in (2, 5):
        assert both.cosines(k).numpy() == pytest.approx(definition_angles(a, b, k), abs=1e-7)
    s = y - x
    sigma = np.linalg.svd(s.numpy(), compute_uv=False)
    p = sigma**2 / (sigma**2).sum()
    moved = shift(x, s)
    assert moved.spectrum.effective_rank().value == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert moved.spectrum.participation().value == pytest.approx(1 / (p**2).sum())
    assert moved.spectrum.count() == int(np.searchsorted(np.cumsum(p), 0.9)) + 1
    assert moved.size().value == pytest.approx(np.linalg.norm(s.numpy()) / np.linalg.norm(a))
    axes = np.linalg.svd(a - a.mean(0))[2][:4]
    assert moved.inside(4) == pytest.approx(np.linalg.norm(s.numpy() @ axes.T) ** 2 / (sigma**2).sum())
    assert moved.constant().value == pytest.approx(N * (s.numpy().mean(0) ** 2).sum() / (sigma**2).sum())


def test_the_same_activations_and_rotated_scaled_moved_ones_are_alike() -> None:
    x = normal(1) * torch.linspace(3, 0.2, D)
    for y in (x, 2.5 * x @ rotations(D, 1, 7)[0] + 3):
        both = pair(x, y)
        for figure in both.cka():
            assert figure.value == pytest.approx(1, abs=1e-12)
            assert figure.stderr == pytest.approx(0, abs=1e-12)
        assert both.svcca()[0].value == pytest.approx(1, abs=1e-9)
    assert pair(x, x).cosines(3).tolist() == pytest.approx([1, 1, 1])


def test_independent_activations_are_not_alike_though_plain_cka_says_so() -> None:
    found = [pair(normal(n, 60, 40), normal(100 + n, 60, 40)).cka() for n in range(40)]
    debiased, plain = (np.array([figures[which].value for figures in found]) for which in (0, 1))
    assert abs(debiased.mean()) < 3 * debiased.std() / math.sqrt(40)
    assert plain.min() > 0.35
    # Of SVCCA the null is what it is about.
    figure, (kept, _), null = pair(normal(1, 600, 40), normal(2, 600, 40)).svcca()
    assert null == pytest.approx(math.sqrt(kept / 599), rel=0.05)
    assert 0.6 * null < (figure.value or 0) < null


def test_planted_shifts_have_their_rank_and_lie_where_they_were_planted() -> None:
    x = normal(1) * torch.linspace(3, 0.2, D)
    cloud = Cloud(x, numbers(), TEXTS)
    q = torch.linalg.qr(normal(4, N, 3)).Q
    for directions in (1, 3):
        moved = shift(x, q[:, :directions] @ cloud.axes[1][:, :directions].T)
        assert moved.spectrum.effective_rank().value == pytest.approx(directions)
        assert moved.spectrum.participation().value == pytest.approx(directions)
        assert moved.spectrum.count() == directions
        assert moved.inside(3) == pytest.approx(1)
    across = shift(x, q @ cloud.axes[1][:, 5:8].T)
    assert across.inside(5) == pytest.approx(0, abs=1e-12)
    assert across.inside(8) == pytest.approx(1)
    # l = (4, 1): p = (.8, .2).
    uneven = shift(x, q[:, :2] @ torch.diag(torch.tensor([2.0, 1.0]).double()) @ cloud.axes[1][:, :2].T)
    assert uneven.spectrum.participation().value == pytest.approx(1 / 0.68)
    assert uneven.spectrum.effective_rank().value == pytest.approx(0.8**-0.8 * 0.2**-0.2)
    assert uneven.spectrum.count() == 2
    assert shift(x, torch.ones(N, D).double()).constant().value == pytest.approx(1)


def test_nulls_of_shares_hold_over_random_rotations() -> None:
    p = torch.tensor([0.5, 0.3, 0.1, 0.1, *[0.0] * (D - 4)], dtype=torch.float64)
    values = np.array([float((q[:5].square() @ p).sum()) for q in rotations(D, 400, 1)])
    mean, spread = random_share(p, 5)
    assert mean == 5 / D
    assert values.mean() == pytest.approx(mean, abs=4 * spread / 20)
    assert values.std() == pytest.approx(spread, rel=0.15)
    even = torch.full((D,), 1 / D, dtype=torch.float64)
    assert random_share(even, 5)[1] == pytest.approx(0, abs=1e-9)


def drawn(statistic: Any, x: Tensor, y: Tensor, draws: int = 300) -> float:
    """Standard deviation of a statistic over resamples of the texts, computed anew."""
    generator = torch.Generator().manual_seed(9)
    rows = [torch.nonzero(numbers(len(x)) == t)[:, 0] for t in range(TEXTS)]
    values = []
    for _ in range(draws):
        taken = torch.cat([rows[t] for t in torch.randint(TEXTS, (TEXTS,), generator=generator).tolist()])
        values.append(statistic(pair(x[taken], y[taken])))
    return float(np.std(values))


def clustered(seed: int, n: int, d: int) -> Tensor:
    """Positions of one text have something in common."""
    return normal(seed, n, d) + normal(seed + 50, TEXTS, d)[numbers(n)]


def test_errors_are_those_of_a_bootstrap_over_texts() -> None:
    x = clustered(1, 480, D) * torch.linspace(3, 0.5, D)
    y = x + clustered(2, 480, D) @ torch.diag(torch.linspace(1, 0.2, D).double()) + 0.5
    both, moved = pair(x, y), shift(x, y - x)
    spectra = {
        "cka": (both.cka()[1], lambda p: p.cka()[1].value),
        "svcca": (both.svcca()[0], lambda p: p.svcca()[0].value),
        "effective rank": (moved.spectrum.effective_rank(), lambda p: ranks(p).effective_rank().value),
        "participation": (moved.spectrum.participation(), lambda p: ranks(p).participation().value),
        "base rank": (both.base.spectrum.effective_rank(), lambda p: p.base.spectrum.effective_rank().value),
        "size": (moved.size(), lambda p: Shift(p.base, p.tuned.x - p.base.x).size().value),
        "constant": (moved.constant(), lambda p: Shift(p.base, p.tuned.x - p.base.x).constant().value),
    }
    for name, (figure, statistic) in spectra.items():
        assert figure.stderr == pytest.approx(drawn(statistic, x, y), rel=0.25), name
    turn = Subspaces(both, moved, resamples(TEXTS, 300, 1)).turns((3,), 2, 0)[0]
    assert turn.cosine2.stderr == pytest.approx(drawn(lambda p: p.cosines(3).square().mean().item(), x, y), rel=0.25)
    inside = drawn(lambda p: Shift(p.base, p.tuned.x - p.base.x).inside(3), x, y)
    assert turn.inside.stderr == pytest.approx(inside, rel=0.25)
    assert turn.cosine2.value == pytest.approx(both.cosines(3).square().mean().item())


def ranks(both: CloudPair) -> Any:
    return Shift(both.base, both.tuned.x - both.base.x).spectrum


def test_intervals_cover() -> None:
    """A mean over texts, for which Student's interval is exact."""
    hits = 0
    for seed in range(300):
        values = normal(seed, 8, 1)[:, 0]
        low, high = from_influence(float(values.mean()), (values - values.mean()) / 8).interval()
        assert low is not None
        assert high is not None
        hits += low < 0 < high
    assert hits / 300 == pytest.approx(0.95, abs=0.035)
    share = from_draws(0.97, torch.tensor([0.9, 1.0, 0.95, 0.99]).double(), 5)
    low, high = share.interval()
    assert 0 < (low or 0) < 0.97 < (high or 2) < 1
    assert Figure(0.5).interval() == (None, None)
    assert from_influence(2.0, torch.zeros(1).double(), "log").interval() == (None, None)
    assert from_influence(2.0, torch.zeros(3).double(), "log").interval() == (2.0, 2.0)


def test_a_rotated_shift_is_a_rotation_of_the_shift() -> None:
    x = normal(1) * torch.linspace(3, 0.2, D) + 1
    s = 0.4 * normal(2) + 0.3
    turn = Subspaces(pair(x, x + s), shift(x, s), resamples(TEXTS, 5, 0)).turns((4,), 2, 11)[0]
    for value, rotation in zip(turn.rotated, rotations(D, 2, 11), strict=True):
        assert value == pytest.approx(float(pair(x, x + s @ rotation).cosines(4).square().mean()))


def test_massive_dimensions_are_found_by_their_rule() -> None:
    x = normal(1, 200, 64)
    x[7, 3] = -150.0
    x[:, 9] = 30.0
    factor = 100 * 0.6745
    assert massive(x, factor / 0.6745).nonzero()[:, 0].tolist() == [3]
    assert massive(x, 40).nonzero()[:, 0].tolist() == [3, 9]
    assert not massive(x, 1000).any()


def plain(path: Path, ids: tuple[int, ...]) -> list[Tensor]:
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.inference_mode():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    return [layer[0] for layer in out.hidden_states[1:]]


def test_streams_are_the_models_own_activations(root: Path, passages: list[Passage]) -> None:
    base, merged = Checkpoint(root / "base"), Checkpoint(root / "merged")
    tokens = choose(passages, 150, length=16, batch=40, seed=1)
    assert len(tokens.ids) > 3
    assert len(tokens.text) == len(tokens.place) == 150 == sum(int(real.sum()) for real in tokens.real)
    sides = [
        own(base),
        with_vector(base, Adapter(root / "sft")),
        with_difference(base, Difference(base, merged)),
        own(base),
    ]
    streams = Streams(base)
    found = [layer["residual"] for layer in streams.run(tokens, sides)]
    assert len(found) == 3
    texts = [row for ids, real in zip(tokens.ids, tokens.real, strict=True) for row in zip(ids, real, strict=True)]
    for number, (ids, real) in enumerate(texts):
        taken = tuple(ids[real].tolist())
        # The last layer's output is what the final norm makes of it, in transformers.
        for side, path in ((0, "base"), (1, "merged"), (2, "merged")):
            for layer, hidden in enumerate(plain(root / path, taken)[:-1]):
                assert torch.allclose(found[layer][side][tokens.text == number], hidden, atol=1e-4)
    # The weights are the base's again.
    for layer in found:
        assert torch.equal(layer[0], layer[3])


def test_halves_of_a_layer_and_transposed_weights(root: Path, passages: list[Passage], tmp_path: Path) -> None:
    streams = Streams(Checkpoint(root / "base"))
    tokens = choose(passages, 60)
    layers = list(streams.run(tokens, [own(Checkpoint(root / "base"))], ("residual", "attention", "mlp")))
    for before, layer in pairwise(layers):
        added = layer["attention"][0] + layer["mlp"][0]
        assert torch.allclose(layer["residual"][0], before["residual"][0] + added, atol=1e-4)
    make_gpt2(tmp_path / "gpt2")
    make_adapter(
        tmp_path / "gpt2", tmp_path / "pt", seed=1, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True
    )
    gpt2 = Checkpoint(tmp_path / "gpt2")
    out = compare(gpt2, Adapter(tmp_path / "pt"), passages, Scope(positions=80, ks=(2,), nulls=1, parts=("mlp",)))
    assert out["layers"][1]["all"]["size"]["value"] > 0.01


def test_a_checkpoint_and_the_vector_that_leads_to_it_are_the_same(root: Path, passages: list[Passage]) -> None:
    base = Checkpoint(root / "base")
    scope = Scope(positions=200, length=16, ks=(2, 6), nulls=2, draws=10)
    by_vector = compare(base, Adapter(root / "sft"), passages, scope)
    by_file = compare(base, Checkpoint(root / "merged"), passages, scope)
    json.dumps(by_vector, allow_nan=False)
    for one, other in zip(by_vector["layers"], by_file["layers"], strict=True):
        for view in ("all", "without"):
            for name in ("cka", "svcca", "effective_rank", "size"):
                assert one[view][name]["value"] == pytest.approx(other[view][name]["value"], rel=1e-4)
    assert by_vector == compare(base, Adapter(root / "sft"), passages, scope)
    row = by_vector["layers"][0]["without"]
    texts = by_vector["texts"]
    assert row["positions"] == 200 - texts
    assert len(row["random"]) == 2
    assert [turn["k"] for turn in row["subspaces"]] == [2, 6]
    assert len(row["subspaces"][0]["rotated"]) == 2
    assert by_vector["claim"]["verdict"] in ("supported", "contradicted", "not decided at this size")
    low, value, high = (by_vector["claim"]["directions"]["part"][name] for name in ("low", "value", "high"))
    assert low < value < high


def test_random_sides_have_the_spectrum_of_the_vector(root: Path, passages: list[Passage]) -> None:
    base, adapter = Checkpoint(root / "base"), Adapter(root / "sft")
    tokens = choose(passages, 60)
    expected = with_vector(base, same_spectrum(adapter, 4))
    sides = [
        random_side(base, adapter, 4),
        expected,
        random_side(base, Difference(base, Checkpoint(root / "merged")), 4),
    ]
    for layer in Streams(base).run(tokens, sides):
        random, planned, dense_one = layer["residual"]
        assert torch.equal(random, planned)
        assert dense_one.isfinite().all()


def test_full_vectors_with_norms_and_tied_embeddings(root: Path, passages: list[Passage], tmp_path: Path) -> None:
    base = Checkpoint(root / "base")
    generator = torch.Generator().manual_seed(3)
    deltas = {n: Dense(0.05 * torch.randn(i.shape, generator=generator)) for n, i in base.tensors.items()}
    tensors = {name: base[name] + deltas[name].tensor for name in base}
    copy(root / "base", tmp_path / "full")
    save_file(tensors, tmp_path / "full" / "model.safetensors", {"format": "pt"})
    sides = [
        with_vector(base, TuningVector(deltas)),
        with_difference(base, Difference(base, Checkpoint(tmp_path / "full"))),
    ]
    tokens = choose(passages, 60)
    for layer in Streams(base).run(tokens, sides):
        by_vector, by_file = layer["residual"]
        assert torch.allclose(by_vector, by_file, atol=1e-5)
    assert "model.embed_tokens.weight" in deltas
    random = next(iter(Streams(base).run(tokens, [own(base), random_side(base, TuningVector(deltas), 1)])))["residual"]
    assert 0.01 < float((random[1] - random[0]).norm() / random[0].norm()) < 2


def test_a_model_equal_to_its_base_is_said_to_be(root: Path, passages: list[Passage]) -> None:
    base = Checkpoint(root / "base")
    out = compare(base, base, passages, Scope(positions=100, ks=(2,), nulls=1))
    assert out["equal"] is True
    assert out["layers"][0]["all"]["effective_rank"]["value"] is None
    assert out["layers"][0]["all"]["cka"]["value"] == pytest.approx(1)
    assert out["claim"]["verdict"] == "not decided at this size"
    assert "do the same" in out["claim"]["reason"]


def part(values: list[float], nulls: list[list[float]], error: float = 0.01) -> list[LayerPart]:
    carrier = torch.tensor([error, -error]).double()
    return [
        LayerPart(
            layer,
            Figure(math.log(value), carrier, 9),
            tuple(Figure(math.log(null), torch.zeros(2).double(), 9) for null in row),
        )
        for layer, (value, row) in enumerate(zip(values, nulls, strict=True))
    ]


def test_the_claim_is_judged_by_its_rule() -> None:
    few = part([0.05, 0.2], [[0.4, 0.41, 0.42], [0.6, 0.61, 0.62]])
    many = part([0.5, 0.6], [[0.7, 0.71, 0.72], [0.6, 0.61, 0.62]])
    same = part([0.05, 0.2], [[0.05, 0.051, 0.049], [0.2, 0.21, 0.19]])
    more = part([0.05, 0.2], [[0.01, 0.011, 0.009], [0.02, 0.021, 0.019]])
    both = small_subspace({"directions": few, "subspace": few}, 0.25)
    assert both["verdict"] == "supported"
    assert both["directions"]["part"]["value"] == pytest.approx(0.1)
    assert both["directions"]["ratio"]["value"] == pytest.approx(0.1 / math.sqrt(0.41 * 0.61), rel=1e-3)
    assert [row["verdict"] for row in both["subspace"]["layers"]] == ["supported"] * 2
    for parts, verdict in ((many, "contradicted"), (more, "contradicted"), (same, "not decided at this size")):
        assert small_subspace({"directions": parts, "subspace": parts}, 0.25)["verdict"] == verdict
    mixed = small_subspace({"directions": few, "subspace": many}, 0.25)
    assert mixed["verdict"] == "not decided at this size"
    assert "do not agree" in mixed["reason"]
    unsure = small_subspace({"directions": part([0.05], [[0.4]])}, 0.25)
    assert unsure["verdict"] == "not decided at this size"
    assert unsure["directions"]["ratio"]["low"] is None
    # The larger of the two errors decides: with nulls that differ widely nothing is confirmed.
    wild = part([0.05], [[0.06, 0.9, 0.2]])
    assert small_subspace({"directions": wild}, 0.25)["verdict"] == "not decided at this size"


def test_bad_input_is_refused(root: Path, passages: list[Passage], tmp_path: Path) -> None:
    base, adapter = Checkpoint(root / "base"), Adapter(root / "sft")
    with pytest.raises(DataError, match="no texts of two tokens"):
        compare(base, adapter, [Passage((3,)), Passage(())])
    with pytest.raises(InputError, match="principal axes; a basis of 64 needs one more"):
        compare(base, adapter, passages, Scope(positions=40))
    with pytest.raises(InputError, match="positions, length and draws"):
        Scope(positions=1)
    with pytest.raises(InputError, match="principal subspaces"):
        Scope(ks=())
    with pytest.raises(InputError, match="'logits'"):
        Scope(parts=("logits",))
    make_llama(tmp_path / "narrow", hidden_size=32, tied=True, num_hidden_layers=3)
    for other in (tmp_path / "narrow", make_gpt2(tmp_path / "gpt2")):
        with pytest.raises(DataError, match="different architectures"):
            compare(base, Checkpoint(other), passages)
    copy(root / "base", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    with pytest.raises(InputError, match="rms_norm_eps"):
        check_configs(base, Checkpoint(tmp_path / "other"))
    with pytest.raises(AdapterError):
        with_vector(base, TuningVector({"model.layers.9.mlp.up_proj.weight": Dense(torch.zeros(2, 2))}))


def test_activations_that_are_not_finite_are_refused(root: Path, passages: list[Passage], tmp_path: Path) -> None:
    copy(root / "base", tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"][3, 3] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match="layer 1, residual: a model gives NaN"):
        compare(Checkpoint(root / "base"), Checkpoint(tmp_path / "broken"), passages, Scope(positions=60, ks=(2,)))
