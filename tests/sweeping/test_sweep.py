"""A whole sweep on a tiny model: what it leaves, that it resumes, and what it refuses."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crossmatch
from crossmatch import sweep
from crossmatch.checkpoint import read_json
from crossmatch.cli import run
from crossmatch.errors import CrossmatchError, OutputError
from crossmatch.report.terminal.sweep import sweep_lines
from crossmatch.sweeping.lock import sole_driver
from crossmatch.sweeping.recipe import parse_sweep


@pytest.fixture(scope="module")
def swept(study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("swept") / "small"
    sweep(study, out)
    return out


def asked(out: Path) -> Counter:
    """How often every part of every answer was given."""
    lines = [json.loads(line) for file in (out / "answers").glob("*.jsonl") for line in file.read_text().splitlines()]
    return Counter((sheet, part, item) for sheet, part, item, _ in lines)


def test_what_a_sweep_leaves(swept: Path) -> None:
    facts = read_json(swept / "sweep.json")
    assert facts["schema_version"] == 1
    assert [p["name"] for p in facts["points"][:3]] == ["base", "pt", "sft"]
    assert len(facts["points"]) == 9
    named = {p["name"]: p for p in facts["points"]}
    assert all(p["items"] == facts["points"][0]["items"] or p["dropped"] for p in facts["points"])
    # Scale-matched controls of what was asked everything were asked everything.
    finished = [p for p in facts["points"] if p["kind"] == "merge" and not p["dropped"] and "sft" in p["weights"]]
    for point in finished:
        weight = point["weights"]["sft"]
        assert named["sft" if weight == 1 else f"sft{weight:g}"]["dropped"] is None
    # Nothing is in both parts, and nobody was asked a confirmation item before it was chosen.
    assert len(facts["confirmation"]["finalists"]) <= 3
    rows = list(csv.DictReader((swept / "points.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == [p["name"] for p in facts["points"]]
    assert max(asked(swept).values()) == 1
    page = (swept / "sweep.html").read_text()
    assert facts["recommendation"]["sentence"].replace("'", "&#39;") in page
    # A field called as a method of mappings is would be the method.
    assert "built-in" not in page
    lines = sweep_lines(facts)
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Ship ")
    assert facts["recommendation"]["sentence"].startswith(lines[0][:40])


def test_report_says_it_again(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(swept / "sweep.json", tmp_path)
    assert run(["report", str(tmp_path), "--figures"]) == 0
    assert capsys.readouterr().out.splitlines() == sweep_lines(read_json(swept / "sweep.json"))
    assert (tmp_path / "sweep.html").read_text() == (swept / "sweep.html").read_text()
    assert list((tmp_path / "figures").glob("*.svg"))


@pytest.mark.parametrize("templates", [["chatml"], ["chatml", "own"]])
def test_other_templates_than_the_bases_own(study: dict[str, Any], tmp_path: Path, templates: list[str]) -> None:
    found = sweep({**study, "templates": templates}, tmp_path / "out").facts
    names = [point["name"] for point in found["points"]]
    assert names[:3] == ["base@chatml", "pt@chatml", "sft@chatml"]
    assert ("base" in names) is ("own" in templates)
    assert (tmp_path / "out" / "sweep.html").is_file()


def test_only_finalists_and_their_company_see_the_confirmation_items(swept: Path, study: dict[str, Any]) -> None:
    from crossmatch.sweeping.prepare import prepare

    facts, parts = read_json(swept / "sweep.json"), prepare(parse_sweep(study, "test")).parts
    seen: dict[str, set[str]] = {"ask": set(), "pick": set()}
    for sheet, part, item in asked(swept):
        suite = "pick" if part == "options" else "ask"
        if item in parts.confirmation.ids[suite]:
            seen[suite].add(sheet)
    assert {suite: len(sheets) for suite, sheets in seen.items()} == dict.fromkeys(
        seen, len(facts["confirmation"]["points"])
    )


def test_a_second_call_asks_nothing_and_says_the_same(swept: Path, study: dict[str, Any], tmp_path: Path) -> None:
    out = shutil.copytree(swept, tmp_path / "again")
    before = {file.name for file in (out / "answers").iterdir()}
    sweep(study, out)
    assert {file.name for file in (out / "answers").iterdir()} == before
    assert (out / "sweep.json").read_bytes() == (swept / "sweep.json").read_bytes()


def test_torn_and_doubled_lines_are_read_as_what_they_are(swept: Path, study: dict[str, Any], tmp_path: Path) -> None:
    out = shutil.copytree(swept, tmp_path / "torn")
    (file,) = (out / "answers").glob("*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[: len(lines) // 2], lines[0], lines[-1][:20]]))
    sweep(study, out)
    found = asked_whole(out)
    assert sum(count > 1 for count in found.values()) == 1
    assert read_json(out / "sweep.json")["recommendation"] == read_json(swept / "sweep.json")["recommendation"]


def asked_whole(out: Path) -> Counter:
    """The same, torn lines left out."""
    found: Counter = Counter()
    for file in (out / "answers").glob("*.jsonl"):
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                sheet, part, item, _ = json.loads(line)
                found[sheet, part, item] += 1
    return found


def command(study: dict[str, Any], out: Path, folder: Path) -> list[str]:
    recipe = folder / "study.yaml"
    recipe.write_text(json.dumps(study))
    return [sys.executable, "-m", "crossmatch", "sweep", str(recipe), "-o", str(out)]


@pytest.mark.slow
def test_killed_and_started_again_it_asks_nothing_twice(
    swept: Path, study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "killed"
    line = command(study, out, tmp_path)
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wanted = sum(1 for _ in asked(swept)) // 3
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if out.exists() and sum(asked_whole(out).values()) >= wanted:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "sweep.json").exists()
    assert sum(asked_whole(out).values()) >= wanted
    # What is not ended is done in this process, which has the libraries loaded.
    assert run(line[3:]) == 0
    assert capsys.readouterr().out.startswith("Ship ")
    assert max(asked_whole(out).values()) == 1
    mine, theirs = read_json(out / "sweep.json"), read_json(swept / "sweep.json")
    assert mine["recommendation"]["name"] == theirs["recommendation"]["name"]
    assert [p["name"] for p in mine["points"]] == [p["name"] for p in theirs["points"]]


@pytest.mark.parametrize("method", ["tpe", "cma-es", "nsga-ii"])
def test_samplers_of_optuna_propose_points_and_resume(study: dict[str, Any], tmp_path: Path, method: str) -> None:
    pytest.importorskip("optuna")
    goals = ["acc", "rougeL"] if method == "nsga-ii" else ["acc"]
    spans = {"pt": "0..1", "sft": "0.5..1"}
    small = {**study, "method": method, "trials": 9, "space": spans, "goals": goals, "constraints": [], "halving": []}
    facts = sweep(small, tmp_path / "out").facts
    merges = [p for p in facts["points"] if p["kind"] == "merge"]
    assert 1 <= len(merges) <= 9
    assert all(round(w, 3) == w for p in merges for w in p["weights"].values())
    assert (tmp_path / "out" / "optuna.log").is_file()
    files = list((tmp_path / "out" / "answers").iterdir())
    again = sweep(small, tmp_path / "out").facts
    assert list((tmp_path / "out" / "answers").iterdir()) == files
    assert again == facts
    assert (facts["knee"] is not None) == (method == "nsga-ii")


def test_rules_and_templates_are_searched_too(study: dict[str, Any], tmp_path: Path) -> None:
    space = {"pt": [0.5], "sft": [0.5, 1.0]}
    rules = {"linear": {}, "ties": {"density": [0.5]}}
    facts = sweep({**study, "space": space, "rules": rules, "constraints": [], "halving": []}, tmp_path / "out").facts
    named = {p["name"]: p for p in facts["points"]}
    plain, ties = named["pt0.5+sft1"], named["pt0.5+sft1-ties-density0.5"]
    assert ties["rule"] == "ties"
    assert plain["search"] != ties["search"] or plain["number"] != ties["number"]


# ---- bad input: one line, exit 2, nothing lost


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["-q", "sweep", *arguments]) == 2
    shown = capsys.readouterr()
    (line,) = [text for text in shown.err.splitlines() if text]
    assert line.startswith("error: ")
    assert not shown.out
    return line


Change = Callable[[dict[str, Any], Path], dict[str, Any]]


def _truncated(study: dict[str, Any], folder: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file, save_file

    adapter = Path(shutil.copytree(study["adapters"]["pt"], folder / "pt"))
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name in (key for key in tensors if "lora_B" in key):
        tensors[name][tensors[name].shape[0] // 2 :] = torch.zeros(())
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    return {**study, "adapters": {**study["adapters"], "pt": str(adapter)}}


def _nan(study: dict[str, Any], folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(study["base"], folder / "base"))
    tensors = load_file(base / "model.safetensors")
    name = next(key for key in tensors if "down_proj" in key)
    tensors[name][:] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    return {**study, "base": str(base), "suites": study["suites"][1:], "constraints": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, _: {**s, "space": {}, "fixed": {"pt": 0.3, "sft": 1}}, "no weight is free"),
        (lambda s, _: {**s, "constraints": ["rogueL >= sft"]}, "did you mean rougeL"),
        (lambda s, _: {**s, "confirm": 0.05}, "7 are needed for 3 finalists"),
        (lambda s, _: {**s, "constraints": ["trace rate <= 1% at 95%"]}, "381 are needed"),
        (_truncated, "adapter pt is not whole"),
        (_nan, "not a number"),
    ],
)
def test_bad_input_is_one_line(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, message: str
) -> None:
    recipe = tmp_path / "study.yaml"
    recipe.write_text(json.dumps(change(study, tmp_path)))
    assert message in refused([str(recipe), "-o", str(tmp_path / "out")], capsys)


def test_a_second_driver_is_refused(swept: Path, study: dict[str, Any], tmp_path: Path) -> None:
    out = shutil.copytree(swept, tmp_path / "held")
    hold = f"from crossmatch.sweeping.lock import sole_driver; import sys, pathlib\nwith sole_driver(pathlib.Path({str(out)!r})): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(OutputError, match=f"another driver .process {other.pid}. works in this directory"):
            sweep(study, out)
        other.kill()
    with sole_driver(out):
        pass


def test_a_directory_of_another_sweep_is_refused(swept: Path, study: dict[str, Any], tmp_path: Path) -> None:
    out = shutil.copytree(swept, tmp_path / "other")
    with pytest.raises(OutputError, match="holds another sweep .goals differs."):
        sweep({**study, "goals": ["acc_norm"]}, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"holds no sweep \(thesis.tex\)"):
        sweep(study, tmp_path / "full")


@pytest.mark.slow
def test_a_full_disk_loses_nothing(swept: Path, study: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "full"
    line = command(study, out, tmp_path)
    limited = ["bash", "-c", 'ulimit -f 24; exec "$@"', "bash", *line]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "earlier answers are kept" in done.stderr
    assert done.stderr.count("error: ") == 1
    kept = asked_whole(out)
    assert kept
    assert run(line[3:]) == 0
    assert max(asked_whole(out).values()) == 1
    assert read_json(out / "sweep.json")["recommendation"] == read_json(swept / "sweep.json")["recommendation"]


def test_an_executor_without_its_library_says_the_pip_line(
    study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossmatch.executors.start.find_spec", lambda name: None)
    with pytest.raises(CrossmatchError, match=r"pip install 'ray\[default\]"):
        sweep({**study, "executor": "ray"}, tmp_path / "out")


def test_the_plan_loads_no_model(study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "study.yaml"
    recipe.write_text(json.dumps(study))
    assert run(["sweep", str(recipe), "-o", str(tmp_path / "out"), "--dry-run", "--executor", "ray:workers=4"]) == 0
    text = capsys.readouterr().out
    assert "grid, 9 points at most (always: base, pt, sft)" in text
    assert "ray job submit --address" in text
    assert not (tmp_path / "out").exists()
    assert run(["sweep", str(recipe), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] == 9


def test_options_beside_a_recipe_are_refused(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "study.yaml"
    recipe.write_text(json.dumps(study))
    assert "put goals into it" in refused([str(recipe), "--goal", "acc"], capsys)
    assert "add -o DIRECTORY" in refused([study["base"], "-a", "pt=x", "--suite", "y.yaml"], capsys)


# ---- the merge that a sweep recommends


def test_merge_writes_proves_and_records_a_point(
    swept: Path, study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = read_json(swept / "sweep.json")
    number = next(p["number"] for p in facts["points"] if p["name"] == "pt0.5+sft0.5")
    out = tmp_path / "merged"
    assert run(["merge", "--from", str(swept), "--point", str(number), "-o", str(out)]) == 0
    assert "verified" in capsys.readouterr().out
    predicate = read_json(out / "crossmatch.json")["predicate"]
    assert predicate["sweep"]["digest"] == facts["digest"]
    assert predicate["sweep"]["point"] == number
    assert {name: a["weight"] for name, a in predicate["adapters"].items()} == {"pt": 0.5, "sft": 0.5}
    # The manifest with the sweep in it is a claim like any other.
    assert run(["verify", str(out)]) == 0
    # Python makes the same file, and proves it.
    again = tmp_path / "again"
    made = crossmatch.merge(from_=swept, point=number, output=again)
    assert made["predicate"]["sweep"] == predicate["sweep"]
    assert made["predicate"]["verdict"]["verdict"] == "verified"
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--point", "99"], "there are points 1 to 9"),
        (["--point", "1"], "there is nothing to merge"),
        (["-w", "pt=1"], "-w is not given with --from"),
    ],
)
def test_merge_from_a_sweep_refuses(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["merge", "--from", str(swept), "-o", str(tmp_path / "merged"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_merge_from_a_sweep_refuses_an_adapter_that_has_changed(
    swept: Path, study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = read_json(swept / "sweep.json")
    facts["study"]["adapters"]["pt"] = study["adapters"]["sft"]
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "sweep.json").write_text(json.dumps(facts))
    assert run(["merge", "--from", str(tmp_path / "swept"), "--point", "8", "-o", str(tmp_path / "merged")]) == 2
    assert "is not what the sweep measured" in capsys.readouterr().err


def test_what_tables_and_trackers_get(swept: Path) -> None:
    from crossmatch.export.results import tables_of
    from crossmatch.export.tracking import tracked
    from crossmatch.result_kinds import SWEEP_SECONDS, SWEEP_STUDY

    facts = read_json(swept / "sweep.json")
    tables = tables_of(facts)
    assert [row["name"] for row in tables["points"].rows] == [point["name"] for point in facts["points"]]
    assert {"search", "prediction"} <= set(tables)
    told = tracked(facts, "small", swept / "sweep.html")
    point = facts["points"][2]
    assert told.metrics["pick/acc/sft/value"] == point["search"]["pick.acc"]["value"]
    assert told.config["sentence"] == facts["recommendation"]["sentence"]
    assert SWEEP_STUDY.read(swept / "study.json") == facts["study"]
    assert SWEEP_SECONDS.read(swept / "seconds.json")["seconds"] >= 0
