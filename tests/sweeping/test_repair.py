"""A repair on a tiny model in which one layer of `pt` does the harm, and in which no layer does."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from crossmatch import report, sweep
from crossmatch.adapter import open_vector
from crossmatch.checkpoint import Checkpoint, read_json
from crossmatch.cli import run
from crossmatch.data.prompt_templates import TEMPLATES
from crossmatch.data.suite_rendering import render_suite
from crossmatch.data.suites import load_suite
from crossmatch.errors import RecipeError
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.report.terminal.sweep import repair_lines
from crossmatch.runtime import SILENT
from crossmatch.sweeping.gates import Faulty, foretell
from crossmatch.sweeping.metrics import Measure
from crossmatch.sweeping.prepare import prepare
from crossmatch.sweeping.recipe import parse_sweep
from helpers import generated_texts, make_adapter, make_chat_model

WORDS = "heart cell disease lung kidney bone".split()


def scaled(file: Path, factors: dict[str, float]) -> None:
    """Multiply tensors whose names hold a text."""
    tensors = load_file(file)
    for name in tensors:
        for text, factor in factors.items():
            if text in name:
                tensors[name] = tensors[name] * factor
    save_file(tensors, file, metadata={"format": "pt"})


def make_planted(root: Path) -> dict[str, Any]:
    """A study of three layers whose references are what `sft` answers. `pt` is large in layer 0, whose attention the
    base does not use, next to nothing in layer 1, and in layer 2 it changes the answers."""
    base = make_chat_model(root / "base", initializer_range=0.15, num_hidden_layers=3)
    scaled(base / "model.safetensors", {"layers.0.self_attn.o_proj": 0.0})
    make_adapter(base, root / "sft", seed=2, size=0.3, target_modules=["q_proj", "up_proj"], r=4)
    make_adapter(base, root / "pt", seed=1, size=1.0, target_modules=["q_proj", "down_proj"], r=4)
    unused = {"layers.0.self_attn.q_proj.lora_B": 3.0, "layers.0.mlp.down_proj.lora_B": 0.001}
    scaled(root / "pt" / "adapter_model.safetensors", {**unused, "layers.1.mlp.down_proj.lora_B": 0.001} | {"layers.1.self_attn.q_proj.lora_B": 0.001})  # fmt: skip
    asked = [f"what is {'very ' * (i % 5)}{WORDS[i % 6]} {WORDS[i // 6 % 6]}" for i in range(48)]
    rows = [{"id": str(i), "question": text, "reference": "cell"} for i, text in enumerate(asked)]
    suite = root / "ask.yaml"
    suite.write_text("name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 6\n")
    (root / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = Engine(Checkpoint(base))
    engine.become({"sft": (open_vector(root / "sft"), 1.0)})
    prompts = render_suite(load_suite(suite), TEMPLATES["own"], engine.tokenizer)
    answers = generated_texts(engine, [prompts[row["id"]] for row in rows], 6)
    told = [{**row, "reference": text or "cell"} for row, text in zip(rows, answers, strict=True)]
    (root / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    return {
        "name": "planted",
        "base": str(base),
        "adapters": {name: str(root / name) for name in ("pt", "sft")},
        "suites": [str(suite)],
        "constraints": ["rougeL >= sft - 15"],
        "space": {"pt": [0, 1]},
        "fixed": {"sft": 1},
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def repaired(planted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repaired") / "out"
    sweep({**planted, "repair": True}, out)
    return out


def asked(out: Path) -> Counter:
    """How often every part of every answer was given."""
    lines = [json.loads(line) for file in (out / "answers").glob("*.jsonl") for line in file.read_text().splitlines()]
    return Counter((sheet, part, item) for sheet, part, item, _ in lines)


def test_the_layer_that_does_the_harm_is_found_and_confirmed(repaired: Path) -> None:
    facts = read_json(repaired / "sweep.json")
    found = facts["repair"]
    assert facts["recommendation"]["name"] == "sft"
    assert found["point"]["name"] == "pt1+sft1"
    assert found["repaired"]["change"] == "lowering pt to 0 in layer 2"
    assert found["repaired"]["weights"] == {"pt": "1,layers[2:3]:0", "sft": 1.0}
    assert found["outcome"] == "mended"
    assert found["sentence"].startswith("Lowering pt to 0 in layer 2 mends pt1+sft1: ROUGE-L higher by ")
    # Lowering all of pt by as much does not do it: most of its norm lies where it does no harm.
    assert found["confirmation"]["beyond_null"] == "better"
    assert "as much of its norm, does less" in found["sentence"]
    holds = {point["role"]: point["holds"] for point in found["confirmation"]["points"]}
    assert holds == {"repaired": True, "merge": False, "null": False, "reference": True}
    # Gates foretold it, and what was not asked has no figures.
    told = {one["change"]: one["foretold"] for one in found["candidates"] if one["foretold"] is not None}
    assert min(told, key=lambda change: told[change]) in (
        "lowering pt to 0 in layer 2",
        "lowering pt to 0 in MLP modules",
    )
    for one in found["candidates"]:
        assert (one["search"] is None) == (one["constraints"] is None) == (one["holds"] is None)
    assert sum(one["search"] is not None for one in found["candidates"]) <= 6
    lines = repair_lines(facts)
    assert lines[1].startswith("Lowering pt to 0 in layer 2 mends")
    assert max(map(len, lines)) <= 80
    assert found["sentence"].replace("'", "&#39;").replace(">", "&gt;") in (repaired / "sweep.html").read_text()


def test_a_repair_of_a_finished_sweep_asks_nothing_twice(
    repaired: Path, planted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plain = sweep(planted, out).facts
    assert "repair" not in plain
    sweep({**planted, "repair": True}, out)
    assert max(asked(out).values()) == 1
    assert asked(out) == asked(repaired)
    kept = (out / "sweep.json").read_bytes()
    assert kept == (repaired / "sweep.json").read_bytes()
    # What gates foretold is kept, too: no model is loaded again.
    monkeypatch.setattr("crossmatch.sweeping.gates.Instrumented", None)
    sweep({**planted, "repair": "pt1+sft1"}, out)
    assert (out / "sweep.json").read_bytes() == kept
    # Without it the result is that of the search again.
    assert sweep(planted, out).facts == plain


def test_merge_writes_and_proves_the_repair(repaired: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "merged"
    assert run(["merge", "--from", str(repaired), "--point", "repair", "-o", str(out)]) == 0
    assert "verified" in capsys.readouterr().out
    predicate = read_json(out / "crossmatch.json")["predicate"]
    assert predicate["sweep"]["point"] == "repair"
    assert predicate["adapters"]["pt"]["weight"] == "1,layers[2:3]:0"
    assert run(["merge", "--from", str(repaired), "--point", "mended", "-o", str(tmp_path / "x")]) == 2
    assert "there are points 1 to 4, and repair" in capsys.readouterr().err


def test_report_makes_the_page_of_a_sweep_again(repaired: Path, tmp_path: Path) -> None:
    assert report(repaired, tmp_path / "again.html").read_bytes() == (repaired / "sweep.html").read_bytes()


@pytest.mark.parametrize(
    ("point", "message"),
    [("99", "there are points 1 to 4"), ("pt2", "--repair pt2: there are points"), ("sft", "no adapter but sft")],
)
def test_a_point_that_cannot_be_repaired(
    repaired: Path,
    planted: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    point: str,
    message: str,
) -> None:
    out = Path(shutil.copytree(repaired, tmp_path / "out"))
    recipe = tmp_path / "study.yaml"
    recipe.write_text(json.dumps(planted))
    assert run(["-q", "sweep", str(recipe), "-o", str(out), "--repair", point]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    # The sweep's own result stands.
    assert read_json(out / "sweep.json")["recommendation"]["name"] == "sft"


def test_without_a_repair_there_is_none_to_merge(
    planted: dict[str, Any], repaired: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(repaired, tmp_path / "out"))
    sweep(planted, out)
    assert run(["merge", "--from", str(out), "--point", "repair", "-o", str(tmp_path / "merged")]) == 2
    assert "holds no repair; run crossmatch sweep with --repair" in capsys.readouterr().err


def test_harm_that_no_part_does_alone_is_not_mended(planted: dict[str, Any], repaired: Path, tmp_path: Path) -> None:
    """A constraint that nothing can keep: every change is judged, none is confirmed."""
    facts = sweep({**planted, "constraints": ["rougeL >= 101"], "repair": True}, tmp_path / "out").facts
    found = facts["repair"]
    assert found["outcome"] == "not mended"
    assert found["sentence"] == "No candidate mends pt1+sft1, which breaks rougeL >= 101."
    assert found["repaired"] is found["confirmation"] is None
    assert any(reason.startswith("nearest was lowering pt") for reason in found["reasons"])


def test_a_merge_without_a_fault_is_left_alone(planted: dict[str, Any], tmp_path: Path) -> None:
    space = {"pt": {"all": [0, 1], "layers[2:]": 0}}
    found = sweep({**planted, "space": space, "repair": True}, tmp_path / "out").facts["repair"]
    assert found["outcome"] == "no fault"
    assert found["sentence"].startswith("Nothing to repair: on the search items pt")
    assert found["candidates"] == []


def test_rules_that_gates_do_not_know_are_repaired_by_size(planted: dict[str, Any], tmp_path: Path) -> None:
    rules = {"ties": {"density": [0.9]}}
    found = sweep({**planted, "rules": rules, "repair": True}, tmp_path / "out").facts["repair"]
    assert found["foretold"] is None
    assert {one["rule"] for one in found["candidates"]} == {"ties"}
    assert any("the smallest" in reason for reason in found["reasons"])


def test_the_plan_counts_it_and_a_bad_value_is_refused(
    planted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "study.yaml"
    recipe.write_text(json.dumps(planted))
    assert run(["sweep", str(recipe), "--dry-run", "--repair"]) == 0
    # Before the recipe the option has no value either.
    assert run(["sweep", "--dry-run", "--repair", str(recipe)]) == 0
    assert "repair: at most" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="give true, or the number or the name of a point"):
        sweep({**planted, "repair": 0}, tmp_path / "out")


def test_a_fault_in_traces_is_foretold_by_the_odds_of_one(planted: dict[str, Any], tmp_path: Path) -> None:
    prepared = prepare(parse_sweep(planted, "test"))
    target = next(point for point in prepared.space.grid() if point.name == "pt1+sft1")
    merge = Faulty(target, ("pt",), Measure("ask", "trace_structural", False))
    found = foretell(prepared.source, merge, prepared.parts.search, tmp_path, lambda: None, SILENT)
    assert (found.suite, found.items, found.target) == ("ask", 16, "odds")
    assert {name for name, added in found.modules["pt"].items() if added} <= set(open_vector(planted["adapters"]["pt"]))
    assert foretell(prepared.source, merge, prepared.parts.search, tmp_path, pytest.fail, SILENT) == found
