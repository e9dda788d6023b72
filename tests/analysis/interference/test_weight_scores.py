"""Scores of a merge from factors, against dense matrices."""

import json
from pathlib import Path

import pytest
import torch

from crossmatch import Adapter, Checkpoint
from crossmatch.adapter import fit
from crossmatch.analysis.interference.weight_scores import WeightScores
from crossmatch.cli import run
from crossmatch.delta import dense
from crossmatch.rules import Weights


def test_scores_are_those_of_the_dense_updates(models: Path) -> None:
    found = fit(Checkpoint(models / "base"), {name: Adapter(models / name) for name in ("pt", "sft")}).vectors
    scores, weights = WeightScores(found, "sft"), {"pt": 0.3, "sft": 0.7}
    pt, sft = ({name: 1.0 * dense(delta) for name, delta in found[k].items()} for k in ("pt", "sft"))

    def norm(matrices: list[torch.Tensor]) -> float:
        return float(torch.cat([m.flatten() for m in matrices]).norm())

    made = scores.scores(weights)
    assert made["size"] == pytest.approx(norm([0.3 * pt[n] + 0.7 * sft[n] for n in pt]), rel=1e-6)
    assert made["added"] == pytest.approx(norm([0.3 * m for m in pt.values()]), rel=1e-6)
    assert made["away"] == pytest.approx(norm([0.3 * pt[n] - 0.3 * sft[n] for n in pt]), rel=1e-6)
    # PRISM as it is defined: the variance over two scaled updates, element by element, of MLP projections.
    mlp = [name for name in pt if ".mlp." in name]
    one, other = 0.3 * torch.cat([pt[n].flatten() for n in mlp]), 0.7 * torch.cat([sft[n].flatten() for n in mlp])
    least = min(one.norm(), other.norm())
    both = torch.stack([one * least / one.norm(), other * least / other.norm()])
    variance = float(both.var(0, unbiased=False).mean())
    assert made["prism"] == pytest.approx((variance / 2) ** 0.5 / 2, rel=1e-6)
    assert scores.scores({"sft": 1.0})["prism"] == 0
    assert scores.scores({"sft": 1.0})["away"] == pytest.approx(0, abs=1e-9)
    (pair,) = scores.overlaps()
    whole = [torch.cat([m.flatten() for m in v.values()]) for v in (pt, sft)]
    assert pair.cosine == pytest.approx(float(torch.cosine_similarity(*whole, dim=0)), abs=1e-9)
    assert pair.columns is not None
    assert 0 < pair.columns < 1
    halves = {"pt": Weights(0.3, (("mlp", 0.0),)), "sft": 1.0}
    rest = [0.3 * pt[n] * (".mlp." not in n) for n in pt]
    assert scores.scores(halves)["added"] == pytest.approx(norm(rest), rel=1e-6)


def test_predict_prints_scores_and_says_what_is_not_known(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ["-a", f"pt={models / 'pt'}", "-a", f"sft={models / 'sft'}", "-w", "pt=0.3", "-w", "sft=0.7"]
    assert run(["predict", str(models / "base"), *pair]) == 0
    text = capsys.readouterr().out
    assert "size alone" in text
    assert "its published threshold 0.001921" in text
    assert "not known: pass --sweep DIR" in text
    assert run(["predict", str(models / "base"), *pair, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["scores"]) == {"size", "added", "away", "prism"}
    assert run(["predict", str(models / "base"), *pair[:2], *pair[4:6]]) == 2
    assert "one adapter meets no other" in capsys.readouterr().err
