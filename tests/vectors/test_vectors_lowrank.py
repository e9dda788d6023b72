"""A fine-tune taken back as an adapter: what PEFT and this package read from it, with the error that is stated."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint, merge
from crossmatch.cli import run
from crossmatch.cli.vectors.extract import _rounding
from crossmatch.delta import dense
from crossmatch.errors import RuleError
from crossmatch.vectors import LowRankForm, extract_adapter
from helpers import LINEAR, make_adapter, make_gpt2, make_llama
from vector_helpers import moved, tensors_of, tune


def logits(path: Path, adapter: Path | None = None) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    with torch.no_grad():
        return model.eval()(torch.arange(3, 40)[None]).logits


def low_rank(tensors: dict, rank: int = 4, kinds: tuple[str, ...] = tuple(LINEAR)) -> dict:
    """Linear layers moved by random deltas of a rank, everything else moved a little."""
    noise = moved(tensors, seed=3, size=0.02)
    for i, name in enumerate(sorted(tensors)):
        if any(f".{kind}.weight" in name for kind in kinds):
            generator = torch.Generator().manual_seed(i)
            m, n = tensors[name].shape
            b, a = torch.randn(m, rank, generator=generator), torch.randn(rank, n, generator=generator)
            noise[name] = tensors[name] + 0.01 * (b @ a)
    return noise


def test_a_merge_is_taken_back_up_to_rounding(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", dtype=torch.float32)
    parts = {
        "pt": (Adapter(make_adapter(base, tmp_path / "pt", seed=1, r=4)), 0.3),
        "sft": (Adapter(make_adapter(base, tmp_path / "sft", seed=2, r=3)), 0.7),
    }
    merge(Checkpoint(base), parts, tmp_path / "merged")
    arguments = ["vectors", "extract", str(base), str(tmp_path / "merged"), "--rank", "7", "-o", str(tmp_path / "back")]
    assert run(arguments) == 0
    back = Adapter(tmp_path / "back")
    want = 0.3 * parts["pt"][0] + 0.7 * parts["sft"][0]
    assert set(back) == set(want)
    form = back.record["form"]
    assert isinstance(form, dict)
    assert form["relative_error"] < 1e-5 > form["worst"]["relative_error"]
    assert (form["rank"], form["left_out"], form["exact"]) == (7, {}, [])
    for name in want:
        off = (dense(back[name]) - dense(want[name])).norm() / dense(want[name]).norm()
        assert off < 1e-5
    torch.testing.assert_close(logits(base, tmp_path / "back"), logits(tmp_path / "merged"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("tied", [False, True])
def test_norms_biases_and_embeddings_are_carried_exactly(tmp_path: Path, tied: bool) -> None:
    base = make_llama(tmp_path / "base", dtype=torch.float32, tied=tied, attention_bias=True)
    tuned = tune(base, tmp_path / "tuned", low_rank)
    assert run(["vectors", "extract", str(base), str(tuned), "--rank", "4", "-o", str(tmp_path / "v")]) == 0
    adapter = Adapter(tmp_path / "v")
    form: Any = adapter.record["form"]
    ours, theirs = tensors_of(base), tensors_of(tuned)
    plain = [n for n in theirs if "_proj.weight" not in n]
    assert form["exact"] == sorted(plain)
    assert form["left_out"] == {}
    assert form["exact_energy"] == pytest.approx(
        sum(float((theirs[n] - ours[n]).double().square().sum()) for n in plain)
        / sum(float((theirs[n] - ours[n]).double().square().sum()) for n in theirs), rel=1e-9
    )  # fmt: skip
    assert form["relative_error"] < 1e-6
    merge(Checkpoint(base), {"v": (adapter, 1.0)}, tmp_path / "merged")
    merged = tensors_of(tmp_path / "merged")
    for name in theirs:
        exact = name in plain
        torch.testing.assert_close(merged[name], theirs[name], rtol=0, atol=0 if exact else 1e-6)
    torch.testing.assert_close(logits(base, tmp_path / "v"), logits(tuned), atol=2e-4, rtol=0)
    assert not torch.allclose(logits(base), logits(tuned), atol=1e-2)


def test_weights_that_are_stored_transposed(tmp_path: Path) -> None:
    base = make_gpt2(tmp_path / "base")
    kinds = ("c_attn", "c_proj", "c_fc")
    tuned = tune(base, tmp_path / "tuned", lambda t: low_rank(t, kinds=kinds))
    facts = extract_adapter(Checkpoint(base), Checkpoint(tuned), tmp_path / "v", form=LowRankForm(rank=4))["predicate"]
    assert facts["form"]["relative_error"] < 1e-5
    assert json.loads((tmp_path / "v" / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    merge(Checkpoint(base), {"v": (Adapter(tmp_path / "v"), 1.0)}, tmp_path / "merged")
    merged, theirs = tensors_of(tmp_path / "merged"), tensors_of(tuned)
    for name in theirs:
        torch.testing.assert_close(merged[name], theirs[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(base, tmp_path / "v"), logits(tuned), atol=2e-4, rtol=0)


def test_the_stated_error_is_the_error(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", dtype=torch.float32)
    tuned = tune(base, tmp_path / "tuned", lambda t: moved(t, only="_proj"))
    ours, theirs = tensors_of(base), tensors_of(tuned)
    for form in (LowRankForm(rank=5), LowRankForm(energy=0.8), LowRankForm(rank=9, energy=0.8)):
        out = tmp_path / f"v{form.rank}-{form.energy}"
        facts = extract_adapter(Checkpoint(base), Checkpoint(tuned), out, form=form)["predicate"]["form"]
        adapter, lost, whole = Adapter(out), 0.0, 0.0
        for name in adapter:
            tau = (theirs[name] - ours[name]).double()
            said = facts["tensors"][name]
            off = float((tau - dense(adapter[name])).norm())
            assert said["error"] == pytest.approx(off, rel=1e-6)
            assert said["norm"] == pytest.approx(float(tau.norm()), rel=1e-6)
            s = torch.linalg.svdvals(tau)
            rank = said["rank"]
            # The best of its rank, and no larger than asked for.
            assert off == pytest.approx(float(s[rank:].norm()), rel=1e-3)
            assert said["spectral_bound"] >= float(s[rank]) * (1 - 1e-3)
            shares = s.square().cumsum(0) / s.square().sum()
            needed = int((shares < (form.energy or 2)).sum()) + 1
            assert rank == min(needed, form.rank or needed)
            lost, whole = lost + off**2, whole + float(tau.norm()) ** 2
        assert facts["relative_error"] == pytest.approx((lost / whole) ** 0.5, rel=1e-6)


def test_ranks_that_differ_load_with_peft(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", dtype=torch.float32)

    def change(tensors: dict) -> dict:
        one = low_rank(tensors, 2, ("q_proj", "up_proj"))
        other = low_rank(tensors, 6, ("down_proj",))
        kept = {n: (other if "down_proj" in n else one)[n] if "_proj" in n else t for n, t in tensors.items()}
        return {
            n: kept[n] if any(k in n for k in ("q_proj", "up_proj", "down_proj")) else t for n, t in tensors.items()
        }

    tuned = tune(base, tmp_path / "tuned", change)
    form = LowRankForm(energy=0.999999)
    facts = extract_adapter(Checkpoint(base), Checkpoint(tuned), tmp_path / "v", form=form)["predicate"]["form"]
    assert facts["ranks"] == [2, 6]
    torch.testing.assert_close(logits(base, tmp_path / "v"), logits(tuned), atol=1e-3, rtol=0)


def test_what_no_adapter_holds_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_llama(tmp_path / "base", dtype=torch.float32)
    extra = {"model.layers.0.mixer.A_log": torch.ones(16), "model.conv.weight": torch.ones(4, 4, 3)}
    base = tune(base, tmp_path / "start", lambda t: {**t, **extra})
    tuned = tune(base, tmp_path / "tuned", lambda t: moved(t, size=0.1))
    assert run(["vectors", "extract", str(base), str(tuned), "--rank", "64", "-o", str(tmp_path / "v")]) == 0
    said = capsys.readouterr().out
    form: Any = Adapter(tmp_path / "v").record["form"]
    assert set(form["left_out"]) == set(extra)
    assert all(f"LEFT OUT, an adapter cannot hold it: {name}" in said for name in extra)
    assert form["relative_error"] == pytest.approx(sum(form["left_out"].values()) ** 0.5, rel=1e-3)
    only = tune(base, tmp_path / "only", lambda t: moved(t, only="conv"))
    assert run(["vectors", "extract", str(base), str(only), "--rank", "4", "-o", str(tmp_path / "w")]) == 2
    assert "no matrix of a linear layer changed" in capsys.readouterr().err
    norms = tune(base, tmp_path / "norms", lambda t: moved(t, only="norm"))
    assert run(["vectors", "extract", str(base), str(norms), "--rank", "4", "-o", str(tmp_path / "w")]) == 2
    assert "no matrix of a linear layer changed" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    tuned = tune(base, tmp_path / "tuned")
    for name in "vw":
        extract_adapter(Checkpoint(base), Checkpoint(tuned), tmp_path / name, form=LowRankForm(rank=3, seed=7))
    for file in ("adapter_model.safetensors", "adapter_config.json", "crossmatch.json"):
        assert (tmp_path / "v" / file).read_bytes() == (tmp_path / "w" / file).read_bytes()
    with pytest.raises(RuleError):
        LowRankForm()
    with pytest.raises(RuleError, match="at least 1"):
        LowRankForm(rank=0)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_the_share_that_is_rounding_is_said(stored: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_llama(tmp_path / "base", dtype=torch.float32)
    deltas = low_rank(tensors_of(tmp_path / "base"))
    tune(tmp_path / "base", tmp_path / "tuned", lambda tensors: {n: deltas[n].to(stored) for n in tensors})
    pair = str(tmp_path / "base"), str(tmp_path / "tuned")
    capsys.readouterr()
    assert run(["vectors", "extract", *pair, "--rank", "4", "-o", str(tmp_path / "low"), "--json"]) == 0
    share = json.loads(capsys.readouterr().out)["rounding"]
    if stored == torch.float32:
        assert share is None
        return
    base = tensors_of(tmp_path / "base")
    lost = sum(float((t.to(stored).double() - t.double()).square().sum()) for t in base.values())
    whole = sum(float((deltas[n].to(stored).double() - t.double()).square().sum()) for n, t in base.items())
    assert share == pytest.approx(lost / whole, rel=1e-6)
    assert _rounding({"rounding": share}) == []
    told = _rounding({"rounding": 0.34, "form": {}})
    assert told[0] == "the base's rounding to 16 bits alone is 34% of the difference's energy, of full rank"
    assert "crossmatch identify" in told[1]
