"""How often the statements of `crossmatch analyse` are answered rightly, on vectors whose answer is known.

python benchmarks/claims.py                200 vectors of every kind and number of layers: about 5 minutes
python benchmarks/claims.py --count 20     fewer

Bases are random matrices of a small Llama (seven modules a layer); vectors are of rank 16. Random: no relation to the
base, nothing may be supported or contradicted. Planted: as the statement says, by a wide margin; opposite: attention
and MLP exchanged, and what grows shrinks. At the bound: MLP modules and attention differ in what they write anew by
exactly the effect that matters, one way and the other, with noise from module to module and from layer to layer:
supported in at most 2.5%, contradicted in at most 5%.
"""

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmatch.analysis.answers import CONTRADICTED, NO_DIFFERENCE, NOT_DECIDED, SUPPORTED
from crossmatch.analysis.weights.alignment import Alignment, align
from crossmatch.analysis.weights.delta_matrix import Change, Place
from crossmatch.analysis.weights.paper_claims import EFFECT, Claim, claims
from crossmatch.delta import LowRank, Rows, Singular, top_singular

HIDDEN, INNER, RANK, K = 128, 344, 16, 16
MODULES = {
    "q_proj": ("attn", HIDDEN, HIDDEN),
    "k_proj": ("attn", HIDDEN, HIDDEN),
    "v_proj": ("attn", HIDDEN, HIDDEN),
    "o_proj": ("attn", HIDDEN, HIDDEN),
    "gate_proj": ("mlp", INNER, HIDDEN),
    "up_proj": ("mlp", INNER, HIDDEN),
    "down_proj": ("mlp", HIDDEN, INNER),
}
VERDICTS = (SUPPORTED, CONTRADICTED, NO_DIFFERENCE, NOT_DECIDED)
KINDS = ("random", "planted", "opposite", "at the bound", "at the opposite bound")
LAYERS = (3, 4, 6, 12)
# Deviations from layer to layer (of all MLP modules against attention), and from module to module.
LAYER_NOISE, MODULE_NOISE = 0.02, 0.03


@dataclass(frozen=True)
class Base:
    """A module's matrix and its directions."""

    rows: Rows
    space: Singular


def make_bases(layers: int, seed: int = 0) -> dict[tuple[int, str], Base]:
    """Random matrices by layer and module."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(layers):
        for module, (_, m, n) in MODULES.items():
            matrix = torch.randn(m, n, generator=generator) * 0.02
            found[layer, module] = Base(Rows.of(matrix), top_singular(matrix, min(m, n), generator=generator))
    return found


def judge(kind: str, bases: dict[tuple[int, str], Base], seed: int) -> dict[str, Claim]:
    """The statements about one vector of a kind."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    rows: list[Alignment] = []
    layer_noise = rng.normal(0, LAYER_NOISE, 1 + max(layer for layer, _ in bases))
    for (layer, module), base in bases.items():
        part, m, n = MODULES[module]
        if kind == "random":
            delta = _factors(_orthonormal(rng, m), _orthonormal(rng, n))
        else:
            noise = rng.normal(0, MODULE_NOISE) + (layer_noise[layer] if part == "mlp" else 0.0)
            delta = _planted(kind, part, base.space, noise, rng)
        block = "self_attn" if part == "attn" else "mlp"
        name = f"model.layers.{layer}.{block}.{module}.weight"
        change = Change(Place(name, layer, module, part, (m, n)), delta, Rows.of(delta), base.rows, name)
        rows += align(change, base.space, [("64", K)])
    return {claim.id: claim for claim in claims("x", rows)}


def _planted(kind: str, part: str, space: Singular, noise: float, rng: np.random.Generator) -> LowRank:
    """A share of the energy in new directions, the rest on existing pairs, which grow."""
    new = {
        "planted": {"mlp": 0.85, "attn": 0.3},
        "opposite": {"mlp": 0.3, "attn": 0.85},
        "at the bound": {"mlp": 0.75 + EFFECT, "attn": 0.75},
        "at the opposite bound": {"mlp": 0.75 - EFFECT, "attn": 0.75},
    }[kind][part]
    m = space.u.shape[0]
    # In units of what a random change writes anew, in which the effect is stated.
    share = (new + noise) * (1 - K / m) if "bound" in kind else new
    share = min(1.0, max(0.0, share))
    fresh, u = space.u[:, K:].double().numpy(), space.u[:, :K].double().numpy()
    other, v = space.vh[K:].T.double().numpy(), space.vh[:K].T.double().numpy()
    # Half of the rank on existing pairs, which carry what is not new, half on new ones.
    half = RANK // 2
    sign = -1.0 if kind == "opposite" and part == "attn" else 1.0
    pairs = np.sqrt((1 - share) / half) * sign * u[:, :half], v[:, :half]
    rest = fresh @ _orthonormal(rng, fresh.shape[1], half), other @ _orthonormal(rng, other.shape[1], half)
    left = np.concatenate([pairs[0], np.sqrt(share / half) * rest[0]], axis=1)
    return _factors(left, np.concatenate([pairs[1], rest[1]], axis=1))


def _factors(left: NDArray[np.float64], right: NDArray[np.float64]) -> LowRank:
    return LowRank(_tensor(left), _tensor(right).T.contiguous(), torch.full((left.shape[1],), 0.1).double())


def _tensor(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _orthonormal(rng: np.random.Generator, size: int, rank: int = RANK) -> NDArray[np.float64]:
    return np.linalg.qr(rng.standard_normal((size, rank)))[0]


def rates(kind: str, layers: int, count: int) -> dict[str, Counter[str]]:
    """How often each answer is given to each statement."""
    bases, found = make_bases(layers), {}
    for seed in range(count):
        for name, claim in judge(kind, bases, seed).items():
            found.setdefault(name, Counter())[claim.verdict] += 1
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    print(f"| vectors | layers | statement | {' | '.join(VERDICTS)} |\n|---|---|---{'|---' * len(VERDICTS)}|")
    for kind in KINDS:
        for layers in LAYERS:
            for name, said in rates(kind, layers, count).items():
                if "bound" in kind and name != "mlp-writes":
                    continue
                unknown = set(said) - set(VERDICTS)
                assert not unknown, unknown
                cells = " | ".join(f"{100 * said[verdict] / count:.1f}%" for verdict in VERDICTS)
                print(f"| {kind} | {layers} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
