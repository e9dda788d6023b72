"""How often the prover is right: honest merges must be verified, faults must not, intervals must cover.

python benchmarks/calibration.py                 1,000 honest merges and 1,000 faults
python benchmarks/calibration.py --count 100     fewer
python benchmarks/calibration.py --first 1000    others: draws from that number on

Each model is drawn anew: three matrices, a norm, one to three adapters of random ranks, scalings, dtypes, weights and
sizes (an adapter's norm from 1e-4 to 0.2 of the base's), merged by a program that is drawn from all that tools do
(`tests/honest_programs.py`: torch's own operations in float32, bfloat16 and float16). Nothing of the prover makes the
files. A fault changes one thing by at least a tenth of an adapter, or a bit that no rounding explains, or hides a
further delta that goes the program's own way: at twice the size that the verdict on the honest file states, in one
matrix, of rank 1, 8 or full, or in one row (there at the root of the number of rows times as much). Where its factors
or models are rounded away before, so that fewer than half of the elements change that the last rounding alone would
change, the file holds no delta of that size, and there is no fault (rows `lost in rounding`). Missed: a fault that is
verified. Coverage: of recovered weights, those whose 95% interval holds the true one, which is the one that single
precision made of it.
"""

import argparse
import math
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from honest_models import HIDDEN, NORM, SHAPES, Made, Tensors, hide, judge, make
from honest_programs import BF16, F16, F32, HonestProgram


@dataclass(frozen=True)
class Trial:
    """One answer: what was made, how, the verdict, and for each weight (true, found, standard error)."""

    kind: str
    program: HonestProgram
    verdict: str
    faults: tuple[str, ...]
    weights: tuple[tuple[float, float, float], ...]
    unseen: float | None = None


def _weights_off(rng: random.Random, weights: list[float]) -> list[float]:
    i = rng.randrange(len(weights))
    factor = rng.choice((rng.uniform(-1, 0.9), rng.uniform(1.1, 3)))
    return [factor * w if j == i else w for j, w in enumerate(weights)]


def _one_missing(rng: random.Random, weights: list[float]) -> list[float]:
    i = rng.randrange(len(weights))
    return [0.0 if j == i else w for j, w in enumerate(weights)]


WHOLE: dict[str, Callable[[random.Random, list[float]], list[float]]] = {
    "a weight off": _weights_off,
    "an adapter missing": _one_missing,
    "nothing applied": lambda rng, w: [0.0 for _ in w],
    "squared": lambda rng, w: [x * x if abs(abs(x) - 1) > 0.1 else 0.5 * x for x in w],
    "twice": lambda rng, w: [2 * x for x in w],
    "sign": lambda rng, w: [-x for x in w],
}
PLACES = ("a module left out", "a module of another adapter", "a module of another size", "rows of the base")
SMALL = ("another norm", "a row permuted", "a high bit flipped", "base perturbed")


def spoil(rng: random.Random, made: Made, kind: str) -> Tensors:
    """The tensors of a faulty merge."""
    weights, stored = made.weights, made.program.stored
    if kind in WHOLE:
        wrong = WHOLE[kind](rng, weights)
        # Beyond what a rounded claim may be off: it is verified, with a note.
        least = max(0.02, 0.1 * max(map(abs, weights)))
        while max(abs(a - b) for a, b in zip(wrong, weights, strict=True)) < least:
            again = kind in ("a weight off", "an adapter missing")
            wrong = WHOLE[kind](rng, weights) if again else [0.0 for _ in wrong]
        return made.whole(wrong)
    merged = made.whole(weights)
    name = rng.choice(sorted(SHAPES))
    rows, columns = SHAPES[name]
    base = made.base[name].to(made.program.base).to(stored)
    if kind == "a module left out":
        merged[name] = base
    elif kind == "a module of another adapter":
        other = []
        for factors in made.adapters[name]:
            a, b = torch.randn_like(factors.a.float()), torch.randn_like(factors.b.float())
            size = (factors.b.float() @ factors.a.float()).norm() / (b @ a).norm()
            other.append(replace(factors, a=a, b=b * size))
        merged[name] = made.program.merge(made.base[name], other, weights)
    elif kind == "a module of another size":
        merged[name] = made.merge(name, [rng.choice((0.5, 2)) * w for w in weights])
    elif kind == "rows of the base":
        first = rng.randrange(rows - 64)
        merged[name][first : first + 64] = base[first : first + 64]
    elif kind == "another norm":
        merged[NORM][rng.randrange(256)] *= 1.1
    elif kind == "a row permuted":
        row = rng.randrange(rows)
        merged[name][row] = merged[name][row].roll(1)
    elif kind == "a high bit flipped":
        integer = torch.int32 if stored == F32 else torch.int16
        flat = merged[name].view(integer).view(-1)
        # From the third highest mantissa bit up: a change of an eighth or more, the sign among them.
        mantissa = {F32: 23, BF16: 7, F16: 10}[stored]
        bit = rng.randrange(mantissa - 3, 8 * flat.element_size())
        flat[rng.randrange(flat.numel())] ^= -(1 << bit) if bit == 8 * flat.element_size() - 1 else 1 << bit
    else:
        noise = torch.randn(rows, columns) * 0.01 * made.base[name].float().std()
        moved = (made.base[name].float() + noise).to(made.base[name].dtype)
        merged[name] = made.program.merge(moved, made.adapters[name], weights)
    return merged


def trial(seed: int, honest: bool) -> Trial:
    """One file, made and judged."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = random.Random(f"{seed} {honest}")
    with tempfile.TemporaryDirectory() as scratch:
        made = make(rng, Path(scratch))
        kind = made.program.kind if honest else rng.choice((*WHOLE, *PLACES, *SMALL, *HIDDEN, *HIDDEN))
        if honest:
            found = judge(made, made.whole(made.weights), "merged")
        elif kind in HIDDEN:
            stated = judge(made, made.whole(made.weights), "honest").evidence["unseen"]
            hidden = hide(rng, made, kind, stated) if stated is not None else None
            if hidden is None or hidden.is_lost:
                return Trial(f"{kind}: lost in rounding", made.program, "failed", (), ())
            found = judge(made, hidden.tensors, "merged")
        else:
            found = judge(made, spoil(rng, made, kind), "merged")
    shown = [found.weights[f"a{i}"] for i in range(len(made.weights))]
    true = [made.inside(number) for number in range(len(shown))]
    numbers = tuple((w, nan(s.recovered), nan(s.stderr)) for w, s in zip(true, shown, strict=True))
    return Trial(kind, made.program, found.verdict, found.faults, numbers, found.evidence["unseen"])


def nan(value: float | None) -> float:
    """None as NaN."""
    return math.nan if value is None else value


def table(trials: list[Trial], what: Callable[[Trial], str], *, covers: bool = False) -> None:
    """Verdicts by what was done, and the share of 95% intervals that hold the true weight."""
    counts = Counter((what(t), t.verdict) for t in trials)
    print(f"| {'':32} | verified | failed | inconclusive |{' covered |' if covers else ''}")
    print(f"|---|---|---|---|{'---|' if covers else ''}")
    for name in sorted({what(t) for t in trials}):
        cells = " | ".join(f"{counts[name, v]}" for v in ("verified", "failed", "inconclusive"))
        own = [t for t in trials if what(t) == name]
        print(f"| {name:32} | {cells} |{f' {coverage(own)} |' if covers else ''}")


def coverage(trials: list[Trial]) -> str:
    """Of the weights in verified files, how many intervals hold the true one."""
    known = [(true, found, error) for t in trials if t.verdict == "verified" for true, found, error in t.weights]
    covered = sum(abs(found - true) <= 1.96 * error for true, found, error in known)
    return f"{covered / len(known):.1%} of {len(known)}" if known else "-"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    count, numbers = asked.count, range(asked.first, asked.first + asked.count)
    short = {F32: "float32", BF16: "bfloat16", F16: "float16"}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        honest = list(pool.map(trial, numbers, [True] * count, chunksize=10))
        faulty = list(pool.map(trial, numbers, [False] * count, chunksize=10))
    print(f"{count} honest merges")
    table(honest, lambda t: t.kind, covers=True)
    table(honest, lambda t: f"stored in {short[t.program.stored]}", covers=True)
    print(f"false failures: {sum(t.verdict == 'failed' for t in honest)}")
    print(f"95% intervals that cover: {coverage(honest)}")
    known = [(true, found) for t in honest if t.verdict == "verified" for true, found, _ in t.weights]
    print(f"largest error of a weight in a verified file: {max(abs(f - t) for t, f in known):.2g}\n")
    print(f"{count} faults")
    table(faulty, lambda t: t.kind)
    print(f"missed: {sum(t.verdict == 'verified' for t in faulty)}")
    for number, t in ((n, t) for n, t in zip(numbers, honest, strict=True) if t.verdict == "failed"):
        print("false failure:", number, t.kind, t.program, t.faults, t.weights)
    for number, t in ((n, t) for n, t in zip(numbers, faulty, strict=True) if t.verdict == "verified"):
        print("missed:", number, t.kind, t.program, t.weights, t.unseen)


if __name__ == "__main__":
    main()
