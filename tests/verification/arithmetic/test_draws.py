"""Draws of the calibration (benchmarks/calibration.py) that were judged wrongly once, made anew by their seeds."""

import random
from pathlib import Path

import pytest
import torch

from honest_models import HIDDEN, hide, judge, make

# How many kinds of faults the calibration draws from, after the model.
KINDS = 22


@pytest.mark.parametrize("seed", [336, 627])
def test_a_coarse_first_merge_that_swallows_most_of_its_delta_is_honest(tmp_path: Path, seed: int) -> None:
    """Three adapters: two merged in bfloat16, which leaves little of them, the last in single precision. A fit finds
    other weights than the claimed ones, which explain every element all the same."""
    torch.manual_seed(seed)
    made = make(random.Random(f"{seed} True"), tmp_path)
    found = judge(made, made.whole(made.weights), "merged")
    assert found.verdict == "verified"
    assert "the last in single precision" in found.rounding["arithmetic"]


def test_a_sum_errs_by_what_it_holds_before_the_last_delta(tmp_path: Path) -> None:
    """Two deltas of bfloat16 onto a base in single precision, one after the other: before the second the sum is larger
    than the two come to, and so is its error. One element of 65,536 lay outside by that."""
    torch.manual_seed(3809)
    made = make(random.Random("3809 True"), tmp_path)
    assert judge(made, made.whole(made.weights), "merged").verdict == "verified"


@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        (337, "hidden, rank 1"),
        (379, "hidden, rank 8"),
        (454, "hidden, rank 8"),
        (656, "hidden, full rank"),
        (957, "hidden, rank 1"),
        (2088, "hidden, rank 8"),
        (3309, "hidden, rank 1"),
        (4245, "hidden, rank 1"),
    ],
)
def test_a_delta_hidden_in_one_module_is_not_excused(tmp_path: Path, seed: int, kind: str) -> None:
    """All but one by the errors of an SVD, 2088 by weights beside those that were claimed."""
    assert kind in HIDDEN
    torch.manual_seed(seed)
    rng = random.Random(f"{seed} False")
    made = make(rng, tmp_path)
    rng.randrange(KINDS)
    honest = judge(made, made.whole(made.weights), "honest")
    assert honest.verdict == "verified"
    stated = honest.evidence["unseen"]
    assert stated is not None
    found = judge(made, hide(rng, made, kind, stated).tensors, "merged")
    assert found.verdict == "failed"
