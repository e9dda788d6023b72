"""What somebody who knows the prover could put into a file, and that each verdict says how much that may be."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossmatch import Adapter, Checkpoint, verify
from helpers import make_adapter, make_llama, peft_merge
from honest_models import NORM, SHAPES, Made, judge, make
from honest_programs import BF16, F32, HonestProgram

BASE_CAST = HonestProgram(base=BF16, stored=BF16)
VICTIM = "model.layers.0.mlp.down_proj.weight"


def moved(stored: Tensor, base: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the elements by one step, up or down by the signs of a hidden matrix; those beside a power of two and
    those that changed their sign stay, since a step is no step there."""
    hidden = torch.randn(stored.shape, generator=generator)
    infinite = torch.full_like(stored, torch.inf)
    other = torch.where(hidden > 0, torch.nextafter(stored, infinite), torch.nextafter(stored, -infinite))
    powers = [torch.frexp(x.double()).mantissa.abs() == 0.5 for x in (stored, other)]
    largest = hidden.abs() > hidden.abs().flatten().quantile(1 - share)
    return torch.where(largest & ~powers[0] & ~powers[1] & (stored.sign() == base.sign()), other, stored)


def added(made: Made, honest: Tensor, now: Tensor, name: str) -> float:
    """The size of what was added, over that of the claimed delta."""
    claimed = honest.double() - made.base[name].double()
    return float((now.double() - honest.double()).norm() / claimed.norm())


def test_what_an_unknown_rounding_could_hide_is_stated(tmp_path: Path) -> None:
    """A step in every fourth element looks like stochastic rounding, whatever its direction: the verdict says how much
    that is."""
    made = make(random.Random(4), tmp_path, BASE_CAST, size=0.02, count=2, stored=BF16)
    honest, generator = made.whole(made.weights), torch.Generator().manual_seed(5)
    now = honest | {n: moved(honest[n], made.base[n], 0.24, generator) for n in SHAPES}
    verdict = judge(made, now, "moved")
    assert "rounded-otherwise" in verdict.notes
    most = max(added(made, honest[n], now[n], n) for n in SHAPES)
    assert most > 0.05
    assert verdict.evidence["left_over"] == pytest.approx(most, rel=0.1)
    assert verdict.evidence["unseen"] > 0.95 * most


def test_a_few_odd_elements_are_no_way_of_rounding(tmp_path: Path) -> None:
    """One element in most of the modules does not open the others to what an unknown rounding may do."""
    made = make(random.Random(4), tmp_path, BASE_CAST, size=0.02, count=2, stored=BF16)
    now, generator = made.whole(made.weights), torch.Generator().manual_seed(5)
    now[VICTIM] = moved(now[VICTIM], made.base[VICTIM], 0.24, generator)
    for name in SHAPES:
        now[name].view(torch.int16)[3, 5] += 1
    verdict = judge(made, now, "moved")
    assert verdict.faults == ("unexplained-delta",)
    assert set(verdict.findings[0].where) == set(SHAPES)


@pytest.mark.parametrize("delta", [None, BF16])
def test_elements_that_may_be_one_of_two_values_are_counted(delta: torch.dtype | None, tmp_path: Path) -> None:
    """Where the order of additions leaves an element open, its other value can be taken on purpose: what that comes to
    is left over, and stated."""
    from crossmatch.delta import low_rank
    from crossmatch.verification.arithmetic.grammar import Program
    from crossmatch.verification.arithmetic.replay import Applied

    made = make(random.Random(6), tmp_path, replace(BASE_CAST, delta=delta), size=0.02, count=1, stored=BF16)
    honest = made.whole(made.weights)
    now = dict(honest)
    for name, (rows, _) in SHAPES.items():
        (factors,) = made.adapters[name]
        parts = {0: low_rank(factors.b, factors.a, factors.scale)}
        use = Applied.of(Program(BF16, delta=delta), parts, made.weights, [0.0], BF16)
        low, high = use.bounds(use.read(made.base[name], [slice(0, rows)]))
        now[name] = torch.where(torch.rand(low.shape) < 0.5, low, high).to(BF16)
    verdict = judge(made, now, "chosen")
    assert verdict.verified
    most = max(added(made, honest[n], now[n], n) for n in SHAPES)
    assert verdict.evidence["left_over"] == pytest.approx(most, rel=0.2, abs=1e-4)
    assert judge(made, honest, "honest").evidence["left_over"] < max(most, 1e-4)


def test_rows_of_tokens_that_were_not_trained_are_the_base_to_the_bit(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", dtype=F32)
    tokens = make_adapter(base, tmp_path / "tokens", seed=1, trainable_token_indices=[3, 7])
    merged = peft_merge(base, [tokens], tmp_path / "merged", dtype=F32)
    assert verify(merged, Checkpoint(base), {"tokens": (Adapter(tokens), 1.0)}).verified
    tensors = load_file(merged / "model.safetensors")
    tensors["model.embed_tokens.weight"].view(torch.int32)[9:] += 1
    save_file(tensors, merged / "model.safetensors", {"format": "pt"})
    verdict = verify(merged, Checkpoint(base), {"tokens": (Adapter(tokens), 1.0)})
    assert verdict.faults == ("unexplained-delta",)
    assert verdict.findings[0].where == ("model.embed_tokens.weight",)


@pytest.mark.parametrize("where", [VICTIM, NORM])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_none(value: float, where: str, tmp_path: Path) -> None:
    """A file with NaN or infinity fails, and what is said of it is JSON that any reader takes."""
    made = make(random.Random(4), tmp_path, BASE_CAST, size=0.02, count=2, stored=BF16)
    now = made.whole(made.weights)
    now[where].view(-1)[7] = value
    verdict = judge(made, now, "broken")
    assert verdict.verdict == "failed"
    json.dumps(verdict.to_dict(), allow_nan=False)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64])
def test_tensors_of_whole_numbers_are_compared_by_their_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    made = make(random.Random(4), tmp_path, BASE_CAST, size=0.02, count=2, stored=BF16)
    extra = torch.arange(64).reshape(8, 8).to(dtype)
    save_file(load_file(tmp_path / "base/model.safetensors") | {"table": extra}, tmp_path / "base/model.safetensors")
    honest = made.whole(made.weights)
    assert judge(made, honest | {"table": extra}, "same").verdict == "verified"
    other = extra.clone()
    other[3, 5] = ~other[3, 5] if dtype == torch.bool else other[3, 5] + 1
    verdict = judge(made, honest | {"table": other}, "other")
    assert verdict.faults == ("untouched-changed",)
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_errors_beside_a_remainder_are_those_of_weights_that_scatter(tmp_path: Path) -> None:
    """Something else in every module, which holds some of the first adapter, too: no element's noise says so."""
    made = make(random.Random(6), tmp_path, HonestProgram(), size=0.05, count=2, stored=F32)
    merged, generator = made.whole(made.weights), torch.Generator().manual_seed(7)
    for share, (name, (rows, columns)) in zip((0.3, -0.3, 0.1), SHAPES.items(), strict=True):
        factors = made.adapters[name][0]
        own = factors.scale * factors.b @ factors.a
        other = torch.randn(rows, 8, generator=generator) @ torch.randn(8, columns, generator=generator)
        merged[name] = merged[name] + share * own + other * (own.norm() / other.norm())
    verdict = judge(made, merged, "merged")
    found = verdict.weights["a0"]
    assert verdict.verdict == "failed"
    assert found.recovered is not None
    assert found.stderr is not None
    assert 0.05 < found.stderr < 0.3
    assert abs(found.recovered - made.weights[0]) < 4 * found.stderr
