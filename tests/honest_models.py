"""Models of three matrices with adapters of any kind, merged by any honest program, and what the prover says of them."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from honest_programs import BF16, F16, F32, Factors, HonestProgram, draw

SHAPES = {
    "model.layers.0.self_attn.q_proj.weight": (256, 256),
    "model.layers.0.mlp.up_proj.weight": (512, 256),
    "model.layers.0.mlp.down_proj.weight": (256, 512),
}
NORM = "model.norm.weight"
Tensors = dict[str, Tensor]
Adapters = dict[str, list[Factors]]


@dataclass(frozen=True)
class Made:
    """A model on the disk: what was drawn, and its folder, which holds `base` and `a0`, `a1` and so on."""

    root: Path
    program: HonestProgram
    base: Tensors
    adapters: Adapters
    weights: list[float]

    def merge(self, name: str, weights: Sequence[float], further: Sequence[tuple[Factors, float]] = ()) -> Tensor:
        """One matrix by the program, at some weights, with further adapters beside them."""
        factors = [*self.adapters[name], *(f for f, _ in further)]
        return self.program.merge(self.base[name], factors, [*weights, *(w for _, w in further)])

    def inside(self, number: int) -> float:
        """A weight as single precision holds it, times the scaling or by itself; on rounded factors it is known."""
        if self.program.factors != F32 and self.program.place != "product":
            return self.weights[number]
        if self.program.order == "mean":
            scales = torch.tensor([*self.weights, 1 - sum(self.weights)], dtype=self.program.base)
            return float(scales[number].double() / scales.sum().double())
        scale, weight = self.adapters[next(iter(SHAPES))][number].scale, self.weights[number]
        by = 1.0 if self.program.steps or self.program.order.startswith(("mean", "models")) else scale
        return float(torch.tensor(weight * by, dtype=F32)) / by

    def whole(self, weights: Sequence[float]) -> Tensors:
        """The model at some weights."""
        program = self.program
        ways = [F16 if program.stored == BF16 else BF16] if program.detour else [program.base]
        ways += [program.then] if program.order == "other end" else []
        norm = self.base[NORM]
        if program.order.startswith("mean"):
            ways, norm = [], program.mean(norm.to(program.base), [norm.to(program.base)] * len(weights), weights)
        for dtype in (*ways, program.stored):
            norm = norm.to(dtype)
        rest = {NORM: norm}
        return {name: self.merge(name, weights) for name in SHAPES} | rest


def make(
    rng: random.Random,
    root: Path,
    program: HonestProgram | None = None,
    size: float | None = None,
    count: int | None = None,
    stored: torch.dtype | None = None,
) -> Made:
    """A base and its adapters; program, size of the deltas, number of adapters, the base's and the adapters' dtype:
    those, in place of drawn ones."""
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    count = count or rng.randint(1, 3)
    program = program or draw(rng, count)
    dtype = stored or rng.choice((program.base, F32))
    base = {n: torch.randn(s, generator=generator).mul(0.02).to(dtype) for n, s in SHAPES.items()}
    base[NORM] = (1 + 0.1 * torch.randn(256, generator=generator)).to(dtype)
    (root / "base").mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}
    (root / "base/config.json").write_text(json.dumps(config))
    save_file(base, root / "base/model.safetensors", {"format": "pt"})
    weights = [round(rng.choice((1, 1, 1, -1)) * rng.uniform(0.05, 1.5), 3) for _ in range(count)]
    size = size or 10 ** rng.uniform(-3.7, -1)
    adapters: Adapters = {n: [] for n in SHAPES}
    for number in range(count):
        rank, own = rng.choice((2, 4, 8, 16, 64)), size * 10 ** rng.uniform(-0.3, 0.3)
        alpha, kept, tensors = rank * rng.choice((0.5, 1, 2)), stored or rng.choice((F32, program.factors)), {}
        for name, (rows, columns) in SHAPES.items():
            a = torch.randn(rank, columns, generator=generator).mul(columns**-0.5)
            b = torch.randn(rows, rank, generator=generator)
            b *= own * float(base[name].float().norm()) / float((alpha / rank * b @ a).norm())
            a, b = a.to(kept), b.to(kept)
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
            adapters[name].append(Factors(a, b, alpha / rank))
        folder = root / f"a{number}"
        folder.mkdir()
        targets = sorted({name.split(".")[-2] for name in SHAPES})
        lora = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets, "bias": "none"}
        (folder / "adapter_config.json").write_text(json.dumps(lora))
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return Made(root, program, base, adapters, weights)


def judge(made: Made, merged: Tensors, name: str) -> Any:
    """What the prover says of these tensors."""
    from crossmatch import Adapter, Checkpoint, verify

    folder = made.root / name
    folder.mkdir()
    (folder / "config.json").write_text((made.root / "base/config.json").read_text())
    save_file({n: t.contiguous() for n, t in merged.items()}, folder / "model.safetensors", {"format": "pt"})
    parts: Any = {f"a{i}": (Adapter(made.root / f"a{i}"), w) for i, w in enumerate(made.weights)}
    return verify(folder, Checkpoint(made.root / "base"), parts)


HIDDEN = {"hidden, rank 1": 1, "hidden, rank 8": 8, "hidden, full rank": 256, "hidden in one row": 0}


@dataclass(frozen=True)
class Hidden:
    """A merge with a further delta in one matrix, and what of it has come into the file.

    changed: elements of other bits than without it; expected: as many where nothing but the last step rounds it.
    """

    tensors: Tensors
    changed: int
    expected: int

    @property
    def is_lost(self) -> bool:
        """Whether less than half of it has arrived: its factors or models were rounded before, to zero or to the base,
        so that the file holds no delta of this size."""
        return 2 * self.changed < self.expected or not self.changed


def hide(rng: random.Random, made: Made, kind: str, unseen: float) -> Hidden:
    """The honest merge with a further delta in one matrix: twice as large as said, by the program's own way."""
    name = rng.choice(sorted(SHAPES))
    rows, columns = SHAPES[name]
    claimed = sum(
        w * f.scale * (f.b.double() @ f.a.double()) for w, f in zip(made.weights, made.adapters[name], strict=True)
    )
    assert isinstance(claimed, Tensor)
    rank = HIDDEN[kind] or 1
    a, b = torch.randn(rank, columns) * columns**-0.5, torch.randn(rows, rank)
    size = 2 * unseen * float(claimed.norm())
    if not HIDDEN[kind]:
        b.zero_()
        b[rng.randrange(rows)] = 1.0
        size *= rows**0.5
    b *= size / float((b @ a).norm())
    merged = made.whole(made.weights)
    honest, exact = merged[name], made.base[name].double() + claimed
    merged[name] = made.merge(name, made.weights, [(Factors(a, b), 1.0)])
    with_it = (exact + b.double() @ a.double()).to(honest.dtype)
    expected = int((with_it != exact.to(honest.dtype)).sum())
    return Hidden(merged, int((merged[name] != honest).sum()), expected)
