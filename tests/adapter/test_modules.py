"""Modules that PEFT's merge in today's transformers does not reach: experts kept as modules, convolutions of one point.

Experts were modules of their own before transformers 5, and are so in its files still: adapters trained then have keys
such as `experts.0.gate_proj.lora_A.weight`.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_kinds import SHAPE, by_peft, by_us
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from crossmatch import Adapter, Checkpoint, merge, verify
from crossmatch.adapter import fit
from crossmatch.errors import AdapterError
from crossmatch.verification import WholeProof


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two mixtures of experts, of which every expert is a module in the file."""
    root = tmp_path_factory.mktemp("bases")
    torch.manual_seed(0)
    MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=3)).save_pretrained(root / "mixtral")
    qwen = Qwen3MoeConfig(**SHAPE, num_experts=3, moe_intermediate_size=24, head_dim=8, tie_word_embeddings=False)
    Qwen3MoeForCausalLM(qwen).save_pretrained(root / "qwen")
    return root


def as_modules(base: Path) -> torch.nn.Module:
    """The file's tensors as a tree of modules, every matrix a linear layer: the names of older model classes."""
    root = torch.nn.Module()
    for name, tensor in Checkpoint(base).items():
        *path, last, leaf = name.split(".")
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = parent.get_submodule(part)
        module = torch.nn.Linear(*reversed(tensor.shape), bias=False) if tensor.ndim == 2 else torch.nn.Module()
        module.register_parameter(leaf, torch.nn.Parameter(tensor))
        parent.add_module(last, module)
    return root


def wrapped(model: torch.nn.Module, out: Path, **config: Any) -> Any:
    """PEFT's model around `model`, its adapter moved at random and saved."""
    torch.manual_seed(1)
    tuned: Any = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, **config}))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    tuned.save_pretrained(out)
    return tuned


def merged(tuned: Any) -> dict[str, torch.Tensor]:
    state = tuned.merge_and_unload().state_dict()
    return {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()}


EXPERTS: dict[str, list[str]] = {"qwen": ["gate_proj", "up_proj", "down_proj"], "mixtral": ["w1", "w2", "w3"]}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_dora": True},
        {"rank_pattern": {r"experts\.1\.(gate_proj|w1)": 2}, "alpha_pattern": {r"layers\.0\..*(down_proj|w2)": 3}},
    ],
    ids=["plain", "dora", "patterns"],
)
@pytest.mark.parametrize("kind", EXPERTS)
def test_experts_that_are_modules(bases: Path, tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    base = bases / kind
    tuned = wrapped(as_modules(base), tmp_path / "a", target_modules=[*EXPERTS[kind], "q_proj"], **config)
    assert any(".experts.2." in name for name in Adapter(tmp_path / "a"))
    by_us(base, tmp_path / "a", tmp_path / "out")
    found, expected = load_file(tmp_path / "out" / "model.safetensors"), merged(tuned)
    assert set(found) == set(expected)
    plain = Checkpoint(base)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
        adapted = name.split(".")[-2] in (*EXPERTS[kind], "q_proj")
        assert torch.equal(found[name], plain[name]) != adapted, name


@pytest.mark.parametrize("kind", EXPERTS)
def test_they_are_what_peft_makes_of_them_today(bases: Path, tmp_path: Path, kind: str) -> None:
    """PEFT turns such an adapter into one on the fused parameters of the new classes."""
    wrapped(as_modules(bases / kind), tmp_path / "a", target_modules=[*EXPERTS[kind], "q_proj"])
    expected = by_peft(bases / kind, tmp_path / "a")
    found = by_us(bases / kind, tmp_path / "a", tmp_path / "out")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_an_expert_that_is_missing(bases: Path, tmp_path: Path) -> None:
    wrapped(as_modules(bases / "qwen"), tmp_path / "a", target_modules=EXPERTS["qwen"])
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layers.1.mlp.experts.2.up_proj" not in k}, file)
    with pytest.raises(
        AdapterError, match=r"targets model\.layers\.1\.mlp\.experts\.2\.up_proj, its file holds nothing"
    ):
        fit(Checkpoint(bases / "qwen"), {"a": Adapter(tmp_path / "a")})


def saved_module(model: torch.nn.Module, out: Path) -> Path:
    """A module's tensors as a checkpoint."""
    out.mkdir()
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text("{}")
    return out


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 1, 3), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("dora", [False, True])
def test_3d_convolutions_of_one_point(tmp_path: Path, kernel: tuple[int, int, int], dora: bool) -> None:
    """Patch embeddings. PEFT cannot merge them where the kernel begins with (1, 1): it takes it for that of a 2d one.

    The reference is the formula in float64: V[o, c, k] = W[o, c, k] + alpha / r * sum_i B[o, i] A[i, c, k], k a point
    of the kernel; W' = V, or with DoRA m[o] V[o] / ||V[o]||, the norm over all of an output channel. A plain
    convolution with that weight must do what PEFT's unmerged layers do.
    """
    torch.manual_seed(0)
    patch = torch.nn.Conv3d(12, 32, kernel, stride=kernel)
    base = saved_module(torch.nn.ModuleDict({"patch_embed": patch}), tmp_path / "base")
    tuned = wrapped(
        torch.nn.ModuleDict({"patch_embed": patch}), tmp_path / "a", target_modules=["patch_embed"], use_dora=dora
    )
    parts = {"a": (Adapter(tmp_path / "a"), 1.0)}
    merge(Checkpoint(base), parts, tmp_path / "out", proof=WholeProof())
    found = load_file(tmp_path / "out" / "model.safetensors")

    saved = load_file(tmp_path / "a" / "adapter_model.safetensors")
    factors = {key.split("patch_embed.")[1]: tensor.double() for key, tensor in saved.items()}
    b, a = factors["lora_B.weight"].flatten(1), factors["lora_A.weight"]
    value = Checkpoint(base)["patch_embed.weight"].double() + 8 / 4 * torch.einsum("oi,icxyz->ocxyz", b, a)
    if dora:
        magnitude = factors["lora_magnitude_vector"].flatten()
        value *= (magnitude / value.flatten(1).norm(dim=1))[:, None, None, None, None]
    assert torch.equal(found["patch_embed.weight"], value.float())
    assert torch.equal(found["patch_embed.bias"], Checkpoint(base)["patch_embed.bias"])
    assert verify(tmp_path / "out", Checkpoint(base), parts).verified
    picture = torch.randn(2, 12, 4, 4, 6)
    ours = torch.nn.functional.conv3d(picture, found["patch_embed.weight"], found["patch_embed.bias"], stride=kernel)
    torch.testing.assert_close(ours, tuned.base_model.model["patch_embed"](picture), rtol=1e-4, atol=1e-5)
    if kernel[:2] == (1, 1):
        # As soon as PEFT can, it is the better reference.
        with pytest.raises(RuntimeError):
            tuned.merge_and_unload()


def test_convolutions_with_groups_are_refused(tmp_path: Path) -> None:
    """PEFT's A sees all channels of the input, the base's weight those of one group."""
    conv = torch.nn.Conv2d(16, 32, 3, groups=4)
    base = saved_module(torch.nn.ModuleDict({"conv": conv}), tmp_path / "base")
    with pytest.warns(UserWarning, match="Merging is not supported"):
        wrapped(torch.nn.ModuleDict({"conv": conv}), tmp_path / "a", target_modules=["conv"])
    with pytest.raises(
        AdapterError, match=r"delta of \[32, 16, 3, 3\], .* of \[32, 4, 3, 3\]; the convolution has groups"
    ):
        fit(Checkpoint(base), {"a": Adapter(tmp_path / "a")})
    other = saved_module(torch.nn.ModuleDict({"conv": torch.nn.Conv2d(12, 32, 3)}), tmp_path / "other")
    with pytest.raises(AdapterError, match="trained on another base"):
        fit(Checkpoint(other), {"a": Adapter(tmp_path / "a")})
