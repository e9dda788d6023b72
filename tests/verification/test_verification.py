"""The proof against faults and honest routes that are made for real."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint, Dense, TuningVector, Verdict, write
from crossmatch.cli import run
from crossmatch.delta import dense
from crossmatch.errors import CheckpointError, InputError, RuleError
from crossmatch.merging import Storage, merge
from crossmatch.verification import claim_from_manifest, verify
from crossmatch.verification.arithmetic.float_spacing import step
from crossmatch.verification.faults import FAULTS, NOTES
from helpers import copy, make_adapter, make_llama, peft_merge

SIZES = (1e-1, 1e-2, 1e-3)
# The table of faults has every fault in every size: `make faults`.
pytestmark = pytest.mark.covering("bench")
CLAIM = {"pt": 0.3, "sft": 0.7}


@pytest.fixture(scope="module", params=SIZES, ids=lambda s: f"size {s:g}")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 base and adapters whose deltas are 10%, 1% or 0.1% of it."""
    root = tmp_path_factory.mktemp("bench")
    make_llama(root / "base")
    for seed, name in enumerate(("pt", "sft", "foreign"), 1):
        make_adapter(root / "base", root / name, seed=seed, size=request.param)
    return root


def judge(bench: Path, merged: Path, **weights: float) -> Verdict:
    parts = {name: (Adapter(bench / name), weight) for name, weight in (weights or CLAIM).items()}
    return verify(merged, Checkpoint(bench / "base"), parts)


def make(bench: Path, out: Path, **weights: float) -> Path:
    vector = sum((w * Adapter(bench / n) for n, w in weights.items()), TuningVector({}))
    write(Checkpoint(bench / "base"), vector, out)
    return out


FAULTY: dict[str, tuple[str, dict[str, float]]] = {
    "base shipped as the merge": ("adapter-not-applied", {}),
    "SFT-only export": ("adapter-missing", {"sft": 1.0}),
    "PT-only export": ("adapter-missing", {"pt": 1.0}),
    "SFT alone at its weight": ("adapter-missing", {"sft": 0.7}),
    "swapped": ("weights-swapped", {"pt": 0.7, "sft": 0.3}),
    "applied to both factors": ("weights-squared", {"pt": 0.09, "sft": 0.49}),
    "merged twice": ("applied-twice", {"pt": 0.6, "sft": 1.4}),
    "less of both": ("weights-scaled", {"pt": 0.12, "sft": 0.28}),
    "sign lost": ("weights-sign", {"pt": -0.3, "sft": 0.7}),
    "others": ("weights-differ", {"pt": 0.4, "sft": 0.65}),
    "foreign adapter for PT": ("wrong-adapter", {"foreign": 0.3, "sft": 0.7}),
    "foreign adapter for both": ("wrong-adapter", {"foreign": 1.0}),
    "a third adapter": ("unexplained-delta", {"pt": 0.3, "sft": 0.7, "foreign": 0.3}),
}


@pytest.mark.parametrize("case", FAULTY)
def test_wrong_weights_are_named(bench: Path, tmp_path: Path, case: str) -> None:
    fault, weights = FAULTY[case]
    verdict = judge(bench, make(bench, tmp_path / "out", **weights))
    assert verdict.verdict == "failed"
    assert verdict.faults == (fault,)
    if "foreign" not in weights and weights:
        for name in CLAIM:
            found = verdict.weights[name]
            assert found.recovered == pytest.approx(weights.get(name, 0.0), abs=max(0.005, 4 * (found.stderr or 0)))


@pytest.mark.parametrize(
    "claim", [{"pt": 0.3, "sft": 0.7}, {"pt": -0.5, "sft": 1.0}, {"pt": 0.02, "sft": 1.0}, {"sft": 0.2}]
)
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16])
def test_honest_merges_are_verified(bench: Path, tmp_path: Path, claim: dict[str, float], dtype: Any) -> None:
    parts = {name: (Adapter(bench / name), weight) for name, weight in claim.items()}
    merge(Checkpoint(bench / "base"), parts, tmp_path / "out", storage=Storage(dtype))
    verdict = judge(bench, tmp_path / "out", **claim)
    assert (verdict.verdict, verdict.faults) == ("verified", ())
    assert verdict.rounding["route"] == "once"
    assert verdict.rounding["violations"] == 0.0
    assert verdict.modules == {"adapted": 14, "agree": 14, "disagree": 0, "undecided": 0}
    for name, weight in claim.items():
        found = verdict.weights[name]
        assert found.recovered == pytest.approx(weight, abs=max(0.005, 4 * (found.stderr or 0)))
    assert ("dtype-changed" in verdict.notes) == (dtype is not None)


def test_routes_of_peft_are_verified(bench: Path, tmp_path: Path) -> None:
    base, pt, sft = bench / "base", bench / "pt", bench / "sft"
    peft_merge(base, [pt], tmp_path / "plain", dtype=torch.bfloat16)
    peft_merge(base, [pt], tmp_path / "safe", safe=True, dtype=torch.bfloat16)
    peft_merge(base, [pt, sft], tmp_path / "one-after-the-other", dtype=torch.bfloat16)
    peft_merge(base, [pt, sft], tmp_path / "float32", dtype=torch.float32)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, pt, adapter_name="pt")
    model.load_adapter(sft, adapter_name="sft")
    model.add_weighted_adapter(["pt", "sft"], [0.3, 0.7], "both", combination_type="cat")
    model.set_adapter("both")
    model.merge_and_unload().to(torch.bfloat16).save_pretrained(tmp_path / "cat")
    expected: dict[str, tuple[dict[str, float], tuple[str, ...]]] = {
        "plain": ({"pt": 1.0}, ("once",)),
        "safe": ({"pt": 1.0}, ("twice",)),
        "float32": ({"pt": 1.0, "sft": 1.0}, ("once", "twice")),
        "cat": (CLAIM, ("once",)),
    }
    for name, (claim, route) in expected.items():
        verdict = judge(bench, tmp_path / name, **claim)
        assert (name, verdict.verdict, verdict.faults) == (name, "verified", ())
        assert verdict.rounding["route"] in route
    verdict = judge(bench, tmp_path / "one-after-the-other", pt=1.0, sft=1.0)
    assert (verdict.verdict, verdict.faults) == ("verified", ())
    assert verdict.rounding["route"] == "twice"


def test_peft_linear_is_not_what_it_says(bench: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(bench / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(model, bench / "pt", adapter_name="pt")
    model.load_adapter(bench / "sft", adapter_name="sft")
    model.add_weighted_adapter(["pt", "sft"], [0.3, 0.7], "both", combination_type="linear")
    model.set_adapter("both")
    model.merge_and_unload().to(torch.bfloat16).save_pretrained(tmp_path / "linear")
    verdict = judge(bench, tmp_path / "linear")
    assert verdict.faults == ("factor-cross-terms",)


def edit(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    file = directory / "model.safetensors"
    save_file({k: v.contiguous() for k, v in change(load_file(file)).items()}, file, metadata={"format": "pt"})
    return directory


def test_one_skipped_module_is_found_and_located(bench: Path, tmp_path: Path) -> None:
    base = load_file(bench / "base" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    out = edit(make(bench, tmp_path / "out", **CLAIM), lambda t: {**t, name: base[name]})
    verdict = judge(bench, out)
    assert verdict.faults == ("modules-skipped",)
    assert verdict.evidence["modules_in_question"] == [name]


def test_one_adapter_skipped_in_attention_is_found(bench: Path, tmp_path: Path) -> None:
    pt, sft = Adapter(bench / "pt"), Adapter(bench / "sft")
    mlp = {name: delta for name, delta in pt.items() if "mlp" in name}
    write(Checkpoint(bench / "base"), 0.3 * TuningVector(mlp) + 0.7 * sft, tmp_path / "out")
    verdict = judge(bench, tmp_path / "out")
    assert verdict.faults == ("modules-skipped",)
    assert all("self_attn" in name for name in verdict.evidence["modules_in_question"])
    assert len(verdict.evidence["modules_in_question"]) == 8


def test_stale_shard(tmp_path: Path) -> None:
    make_llama(tmp_path / "base", shard="100KB")
    for seed, name in enumerate(("pt", "sft"), 1):
        make_adapter(tmp_path / "base", tmp_path / name, seed=seed)
    out = make(tmp_path, tmp_path / "out", **CLAIM)
    stale = sorted(out.glob("model-*.safetensors"))[1]
    shutil.copy(tmp_path / "base" / stale.name, stale)
    assert judge(tmp_path, out).faults == ("modules-skipped",)


def test_uneven_weights(bench: Path, tmp_path: Path) -> None:
    pt, sft = Adapter(bench / "pt"), Adapter(bench / "sft")
    strong = TuningVector({n: d for n, d in pt.items() if "mlp" in n})
    rest = TuningVector({n: d for n, d in pt.items() if "mlp" not in n})
    write(Checkpoint(bench / "base"), 0.5 * strong + 0.1 * rest + 0.7 * sft, tmp_path / "out")
    assert judge(bench, tmp_path / "out").faults == ("weights-uneven",)


def test_everything_else_is_compared_bit_for_bit(bench: Path, tmp_path: Path) -> None:
    def change(t: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        norm = t["model.norm.weight"].clone()
        norm[3] = torch.nextafter(norm[3], torch.tensor(9.0, dtype=norm.dtype))
        return {**t, "model.norm.weight": norm}

    good = make(bench, tmp_path / "good", **CLAIM)
    verdict = judge(bench, edit(copy(good, tmp_path / "norm"), change))
    assert verdict.faults == ("untouched-changed",)
    assert verdict.tensors["untouched_changed"] == ["model.norm.weight"]
    without = edit(copy(good, tmp_path / "less"), lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    assert judge(bench, without).faults == ("tensors-missing",)
    more = edit(copy(good, tmp_path / "more"), lambda t: {**t, "junk": torch.zeros(3)})
    assert judge(bench, more).faults == ("tensors-extra",)
    name = "model.layers.0.mlp.up_proj.weight"
    nan = edit(
        copy(good, tmp_path / "nan"), lambda t: {**t, name: t[name].index_fill(0, torch.tensor([2]), float("nan"))}
    )
    assert judge(bench, nan).faults == ("nonfinite",)


def test_a_spoilt_module_does_not_hide_another(bench: Path, tmp_path: Path) -> None:
    first, second = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"

    def change(t: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        spoilt, absurd = t[first].clone(), t[second].clone()
        spoilt[0, 0], absurd[0, 0] = float("nan"), 50.0
        return {**t, first: spoilt, second: absurd}

    verdict = judge(bench, edit(make(bench, tmp_path / "out", **CLAIM), change))
    assert set(verdict.faults) == {"unexplained-delta", "nonfinite"}
    assert verdict.evidence["modules_in_question"] == [first, second]


def test_several_faults_are_all_named(bench: Path, tmp_path: Path) -> None:
    out = make(bench, tmp_path / "out", pt=0.7, sft=0.3)
    edit(
        out,
        lambda t: (
            {k: v for k, v in t.items() if k != "model.norm.weight"} | {"lm_head.weight": t["lm_head.weight"] * 2}
        ),
    )
    (out / "adapter_config.json").write_text("{}")
    expected = ("weights-swapped", "tensors-missing", "untouched-changed", "adapter-left-behind")
    assert judge(bench, out).faults == expected


def test_two_weight_sets(bench: Path, tmp_path: Path) -> None:
    """A stale model.safetensors beside good shards: transformers loads the stale one, and so does the proof."""
    make_llama(tmp_path / "base", shard="100KB")
    out = tmp_path / "out"
    write(Checkpoint(tmp_path / "base"), 0.3 * Adapter(bench / "pt") + 0.7 * Adapter(bench / "sft"), out)
    shutil.copy(bench / "base" / "model.safetensors", out)
    loaded = AutoModelForCausalLM.from_pretrained(out)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(loaded.state_dict()[name], load_file(out / "model.safetensors")[name])
    assert judge(bench, out).faults == ("two-weight-sets", "adapter-not-applied")


def test_small_weights_in_a_coarse_format_are_right_or_undecided(tmp_path: Path) -> None:
    """98% of the elements of a delta of 1e-4 are lost in bfloat16."""
    make_llama(tmp_path / "base", hidden_size=128, intermediate_size=352)
    for seed, name in enumerate(("pt", "sft"), 1):
        make_adapter(tmp_path / "base", tmp_path / name, seed=seed, size=1e-4)
    for weights in ({"pt": 0.3, "sft": 0.7}, {"pt": 0.09, "sft": 0.49}):
        verdict = judge(tmp_path, make(tmp_path, tmp_path / f"out-{weights['pt']}", **weights))
        for name, weight in weights.items():
            found = verdict.weights[name]
            assert found.recovered == pytest.approx(weight, abs=max(0.005, 4 * (found.stderr or 0)))
        assert verdict.faults == (() if weights == CLAIM else ("weights-squared",))
        assert "rounding-swallow" in verdict.notes
        assert verdict.rounding["swallowed_energy"] > 0.9


def test_parallel_adapters_cannot_be_separated(bench: Path, tmp_path: Path) -> None:
    pt = Adapter(bench / "pt")
    twin = TuningVector(dict(1.0 * pt))
    write(Checkpoint(bench / "base"), 0.5 * pt, tmp_path / "out")
    verdict = verify(tmp_path / "out", Checkpoint(bench / "base"), {"a": (pt, 0.3), "b": (twin, 0.2)})
    assert verdict.verdict == "inconclusive"
    assert "not-identifiable" in verdict.notes
    assert verdict.weights["a"].recovered is None


def test_dense_vectors_are_verified_too(bench: Path, tmp_path: Path) -> None:
    pt = Adapter(bench / "pt")
    full = TuningVector({name: Dense(dense(delta, torch.float32)) for name, delta in pt.items()})
    write(Checkpoint(bench / "base"), 0.5 * full, tmp_path / "out")
    assert verify(tmp_path / "out", Checkpoint(bench / "base"), {"full": (full, 0.5)}).verified


def test_all_weights_zero_claims_the_base(bench: Path, tmp_path: Path) -> None:
    assert judge(bench, bench / "base", pt=0.0).verified
    assert judge(bench, make(bench, tmp_path / "out", pt=0.5), pt=0.0).verdict == "failed"


def test_claims_from_the_manifest(bench: Path, tmp_path: Path) -> None:
    copy(bench, tmp_path / "all")
    root = tmp_path / "all"
    out = make(root, root / "out", **CLAIM)
    claim = claim_from_manifest(Checkpoint(out), None, {})
    assert verify(out, claim.base, claim.parts).verified
    moved = tmp_path / "elsewhere"
    shutil.move(root / "pt", moved)
    with pytest.raises(InputError, match=r"where nothing is; pass -a pt=PATH"):
        claim_from_manifest(Checkpoint(out), None, {})
    claim_from_manifest(Checkpoint(out), None, {"pt": moved})
    with pytest.raises(InputError, match="not the one that was merged"):
        claim_from_manifest(Checkpoint(out), None, {"pt": root / "sft"})
    with pytest.raises(InputError, match="the manifest names pt, sft"):
        claim_from_manifest(Checkpoint(out), None, {"pt": moved, "else": moved})
    with pytest.raises(InputError, match=r"has no crossmatch\.json"):
        claim_from_manifest(Checkpoint(root / "base"), None, {})
    (out / "crossmatch.json").write_text('{"predicate": {"adapters": 3}}')
    with pytest.raises(CheckpointError, match="does not describe a merge"):
        claim_from_manifest(Checkpoint(out), None, {})


def test_a_forged_manifest_does_not_help(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(bench, tmp_path / "all")
    out = make(tmp_path / "all", tmp_path / "all" / "out", **CLAIM)
    file = out / "crossmatch.json"
    manifest = json.loads(file.read_text())
    manifest["predicate"]["adapters"]["pt"]["weight"] = 0.5
    manifest["predicate"]["verdict"] = {"verdict": "verified"}
    file.write_text(json.dumps(manifest))
    assert run(["verify", str(out), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == ["weights-differ"]
    assert (found["checkpoint"], found["tool"]["name"]) == (str(out), "crossmatch")


def test_json_of_the_contract(bench: Path, tmp_path: Path) -> None:
    verdict = judge(bench, make(bench, tmp_path / "out", **CLAIM))
    result = json.loads(json.dumps(verdict.to_dict(detail=True), allow_nan=False))
    assert result["schema_version"] == 1
    assert set(result["weights"]["pt"]) == {"claimed", "recovered", "stderr"}
    assert result["tensors"] == {
        "total": 21,
        "untouched_identical": 7,
        "untouched_changed": [],
        "missing": [],
        "extra": [],
    }
    assert len(result["details"]) == 14
    assert "details" not in verdict.to_dict()
    assert set(result["digests"]["adapters"]) == {"pt", "sft"}


def test_every_fault_and_note_has_its_words() -> None:
    rooms = Path(verify.__code__.co_filename).parents[1]
    texts = [p.read_text() for room in ("verification", "adapter", "checkpoint") for p in (rooms / room).rglob("*.py")]
    source = "".join(texts)
    for fault, _ in FAULTY.values():
        assert fault in FAULTS
    for name in [*FAULTS, *NOTES]:
        assert source.count(f'"{name}"') + source.count(f'"{name}:') >= 2, f"{name} is described and never given"


def test_step_of_stored_numbers() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        values = torch.tensor([1.0, 1.5, 0.02, 3.7e-3, 2.0**-10], dtype=dtype)
        above = torch.nextafter(values, torch.tensor(float("inf"), dtype=dtype))
        assert torch.equal(step(values.double(), dtype), above.double() - values.double())
    tiny = step(torch.tensor([0.0, 1e-9]), torch.float16)
    assert tiny.tolist() == [2.0**-24, 2.0**-24]


def test_weights_that_are_no_numbers(bench: Path) -> None:
    with pytest.raises(RuleError, match="finite"):
        judge(bench, bench / "base", pt=float("nan"))


def test_one_absurd_element_in_a_module_is_found(bench: Path, tmp_path: Path) -> None:
    """A share of 1e-4 may lie just outside a route; not one element may lie far outside."""
    good = make(bench, tmp_path / "good", **CLAIM)
    name = "model.layers.0.mlp.up_proj.weight"
    for number, value in enumerate((1000.0, 0.0, -0.1)):

        def change(t: dict[str, torch.Tensor], value: float = value) -> dict[str, torch.Tensor]:
            tensor = t[name].clone()
            tensor.view(-1)[tensor.abs().argmax()] = value
            return {**t, name: tensor}

        verdict = judge(bench, edit(copy(good, tmp_path / str(number)), change))
        assert verdict.verdict == "failed"
        assert verdict.evidence["modules_in_question"] == [name]


@pytest.mark.parametrize("weight", [0.01, 0.005, -0.004])
def test_tiny_weights_are_verified_and_missed_when_missing(bench: Path, tmp_path: Path, weight: float) -> None:
    claim = {"pt": weight, "sft": 1.0}
    verdict = judge(bench, make(bench, tmp_path / "out", **claim), **claim)
    assert verdict.faults == ()
    assert verdict.weights["pt"].recovered == pytest.approx(
        weight, abs=max(0.001, 4 * (verdict.weights["pt"].stderr or 0))
    )
    without = judge(bench, make(bench, tmp_path / "without", sft=1.0), **claim)
    assert not without.verified
    if weight == 0.01:
        assert without.faults == ("adapter-missing",)


@pytest.mark.parametrize("stray", ["model-00001-of-00009.safetensors", "consolidated.safetensors"])
def test_other_weights_in_the_directory(bench: Path, tmp_path: Path, stray: str) -> None:
    out = make(bench, tmp_path / "out", **CLAIM)
    shutil.copy(bench / "base" / "model.safetensors", out / stray)
    assert judge(bench, out).faults == ("two-weight-sets",)


def test_config_of_another_model(bench: Path, tmp_path: Path) -> None:
    out = make(bench, tmp_path / "out", **CLAIM)
    file = out / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "transformers_version": "4.0", "use_cache": False}))
    assert judge(bench, out).verified
    file.write_text(json.dumps({**config, "num_attention_heads": 8, "rms_norm_eps": 1.0}))
    verdict = judge(bench, out)
    assert verdict.faults == ("config-changed",)
    assert verdict.findings[0].where == ("num_attention_heads", "rms_norm_eps")
    file.unlink()
    assert judge(bench, out).faults == ("config-changed",)


def test_what_is_not_finite_anywhere(bench: Path, tmp_path: Path) -> None:
    def spoil(t: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**t, "model.norm.weight": t["model.norm.weight"].index_fill(0, torch.tensor([1]), float("inf"))}

    out = edit(make(bench, tmp_path / "out", **CLAIM), spoil)
    assert judge(bench, out).faults == ("nonfinite", "untouched-changed")
    base = edit(copy(bench / "base", tmp_path / "base"), spoil)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds NaN or infinite values"):
        write(Checkpoint(base), 1.0 * Adapter(bench / "pt"), tmp_path / "x")


def test_another_architecture_in_words(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from helpers import make_gpt2

    make_gpt2(tmp_path / "gpt2")
    flags = ["--base", str(bench / "base"), "-a", f"pt={bench / 'pt'}", "-w", "pt=1"]
    assert run(["verify", str(tmp_path / "gpt2"), *flags]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED")
    assert "tensors-missing" in out
