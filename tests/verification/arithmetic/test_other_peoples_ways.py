"""Ways of merging that a reader found who tried to have honest files fail: models of their own dtype, files between two
merges, weights that nobody types, an SVD of the whole rank, DoRA on an embedding."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint, verify
from helpers import EVERY_CELL, make_adapter, make_llama
from honest_models import SHAPES, Made, Tensors, hide, judge, make
from honest_programs import BF16, F16, F32, HonestProgram

# Weights of which the base has the rest.
WEIGHTS = (0.25, 0.6)


def models_of(made: Made, dtype: torch.dtype, *, cast: bool = False) -> list[Tensors]:
    """Every adapter merged into the base by itself, as it is stored or cast to the dtype, and stored in that."""

    def merged(name: str, number: int) -> Tensor:
        ours = made.base[name].to(dtype) if cast else made.base[name]
        if name not in SHAPES:
            return ours.to(dtype)
        own = made.adapters[name][number]
        return (ours.float() + own.scale * (own.b.float() @ own.a.float())).to(dtype)

    return [{name: merged(name, number) for name in made.base} for number in range(len(made.weights))]


def linear(models: Sequence[Tensors], weights: Sequence[float], dtype: torch.dtype, out: torch.dtype) -> Tensors:
    """As mergekit's `linear`: models stacked, weighted and summed in a dtype, over the sum of the weights."""
    scales = torch.tensor(weights, dtype=dtype)
    every = {name: torch.stack([model[name].to(dtype) for model in models]) for name in models[0]}
    shaped = {name: scales.reshape(-1, *(1 for _ in stack.shape[1:])) for name, stack in every.items()}
    return {name: ((stack * shaped[name]).sum(0) / scales.sum()).to(out) for name, stack in every.items()}


def task_arithmetic(base: Tensors, models: Sequence[Tensors], weights: Sequence[float], out: torch.dtype) -> Tensors:
    """As mergekit's `task_arithmetic` in float32."""
    merged = {}
    for name, tensor in base.items():
        ours = tensor.float()
        merged[name] = (ours + sum(w * (m[name].float() - ours) for m, w in zip(models, weights, strict=True))).to(out)
    return merged


@pytest.mark.parametrize("dtype", [BF16, F16, F32])
def test_the_base_may_be_the_first_of_the_models(dtype: torch.dtype, tmp_path: Path) -> None:
    """Where a mean is taken in float32, what no adapter touches depends on the order of the sum."""
    made = make(random.Random(1), tmp_path, HonestProgram(), size=0.02, count=2, stored=dtype)
    made = replace(made, weights=list(WEIGHTS))
    rest = 1 - sum(WEIGHTS)
    merged = linear([made.base, *models_of(made, F32)], [rest, *WEIGHTS], F32, F32)
    verdict = judge(made, merged, "merged")
    assert (verdict.verdict, verdict.faults) == ("verified", ())
    assert "the mean of the models" in verdict.rounding["arithmetic"]
    merged["model.norm.weight"][3] *= 1 + 2**-22
    assert judge(made, merged, "changed").faults == ("untouched-changed",)


@pytest.mark.covering("base")
@pytest.mark.parametrize(("base", "models"), [(F16, BF16), (BF16, F16), (F32, BF16), (F32, F16)])
@pytest.mark.parametrize("way", ["differences", "differences, base cast", "mean", "base first", "stored as the base"])
def test_models_may_have_another_dtype_than_their_base(
    way: str, base: torch.dtype, models: torch.dtype, tmp_path: Path
) -> None:
    made = make(random.Random(2), tmp_path, HonestProgram(), size=0.02, count=2, stored=base)
    made = replace(made, weights=list(WEIGHTS if way == "base first" else (0.3, 0.7)))
    every = models_of(made, models, cast=way == "differences, base cast")
    out = base if way == "stored as the base" else models
    if way == "mean":
        merged = linear(every, made.weights, F32, out)
    elif way == "base first":
        merged = linear([made.base, *every], [1 - sum(WEIGHTS), *WEIGHTS], F32, out)
    else:
        merged = task_arithmetic(made.base, every, made.weights, out)
    verdict = judge(made, merged, "merged")
    assert (verdict.verdict, verdict.faults) == ("verified", ())
    assert "a model of its own" in verdict.rounding["arithmetic"]
    up = merged["model.layers.0.mlp.up_proj.weight"]
    up[17] = up[17] * 1.05
    assert judge(made, merged, "changed").faults == ("unexplained-delta",)


# The first merge's dtype and that of its file, the same of the second, and what the end is converted to.
BETWEEN = {
    "float32 around bfloat16": (F32, F32, BF16, F32, F32, None),
    "float32 around float16": (F32, F32, F16, F32, F32, None),
    "float32, bfloat16, float16": (F32, F32, BF16, F16, F16, None),
    "float16 around bfloat16": (F16, F32, BF16, F32, F16, None),
    "bfloat16 by way of float16": (BF16, BF16, BF16, F32, F16, BF16),
    "twice converted": (BF16, F32, F16, F32, BF16, F16),
}


@pytest.mark.parametrize("way", BETWEEN)
def test_a_file_between_two_merges_may_have_another_dtype(way: str, tmp_path: Path) -> None:
    """PEFT twice: the base loaded in a dtype, merged, saved in another; and the same with that file as the base."""
    stored, first, saved, second, end, last = BETWEEN[way]
    base = make_llama(tmp_path / "base", dtype=stored)
    parts = {name: make_adapter(base, tmp_path / name, seed=n, size=0.02) for n, name in enumerate(("pt", "sft"))}
    folder: Path = base
    for name, load, save in (("pt", first, saved), ("sft", second, end)):
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=load)
        folder = tmp_path / f"merged-{name}"
        PeftModel.from_pretrained(model, parts[name]).merge_and_unload().to(save).save_pretrained(folder)
    if last:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=last)
        model.save_pretrained(tmp_path / "last")
        folder = tmp_path / "last"
    verdict = verify(folder, Checkpoint(base), {n: (Adapter(p), 1.0) for n, p in parts.items()})
    assert (verdict.verdict, verdict.faults) == ("verified", ())
    assert "the file between them in" in verdict.rounding["arithmetic"]


def typed_with_two_digits(seed: int, tmp_path: Path) -> tuple[Made, Made]:
    """A model at weights that nobody types, and the same as it is claimed."""
    rng = random.Random(seed)
    share = rng.uniform(0.12, 0.88)
    program = (
        HonestProgram(stored=BF16),
        HonestProgram(base=BF16, stored=BF16, delta=BF16, order="after"),
        HonestProgram(base=BF16, stored=BF16, factors=BF16, delta=BF16, order="after"),
        HonestProgram(base=BF16, stored=BF16, factors=BF16, place="a", delta=BF16, order="cat"),
    )[seed % 4]
    made = make(rng, tmp_path, program, size=(0.003, 0.02, 0.1)[seed % 3], count=2)
    inside = replace(made, weights=[share, 1 - share])
    return inside, replace(inside, weights=[round(share, 2), round(1 - share, 2)])


@pytest.mark.parametrize("seed", range(48) if EVERY_CELL else (0, 2))
def test_weights_that_nobody_types_are_known_from_the_bits(seed: int, tmp_path: Path) -> None:
    inside, claimed = typed_with_two_digits(seed, tmp_path)
    verdict = judge(claimed, inside.whole(inside.weights), "merged")
    assert (verdict.verdict, verdict.faults) == ("verified", ()), str(inside.program)
    for name, weight in zip(("a0", "a1"), inside.weights, strict=True):
        assert verdict.weights[name].recovered == pytest.approx(weight, abs=5e-4)
    # What the weights' range leaves open is no more than what is said.
    unseen = verdict.evidence["unseen"]
    assert unseen is not None
    assert unseen < 0.01
    torch.manual_seed(seed)
    kind = ("hidden, rank 1", "hidden, rank 8", "hidden, full rank", "hidden in one row")[seed // 2 % 4]
    hidden = judge(claimed, hide(random.Random(seed), inside, kind, unseen).tensors, "hidden")
    assert hidden.verdict == "failed"


@pytest.mark.parametrize("seed", range(40 if EVERY_CELL else 2))
def test_an_svd_of_the_whole_rank_in_single_precision(seed: int, tmp_path: Path) -> None:
    """PEFT's `svd`: its singular vectors err by the same everywhere, where a row is small, too."""
    base = make_llama(tmp_path / "base", dtype=F32, seed=seed)
    names = {name: make_adapter(base, tmp_path / name, seed=3 * seed + n, r=4) for n, name in enumerate("ab")}
    weights = {"a": 0.79, "b": 0.13}
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=F32), names["a"], "a")
    tuned.load_adapter(str(names["b"]), "b")
    tuned.add_weighted_adapter(list(weights), list(weights.values()), "all", combination_type="svd", svd_rank=8)
    tuned.set_adapter("all")
    model: Any = tuned
    model.merge_and_unload().save_pretrained(tmp_path / "out")
    parts = {n: (Adapter(path), weights[n]) for n, path in names.items()}
    verdict = verify(tmp_path / "out", Checkpoint(base), parts)
    assert (verdict.verdict, verdict.faults) == ("verified", ())


@pytest.mark.parametrize("seed", range(12) if EVERY_CELL else (2, 4))
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_dora_on_an_embedding(seed: int, tmp_path: Path) -> None:
    """Its norms run over the vocabulary, and err by more than those of a row."""
    base = make_llama(tmp_path / "base", dtype=F32, seed=seed)
    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "embed_tokens"], use_dora=True)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=F32), config)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            parameter.data.normal_(0, 0.02)
    tuned.save_pretrained(str(tmp_path / "adapter"))
    model: Any = tuned
    model.merge_and_unload().save_pretrained(tmp_path / "out")
    verdict = verify(tmp_path / "out", Checkpoint(base), {"a": (Adapter(tmp_path / "adapter"), 1.0)})
    assert (verdict.verdict, verdict.faults) == ("verified", ())
    assert "rounded once" in verdict.rounding["arithmetic"]
