"""Which adapters are in a file, when nobody claims anything."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint, TuningVector, identify, write
from crossmatch.cli import run
from crossmatch.delta import Dense
from crossmatch.errors import InputError
from crossmatch.verification.weights import findings
from crossmatch.verification.weights.diagnosis import Diagnosis
from helpers import make_adapter, make_llama

NAMES = [f"a{number}" for number in range(12)]
pytestmark = pytest.mark.covering("candidates")


@pytest.fixture(scope="module", params=[1e-2, 1e-3], ids=lambda s: f"size-{s:g}")
def candidates(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("candidates")
    make_llama(root / "base", hidden_size=128, intermediate_size=352)
    for seed, name in enumerate(NAMES, 1):
        make_adapter(root / "base", root / name, seed=seed, size=request.param)
    return root


def mixed(root: Path, out: Path, **weights: float) -> Path:
    write(Checkpoint(root / "base"), sum((w * Adapter(root / n) for n, w in weights.items()), TuningVector({})), out)
    return out


def test_two_of_twelve(candidates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = mixed(candidates, tmp_path / "out", a3=0.3, a7=-0.45)
    flags = [flag for name in NAMES for flag in ("-a", f"{name}={candidates / name}")]
    assert run(["identify", str(out), "--base", str(candidates / "base"), *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "identified"
    assert found["weights"]["a3"]["claimed"] is None
    assert found["weights"]["a3"]["recovered"] == pytest.approx(0.3, abs=0.005)
    assert found["weights"]["a7"]["recovered"] == pytest.approx(-0.45, abs=0.005)
    assert found["evidence"]["absent"] == [name for name in NAMES if name not in ("a3", "a7")]
    assert found["tensors"]["untouched_changed"] == []
    assert run(["identify", str(out), "--base", str(candidates / "base"), *flags]) == 0
    text = capsys.readouterr().out
    assert text.startswith("IDENTIFIED")
    assert "not in the file: a0, a1, a2" in text


def test_one_that_is_no_candidate(candidates: Path, tmp_path: Path) -> None:
    out = mixed(candidates, tmp_path / "out", a0=0.5, a11=0.8)
    verdict = identify(out, Checkpoint(candidates / "base"), {n: Adapter(candidates / n) for n in ("a0", "a1")})
    assert verdict.verdict == "failed"
    assert verdict.faults == ("unexplained-delta",)
    assert "effective rank" in verdict.findings[0].evidence
    assert verdict.weights["a0"].recovered == pytest.approx(0.5, abs=0.02)


def test_a_lower_rank_that_fits_few_modules_beside_something_unknown_is_no_fault(
    candidates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one adapter missing, the sum of the others, cut to a lower rank, seemed to fit 4 of 210 modules."""
    rightly, seen = findings.diagnose, []

    def fitted(*args: Any) -> Diagnosis:
        seen.append(args)
        return Diagnosis("rank-truncated", "the sum, pressed into rank 5 of 16") if len(seen) == 2 else rightly(*args)

    monkeypatch.setattr(findings, "diagnose", fitted)
    out = mixed(candidates, tmp_path / "out", a0=0.5, a11=0.8)
    verdict = identify(out, Checkpoint(candidates / "base"), {"a0": Adapter(candidates / "a0")})
    assert len(seen) > 2
    assert verdict.faults == ("unexplained-delta",)
    found = verdict.findings[0].to_dict()
    assert "as one more -a" in found["remedy"]
    assert "claim" not in found["consequence"] + found["remedy"]


def test_nothing_but_the_base(candidates: Path) -> None:
    base = Checkpoint(candidates / "base")
    verdict = identify(base.path, base, {"a0": Adapter(candidates / "a0")})
    assert (verdict.verdict, verdict.evidence["absent"]) == ("identified", ["a0"])
    with pytest.raises(InputError, match="no candidate"):
        identify(base.path, base, {})


def test_twins_are_known_by_their_sum(candidates: Path, tmp_path: Path) -> None:
    first = Adapter(candidates / "a0")
    generator = torch.Generator().manual_seed(0)

    def near(delta: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(delta.shape, generator=generator, dtype=delta.dtype)
        return delta + 0.0447 * noise * delta.std()

    twin = TuningVector({n: Dense(near(d.rows(0, d.height, torch.float64)).float()) for n, d in first.items()})
    out = mixed(candidates, tmp_path / "out", a0=0.5, a5=0.3)
    known = {"a0": first, "twin": twin, "a5": Adapter(candidates / "a5")}
    verdict = identify(out, Checkpoint(candidates / "base"), known)
    assert verdict.verdict == "inconclusive"
    assert "not-identifiable" in verdict.notes
    (total,) = verdict.evidence["sums"]
    assert set(total["terms"]) == {"a0", "twin"}
    assert total["recovered"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("weight", [0.02, 0.009, 0.005, -0.008])
def test_a_small_weight_that_the_file_shows_is_not_taken_for_none(tmp_path: Path, weight: float) -> None:
    """PEFT's own merge in single precision, of an adapter at less than what else counts as nothing."""
    make_llama(tmp_path / "base", dtype=torch.float32)
    for seed, name in enumerate(("pt", "sft"), 1):
        make_adapter(tmp_path / "base", tmp_path / name, seed=seed)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32), tmp_path / "pt", adapter_name="pt"
    )
    model.load_adapter(tmp_path / "sft", "sft")
    model.add_weighted_adapter(["pt", "sft"], [weight, 0.7], "both", combination_type="cat")
    model.set_adapter("both")
    model.merge_and_unload(adapter_names=["both"]).save_pretrained(tmp_path / "merged")
    found = identify(tmp_path / "merged", tmp_path / "base", {name: tmp_path / name for name in ("pt", "sft")})
    assert (found.verdict, found.evidence["absent"]) == ("identified", [])
    assert found.weights["pt"].recovered == pytest.approx(weight, abs=1e-6)
