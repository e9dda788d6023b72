"""Interference predicted and measured: against dense computations, finite differences and planted modules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossmatch.adapter import Adapter
from crossmatch.analysis.attribution.ablation import ablate, divergence, expected_scores, over_weights, units
from crossmatch.analysis.attribution.batches import batches
from crossmatch.analysis.attribution.gate_gradients import gradients, guest_path, lobatto, mean, score, shares
from crossmatch.analysis.attribution.gated_model import Instrumented, Site
from crossmatch.analysis.interference.activation_energy import activation_interference
from crossmatch.analysis.interference.non_additivity import non_additivity
from crossmatch.analysis.interference.predict import Scope, predict_and_measure
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.token_classes import KINDS, Text, read_texts
from crossmatch.delta import TuningVector, dense
from crossmatch.errors import AdapterError, DataError, InputError
from crossmatch.report.page.interference import attribution_chart, weights_chart
from crossmatch.report.page.interference_tables import predicted_chart
from crossmatch.statistics.influence import ratio
from crossmatch.statistics.rank_correlation import spearman
from helpers import make_adapter, make_chat_model, make_gpt2, make_interfering, make_llama

WEIGHTS = {"pt": 0.3, "sft": 0.7}
DOWN, Q = "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj"
DIALOGUES = [
    [{"role": "user", "content": f"what is {a} ?"}, {"role": "assistant", "content": answer}]
    for a, answer in (
        ("anaemia", "low blood cell level"),
        ("bone", "the old heart of the system ."),
        ("lung disease", "high pressure in the lung"),
        ("kidney", "<think> okay let me see </think> a system of blood cell"),
        ("heart", "new blood"),
        ("level", "<think> okay let me"),
    )
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model `base` in float32 with initial weights large enough that its logits differ; adapters on it."""
    root = tmp_path_factory.mktemp("interference")
    make_interfering(root)
    return root


@pytest.fixture(scope="module")
def texts(root: Path) -> list[Text]:
    return read_texts(AutoTokenizer.from_pretrained(root / "base"), DIALOGUES, opener="<think> okay")


@pytest.fixture(scope="module")
def model(root: Path) -> Instrumented:
    return Instrumented(Checkpoint(root / "base"), {n: Adapter(root / n) for n in WEIGHTS}, WEIGHTS)


def merged(root: Path, weights: dict[str, float]) -> Any:
    """The same merge with its weights added, in float32."""
    model: Any = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32).eval().requires_grad_(False)
    for name, weight in weights.items():
        for tensor, delta in Adapter(root / name).items():
            model.get_parameter(tensor).data += (weight * dense(delta)).float()
    return model


def numbers(text: Text, model: Any) -> float:
    """A text's score from the plain model, one sequence, no padding."""
    log_p = torch.log_softmax(model(torch.tensor([text.ids])).logits[0].double(), -1)
    total = sum(float(log_p[place - 1, text.ids[place]]) for place in range(text.start, len(text.ids)))
    return total - float(log_p[text.start - 1, text.rival]) if text.rival is not None else -total


def test_texts_have_classes_for_every_token(root: Path, texts: list[Text]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    items = [text for text in texts if not text.is_probe]
    thought = items[3]
    words = dict.fromkeys(KINDS, "")
    for token, kind in zip(thought.ids, thought.kinds, strict=True):
        words[kind] += " " + tokenizer.decode([token])
    assert words["prompt"].split()[0] == "<|user|>"
    assert words["opener"] == " <|assistant|>"
    assert words["think"].split() == "<think> okay let me see </think>".split()
    assert words["answer"].split() == "a system of blood cell <|end|>".split()
    # Unclosed: all of it is thought. Plain: none of it.
    assert set(items[5].kinds[items[5].start :]) == {"think"}
    assert set(items[0].kinds[items[0].start :]) == {"answer"}
    # A probe follows its item, but for those that begin with the opener themselves.
    assert [text.is_probe for text in texts] == [0, 1, 0, 1, 0, 1, 0, 0, 1, 0]
    probe = texts[1]
    assert tokenizer.decode(probe.ids[probe.start :]) == "<think> okay"
    assert probe.rival == texts[0].ids[texts[0].start]
    assert [KINDS[c] for c in probe.classes() if c >= 0] == ["think", "think"]


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (("prompt", "opener"), "2 classes"),
        (("prompt", "opener", "word"), "'word'"),
        (("prompt", "prompt", "answer"), "needs a prompt that ends"),
        (("prompt", "prompt", "opener"), "then a response"),
        (("opener", "prompt", "answer"), "needs a prompt that ends"),
    ],
)
def test_a_text_that_says_nothing_is_refused(kinds: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Text((1, 2, 3), kinds)


def test_batches_hold_every_text_once_and_keep_to_their_size(texts: list[Text]) -> None:
    found = list(batches(texts, 40))
    assert sorted(n for batch in found for n in batch.numbers) == list(range(len(texts)))
    assert all(batch.ids.numel() <= 40 for batch in found)
    assert len(found) > 1


def test_unmerged_is_merged(root: Path, model: Instrumented, texts: list[Text]) -> None:
    for weights in (WEIGHTS, {"sft": 0.7}, {"pt": -0.6, "sft": 1.4}, {}):
        plain = merged(root, weights)
        gates = {name: weights.get(name, 0.0) / WEIGHTS[name] for name in WEIGHTS}
        expected = np.array([numbers(text, plain) for text in texts])
        assert score(model, texts, gates, tokens=64) == pytest.approx(expected, abs=1e-4)
        for batch in batches(texts, 1):
            with torch.inference_mode(), model.gated(model.gates(gates)):
                found, first = model.log_probabilities(batch)
            logits = plain(batch.ids).logits[:, first - 1 : -1]
            assert torch.allclose(found, torch.log_softmax(logits, -1), atol=1e-4)


def test_outside_of_a_block_the_model_is_the_base(root: Path, model: Instrumented, texts: list[Text]) -> None:
    with model.gated(model.gates({})):
        pass
    ids = torch.tensor([texts[0].ids])
    base = merged(root, {})
    with torch.inference_mode():
        assert torch.equal(model.model(ids).logits, base(ids).logits)


def test_modules_that_store_their_weight_transposed(tmp_path: Path) -> None:
    make_gpt2(tmp_path / "base")
    make_adapter(
        tmp_path / "base", tmp_path / "pt", seed=1, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True
    )
    model = Instrumented(Checkpoint(tmp_path / "base"), {"pt": Adapter(tmp_path / "pt")}, {"pt": 0.5})
    text = Text(tuple(range(9)), (*["prompt"] * 3, "opener", *["answer"] * 5))
    plain: Any = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval().requires_grad_(False)
    )
    for name, delta in Adapter(tmp_path / "pt").items():
        stored = f"transformer.{name}" if not name.startswith("transformer.") else name
        update = 0.5 * dense(delta).float()
        target = plain.get_parameter(stored).data
        target += update if update.shape == target.shape else update.T
    assert score(model, [text], {})[0] == pytest.approx(numbers(text, plain), abs=1e-4)


def test_a_delta_without_factors(root: Path, tmp_path: Path, texts: list[Text]) -> None:
    make_adapter(root / "base", tmp_path / "pt", seed=3, use_dora=True)
    adapters = {"pt": Adapter(tmp_path / "pt"), "sft": Adapter(root / "sft")}
    base = Checkpoint(root / "base")
    model = Instrumented(base, adapters, WEIGHTS)
    plain: Any = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32).eval().requires_grad_(False)
    for name, adapter in adapters.items():
        for tensor, delta in adapter.items():
            weight = plain.get_parameter(tensor).data
            whole = base.rows(tensor, 0, delta.height).double()
            weight += (WEIGHTS[name] * delta.rows(0, delta.height, torch.float64, whole)).float()
    assert score(model, texts[:1], {})[0] == pytest.approx(numbers(texts[0], plain), abs=1e-4)
    found = {(row.site.name, row.kind): row for row in activation_interference(model, texts[:1]).table()}
    assert (found[f"{Q}.weight", "answer"].ratio.value or 0) > 0


@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers:UserWarning")
def test_what_is_no_linear_module_is_refused(root: Path, tmp_path: Path) -> None:
    make_adapter(root / "base", tmp_path / "wide", seed=3, target_modules=["q_proj", "embed_tokens"])
    base = Checkpoint(root / "base")
    with pytest.raises(InputError, match="embed_tokens.weight, which is no linear module"):
        Instrumented(base, {"pt": Adapter(tmp_path / "wide")}, {"pt": 1.0})
    with pytest.raises(InputError, match="sft has no adapter or no weight"):
        Instrumented(base, {"pt": Adapter(root / "pt")}, WEIGHTS)
    one = Instrumented(base, {"pt": Adapter(root / "pt")}, {"pt": 1.0})
    with pytest.raises(InputError, match="there are 1"):
        one.pair()
    make_llama(tmp_path / "narrow", hidden_size=32, vocab_size=64)
    with pytest.raises(AdapterError):
        Instrumented(Checkpoint(tmp_path / "narrow"), {"pt": Adapter(root / "pt")}, {"pt": 1.0})


def test_activation_interference_is_the_dense_one(root: Path, model: Instrumented, texts: list[Text]) -> None:
    """Inputs of the merged host-only model, every delta as a whole matrix, everything in float64."""
    plain = merged(root, {"sft": 0.7})
    seen: dict[str, torch.Tensor] = {}
    plain.get_submodule(DOWN).register_forward_hook(lambda m, x, y: seen.update(x=x[0][0].detach().double()))
    pt, sft = (dense(Adapter(root / n)[f"{DOWN}.weight"]) * w for n, w in WEIGHTS.items())
    weight = merged(root, {}).get_parameter(f"{DOWN}.weight").detach().double()
    basis = torch.linalg.svd(sft)[0][:, :4]
    rows = {k: [[], [], [], [], [], [], []] for k in KINDS}
    for text in texts:
        plain(torch.tensor([text.ids]))
        for place, kind in enumerate(text.classes()):
            if kind < 0:
                continue
            p, s, y = (matrix @ seen["x"][place] for matrix in (pt, sft, weight))
            across = p - (p @ s) / (s @ s) * s
            values = (p @ p, s @ s, y @ y, (basis.T @ p).square().sum(), p @ s / (p.norm() * s.norm()))
            for column, value in zip(
                rows[KINDS[kind]], (*values, (-p @ s).clamp_min(0), across.norm() > s.norm()), strict=True
            ):
                column.append(float(value))
    table = {row.kind: row for row in activation_interference(model, texts, tokens=50).table() if DOWN in row.site.name}
    assert set(table) == set(KINDS)
    for kind, (p, s, y, inside, cosine, taken, covered) in rows.items():
        row = table[kind]
        assert row.n == len(p)
        # The inputs come from two float32 models: what remains is their rounding.
        expected = {
            "ratio": sum(p) / sum(s),
            "guest": sum(p) / sum(y),
            "host": sum(s) / sum(y),
            "inside": sum(inside) / sum(p),
            "cosine": np.mean(cosine),
            "reversed": sum(taken) / sum(s),
            "obscured": np.mean(covered),
        }
        for name, value in expected.items():
            assert getattr(row, name).value == pytest.approx(value, abs=2e-6, rel=2e-6), (kind, name)
        assert row.inside_null == pytest.approx(4 / 64)
    assert table["opener"].texts == len(DIALOGUES)


def test_activation_statistics_of_planted_effects(root: Path, tmp_path: Path, texts: list[Text]) -> None:
    """A guest that is minus half the host: everything is known."""
    half = -0.5 * Adapter(root / "sft")
    model = Instrumented(Checkpoint(root / "base"), {"pt": half, "sft": Adapter(root / "sft")}, {"pt": 1.0, "sft": 1.0})
    for row in activation_interference(model, texts).table():
        assert row.ratio.value == pytest.approx(0.25, rel=1e-6)
        assert row.cosine.value == pytest.approx(-1, abs=1e-6)
        assert row.reversed.value == pytest.approx(0.5, rel=1e-6)
        assert row.inside.value == pytest.approx(1, rel=1e-6)
        assert row.obscured.value == 0
        assert row.ratio.stderr == pytest.approx(0, abs=1e-6)
    # Where one adapter leaves a module alone, what needs both is not defined.
    model = Instrumented(Checkpoint(root / "base"), {n: Adapter(root / n) for n in WEIGHTS}, WEIGHTS)
    alone = [row for row in activation_interference(model, texts).table() if row.site.module == "v_proj"]
    assert alone
    assert {(row.ratio.value, row.cosine.value, row.obscured.value, row.inside_null) for row in alone} == {(None,) * 4}
    assert all((row.guest.value or 0) > 0 and row.host.value == 0 for row in alone)


def test_standard_errors_take_texts_as_clusters() -> None:
    rng = np.random.default_rng(0)
    below = rng.integers(5, 15, 400).astype(float)
    above = below * (2 + rng.normal(0, 0.5, 400))
    found = ratio(above, below)
    draws = rng.integers(0, 400, (4000, 400))
    spread = (above[draws].sum(1) / below[draws].sum(1)).std()
    assert found.value == pytest.approx(above.sum() / below.sum())
    assert found.stderr == pytest.approx(spread, rel=0.1)
    assert ratio(np.ones(1), np.ones(1)).stderr is None
    assert ratio(np.ones(3), np.zeros(3)).value is None


def test_the_residual_stream_against_four_models(root: Path, model: Instrumented, texts: list[Text]) -> None:
    states = [merged(root, w) for w in ({}, {"pt": 0.3}, {"sft": 0.7}, WEIGHTS)]
    hidden: list[torch.Tensor] = []
    for state in states:
        state.model.layers[1].register_forward_hook(lambda m, x, y: hidden.append(y[0].detach().double()))
    together = alone = 0.0
    for text in texts:
        hidden.clear()
        for state in states:
            state(torch.tensor([text.ids]))
        base, pt, sft, both = hidden
        at = [place for place, kind in enumerate(text.classes()) if kind == KINDS.index("answer")]
        together += float((both - pt - sft + base)[at].square().sum())
        alone += float((pt + sft - 2 * base)[at].square().sum())
    table = {(row.layer, row.kind): row for row in non_additivity(model, texts, tokens=64)}
    assert table[1, "answer"].ratio.value == pytest.approx(together / alone, rel=1e-4)
    assert table[1, "answer"].ratio.value > 1e-3
    assert {layer for layer, _ in table} == {0, 1}


def test_the_residual_stream_is_additive_where_it_must_be(tmp_path: Path) -> None:
    """One layer, and both adapters on its last module, which nothing follows: what they do simply adds up."""
    make_chat_model(tmp_path / "base", num_hidden_layers=1)
    for seed, name in enumerate(("pt", "sft")):
        make_adapter(tmp_path / "base", tmp_path / name, seed=seed, size=1.0, target_modules=["down_proj"])
    texts = read_texts(AutoTokenizer.from_pretrained(tmp_path / "base"), DIALOGUES)
    adapters = {n: Adapter(tmp_path / n) for n in WEIGHTS}
    for row in non_additivity(Instrumented(Checkpoint(tmp_path / "base"), adapters, WEIGHTS), texts):
        assert row.ratio.value == pytest.approx(0, abs=1e-10)
        assert (row.guest_to_host.value or 0) > 0


def test_gradients_are_finite_differences(model: Instrumented, texts: list[Text]) -> None:
    scores, slopes = gradients(model, texts, {"pt": 0.5}, tokens=64)
    assert scores == pytest.approx(score(model, texts, {"pt": 0.5}), abs=1e-5)
    step = 0.05
    for adapter, site in ((0, 0), (0, len(model.sites) - 1), (1, 0)):
        ends = []
        for sign in (1, -1):
            gates = model.gates({"pt": 0.5})
            gates[adapter, site] += sign * step
            with torch.inference_mode(), model.gated(gates):
                ends.append(torch.stack([model.scores(batch)[0] for batch in batches(texts, 1)]).double().numpy())
        order = [batch.numbers[0] for batch in batches(texts, 1)]
        found = (ends[0] - ends[1]) / (2 * step)
        assert slopes[adapter, site, order] == pytest.approx(found, abs=2e-3, rel=0.02)
    absent = [n for n, pair in enumerate(model.branches) if pair[1] is None]
    assert absent
    assert not slopes[1, absent].any()


def test_the_quadrature_is_exact_for_polynomials() -> None:
    for count in (2, 3, 5, 8):
        nodes, weights = lobatto(count)
        assert (nodes[0], nodes[-1]) == (0, 1)
        for degree in range(2 * count - 2):
            assert float(weights @ nodes**degree) == pytest.approx(1 / (degree + 1), abs=1e-12)
    with pytest.raises(DataError, match="1 nodes are too few"):
        lobatto(1)


def test_attributions_add_up_to_the_change(root: Path, texts: list[Text]) -> None:
    adapters = {n: Adapter(root / n) for n in WEIGHTS}
    model = Instrumented(Checkpoint(root / "base"), adapters, {"pt": 1.0, "sft": 0.7})
    path = guest_path(model, texts, nodes=5)
    for share in shares(texts).values():
        assert abs(mean(path.change, share).value or 0) > 1e-3
        assert path.completeness(share) == pytest.approx(1, abs=0.05)
    expected = score(model, texts, {}) - score(model, texts, {"pt": 0.0})
    assert path.change == pytest.approx(expected, abs=1e-4)
    with pytest.raises(DataError, match="not probes alone"):
        shares([text for text in texts if text.is_probe])


def test_units_are_modules_or_bands_of_layers() -> None:
    sites = [Site(f"layers.{n}.{m}.weight", n, m) for n in range(6) for m in ("q_proj", "down_proj")]
    assert [unit.sites for unit in units(sites, [0, 3], 2)] == [(0,), (3,)]
    bands = units(sites, range(12), 7)
    assert [(unit.name, unit.layers) for unit in bands[:2]] == [("q_proj 0-1", (0, 1)), ("down_proj 0-1", (0, 1))]
    assert len(bands) == 6
    assert sorted(n for unit in bands for n in unit.sites) == list(range(12))
    assert len(units(sites, range(12), 1)) == 2
    assert [unit.name for unit in units([Site("lm_head.weight", None, "lm_head")] * 2, range(2), 1)] == ["lm_head"]


def test_an_ablation_is_the_difference_of_two_models(model: Instrumented, texts: list[Text]) -> None:
    """Against whole passes: what is kept of the lower layers changes nothing."""
    parts = units(model.sites, range(len(model.sites)), 99)
    changes = ablate(model, texts, parts, tokens=64)
    site = next(n for n, s in enumerate(model.sites) if DOWN in s.name)
    assert model.depths[site] == 1
    for way, gate, rest in (("off", 0.0, 1.0), ("on", 1.0, 0.0)):
        gates = model.gates({"pt": rest})
        gates[0, site] = gate
        found = np.zeros(len(texts))
        with torch.inference_mode(), model.gated(gates):
            for batch in batches(texts, 64):
                found[list(batch.numbers)] = model.scores(batch).double().numpy()
        reference = score(model, texts, {"pt": rest})
        expected = reference - found if way == "off" else found - reference
        assert changes[way][site] == pytest.approx(expected, abs=1e-5)
        assert abs(expected).max() > 1e-3
    # Afterwards every layer computes again.
    assert score(model, texts, {}) == pytest.approx(score(model, texts, {}, tokens=64), abs=1e-5)


def test_merge_weights_and_their_expansion(model: Instrumented, texts: list[Text]) -> None:
    points = [(1.0, 1.0), (1.02, 1.0), (0.98, 1.0), (1.0, 1.02), (1.0, 0.98)]
    measured = over_weights(model, texts, points)
    assert measured[0] == pytest.approx(score(model, texts, {}), abs=1e-6)
    references = {
        "merge": gradients(model, texts, {}),
        "without-guest": gradients(model, texts, {"pt": 0.0}),
        "without-host": gradients(model, texts, {"sft": 0.0}),
    }
    expected = expected_scores(references, points, (0, 1))
    for above, below in ((1, 2), (3, 4)):
        moved = measured[above] - measured[below]
        assert abs(moved).max() > 1e-2
        for found in expected.values():
            assert found[above] - found[below] == pytest.approx(moved, rel=0.02, abs=1e-4)
    with pytest.raises(InputError, match="finite"):
        over_weights(model, texts, [(float("nan"), 1.0)])


def test_the_second_order_is_exact_for_a_quadratic() -> None:
    """L = a'g + g'Hg/2 for two adapters with one module each and one text."""
    a, H = np.array([0.3, -0.2]), np.array([[1.0, 0.4], [0.4, -0.7]])

    def known(g: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        point = np.array(g)
        return np.array([a @ point + point @ H @ point / 2]), (a + H @ point)[:, None, None]

    references = {"merge": known([1, 1]), "without-guest": known([0, 1]), "without-host": known([1, 0])}
    points = [(0.0, 0.5), (2.0, 1.0), (1.0, 1.0)]
    expected = expected_scores(references, points, (0, 1))
    assert expected["second_order"][:, 0] == pytest.approx([known(p)[0][0] for p in points])
    assert abs(expected["first_order"] - expected["second_order"]).max() > 0.1


def test_divergence_is_that_of_two_models(root: Path, model: Instrumented, texts: list[Text]) -> None:
    first, total, count = divergence(model, texts, tokens=64)
    both, host = merged(root, WEIGHTS), merged(root, {"sft": 0.7})
    for number, text in enumerate(texts):
        p, q = (torch.log_softmax(m(torch.tensor([text.ids])).logits[0].double(), -1) for m in (both, host))
        kl = (p.exp() * (p - q)).sum(-1)[text.start - 1 : -1]
        if text.is_probe:
            assert (first[number], total[number], count[number]) == (0, 0, 0)
        else:
            assert first[number] == pytest.approx(float(kl[0]), abs=1e-5)
            assert total[number] == pytest.approx(float(kl.sum()), abs=1e-5)
            assert count[number] == len(kl)


def test_spearman_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    for ties in (False, True):
        x = rng.normal(size=60)
        y = x + rng.normal(size=60)
        if ties:
            x, y = x.round(), y.round()
        found = spearman(x, y)
        assert found.value == pytest.approx(float(spearmanr(x, y).statistic), abs=1e-12)
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        # Each draw ranks anew: against scipy on the very same draws.
        draws = np.random.default_rng(0).integers(0, 60, (50, 60))
        few = spearman(x, y, draws=50)
        each = [spearmanr(x[d], y[d]).statistic for d in draws]
        assert (few.low, few.high) == pytest.approx(tuple(np.quantile(each, [0.025, 0.975])))
    assert spearman(x, np.full(60, 2.0)).value is None
    assert spearman(np.array([1.0, np.nan, 2.0]), np.arange(3.0)).n == 2


@pytest.fixture(scope="module")
def planted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> TuningVector:
    """A guest that is small everywhere but in one module, where it is large and takes the host's effect back."""
    small = make_adapter(
        root / "base", tmp_path_factory.mktemp("guest") / "pt", seed=5, size=0.003, target_modules="all-linear"
    )
    vector, sft = Adapter(small), Adapter(root / "sft")
    return TuningVector({**{n: vector[n] for n in vector}, f"{DOWN}.weight": sft[f"{DOWN}.weight"].scaled(-4.0)})


def test_a_planted_module_comes_first(root: Path, planted: TuningVector, texts: list[Text]) -> None:
    """On texts that the model of the host alone writes itself, so that what disturbs it raises the loss."""
    adapters: Any = {"pt": planted, "sft": Adapter(root / "sft")}
    weights = {"pt": 1.0, "sft": 1.0}
    plain = merged(root, {"sft": 1.0})
    plain.generation_config.eos_token_id = None
    own = []
    for text in texts[::2]:
        ids = torch.tensor([text.ids[: text.start]])
        out = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0
        )
        own.append(Text(tuple(out[0].tolist()), (*text.kinds[: text.start], *["answer"] * 8)))
    probes = [t for t in texts if t.is_probe]
    scope = Scope(measured=8, units=99, multiples=(0.0, 1.0), draws=200)
    facts = predict_and_measure(Checkpoint(root / "base"), adapters, weights, [*own, *probes], scope)
    rows = facts["measured"]["loss"]["units"]
    assert len(rows) == 14
    for way in ("off", "on"):
        assert max(rows, key=lambda row: row[way]["value"])["name"] == DOWN
    for predictor in ("integrated", "activation_size"):
        assert max(rows, key=lambda row: row["predicted"][predictor]["mean"])["name"] == DOWN
    known = [row for row in rows if row["predicted"]["activation_ratio"]["mean"] is not None]
    assert max(known, key=lambda row: row["predicted"]["activation_ratio"]["mean"])["name"] == DOWN
    assert min(known, key=lambda row: row["predicted"]["overlap_cosine"]["mean"])["name"] == DOWN
    assert facts["attribution"]["loss"]["change"]["value"] > 0
    assert facts["agreement"]["loss"]["integrated"]["mean"]["change"]["n"] == 14


def test_the_facts_are_plain_and_the_same_each_time(root: Path, texts: list[Text]) -> None:
    import json

    scope = Scope(measured=3, nodes=3, units=6, multiples=(0.0, 1.0, 1.5), draws=100)
    call = (Checkpoint(root / "base"), {n: Adapter(root / n) for n in WEIGHTS}, WEIGHTS, texts, scope)
    one, other = (json.dumps(predict_and_measure(*call), allow_nan=False) for _ in range(2))
    assert one == other
    facts = json.loads(one)
    assert facts["texts"] == {
        "items": 6,
        "probes": 4,
        "tokens": sum(len(t.ids) for t in texts),
        "measured_items": 3,
        "measured_probes": 3,
    }
    assert set(facts["measured"]) == {"loss", "odds"}
    for target in facts["weights_grid"].values():
        merge = next(p for p in target["points"] if (p["guest"], p["host"]) == (1.0, 1.0))
        assert merge["measured"] == pytest.approx(merge["first_order"], abs=1e-5)
        assert target["agreement"]["second_order"]["n"] == 8


@pytest.fixture(scope="module")
def facts(root: Path, texts: list[Text]) -> dict[str, Any]:
    scope = Scope(measured=3, nodes=3, units=99, multiples=(0.0, 1.0, 1.5), draws=100)
    return predict_and_measure(
        Checkpoint(root / "base"), {n: Adapter(root / n) for n in WEIGHTS}, WEIGHTS, texts, scope
    )


def values(spec: dict[str, Any], place: int) -> list[dict[str, Any]]:
    """The rows that a chart, or a layer of it, draws."""
    layer = spec["layer"][place] if "layer" in spec else spec
    return layer.get("data", spec.get("data"))["values"]


def test_the_chart_shows_predicted_against_measured(facts: dict[str, Any]) -> None:
    spec = predicted_chart(facts)
    assert spec is not None
    _, bars, points, corner = (values(spec, place) for place in range(4))
    assert bars == points
    units = facts["measured"]["loss"]["units"]
    for way, title in (("mean", "mean of off and on"), ("off", "switching it off in the merge")):
        chosen = {"predictor": "integrated gradients of the gates", "target": "loss, nats per token", "way": title}
        drawn = [row for row in points if chosen.items() <= row.items()]
        assert [row["predicted"] for row in drawn] == [unit["predicted"]["integrated"][way] for unit in units]
        assert [row["measured"] for row in drawn] == [
            unit[way]["value"] if way == "off" else unit[way] for unit in units
        ]
        found = facts["agreement"]["loss"]["integrated"][way]["change"]
        said = [row["said"] for row in corner if chosen.items() <= row.items()]
        assert said == [f"Spearman {found['value']:.2f} (95% {found['low']:.2f} to {found['high']:.2f}), n = 14"]
    # Where the predictor is defined for a part of the modules only, these alone are drawn.
    part = [r for r in points if r["predictor"] == "cosine of the deltas" and r["way"] == "mean of off and on"]
    assert len(part) == 2 * facts["agreement"]["loss"]["overlap_cosine"]["mean"]["change"]["n"] == 12
    assert {param["name"] for param in spec["params"]} == {"predictor", "target", "way"}


def test_the_heat_map_holds_every_module(facts: dict[str, Any]) -> None:
    spec = attribution_chart(facts)
    assert spec is not None
    modules = [m for m in facts["attribution"]["loss"]["modules"] if m["adapter"] == "pt"]
    assert {(r["layer"], r["module"]): r["value"] for r in values(spec, 0)} == {
        (m["layer"], m["module"]): m["integrated"]["value"] for m in modules
    }
    share = facts["attribution"]["loss"]["completeness"]
    assert f"the modules' sum is {share:.1%} of it" in spec["title"]
    host = attribution_chart(facts, adapter="sft")
    assert host is not None
    assert len(values(host, 0)) == 6
    assert attribution_chart(facts, target="accuracy") is None


def test_the_chart_of_weights(facts: dict[str, Any]) -> None:
    spec = weights_chart(facts)
    assert spec is not None
    assert len(values(spec, -1)) == 8
    assert weights_chart(facts, target="accuracy") is None


def test_charts_are_drawn(facts: dict[str, Any]) -> None:
    import vl_convert

    for spec in (
        predicted_chart(facts),
        attribution_chart(facts),
        weights_chart(facts),
    ):
        assert "Spearman" in (svg := vl_convert.vegalite_to_svg({**(spec or {}), "width": 500})) or "adds" in svg


def test_classes_pool_the_modules_that_both_change(model: Instrumented, texts: list[Text]) -> None:
    sums = activation_interference(model, texts)
    rows = {row.kind: row for row in sums.classes()}
    assert set(rows) == set(KINDS)
    shared = [n for n, pair in enumerate(model.branches) if None not in pair]
    for kind, row in rows.items():
        one = sums.of("guest", [kind])[shared].sum(1) / sums.of("host", [kind])[shared].sum(1)
        assert row.modules == len(shared) == 6
        assert row.n == sum(text.kinds.count(kind) for text in texts if kind == "think" or not text.is_probe)
        assert row.spread == pytest.approx((one.min(), np.median(one), one.max()))
        assert one.min() < (row.ratio.value or 0) < one.max()
        assert row.ratio.stderr is not None
