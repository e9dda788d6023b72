"""`evaluate --executor`: workers answer, and the evaluation is the one in process."""

import json
import os
import sys
from pathlib import Path

import pytest

import crossmatch
from crossmatch import Adapter, Checkpoint
from crossmatch.checkpoint import read_json
from crossmatch.cli import run
from crossmatch.data.suites import load_suite
from crossmatch.evaluation.conditions import Plan, cells
from crossmatch.evaluation.runner.answer_log import Sheet
from crossmatch.evaluation.shards.elsewhere import answer_elsewhere, take_over
from crossmatch.evaluation.shards.worker import Asking, unanswered
from crossmatch.evaluation.variants.variants import standard_variants
from crossmatch.executors import submission
from crossmatch.executors.options import parse_executor
from crossmatch.runtime import SILENT


def test_what_workers_answered_is_taken_over_and_asked_once(searched: Path, tmp_path: Path) -> None:
    base, adapters = Checkpoint(searched / "base"), {"sft": Adapter(searched / "sft")}
    suites, plan = [load_suite(searched / f"{name}.yaml") for name in ("ask", "pick")], Plan()
    todo = [
        (cell, cell.key[0] + cell.key[1])
        for cell in cells(standard_variants(adapters, [], "sft"), suites, plan.conditions)
    ]
    logs = answer_elsewhere(base, adapters, todo, plan, tmp_path, SILENT)
    answered = {file: file.read_bytes() for file in (tmp_path / "cells.work").glob("*.jsonl")}
    assert answered
    asking = Asking(base, adapters)
    for cell, digest in todo:
        questions = asking.questions(cell.suite, cell.condition, cell.scored)
        with Sheet(cell.file(tmp_path), digest) as sheet:
            take_over(logs.sheet(digest), sheet, questions)
            assert not unanswered(questions, sheet)
    answer_elsewhere(base, adapters, todo, plan, tmp_path, SILENT)
    assert {file: file.read_bytes() for file in (tmp_path / "cells.work").glob("*.jsonl")} == answered


@pytest.mark.slow
def test_an_evaluation_by_workers_is_the_one_in_process(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    adapter = {name: str(searched / name) for name in ("pt", "sft")}
    found = {}
    for name, where in {"here": "local", "there": "slurm:cluster=local,workers=2"}.items():
        crossmatch.evaluate(
            searched / "base",
            [str(searched / "ask.yaml"), str(searched / "pick.yaml")],
            tmp_path / name,
            adapter=adapter,
            weight={"pt": 0.3, "sft": 0.7},
            kl=2,
            executor=where,
        )
        found[name] = read_json(tmp_path / name / "summary.json")
    assert found["here"] == found["there"]
    assert not (tmp_path / "there" / "cells.work").exists()


def test_a_dry_run_of_a_study_says_how_it_is_submitted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = submission(parse_executor("ray"), ["crossmatch", "run", "s.yaml"], tmp_path)
    assert line is not None
    assert line.endswith("-- crossmatch run s.yaml")
    (tmp_path / "s.yaml").write_text(json.dumps({"name": "x"}))
    assert run(["run", str(tmp_path / "s.yaml"), "--executor", "spark"]) == 2
    assert "give one of local, ray, slurm" in capsys.readouterr().err
