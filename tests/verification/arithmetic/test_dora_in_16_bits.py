"""DoRA that PEFT merges with factors and magnitudes in 16 bits."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint, Verdict, verify
from helpers import make_adapter, make_llama

UP = "model.layers.0.mlp.up_proj"


def judge(root: Path) -> Verdict:
    return verify(root / "merged", Checkpoint(root / "base"), {"pt": (Adapter(root / "pt"), 1.0)})


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("safe", [False, True])
def test_dora_is_replayed(half: torch.dtype, safe: bool, tmp_path: Path) -> None:
    make_llama(tmp_path / "base", dtype=half)
    make_adapter(tmp_path / "base", tmp_path / "pt", seed=1, size=0.03, use_dora=True, target_modules=["up_proj"])
    file = tmp_path / "pt" / "adapter_model.safetensors"
    trained = load_file(file)
    for name, tensor in trained.items():
        if "magnitude" in name:
            tensor *= 1 + 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2))
    save_file(trained, file, metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")
    adapted = PeftModel.from_pretrained(model, tmp_path / "pt").to(half)  # type: ignore[arg-type]
    adapted.merge_and_unload(safe_merge=safe).save_pretrained(tmp_path / "merged")
    verdict = judge(tmp_path)
    assert (verdict.verdict, verdict.faults, verdict.notes) == ("verified", (), ("rounded-twice",))
    assert verdict.rounding["violations"] == 0.0
    # The figure is of a delta that passes the rounding of V, too, and never that of an exact tie.
    assert verdict.evidence["unseen"] > 1e-5
    # A row whose magnitude is a step larger is another adapter's.
    file = tmp_path / "merged" / "model.safetensors"
    tensors = load_file(file)
    tensors[f"{UP}.weight"][5] *= 1.02
    save_file(tensors, file, metadata={"format": "pt"})
    assert judge(tmp_path).faults == ("unexplained-delta",)
