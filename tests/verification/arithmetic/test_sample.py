"""Pieces that are held against programs together are explained as each is by itself."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossmatch import Adapter, Checkpoint
from crossmatch.verification import Claim
from crossmatch.verification.arithmetic.grammar import Program
from crossmatch.verification.arithmetic.programs import programs
from crossmatch.verification.arithmetic.replay import Applied
from crossmatch.verification.arithmetic.sample import Sample
from crossmatch.verification.arithmetic.sample_reader import Trial, is_beyond
from crossmatch.verification.arithmetic.sample_rows import Piece, pieces_of
from crossmatch.verification.subject import Subject
from helpers import EVERY_CELL
from honest_models import Made, judge, make
from honest_programs import BF16, F16, F32, HonestProgram


def outside(piece: Piece, program: Program, weights: tuple[float, ...], doubts: tuple[float, ...]) -> Tensor:
    """By all elements of one piece, without anything that is tried before."""
    use = Applied.of(program, piece.parts, weights, doubts, piece.stored.dtype)
    return use.outside(piece.stored, use.read(piece.raw, piece.where))


def pieces(made: Made, merged: Path) -> list[Piece]:
    parts = {f"a{i}": (Adapter(made.root / f"a{i}"), w) for i, w in enumerate(made.weights)}
    claim = Claim(Checkpoint(made.root / "base"), parts).resolve()
    return list(pieces_of(Subject(Checkpoint(merged), claim)))


@pytest.mark.parametrize("kind", ["honest", "some elements", "another weight"])
@pytest.mark.parametrize("stored", [BF16, F32])
def test_together_as_by_themselves(kind: str, stored: object, tmp_path: Path) -> None:
    program = HonestProgram(base=BF16, delta=BF16, stored=BF16) if stored == BF16 else HonestProgram()
    made = make(random.Random(3), tmp_path, program, size=0.02, count=2, stored=F32)
    tensors = made.whole(made.weights)
    if kind == "another weight":
        tensors = made.whole([1.001 * w for w in made.weights])
    elif kind == "some elements":
        next(t for n, t in tensors.items() if "norm" not in n)[:, ::37] *= 1.01
    judge(made, tensors, "merged")
    some = pieces(made, tmp_path / "merged")
    sample, weights = Sample(some), tuple(made.weights)
    told = set()
    for doubts in ((0.0, 0.0), (1e-3, 1e-3)):
        for tried in list(programs(some[0].stored.dtype, [0, 1]))[::9]:
            wanted = sum(not bool(outside(p, tried, weights, doubts).any()) for p in some)
            assert sample.explained(tried, weights, doubts) == wanted, tried
            told.add(wanted)
    assert len(told) > 1


def test_misses_are_counted_up_to_a_limit(tmp_path: Path) -> None:
    made = make(random.Random(4), tmp_path, HonestProgram(stored=BF16), size=0.05, count=1, stored=F32)
    judge(made, made.whole(made.weights), "merged")
    file = tmp_path / "merged" / "model.safetensors"
    tensors = load_file(file)
    save_file({n: t * (1.5 if "norm" not in n else 1) for n, t in tensors.items()}, file, metadata={"format": "pt"})
    sample = Sample(pieces(made, tmp_path / "merged"))
    every = sample.misses(Program(), made.weights)
    assert every > 0.9 * sample.elements
    assert 10 <= sample.misses(Program(), made.weights, 10) < every


@pytest.mark.covering("stored")
@pytest.mark.parametrize("stored", [BF16, F16, F32])
@pytest.mark.parametrize("weights", [(0.3, 0.7), (1.7, -0.4)])
@pytest.mark.parametrize("size", [1e-3, 0.2])
def test_nothing_that_a_program_may_store_is_beyond_all_of_them(
    stored: torch.dtype, weights: tuple[float, ...], size: float, tmp_path: Path
) -> None:
    """The least and the greatest that each of them may store, and its own doubts, lie within what is left to all."""
    made = make(random.Random(5), tmp_path, HonestProgram(stored=stored), size=size, count=2, stored=F32)
    judge(made, made.whole(made.weights), "merged")
    first = pieces(made, tmp_path / "merged")[0]
    every = [program for program in programs(stored, [0, 1]) if not program.long]
    for program in every[:: 1 if EVERY_CELL else 13]:
        for doubts in ((0.0, 0.0), (1e-3, 1e-2)):
            trial = Trial(program, weights, doubts)
            use = Applied.of(program, first.parts, weights, doubts, stored)
            for end in use.bounds(use.read(first.raw, first.where)):
                assert not is_beyond(trial, replace(first, stored=end, _grids={})), program
    off = replace(first, stored=first.stored + 3 * first.raw.abs().amax(), _grids={})
    assert is_beyond(Trial(Program(), weights, (0.0, 0.0)), off)
