"""Nulls of a vector, strengths, criticality: on planted vectors whose answers are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossmatch import Adapter, Checkpoint, TuningVector
from crossmatch.checkpoint import layer_of
from crossmatch.cli import run
from crossmatch.delta import Dense, Replacement, cosine, dense, layer_shuffled, norm, same_norm, singular_values
from crossmatch.errors import InputError, RuleError
from crossmatch.evaluation import Variant, load_suite
from crossmatch.evaluation.comparison.criticality import criticality, strength_curves
from crossmatch.evaluation.runner.runner import evaluate
from crossmatch.evaluation.variants.random_controls import Null, without_layer
from crossmatch.evaluation.variants.strengths import all_variants, parse_strengths, removal_variants
from crossmatch.evaluation.variants.variants import distinct
from crossmatch.statistics.estimates import mean_of
from crossmatch.training import TrainSettings, train_stage
from helpers import make_adapter, make_chat_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
THINGS = ("heart", "lung", "kidney", "bone", "blood", "cell")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of four layers, an adapter trained to answer every question alike, a faint random one, and two suites."""
    root = tmp_path_factory.mktemp("critical")
    make_chat_model(root / "base", num_hidden_layers=4)
    questions = [
        f"{verb} the {age} {thing}" for verb in ("name", "define") for age in ("old", "new") for thing in THINGS
    ]
    rows = [{"prompt": question, "completion": "low pressure"} for question in questions] * 4
    (root / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = TrainSettings.model_validate(
        {"rank": 4, "learning_rate": 4e-3, "epochs": 2, "batch_size": 16, "max_length": 16}
    )
    train_stage(Checkpoint(root / "base"), "sft", root / "sft.jsonl", root / "matters", settings=settings)
    make_adapter(root / "base", root / "faint", seed=5, size=1e-5)
    asked = [f"what is the very {thing} {more}" for thing in THINGS for more in ("in", "of", "first", "?")]
    options = ["high level", "low pressure", "old term", "new cell"]
    pick = [{"id": str(i), "question": q, "options": options, "answer": 1} for i, q in enumerate(asked)]
    ask = [{"id": str(i), "question": q, "reference": "Low  pressure."} for i, q in enumerate(asked)]
    for name, items in {"pick": pick, "ask": ask}.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    (root / "pick.yaml").write_text("name: pick\nversion: 1\nkind: choice\ndata: pick.jsonl\n")
    (root / "ask.yaml").write_text(
        "name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 3\nmatch: text\n"
    )
    return root


@pytest.mark.parametrize("seed", [0, 3])
def test_a_null_of_equal_norm(room: Path, seed: int) -> None:
    adapter = Adapter(room / "matters")
    null = same_norm(adapter, seed)
    assert list(null) == list(adapter)
    for name in null:
        assert norm(null[name]) == pytest.approx(norm(adapter[name]), rel=1e-9)
        assert len(singular_values(null[name])) == len(singular_values(adapter[name]))
        assert abs(cosine(null[name], adapter[name]) or 0.0) < 0.5
        # The spectrum is another: that null is the other one.
        assert not torch.allclose(singular_values(null[name]), singular_values(adapter[name]), rtol=0.05)
    again = same_norm(adapter, seed)
    assert all(torch.equal(dense(null[name]), dense(again[name])) for name in null)
    other = same_norm(adapter, seed + 1)
    assert all(abs(cosine(null[name], other[name]) or 0.0) < 0.5 for name in null)


def test_a_null_of_equal_norm_for_whole_matrices() -> None:
    vector = TuningVector({"a.weight": Dense(torch.randn(8, 6)), "b.bias": Dense(torch.zeros(5))})
    null = same_norm(vector, 0)
    assert norm(null["a.weight"]) == pytest.approx(norm(vector["a.weight"]), rel=1e-6)
    assert not dense(null["b.bias"]).any()
    assert null["b.bias"].shape == (5,)


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_layers_keep_the_spectra_of_each_type(room: Path, seed: int) -> None:
    adapter = Adapter(room / "matters")
    null = layer_shuffled(adapter, seed, without_layer)
    groups: dict[str, list[str]] = {}
    for name in adapter:
        groups.setdefault(without_layer(name), []).append(name)
    assert {len(names) for names in groups.values()} == {4}
    for names in groups.values():
        before = sorted((singular_values(adapter[name]) for name in names), key=lambda s: float(s[0]))
        after = sorted((singular_values(null[name]) for name in names), key=lambda s: float(s[0]))
        for one, other in zip(before, after, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        for name in names:
            assert not torch.equal(dense(null[name]), dense(adapter[name])), name
            came_from = [n for n in names if torch.equal(dense(null[name]), dense(adapter[n]))]
            assert len(came_from) == 1
            assert layer_of(came_from[0]) != layer_of(name)


def test_what_has_no_other_layer_is_random(room: Path) -> None:
    adapter = Adapter(room / "matters")
    one = next(iter(adapter))
    alone = TuningVector({"lm_head.weight": adapter[one]})
    null = layer_shuffled(alone, 0, without_layer)["lm_head.weight"]
    torch.testing.assert_close(singular_values(null), singular_values(adapter[one]), rtol=1e-9, atol=1e-12)
    assert abs(cosine(null, adapter[one]) or 0.0) < 0.5
    # The same module in another shape is no layer of the same type.
    shapes = TuningVector({f"layers.{i}.q.weight": Dense(torch.randn(4 + i, 4)) for i in range(2)})
    moved = layer_shuffled(shapes, 0, without_layer)
    assert [moved[name].shape for name in moved] == [(4, 4), (5, 4)]


def test_what_depends_on_the_base_has_no_null() -> None:
    vector = TuningVector({"a.weight": Replacement(torch.randn(4, 4))})
    for null in (lambda: same_norm(vector, 0), lambda: layer_shuffled(vector, 0, without_layer)):
        with pytest.raises(RuleError, match=r"a\.weight: .* needs one matrix, not Replacement"):
            null()


def test_strengths_are_read() -> None:
    assert parse_strengths("-0.5:1.5:0.25") == (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    assert parse_strengths("0:0.3:0.1") == (0.0, 0.1, 0.2, 0.3)
    assert parse_strengths("1,0.5,-0") == (0.0, 0.5, 1.0)
    assert parse_strengths([2, 1.5, 2.0]) == (1.5, 2.0)
    assert parse_strengths(0.7) == (0.7,)
    for bad in ("", "a", "0:1:0", "0:1:-1", "1:0:0.5", "nan", "0:1", "0:9:0.0001", [], ["x"], [float("inf")]):
        with pytest.raises(InputError, match="give first:last:step or numbers"):
            parse_strengths(bad)


def test_variants_of_strengths_and_removals() -> None:
    adapters = {"v": None}
    made = all_variants(adapters, [{"v": 0.5}], "v", strengths={"v": (-0.5, 0.0, 0.5, 1.0)}, nulls=2)
    assert [(v.name, v.kind) for v in made] == [
        *(("base", "base"), ("v", "adapter"), ("v0.5", "merge"), ("v-0.5", "strength")),
        *(("v-norm0", "removal"), ("v-norm1", "removal"), ("v-shuffled0", "removal"), ("v-shuffled1", "removal")),
    ]
    with pytest.raises(RuleError, match="strengths of 'w', which is none of the adapters v"):
        all_variants(adapters, [], "v", strengths={"w": (1.0,)})
    twice = [Variant("x", "merge", {"v": 1.0}), Variant("x", "removal", {"v": 1.0}, (Null("v", "norm", 0, -1.0),))]
    with pytest.raises(RuleError, match="two variants would both be called 'x'"):
        distinct(twice)


def test_digests_tell_nulls_apart(room: Path) -> None:
    base, adapters = Checkpoint(room / "base"), {"v": Adapter(room / "matters")}
    variants = [Variant("v", "adapter", {"v": 1.0}), *removal_variants(["v"], 2)]
    variants.append(Variant("weaker", "removal", {"v": 1.0}, (Null("v", "norm", 0, -0.5),)))
    variants.append(Variant("spectrum", "removal", {"v": 1.0}, (Null("v", "spectrum", 0, -1.0),)))
    assert len({v.digest(base, adapters) for v in variants}) == len(variants)
    # A name changes no answer, so it is in no digest.
    again = Variant("other", "removal", {"w": 1.0}, (Null("w", "norm", 0, -1.0),))
    assert again.digest(base, {"w": adapters["v"]}) == variants[1].digest(base, adapters)


def test_strength_0_is_the_base_and_1_the_tuned_model(room: Path, tmp_path: Path) -> None:
    base, adapters = Checkpoint(room / "base"), {"v": Adapter(room / "matters")}
    suites = [load_suite(room / "ask.yaml"), load_suite(room / "pick.yaml")]
    variants = all_variants(adapters, [], "v", strengths={"v": (0.0, 1.0)})
    assert [v.name for v in variants] == ["base", "v"]
    asked = [*variants, Variant("zero", "strength", {"v": 0.0}), Variant("one", "strength", {"v": 1.0})]
    records = evaluate(base, adapters, asked, suites, tmp_path)
    stamp = ("variant", "model_digest")
    for suite in ("ask", "pick"):
        found = {
            v.name: [{k: x for k, x in r.items() if k not in stamp} for r in records[v.name, suite, "own.greedy"]]
            for v in asked
        }
        assert found["zero"] == found["base"]
        assert found["one"] == found["v"]
        assert found["one"] != found["zero"]


# That removing it flips none of 24 answers does not tell that it would flip none of others.
@pytest.mark.parametrize(("name", "verdict"), [("matters", "critical"), ("faint", "undecided")])
def test_planted_vectors_are_judged_rightly(
    room: Path, tmp_path: Path, name: str, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(room / "base"), "--suite", str(room / "pick.yaml"), "--suite", str(room / "ask.yaml")]
    command += ["-o", str(tmp_path / "out"), "-a", f"v={room / name}", "--strengths", "v=-0.5:1.5:0.5", "--nulls", "2"]
    assert run([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    found = summary["conditions"]["own.greedy"]
    kinds = {v: facts["kind"] for v, facts in summary["variants"].items()}
    assert list(kinds) == [
        *("base", "v", "v-0.5", "v0.5", "v1.5", "v-norm0", "v-norm1", "v-shuffled0", "v-shuffled1"),
    ]
    assert summary["variants"]["v-norm1"]["nulls"] == [{"adapter": "v", "kind": "norm", "seed": 1, "weight": -1.0}]
    for suite, metric in (("pick", "acc"), ("ask", "exact")):
        facts = found["critical"]["v"][suite][metric]
        assert facts["verdict"] == verdict, (suite, facts)
        values = {v: e["value"] for v, e in found["suites"][suite]["metrics"][metric].items()}
        assert facts["removed"]["value"] == pytest.approx(values["v"] - values["base"])
        for kind in ("norm", "shuffled"):
            null, kept = facts["nulls"][kind], (values[f"v-{kind}0"], values[f"v-{kind}1"])
            assert null["seeds"] == 2
            assert null["by_seed"] == pytest.approx([values["v"] - value for value in kept])
            assert null["drop"]["value"] == pytest.approx(values["v"] - sum(kept) / 2)
            assert null["beyond"]["value"] == pytest.approx(facts["removed"]["value"] - null["drop"]["value"])
        curve = found["strengths"]["v"][suite][metric]
        assert [p["strength"] for p in curve] == [-0.5, 0.0, 0.5, 1.0, 1.5]
        assert [p["variant"] for p in curve] == ["v-0.5", "base", "v0.5", "v", "v1.5"]
        assert [p["value"] for p in curve] == [values[p["variant"]] for p in curve]
    assert run([*(part for part in command if part != "--json"), "--detail"]) == 0
    shown = capsys.readouterr().out
    assert f"pick, acc, n = 24: {verdict}" in shown
    assert "base + g v, by g" in shown


def test_a_control_of_the_same_weight_is_a_point_of_the_curve() -> None:
    variants = all_variants({"p": None, "v": None}, [{"p": 0.3, "v": 0.7}], "v", strengths={"v": (0.5, 0.7)})
    assert [v.kind for v in variants if v.name == "v0.7"] == ["control"]
    entry = {"value": 1.0, "low": 0.0, "high": 1.0, "n": 4}
    curves = strength_curves(variants, {"s": {"metrics": {"acc": {v.name: entry for v in variants}}}})
    assert list(curves) == ["v"]
    points = [(p["strength"], p["variant"]) for p in curves["v"]["s"]["acc"]]
    assert points == [(0.0, "base"), (0.5, "v0.5"), (0.7, "v0.7"), (1.0, "v")]


def test_verdicts_on_synthetic_scores() -> None:
    """Scores by item as they are wished: what is critical is more than any drop, and several seeds are one null."""
    variants = [Variant("base", "base", {}), Variant("v", "adapter", {"v": 1.0}), *removal_variants(["v"], 2)]
    rng = np.random.default_rng(0)

    def judged(**rates: float) -> Any:
        scores = {"v": 0.9, "base": 0.2, "norm": 0.9, "shuffled": 0.9} | rates
        of = {}
        for variant in variants:
            rate = scores[next(k for k in ("norm", "shuffled", variant.name) if k in variant.name)]
            of[variant.name] = {"acc": ((rng.random((200, 1)) < rate).astype(float), mean_of)}
        return criticality(variants, {"s": of})["v"]["s"]["acc"]

    assert judged()["verdict"] == "critical"
    # One null that costs as much is enough.
    assert judged(shuffled=0.05)["verdict"] == "not critical"
    assert judged(norm=0.05)["verdict"] == "not critical"
    assert judged(v=0.2, base=0.8)["verdict"] == "not critical"
    assert judged(shuffled=0.21)["verdict"] == "undecided"
    facts = judged()
    tests = [null["beyond"] for null in facts["nulls"].values()]
    assert all(test["p_holm"] >= test["p"] for test in tests)
    assert {test["test"] for test in tests} == {"randomisation"}
    assert facts["nulls"]["norm"]["beyond"]["n"] == 200


def test_nulls_and_strengths_that_cannot_be(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["evaluate", str(room / "base"), "--suite", str(room / "pick.yaml"), "-o", str(tmp_path / "out")]
    adapter = ["-a", f"v={room / 'matters'}"]
    for more, message in (
        ([*adapter, "--strengths", "w=0:1:0.5"], "--strengths w: no such adapter; add -a w=PATH"),
        ([*adapter, "--strengths", "v=0:1"], "give first:last:step or numbers"),
        ([*adapter, "--strengths", "0:1:1"], "--strengths 0:1:1: write it as NAME=VALUE"),
        ([*adapter], "adapter v has no weight; add -w v=NUMBER"),
        ([*adapter, "-w", "v=1", "--nulls", "2"], "--nulls 2: v has no partner to stand in for"),
        (["--server", "http://x", "--model", "m", "--nulls", "1"], "--nulls 1: base has no partner to stand in for"),
    ):
        assert run([*base, *more]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert len(err.strip().splitlines()) == 1
        assert out == ""
    assert not (tmp_path / "out").exists()


def test_nulls_of_a_merge_from_the_command_line(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(room / "base"), "--suite", str(room / "pick.yaml"), "-o", str(tmp_path / "out")]
    command += ["-a", f"a={room / 'faint'}", "-w", "a=0.3", "-a", f"b={room / 'matters'}", "-w", "b=0.7"]
    assert run([*command, "--nulls", "1", "--json"]) == 0
    variants = json.loads(capsys.readouterr().out)["variants"]
    assert list(variants) == ["base", "a", "b", "a0.3+b0.7", "b0.7", "null0-a0.3+b0.7"]
    null = variants["null0-a0.3+b0.7"]
    assert null["weights"] == {"b": 0.7}
    assert null["nulls"] == [{"adapter": "a", "kind": "spectrum", "seed": 0, "weight": 0.3}]
