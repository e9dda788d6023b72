"""How often the prover is right: honest merges must be verified, faults must not, intervals must cover.

python benchmarks/calibration.py                 1,000 honest merges and 1,000 faults
python benchmarks/calibration.py --count 100     fewer

Each model is drawn anew: three matrices, a norm, one to three adapters of random ranks, weights and sizes (an adapter's
norm from 5e-5 to 0.2 of the base's), float32, bfloat16 or float16, merged by one of the honest routes. Nothing of the
prover makes the files. A fault changes one thing by at least a tenth of an adapter, or a bit that no rounding
explains. Missed: a fault that is verified. Coverage: of recovered weights, those whose 95% interval holds the true one.
"""

import argparse
import json
import math
import multiprocessing
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = {
    "model.layers.0.self_attn.q_proj.weight": (256, 256),
    "model.layers.0.mlp.up_proj.weight": (512, 256),
    "model.layers.0.mlp.down_proj.weight": (256, 512),
}
NORM = "model.norm.weight"
ROUTES = ("once", "delta rounded", "one after the other", "a model each")
Deltas = dict[str, list[Tensor]]


@dataclass(frozen=True)
class Trial:
    """One answer: whether a fault was made, which, the verdict, and for each weight (claimed, true, found, error)."""

    kind: str
    dtype: str
    verdict: str
    faults: tuple[str, ...]
    weights: tuple[tuple[float, float, float, float], ...]


def draw(rng: random.Random, root: Path) -> tuple[dict[str, Tensor], Deltas, list[float], torch.dtype]:
    """A base and its adapters on the disk; tensors, dense deltas at weight one, weights, the dtype."""
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    dtype = rng.choice(DTYPES)
    base = {n: torch.randn(s, generator=generator).mul(0.02).to(dtype) for n, s in SHAPES.items()}
    base[NORM] = (1 + 0.1 * torch.randn(256, generator=generator)).to(dtype)
    (root / "base").mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}
    (root / "base/config.json").write_text(json.dumps(config))
    save_file(base, root / "base/model.safetensors", {"format": "pt"})
    weights = [round(rng.choice((1, 1, 1, -1)) * rng.uniform(0.05, 1.5), 3) for _ in range(rng.randint(1, 3))]
    size = 10 ** rng.uniform(-4, -1)
    deltas: Deltas = {n: [] for n in SHAPES}
    for number in range(len(weights)):
        rank, own, tensors = rng.choice((2, 4, 8, 16)), size * 10 ** rng.uniform(-0.3, 0.3), {}
        for name, (rows, columns) in SHAPES.items():
            a = torch.randn(rank, columns, generator=generator)
            b = torch.randn(rows, rank, generator=generator)
            b *= own * float(base[name].float().norm()) / float((b @ a).norm())
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
            deltas[name].append(b.double() @ a.double())
        folder = root / f"a{number}"
        folder.mkdir()
        targets = sorted({name.split(".")[-2] for name in SHAPES})
        lora = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets, "bias": "none"}
        (folder / "adapter_config.json").write_text(json.dumps(lora))
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return base, deltas, weights, dtype


def merge(w: Tensor, deltas: list[Tensor], weights: list[float], dtype: torch.dtype, route: str) -> Tensor:
    """One matrix, by an honest route."""
    exact = [weight * delta for weight, delta in zip(weights, deltas, strict=True)]
    if route == "once":
        return (w.double() + sum(exact)).to(dtype)
    if route == "delta rounded":
        return (w.double() + sum(exact, torch.zeros(())).to(dtype).double()).to(dtype)
    if route == "one after the other":
        value = w.double()
        for share in exact:
            value = (value + share).to(dtype).double()
        return value.to(dtype)
    mixed = torch.zeros_like(w)
    for weight, delta in zip(weights, deltas, strict=True):
        mixed = mixed + ((w.double() + delta).to(dtype) - w) * torch.tensor(weight, dtype=dtype)
    return w + mixed


def _weights_off(rng: random.Random, weights: list[float]) -> list[float]:
    i = rng.randrange(len(weights))
    factor = rng.choice((rng.uniform(-1, 0.9), rng.uniform(1.1, 3)))
    return [factor * w if j == i else w for j, w in enumerate(weights)]


WHOLE: dict[str, Callable[[random.Random, list[float]], list[float]]] = {
    "a weight off": _weights_off,
    "an adapter missing": lambda rng, w: [
        0.0 if j == rng.randrange(len(w)) or len(w) == 1 else x for j, x in enumerate(w)
    ],
    "nothing applied": lambda rng, w: [0.0 for _ in w],
    "squared": lambda rng, w: [x * x if abs(abs(x) - 1) > 0.1 else 0.5 * x for x in w],
    "twice": lambda rng, w: [2 * x for x in w],
    "sign": lambda rng, w: [-x for x in w],
}
PLACES = ("a module left out", "a module of another adapter", "a module of another size", "rows of the base")
SMALL = ("another norm", "a row permuted", "a high bit flipped", "base perturbed")


def spoil(
    rng: random.Random, kind: str, base: dict[str, Tensor], deltas: Deltas, weights: list[float], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The tensors of a faulty merge."""
    route = rng.choice(ROUTES[:2])
    if kind in WHOLE:
        wrong = WHOLE[kind](rng, weights)
        while max(abs(a - b) for a, b in zip(wrong, weights, strict=True)) < 0.1 * max(map(abs, weights)):
            wrong = (
                WHOLE[kind](rng, weights) if kind in ("a weight off", "an adapter missing") else [0.0 for _ in wrong]
            )
        return {n: merge(w, deltas[n], wrong, dtype, route) if n in deltas else w for n, w in base.items()}
    merged = {n: merge(w, deltas[n], weights, dtype, route) if n in deltas else w.clone() for n, w in base.items()}
    name = rng.choice(sorted(SHAPES))
    rows, columns = SHAPES[name]
    if kind == "a module left out":
        merged[name] = base[name].clone()
    elif kind == "a module of another adapter":
        other = [torch.randn(rows, 8).double() @ torch.randn(8, columns).double() for _ in weights]
        other = [o * (d.norm() / o.norm()) for o, d in zip(other, deltas[name], strict=True)]
        merged[name] = merge(base[name], other, weights, dtype, route)
    elif kind == "a module of another size":
        merged[name] = merge(base[name], deltas[name], [rng.choice((0.5, 2)) * w for w in weights], dtype, route)
    elif kind == "rows of the base":
        first = rng.randrange(rows - 64)
        merged[name][first : first + 64] = base[name][first : first + 64]
    elif kind == "another norm":
        merged[NORM][rng.randrange(256)] *= 1.1
    elif kind == "a row permuted":
        row = rng.randrange(rows)
        merged[name][row] = merged[name][row].roll(1)
    elif kind == "a high bit flipped":
        integer = torch.int32 if dtype == torch.float32 else torch.int16
        flat = merged[name].view(integer).view(-1)
        # From the third highest mantissa bit up: a change of an eighth or more, the sign among them.
        mantissa = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}[dtype]
        bit = rng.randrange(mantissa - 3, 8 * flat.element_size())
        flat[rng.randrange(flat.numel())] ^= -(1 << bit) if bit == 8 * flat.element_size() - 1 else 1 << bit
    else:
        noise = torch.randn(rows, columns) * 0.01 * base[name].float().std()
        merged[name] = merge((base[name] + noise.to(dtype)), deltas[name], weights, dtype, route)
    return merged


def trial(seed: int, honest: bool) -> Trial:
    """One file, made and judged."""
    from crossmatch import Adapter, Checkpoint, verify

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = random.Random(f"{seed} {honest}")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        base, deltas, weights, dtype = draw(rng, root)
        if honest:
            kind = rng.choice(ROUTES)
            merged = {n: merge(w, deltas[n], weights, dtype, kind) if n in deltas else w for n, w in base.items()}
        else:
            kind = rng.choice((*WHOLE, *PLACES, *SMALL))
            merged = spoil(rng, kind, base, deltas, weights, dtype)
        (root / "merged").mkdir()
        (root / "merged/config.json").write_text((root / "base/config.json").read_text())
        save_file({n: t.contiguous() for n, t in merged.items()}, root / "merged/model.safetensors", {"format": "pt"})
        parts: Any = {f"a{i}": (Adapter(root / f"a{i}"), w) for i, w in enumerate(weights)}
        found = verify(root / "merged", Checkpoint(root / "base"), parts)
        shown = [found.weights[name] for name in parts]
    # On the way over models, the weight itself is rounded to what is stored: that is then inside.
    inside = [float(torch.tensor(w, dtype=dtype)) if kind == ROUTES[3] else w for w in weights]
    numbers = tuple((w, x, nan(s.recovered), nan(s.stderr)) for w, x, s in zip(weights, inside, shown, strict=True))
    return Trial(kind, str(dtype).removeprefix("torch."), found.verdict, found.faults, numbers)


def nan(value: float | None) -> float:
    """None as NaN."""
    return math.nan if value is None else value


def table(trials: list[Trial], what: Callable[[Trial], str]) -> None:
    """Verdicts by what was done."""
    counts = Counter((what(t), t.verdict) for t in trials)
    print(f"| {'':28} | verified | failed | inconclusive |\n|---|---|---|---|")
    for name in sorted({what(t) for t in trials}):
        cells = " | ".join(f"{counts[name, v]}" for v in ("verified", "failed", "inconclusive"))
        print(f"| {name:28} | {cells} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    count = parser.parse_args().count
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        honest = list(pool.map(trial, range(count), [True] * count, chunksize=10))
        faulty = list(pool.map(trial, range(count), [False] * count, chunksize=10))
    print(f"{count} honest merges")
    table(honest, lambda t: f"{t.kind}, {t.dtype}")
    known = [(true, found, error) for t in honest for _, true, found, error in t.weights if t.verdict == "verified"]
    covered = sum(abs(found - true) <= 1.96 * error for true, found, error in known)
    print(f"false failures: {sum(t.verdict == 'failed' for t in honest)}")
    print(f"95% intervals that cover: {covered} of {len(known)}, {covered / len(known):.1%}")
    print(f"largest error of a weight in a verified file: {max(abs(f - t) for t, f, _ in known):.2g}\n")
    print(f"{count} faults")
    table(faulty, lambda t: t.kind)
    print(f"missed: {sum(t.verdict == 'verified' for t in faulty)}")
    for t in (t for t in honest if t.verdict == "failed"):
        print("false failure:", t)
    for t in (t for t in faulty if t.verdict == "verified"):
        print("missed:", t)


if __name__ == "__main__":
    main()
