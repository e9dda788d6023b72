"""Sums of tuning vectors: factors exactly, dense ones rounded once, masks by layer, module and head."""

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossmatch import Adapter, Checkpoint, StoredVector, TuningVector, extract, merge, open_vector
from crossmatch.cli import run
from crossmatch.delta import LowRank, dense
from crossmatch.errors import AdapterError, InputError, RuleError
from crossmatch.rules import Heads, Weights
from crossmatch.vectors import Summing, add, describe, strengths
from helpers import make_adapter, make_gpt2, make_llama
from vector_helpers import differing, moved, tune

Q, OUT, K = (f"model.layers.0.self_attn.{kind}_proj.weight" for kind in "qok")
HEADS = Heads(queries=4, groups=2, width=16)


def values(vector: Any) -> dict[str, torch.Tensor]:
    return {name: dense(vector[name]) for name in vector}


def assert_close(first: Any, second: Any, rtol: float = 1e-10) -> None:
    ours, theirs = (x if isinstance(x, dict) else values(x) for x in (first, second))
    assert set(ours) == set(theirs)
    for name in ours:
        size = float(theirs[name].norm())
        assert float((ours[name] - theirs[name]).norm()) <= rtol * size + 1e-300, name


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` and `tuned` in float32, adapters `pt` and `sft`, their deltas as dense float64 vectors `dpt`, `dsft`."""
    root = tmp_path_factory.mktemp("sums")
    make_llama(root / "base", dtype=torch.float32)
    tune(root / "base", root / "tuned")
    extract(Checkpoint(root / "base"), Checkpoint(root / "tuned"), root / "v")
    for seed, name in enumerate(("pt", "sft")):
        make_adapter(root / "base", root / name, seed=seed, r=4 + 2 * seed)
        # Through a float64 sum with nothing of the other: a dense copy of the factors.
        zero = TuningVector({n: _Whole(d) for n, d in Adapter(root / name).items()})
        add({name: (zero, 1.0)}, root / f"d{name}", summing=Summing(dtype="float64"))
    return root


class _Whole(LowRank):
    """Factors that nobody can see."""

    def __new__(cls, delta: Any) -> Any:
        from crossmatch.delta import Dense

        return Dense(dense(delta))


def test_factors_stay_factors_and_equal_the_dense_sum(room: Path, tmp_path: Path) -> None:
    weights = {"pt": -0.3, "sft": 0.7}
    add({n: (Adapter(room / n), w) for n, w in weights.items()}, tmp_path / "low")
    add({n: (open_vector(room / f"d{n}"), w) for n, w in weights.items()}, tmp_path / "dense")
    low, whole = StoredVector(tmp_path / "low"), StoredVector(tmp_path / "dense")
    assert {d.rank for d in low.values() if isinstance(d, LowRank)} == {10}
    assert all(isinstance(d, LowRank) for d in low.values())
    assert_close(low, whole)
    want = -0.3 * Adapter(room / "pt") + 0.7 * Adapter(room / "sft")
    for name in want:
        # Nothing is rounded: the very factors, the weights beside them.
        ours, theirs = low[name], want[name]
        assert isinstance(ours, LowRank)
        assert isinstance(theirs, LowRank)
        for part in ("b", "a", "scale"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part))
    facts, other = low.record, whole.record
    assert facts["norm"] == pytest.approx(other["norm"], rel=1e-10)
    assert facts["norm"] == pytest.approx(want.norm(), rel=1e-10)
    assert facts["cosines"][0]["cosine"] == pytest.approx(other["cosines"][0]["cosine"], rel=1e-9)  # type: ignore[index]
    assert facts["cosines"][0]["cosine"] == pytest.approx(-Adapter(room / "pt").cosine(Adapter(room / "sft")))  # type: ignore[index]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.floats(-2, 2).filter(lambda x: abs(x) > 1e-3),
    second=st.floats(-2, 2).filter(lambda x: abs(x) > 1e-3),
    kinds=st.lists(st.sampled_from(["pt", "dpt", "sft", "dsft", "v"]), min_size=2, max_size=3, unique=True),
)
def test_sums_are_linear(room: Path, tmp_path: Path, first: float, second: float, kinds: list[str]) -> None:
    vectors = {kind: open_vector(room / kind) for kind in kinds}
    numbers = dict(zip(kinds, (first, second, 0.5), strict=False))
    summing = Summing(dtype="float64", overwrite=True, any_base=True)
    add({k: (v, numbers[k]) for k, v in vectors.items()}, tmp_path / "sum", summing=summing)
    parts = [values(v) for v in vectors.values()]
    want = {
        name: sum(w * part[name] for w, part in zip(numbers.values(), parts, strict=True) if name in part)
        for name in dict.fromkeys(n for part in parts for n in part)
    }
    assert_close(StoredVector(tmp_path / "sum"), want)
    add({k: (vectors[k], numbers[k]) for k in reversed(kinds)}, tmp_path / "sum", summing=summing)
    assert_close(StoredVector(tmp_path / "sum"), want)


def test_a_dense_part_alone_keeps_its_tensor(room: Path, tmp_path: Path) -> None:
    for out, number in (("half", "0.3"), ("back", "2")):
        source = room / "v" if out == "half" else tmp_path / "half"
        assert run(["vectors", "scale", str(source), "-g", number, "-o", str(tmp_path / out)]) == 0
    before, after = StoredVector(room / "v"), StoredVector(tmp_path / "back")
    for name in before:
        assert torch.equal(before.files[f"delta/{name}"], after.files[f"delta/{name}"])
        assert after.files[f"scale/{name}"].item() == 0.3 * 2
    assert_close(after, {n: t * 0.6 for n, t in values(before).items()}, rtol=1e-15)


def test_sums_are_rounded_once(room: Path, tmp_path: Path) -> None:
    add({"v": (open_vector(room / "v"), 0.3), "pt": (Adapter(room / "pt"), 0.7)}, tmp_path / "sum")
    one, other = values(StoredVector(room / "v")), values(Adapter(room / "pt"))
    for name, delta in values(StoredVector(tmp_path / "sum")).items():
        exact = 0.3 * one[name] + 0.7 * other[name] if name in other else 0.3 * one[name]
        if name in other:
            assert float((delta.float() != exact.float()).double().mean()) < 1e-5
        else:
            assert torch.equal(delta, exact)


def test_matched_norms(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["vectors", "add", "-a", f"pt={room / 'pt'}", "-a", f"v={room / 'v'}", "--match-norm", "pt"]
    assert run([*arguments, "-w", "v=-0.5", "-o", str(tmp_path / "sum"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    pt, v = Adapter(room / "pt"), StoredVector(room / "v")
    factor = pt.norm() / v.norm()
    assert facts["parts"]["pt"]["factor"] == 1.0
    assert facts["parts"]["v"]["factor"] == pytest.approx(factor, rel=1e-9)
    # Each has its share by weight: the second half of the first's norm.
    assert facts["parts"]["v"]["norm_used"] == pytest.approx(0.5 * pt.norm(), rel=1e-9)
    assert facts["parts"]["v"]["norm"] == pytest.approx(v.norm(), rel=1e-9)
    assert_close(StoredVector(tmp_path / "sum"), pt - 0.5 * factor * v, rtol=1e-6)
    assert facts["norm"] == pytest.approx(StoredVector(tmp_path / "sum").norm(), rel=1e-6)
    assert run([*arguments[:-1], "other", "-o", str(tmp_path / "no")]) == 2
    assert "--match-norm other: the vectors are pt, v" in capsys.readouterr().err


def test_masks_split_a_vector(room: Path, tmp_path: Path) -> None:
    heads = [f"0,groups[{g}]:1" for g in (0, 1)]
    rest = "1,q_proj:0,k_proj:0,v_proj:0,o_proj:0"
    for kind in ("pt", "v"):
        vector = open_vector(room / kind)
        pieces = []
        for i, text in enumerate([*heads, rest]):
            out = tmp_path / f"{kind}{i}"
            assert (
                run(
                    [
                        "vectors",
                        "add",
                        "-a",
                        f"x={room / kind}",
                        "-w",
                        f"x={text}",
                        "-o",
                        str(out),
                        "--base",
                        str(room / "base"),
                    ]
                )
                == 0
            )
            pieces.append(StoredVector(out))
        total = pieces[0] + pieces[1] + pieces[2]
        assert_close(total, vector, rtol=1e-15)
        # A mask rounds nothing, and what it masks is not there.
        assert torch.equal(dense(pieces[0][Q])[:32], dense(vector[Q])[:32])
        assert not dense(pieces[0][Q])[32:].any()
        assert not dense(pieces[1][OUT])[:, :32].any()
        assert not dense(pieces[1][K])[:16].any()
        assert dense(pieces[1][K])[16:].any()


def test_weights_of_heads(room: Path, tmp_path: Path) -> None:
    weight = Weights.parse("0.5,q_proj.heads[1]:2,layers[0].o_proj.heads[2:]:-1,mlp:0")
    for kind in ("pt", "v"):
        vector = open_vector(room / kind)
        add({"x": (vector, weight)}, tmp_path / kind, summing=Summing(Checkpoint(room / "base"), dtype="float64"))
        want = {}
        for name, delta in values(vector).items():
            if ".mlp." in name:
                continue
            want[name] = 0.5 * delta
            if "q_proj" in name:
                want[name][16:32] = 2 * delta[16:32]
            if name == OUT:
                want[name][:, 32:] = -delta[:, 32:]
        assert_close(StoredVector(tmp_path / kind), want, rtol=1e-14)


def test_heads_that_cannot_be_meant() -> None:
    for text, name, line in (
        ("1,heads[0]:0", K, "2 query heads share one head of keys and values"),
        ("1,heads[4]:0", Q, r"heads\[4:5\]: the model has 4 heads"),
        ("1,groups[1:3]:0", Q, "the model has 2 groups"),
        ("1,heads[0]:0", "transformer.h.0.attn.c_attn.weight", "several kinds of heads in one tensor"),
    ):
        with pytest.raises(RuleError, match=line):
            Weights.parse(text).inside(name, HEADS)
    with pytest.raises(RuleError, match="give the base"):
        Weights.parse("1,heads[0]:0").inside(Q, None)
    with pytest.raises(RuleError, match="not a negative one"):
        Weights.parse("1,heads[-1:]:0")
    with pytest.raises(RuleError, match="crossmatch vectors add"):
        Weights.parse("1,heads[0]:0").at(Q)
    # Whole groups reach keys and values, and what has no heads is left alone.
    chosen, axis = Weights.parse("1,heads[2:]:0").inside(K, HEADS)
    assert isinstance(chosen, torch.Tensor)
    assert (chosen.tolist(), axis) == ([1.0] * 16 + [0.0] * 16, 0)
    assert Weights.parse("1,heads[0]:0").inside("model.layers.0.mlp.up_proj.weight", HEADS) == (1.0, 0)
    assert Weights.parse("1,q_proj.heads[0]:0,attn:3").inside(Q, HEADS) == (3.0, 0)


def test_head_counts_come_from_configs() -> None:
    assert Heads.of({"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}) == HEADS
    assert Heads.of({"text_config": {"num_attention_heads": 4, "hidden_size": 64, "head_dim": 32}}) == Heads(4, 4, 32)
    assert Heads.of({"num_attention_heads": 5, "num_key_value_heads": 2, "hidden_size": 64}) is None
    assert Heads.of({}) is None


def test_what_needs_the_base_is_refused_without_it(room: Path, tmp_path: Path) -> None:
    base = Checkpoint(room / "base")
    cases: dict[str, dict[str, Any]] = {
        "DoRA": {"use_dora": True},
        "saved modules": {"modules_to_save": ["lm_head"]},
        "trained tokens": {"trainable_token_indices": [3, 5]},
    }
    for what, config in cases.items():
        adapter = Adapter(make_adapter(room / "base", tmp_path / what, seed=3, **config))
        if what == "saved modules":
            adapter = _retrained(adapter, tmp_path / "saved")
        with pytest.raises(InputError, match=rf"{what} .*give it \(--base BASE\)"):
            add({"x": (adapter, 1.0)}, tmp_path / "no")
        assert not (tmp_path / "no").exists()
        summing = Summing(base, dtype="float64", overwrite=True)
        add({"x": (adapter, 1.0)}, tmp_path / "sum", summing=summing)
        # What the merge makes of the adapter is what it makes of the vector.
        for name, vector in (("adapter", adapter), ("vector", open_vector(tmp_path / "sum"))):
            merge(base, {"x": (vector, 1.0)}, tmp_path / f"{what}-{name}")
        assert differing(tmp_path / f"{what}-adapter", tmp_path / f"{what}-vector") <= 2


def test_a_base_that_is_not_theirs_is_refused(room: Path, tmp_path: Path) -> None:
    other = Checkpoint(make_llama(tmp_path / "other", dtype=torch.float32, hidden_size=32))
    config = {"quantization_config": {"quant_method": "fp8"}}
    quantised = Checkpoint(tune(room / "base", tmp_path / "quantised", lambda tensors: tensors, config))
    for name in ("v", "pt", "dpt"):
        parts = {name: (open_vector(room / name), 1.0)}
        with pytest.raises(AdapterError, match=rf"adapter {name}: .* has a delta of .*, the base a tensor of"):
            add(parts, tmp_path / "no", summing=Summing(other))
        with pytest.raises(InputError, match=r"quantised is quantised \(.*give those"):
            add(parts, tmp_path / "no", summing=Summing(quantised))
        assert not (tmp_path / "no").exists()


def test_the_norm_of_a_tiny_sum(room: Path, tmp_path: Path) -> None:
    for name in ("v", "pt"):
        parts = {name: (open_vector(room / name), 1.0)}
        size = add(parts, tmp_path / name)["predicate"]["norm"]
        tiny = add({name: (parts[name][0], 1e-200)}, tmp_path / f"tiny-{name}")["predicate"]["norm"]
        assert tiny == pytest.approx(1e-200 * size, rel=1e-9)
        found = describe(StoredVector(tmp_path / f"tiny-{name}"))["norm"]
        assert found == pytest.approx(tiny, rel=1e-9)


def _retrained(adapter: Adapter, out: Path) -> Adapter:
    """A copy whose saved module is another tensor than the base's."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter.path, out)
    file = out / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file(moved(tensors, only="lm_head"), file, {"format": "pt"})
    return Adapter(out)


def test_transposed_weights_need_the_base(tmp_path: Path) -> None:
    base = make_gpt2(tmp_path / "base")
    make_adapter(base, tmp_path / "a", seed=1, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    adapter = Adapter(tmp_path / "a")
    with pytest.raises(InputError, match="fan_in_fan_out"):
        add({"x": (adapter, 1.0)}, tmp_path / "no")
    add({"x": (adapter, 0.5)}, tmp_path / "v", summing=Summing(Checkpoint(base)))
    for name, vector, weight in (("one", adapter, 0.5), ("other", open_vector(tmp_path / "v"), 1.0)):
        merge(Checkpoint(base), {"x": (vector, weight)}, tmp_path / name)
    assert differing(tmp_path / "one", tmp_path / "other") == 0


def test_sums_that_are_not_defined(room: Path, tmp_path: Path) -> None:
    pt, v = Adapter(room / "pt"), StoredVector(room / "v")
    wide = make_adapter(make_llama(tmp_path / "wide", hidden_size=32), tmp_path / "other", seed=1)
    with pytest.raises(RuleError, match=r"different shapes \(pt \[64, 64\], o \[64, 32\]\)|different shapes"):
        add({"pt": (pt, 1.0), "o": (Adapter(wide), 1.0)}, tmp_path / "no")
    with pytest.raises(RuleError, match="all weights are zero"):
        add({"pt": (pt, 0.0)}, tmp_path / "no")
    with pytest.raises(RuleError, match="applies to none"):
        add({"pt": (pt, Weights.parse("1,nothing:2"))}, tmp_path / "no")
    other = tune(room / "tuned", tmp_path / "tuned2", lambda t: moved(t, seed=9))
    extract(Checkpoint(room / "tuned"), Checkpoint(other), tmp_path / "w")
    with pytest.raises(InputError, match="made on different bases"):
        add({"v": (v, 1.0), "w": (StoredVector(tmp_path / "w"), 1.0)}, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    parts = {"v": (v, 1.0), "w": (StoredVector(tmp_path / "w"), 1.0)}
    assert add(parts, tmp_path / "yes", summing=Summing(any_base=True))["predicate"]["base"]["digest"] is None


def test_what_cancels_is_measured_as_it_is(room: Path, tmp_path: Path) -> None:
    pt, v = Adapter(room / "pt"), StoredVector(room / "v")
    parts = {"pt": (pt, 1.0), "same": (Adapter(room / "pt"), -1.0)}
    assert add(parts, tmp_path / "none")["predicate"]["norm"] < 1e-12 * pt.norm()
    add({"v": (v, 1.0), "pt": (pt, 1e-9)}, tmp_path / "near", summing=Summing(dtype="float64"))
    parts = {"near": (StoredVector(tmp_path / "near"), 1.0), "v": (v, -1.0)}
    facts = add(parts, tmp_path / "left")["predicate"]
    assert facts["norm"] == pytest.approx(1e-9 * pt.norm(), rel=1e-4)
    assert facts["cosines"][0]["cosine"] == pytest.approx(-1)


def test_a_merge_refuses_weights_of_heads(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["merge", str(room / "base"), "-a", f"pt={room / 'pt'}", "-w", "pt=1,heads[0:2]:0", "-o"]
    assert run([*arguments, str(tmp_path / "out")]) == 2
    assert "crossmatch vectors add writes a vector with such weights" in capsys.readouterr().err


def test_a_strange_manifest_is_not_believed(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(room / "v", tmp_path / "v")
    file = tmp_path / "v" / "crossmatch.json"
    manifest = json.loads(file.read_text())
    strange = {"heads": {"queries": 0, "groups": 10**12, "width": True}, "tuned": {"dtypes": 5}, "parts": [1]}
    strange["base"] = {"digest": 7, "path": "/etc"}
    file.write_text(json.dumps({**manifest, "predicate": {**manifest["predicate"], **strange}, "subject": {"a": 1}}))
    for command in (["inspect"], ["inspect", "--json"]):
        assert run(["vectors", *command, str(tmp_path / "v")]) == 0
    assert (
        run(["vectors", "add", "-a", f"v={tmp_path / 'v'}", "-w", "v=1,heads[0:2]:0", "-o", str(tmp_path / "w")]) == 2
    )
    assert "give the base" in capsys.readouterr().err
    assert run(["vectors", "apply", str(room / "base"), str(tmp_path / "v"), "-o", str(tmp_path / "out")]) == 0
    off = ["vectors", "remove", str(room / "tuned"), str(tmp_path / "v"), "-o", str(tmp_path / "off")]
    assert run(off) == 0
    assert "not compared with the base" in capsys.readouterr().err


def test_strengths_are_decimal() -> None:
    assert strengths(["-0.5:1.5:0.5", "3"]) == (-0.5, 0.0, 0.5, 1.0, 1.5, 3.0)
    assert strengths(["0:0.3:0.1"]) == (0.0, 0.1, 0.2, 0.3)
    assert math.copysign(1, strengths(["-0.1:0.1:0.1"])[1]) == 1
    for text in ("a", "1:2", "0:1:0.3", "0:1:0", "1:0:0.5", "nan", "0:9999:0.1"):
        with pytest.raises(InputError, match="-g"):
            strengths([text])
    with pytest.raises(InputError, match="given twice"):
        strengths(["1", "0:1:0.5"])


def test_a_grid_of_strengths(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid"
    arguments = ["vectors", "apply", str(room / "base"), str(room / "v"), "-o", str(out), "-g", "-0.5:1:0.5", "--json"]
    assert run(arguments) == 0
    results = json.loads(capsys.readouterr().out)["strengths"]
    assert [r["strength"] for r in results] == [-0.5, 0.0, 0.5, 1.0]
    assert all(r["verdict"]["verdict"] == "verified" for r in results)
    assert sorted(p.name for p in out.iterdir()) == ["crossmatch.json", "g-0.5", "g0", "g0.5", "g1"]
    assert differing(room / "base", out / "g0") == 0
    assert run(["verify", str(out / "g0.5")]) == 0
    capsys.readouterr()
    assert run(arguments) == 2
    assert "is not empty" in capsys.readouterr().err
    assert run([*arguments, "--overwrite"]) == 0
    capsys.readouterr()
    assert run(["vectors", "scale", str(room / "v"), "-g", "0:1:0.5", "-o", str(tmp_path / "scaled")]) == 0
    assert_close(StoredVector(tmp_path / "scaled" / "g0.5"), 0.5 * StoredVector(room / "v"), rtol=1e-15)


def test_a_grid_that_fails_leaves_nothing(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("crossmatch.study.strengths")

    original, calls = module.write_checkpoint, []

    def third_fails(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise AdapterError("stop")
        return original(*arguments)

    monkeypatch.setattr(module, "write_checkpoint", third_fails)
    command = ["vectors", "apply", str(room / "base"), str(room / "v"), "-o", str(tmp_path / "grid"), "-g", "0:1:0.5"]
    assert run(command) == 2
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []
