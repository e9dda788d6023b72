"""Nulls of a tuning vector: what any vector of that norm or spectrum does, and these layers in another order."""

from collections.abc import Callable, Hashable
from functools import partial
from zlib import crc32

import torch

from crossmatch.delta.compound import Stack
from crossmatch.delta.deltas import Delta, Dense, LowRank
from crossmatch.delta.geometry import norm, random_like
from crossmatch.delta.vector import Built, TuningVector
from crossmatch.errors import RuleError


def same_spectrum(vector: TuningVector, seed: int) -> TuningVector:
    """A random tuning vector with the singular values of another, tensor by tensor: what any delta of that size does.

    Each tensor's random numbers follow from (seed, its name). Raises RuleError for a delta that depends on its base, or
    that is no matrix.
    """
    return Built({name: partial(_spectrum, vector, name, seed) for name in _matrices(vector, "of the same spectrum")})


def same_norm(vector: TuningVector, seed: int) -> TuningVector:
    """A random tuning vector with the Frobenius norm of another, tensor by tensor: R = ||D|| G / ||G||.

    G has independent normal numbers: as factors of D's rank where D has factors, else as a whole matrix. Each tensor's
    follow from (seed, its name). Raises RuleError as `same_spectrum` does.
    """
    return Built({name: partial(_normal, vector, name, seed) for name in _matrices(vector, "of the same norm")})


def layer_shuffled(vector: TuningVector, seed: int, group: Callable[[str], Hashable]) -> TuningVector:
    """The same deltas on other layers: each tensor has that of another of its group and shape.

    group: what all layers' tensors of one module type have in common; within a group and shape the deltas move along
    one random cycle (Sattolo, 1986), so that none stays and the spectra are the same as a whole. A tensor without
    another of its group has a random delta of the same spectrum. Raises RuleError as `same_spectrum` does.
    """
    groups: dict[Hashable, list[str]] = {}
    for name in _matrices(vector, "shuffled by layer"):
        groups.setdefault((group(name), vector[name].shape), []).append(name)
    made: dict[str, Callable[[], Delta]] = {}
    for number, names in enumerate(groups.values()):
        generator = _generator(seed, f"group {number}: {names[0]}")
        for name, other in zip(names, _cycle(names, generator), strict=True):
            moved = partial(vector.__getitem__, other)
            made[name] = moved if other != name else partial(_spectrum, vector, name, seed)
    return Built({name: made[name] for name in vector})


def _matrices(vector: TuningVector, what: str) -> list[str]:
    for name in vector:
        delta = vector[name]
        if delta.needs_base or isinstance(delta, Stack):
            raise RuleError(f"{name}: a random delta {what} needs one matrix, not {type(delta).__name__}")
    return list(vector)


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(crc32(f"{seed}:{name}".encode()))


def _spectrum(vector: TuningVector, name: str, seed: int) -> Delta:
    return random_like(vector[name], _generator(seed, name))


def _normal(vector: TuningVector, name: str, seed: int) -> Delta:
    delta, generator = vector[name], _generator(seed, f"norm:{name}")
    if isinstance(delta, LowRank):
        b = torch.randn(delta.height, delta.rank, generator=generator)
        a = torch.randn(delta.rank, delta.columns, generator=generator)
        drawn: Delta = LowRank(b, a, torch.ones(delta.rank, dtype=torch.float64), delta.dims)
    else:
        drawn = Dense(torch.randn(delta.shape, generator=generator))
    size = norm(drawn)
    return drawn.scaled(norm(delta) / size if size else 0.0)


def _cycle(names: list[str], generator: torch.Generator) -> list[str]:
    """The names along one random cycle: no place keeps its own."""
    order = list(names)
    for last in range(len(order) - 1, 0, -1):
        other = int(torch.randint(last, (1,), generator=generator))
        order[last], order[other] = order[other], order[last]
    return order
