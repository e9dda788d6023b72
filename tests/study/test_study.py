"""Studies: recipes read strictly, plans from shapes, a whole tiny study, resuming, the sample's data."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from crossmatch import Adapter, Checkpoint
from crossmatch.checkpoint import file_digest
from crossmatch.cli import run
from crossmatch.delta import dense
from crossmatch.errors import DataError, InputError, RecipeError
from crossmatch.study import load_recipe, plan_study, run_study
from crossmatch.study.preflight import render_all
from crossmatch.study.sample import SampleSize, ontology_file, read_ontology, write_data
from helpers import make_adapter, make_chat_model

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, data, two suites, and a recipe that trains two adapters of rank 2 in seconds."""
    root = tmp_path_factory.mktemp("study")
    make_chat_model(root / "base")
    make_adapter(root / "base", root / "ready", seed=3)
    make_adapter(root / "base", root / "other", seed=4)
    sft = [{"prompt": "what is blood", "completion": "a disease of the heart"}] * 8
    pt = [{"text": "the heart is a bone of the old kidney"}] * 8
    ask = [
        {"id": str(i), "question": "what is " + "very " * i + "old blood", "reference": "a disease of the heart"}
        for i in range(4)
    ]
    pick = [
        {"id": str(i), "question": "name " + "the " * i, "options": ["heart", "old cell"], "answer": i % 2}
        for i in range(4)
    ]
    for name, rows in {"sft": sft, "pt": pt, "ask": ask, "pick": pick}.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (root / "ask.yaml").write_text("name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 4\n")
    (root / "pick.yaml").write_text("name: pick\nversion: 1\nkind: choice\ndata: pick.jsonl\n")
    return root


def recipe(room: Path, **changes: Any) -> dict[str, Any]:
    train = {"rank": 2, "batch_size": 4, "max_length": 16, "learning_rate": 1e-2}
    return {
        "name": "tiny",
        "base": str(room / "base"),
        "adapters": {
            "pt": {"stage": "pt", "data": str(room / "pt.jsonl"), "train": train},
            "sft": {"stage": "sft", "data": str(room / "sft.jsonl"), "train": train},
        },
        "merges": [{"pt": 0.3, "sft": 0.7}],
        "evaluation": {
            "suites": [str(room / "ask.yaml"), str(room / "pick.yaml")],
            "reference": "sft",
            "interference": 2,
        },
        **changes,
    }


def saved(directory: Path, value: Any) -> Path:
    file = directory / "study.yaml"
    with file.open("w") as stream:
        YAML().dump(value, stream)
    return file


@pytest.fixture(scope="module")
def finished(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    result = run_study(load_recipe(saved(runs, recipe(room))), runs)
    assert result.verified
    return runs


def test_run_directory(finished: Path) -> None:
    root = finished / "tiny"
    assert {p.name for p in root.iterdir()} == {
        *("adapters", "evaluate", "merges", "stages", "verify"),
        *(
            "audit.json",
            "interference.json",
            "overlap.json",
            "analysis.json",
            "recipe.json",
            "report.html",
            "report.json",
            "samples.json",
            "summary.json",
        ),
    }
    assert json.loads((root / "verify" / "pt0.3+sft0.7.json").read_text())["verdict"] == "verified"
    summary = json.loads((root / "summary.json").read_text())
    assert list(summary["variants"]) == ["base", "pt", "sft", "pt0.3+sft0.7", "sft0.7"]
    overlap = json.loads((root / "overlap.json").read_text())
    assert len(overlap["modules"]) == 14
    assert "<title>crossmatch: tiny</title>" in (root / "report.html").read_text()


def test_the_command(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(finished / "study.yaml"), "--runs", str(finished)]
    assert run([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verified"] is True
    assert result["verdicts"] == {"pt0.3+sft0.7": "verified"}
    assert set(result["summary"]["conditions"]["own.greedy"]["suites"]) == {"ask", "pick"}
    assert {answer["id"] for answer in result["answers"]} >= {"is-as-claimed", "answers-as-well", "test-set-clean"}
    assert json.loads((finished / "tiny" / "report.json").read_text())["answers"] == result["answers"]
    assert "## Answers" in (finished / "tiny" / "merges" / "pt0.3+sft0.7" / "README.md").read_text()
    assert run(command) == 0
    out, err = capsys.readouterr()
    assert out.startswith("pt0.3+sft0.7 is what it claims to be (pt 0.30000, sft 0.70000).")
    assert out.count("\n") <= 15
    assert run(["report", str(finished / "tiny")]) == 0
    assert capsys.readouterr().out == out
    assert run([*command, "--detail"]) == 0
    assert capsys.readouterr().out.startswith("pt0.3+sft0.7: verified (recovered pt 0.30000, sft 0.70000)")
    assert "merge-pt0.3+sft0.7: unchanged, skipped" in err
    assert run([*command, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "finished already, skipped if nothing that they read has changed: train pt, train sft, merge" in shown
    assert run(["report", str(finished / "tiny"), "-o", str(finished / "again.html"), "--json"]) == 0
    assert file_digest(finished / "again.html") == file_digest(finished / "tiny" / "report.html")
    (finished / "broken").mkdir()
    (finished / "broken" / "report.json").write_text("{}")
    assert run(["report", str(finished / "broken")]) == 2


def test_a_study_that_cannot_be_judged_exits_3(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twins = {name: {"path": str(room / "ready")} for name in ("a", "b")}
    changed = recipe(room, adapters=twins, merges=[{"a": 0.3, "b": 0.2}], evaluation=None)
    assert run(["run", str(saved(tmp_path, changed)), "--runs", str(tmp_path)]) == 3
    assert "cannot be told" in " ".join(capsys.readouterr().out.split())


def test_finished_stages_are_skipped(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (finished / "tiny").rglob("*") if p.is_file()}
    result = run_study(load_recipe(finished / "study.yaml"), finished)
    assert result.ran == {}
    changed = {p.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed == {"recipe.json", "report.json", "report.html"}


def test_cards_carry_the_results_and_the_study_its_tables(finished: Path) -> None:
    from huggingface_hub import ModelCard

    from crossmatch.export.results import tables_of
    from crossmatch.study import StudyResult

    root = finished / "tiny"
    summary = json.loads((root / "summary.json").read_text())
    verdicts = json.loads((root / "report.json").read_text())["verdicts"]
    for name, verdict in verdicts.items():
        found = ModelCard.load(root / "merges" / name / "README.md").data.eval_results
        assert {result.dataset_type for result in found} == {
            suite for facts in summary["conditions"].values() for suite in facts["suites"]
        }
        result = StudyResult(root, root / "report.html", verdicts, summary, {}, [])
        frame = result.to_pandas("weights").set_index(["merge", "adapter"])
        for adapter, weight in verdict["weights"].items():
            assert frame.loc[(name, adapter), "recovered"] == weight["recovered"]
    assert next(iter(tables_of(summary))).startswith("overview.")


def test_report_has_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    digest = file_digest(finished / "tiny" / "report.html")
    run_study(load_recipe(finished / "study.yaml"), finished)
    assert file_digest(finished / "tiny" / "report.html") == digest


def test_changed_settings_run_again_from_there(finished: Path, room: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    changed = recipe(room, merges=[{"pt": 0.3, "sft": 0.7}, {"pt": 1.0, "sft": 1.0}])
    result = run_study(load_recipe(saved(tmp_path, changed)), tmp_path / "runs")
    assert set(result.ran) == {"merge-pt1+sft1", "verify-pt1+sft1", "evaluate"}
    # A lost output is made again, the rest is kept.
    shutil.rmtree(tmp_path / "runs" / "tiny" / "adapters" / "sft")
    kept = file_digest(tmp_path / "runs" / "tiny" / "merges" / "pt1+sft1" / "model.safetensors")
    again = run_study(load_recipe(tmp_path / "study.yaml"), tmp_path / "runs")
    assert set(again.ran) >= {"train-sft"}
    assert "train-pt" not in again.ran
    # Trained again from the same data and seed it is the same adapter, so the merge still stands.
    assert file_digest(tmp_path / "runs" / "tiny" / "merges" / "pt1+sft1" / "model.safetensors") == kept


def test_a_checkpoint_that_was_changed_afterwards_fails(finished: Path, room: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    file = tmp_path / "runs" / "tiny" / "merges" / "pt0.3+sft0.7" / "model.safetensors"
    shutil.copy(room / "base" / "model.safetensors", file)
    result = run_study(load_recipe(finished / "study.yaml"), tmp_path / "runs")
    assert not result.verified
    assert result.verdicts["pt0.3+sft0.7"]["faults"] == ["adapter-not-applied"]
    assert "Failed" in result.report.read_text()
    assert Checkpoint(file.parent).digest == result.verdicts["pt0.3+sft0.7"]["digests"]["merged"]


def test_lost_weights_and_stale_checkpoints_do_not_stop_a_study(finished: Path, room: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    root = tmp_path / "runs" / "tiny"
    (root / "merges" / "pt0.3+sft0.7" / "model.safetensors").unlink()
    result = run_study(load_recipe(finished / "study.yaml"), tmp_path / "runs")
    assert result.verified
    shutil.rmtree(root / "adapters" / "sft")
    (root / "adapters" / "sft.work").mkdir()
    (root / "adapters" / "sft.work" / "facts.json").write_text('{"digest": "another"}')
    assert run_study(load_recipe(finished / "study.yaml"), tmp_path / "runs").verified


def test_mistakes_are_found_before_anything_is_trained(room: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "q"}\n')
    adapters = {"pt": recipe(room)["adapters"]["pt"], "sft": {"stage": "sft", "data": str(bad)}}
    same = {"suites": [str(room / "ask.yaml"), str(room / "ask.yaml")], "reference": "sft"}
    none = {"suites": [str(room / "none.yaml")], "reference": "sft"}
    for change, message in (
        ({"adapters": adapters}, "line 1: field 'completion'"),
        ({"evaluation": same}, "two suites have one name"),
        ({"evaluation": none}, "cannot be read"),
        ({"evaluation": {**same, "templates": ["none.jinja"]}}, "is no file, and none of own"),
        ({"adapters": {"pt": {"path": "nobody-at-all/none"}, "sft": adapters["pt"]}}, "the hub did not give it"),
    ):
        with pytest.raises((InputError, RecipeError), match=message):
            run_study(load_recipe(saved(tmp_path, recipe(room, **change))), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_adapters_from_elsewhere(room: Path, tmp_path: Path) -> None:
    changed = recipe(room, adapters={"ready": {"path": str(room / "ready")}}, merges=[{"ready": 0.5}], evaluation=None)
    result = run_study(load_recipe(saved(tmp_path, changed)), tmp_path)
    assert result.verified
    assert result.summary is None


def test_weights_by_module_reach_the_written_checkpoint(room: Path, tmp_path: Path) -> None:
    changed = recipe(
        room,
        adapters={name: {"path": str(room / name)} for name in ("ready", "other")},
        merges=[{"ready": "0.3,mlp:0.2,layers[1:].q_proj:0", "other": 0.7}],
        evaluation={"suites": [str(room / "pick.yaml")], "reference": "ready"},
    )
    result = run_study(load_recipe(saved(tmp_path, changed)), tmp_path)
    name = "ready0.3_mlp_0.2_layers_1-_.q_proj_0+other0.7"
    assert result.verified
    assert set(result.verdicts) == {name}
    written = Checkpoint(result.path / "merges" / name)
    base, ready, other = Checkpoint(room / "base"), Adapter(room / "ready"), Adapter(room / "other")
    for tensor in ready:
        weight = 0.2 if ".mlp." in tensor else 0.0 if tensor.endswith("layers.1.self_attn.q_proj.weight") else 0.3
        exact = base[tensor].double() + weight * dense(ready[tensor]) + 0.7 * dense(other[tensor])
        torch.testing.assert_close(written[tensor], exact.float(), rtol=1e-6, atol=1e-8)
    # The reference alone, which is measured beside it, has the same weights.
    assert result.summary is not None
    assert list(result.summary["variants"]) == ["base", "ready", "other", name, name.partition("+")[0]]
    # Unchanged weights are not merged again, others in one module are.
    assert run_study(load_recipe(tmp_path / "study.yaml"), tmp_path).ran == {}
    changed["merges"] = [{"ready": "0.3,mlp:0.2,layers[1].q_proj:0", "other": 0.7}]
    again = run_study(load_recipe(saved(tmp_path, changed)), tmp_path)
    assert {"merge-ready0.3_mlp_0.2_layers_1_.q_proj_0+other0.7"} < set(again.ran)


def test_merges_of_the_evaluation_are_measured_and_not_written(room: Path, tmp_path: Path) -> None:
    """A grid of weights costs no disk: its points are variants of the summary, without a file."""
    asked = recipe(room)["evaluation"]
    grid = [{"pt": 0.25, "sft": 0.5}, {"sft": 0.5}]
    loaded = load_recipe(saved(tmp_path, recipe(room, evaluation={**asked, "merges": grid})))
    result = run_study(loaded, tmp_path / "runs")
    variants = json.loads((result.path / "summary.json").read_text())["variants"]
    assert variants["pt0.25+sft0.5"]["kind"] == "merge"
    assert "sft0.5" in variants
    assert [p.name for p in (result.path / "merges").iterdir()] == ["pt0.3+sft0.7"]
    with pytest.raises(RecipeError, match=r"evaluation\.merges: none is no adapter"):
        load_recipe(saved(tmp_path, recipe(room, evaluation={**asked, "merges": [{"none": 1}]})))


def test_a_study_may_write_no_merge_at_all(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its merges are those of the evaluation alone; nothing is proved, and nothing is called proved."""
    changed = recipe(
        room,
        adapters={name: {"path": str(room / name)} for name in ("ready", "other")},
        merges=[],
        evaluation={
            "suites": [str(room / "pick.yaml")],
            "reference": "ready",
            "merges": [{"ready": 0.5, "other": 0.5}],
        },
    )
    assert run(["run", str(saved(tmp_path, changed)), "--runs", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdicts"] == {}
    assert found["verified"] is None
    assert "ready0.5+other0.5" in found["summary"]["variants"]
    assert run(["run", str(tmp_path / "study.yaml"), "--runs", str(tmp_path)]) == 0
    assert "claims to be" not in capsys.readouterr().out
    del changed["evaluation"]["merges"]
    with pytest.raises(RecipeError, match=r"merges: none; name the weights of one at least"):
        load_recipe(saved(tmp_path, changed))


def test_merges_that_would_overwrite_each_other(room: Path, tmp_path: Path) -> None:
    adapters = {name: {"path": str(room / "ready")} for name in ("a", "a1")}
    changed = recipe(room, adapters=adapters, merges=[{"a1": 2.0}, {"a": 12.0}], evaluation=None)
    with pytest.raises(RecipeError, match="merges: two different ones would both be called a12"):
        run_study(load_recipe(saved(tmp_path, changed)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adaptors": {}}, "unknown key adaptors; did you mean adapters"),
        ({"adapters": {"pt": {"stage": "pt", "data": "x", "train": {"lr": 1}}}}, "train.lr; there are rank, alpha"),
        (
            {"adapters": {"pt": {"stage": "pt", "data": "x", "train": {"learning_rat": 1}}}},
            "learning_rat; did you mean learning_rate",
        ),
        ({"adapters": {"pt": {"stage": "pt", "datta": "x"}}}, "datta; did you mean data"),
        ({"adapters": {"pt": {"stage": "pt"}}}, "give either path, or stage and data"),
        ({"merges": [{"pt": 0.3, "sfd": 0.7}]}, "sfd is no adapter of this recipe"),
        ({"merges": [{}]}, "an empty merge"),
        ({"evaluation": {"suites": ["x"], "reference": "gold"}}, "gold is no adapter"),
        ({"evaluation": {"suites": [], "reference": "sft"}}, "evaluation.suites"),
        ({"dtype": "int4"}, "dtype: Input should be"),
        ({"name": "../escape"}, "name: String should match"),
        ({"adapters": {"../x": {"path": "y"}}, "merges": [{"../x": 1.0}], "evaluation": None}, "is no name"),
        ({"merges": [{"pt": float("nan")}]}, "finite number"),
        ({"merges": [{"pt": "much"}]}, "'much' is not a number"),
    ],
)
def test_recipes_are_read_strictly(room: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(saved(tmp_path, recipe(room, **change)))


def test_recipes_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(tmp_path / "none.yaml")
    for text, message in (("- a", "must hold a mapping"), ("a: [", "is not YAML"), ("a: 1\na: 2", "is not YAML")):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=message):
            load_recipe(tmp_path / "r.yaml")


def test_yaml_means_what_it_says(tmp_path: Path) -> None:
    """YAML 1.2: 5e-4 is a number, NO is a text."""
    loaded = load_recipe(ROOT / "studies" / "sample.yaml")
    assert loaded.adapters["sft"].train.learning_rate == 5e-4


def test_plan_of_the_sample_is_that_of_the_real_model() -> None:
    plan = plan_study(load_recipe(ROOT / "studies" / "sample.yaml"))
    assert plan["parameters"] == 134_515_008
    assert plan["adapted_modules"] == 210
    tokens = {s["name"]: s["tokens"] for s in plan["stages"]}
    assert 5_000 < tokens["train pt"] < 20_000
    assert 10_000 < tokens["train sft"] < 30_000
    assert all(s["seconds"] > 0 for s in plan["stages"] if s["name"].startswith(("train", "evaluate")))
    assert 1 < plan["gib"] < 6


def test_plan_of_the_paper_is_checked_on_shapes() -> None:
    loaded = load_recipe(ROOT / "studies" / "qwen3-14b-medical.yaml")
    plan = plan_study(loaded)
    # Qwen3-14B: 14.8 B parameters, seven linear modules in each of 40 layers.
    assert plan["parameters"] == 14_768_307_200
    assert plan["adapted_modules"] == 280
    names = [s["what"] for s in plan["stages"] if s["name"] == "merge and verify"]
    assert names[0].startswith("0.3 pt + 0.7 sft")
    assert loaded.evaluation is not None
    assert (loaded.evaluation.templates, loaded.evaluation.decodings) == (("nothink",), ("T0.6p0.8",))
    assert 25 < plan["gib"] < 80


def test_a_plan_counts_all_that_is_asked(room: Path, tmp_path: Path) -> None:
    """Nulls and written checkpoints are variants; templates, decodings and seeds are asked one by one."""
    asked = recipe(room)["evaluation"]
    few = plan_study(load_recipe(saved(tmp_path, recipe(room))), tmp_path)
    more = {"nulls": 2, "checkpoints": {"other": str(room / "base")}}
    many = plan_study(load_recipe(saved(tmp_path, recipe(room, evaluation={**asked, **more}))), tmp_path)
    drawn = {"templates": ["own", "strict"], "decodings": ["greedy", "T1x3"]}
    wide = plan_study(load_recipe(saved(tmp_path, recipe(room, evaluation={**asked, **drawn}))), tmp_path)
    tokens = [{s["name"]: s["tokens"] for s in plan["stages"]} for plan in (few, many, wide)]
    assert any(s["what"] == "4 generation items x 8 variants" for s in many["stages"])
    assert tokens[1]["evaluate ask"] == pytest.approx(tokens[0]["evaluate ask"] * 8 / 5, rel=0.01)
    # Two templates with one greedy and three drawn answers each; options are scored once a template.
    assert tokens[2]["evaluate ask"] == pytest.approx(tokens[0]["evaluate ask"] * 8, rel=0.01)
    assert tokens[2]["evaluate pick"] == pytest.approx(tokens[0]["evaluate pick"] * 2, rel=0.01)
    assert not any(s["finished"] for s in few["stages"])


def test_plans_that_cannot_be_made(room: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="give its config as `architecture:`"):
        plan_study(load_recipe(saved(tmp_path, recipe(room, base="org/model"))))
    with pytest.raises(RecipeError, match="cannot build this model"):
        plan_study(load_recipe(saved(tmp_path, recipe(room, architecture={"model_type": "invented"}))))
    adapters = {"pt": {"stage": "pt", "data": "none.jsonl"}, "sft": {"path": "x"}}
    with pytest.raises(InputError, match=r"data none\.jsonl does not exist"):
        plan_study(load_recipe(saved(tmp_path, recipe(room, adapters=adapters))))


def test_sample_data(tmp_path: Path) -> None:
    size = SampleSize(pt_terms=60, sft_terms=80, define=10, name=20, seed=3)
    card = write_data(tmp_path / "data", size)
    assert card["version"] == read_ontology(ontology_file())[0] == "2025-01-16"
    assert "hpo.jax.org/app/license" in card["licence"]
    assert card["held_out_in_sft"] == 0
    assert card["held_out_in_pt"] == 30
    rows = {
        n: [json.loads(x) for x in (tmp_path / "data" / f"{n}.jsonl").read_text().splitlines()]
        for n in ("pt", "sft", "define", "name")
    }
    assert {n: len(r) for n, r in rows.items()} == {"pt": 60, "sft": 80, "define": 10, "name": 20}
    held_out = {r["reference"] for r in rows["define"]} | {r["question"] for r in rows["name"]}
    assert not held_out & {r["completion"] for r in rows["sft"]}
    for row in rows["name"]:
        assert len(set(row["options"])) == 4
        assert row["options"][row["answer"]].lower() not in row["question"].lower()
    # The right answer is not always in one place.
    assert len({row["answer"] for row in rows["name"]}) > 1
    again = write_data(tmp_path / "again", size)
    assert again == card
    for name in rows:
        assert file_digest(tmp_path / "again" / f"{name}.jsonl") == file_digest(tmp_path / "data" / f"{name}.jsonl")
    with pytest.raises(InputError, match="too few terms"):
        write_data(tmp_path / "huge", SampleSize(sft_terms=10**6))


def test_ontology_is_read_whole() -> None:
    _, terms = read_ontology(ontology_file())
    assert len(terms) > 16_000
    arachnodactyly = next(t for t in terms if t.name == "Arachnodactyly")
    assert "fingers" in arachnodactyly.definition
    assert arachnodactyly.parents


def test_every_prompt_and_training_row_is_rendered_before_any_work(room: Path, tmp_path: Path) -> None:
    plan = plan_study(load_recipe(saved(tmp_path, recipe(room))), tmp_path)
    assert any("8 dialogues of" in line for line in plan["rendered"])
    assert any(line.startswith("suite ask: 4 prompts rendered under") for line in plan["rendered"])
    rows = [
        {"prompt": "what is blood", "completion": "old"},
        {"instruction": "a", "system": "Be terse.", "output": "b"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "strict.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.content }} "
        "{% endfor %}"
    )
    changed = recipe(room)
    name = next(name for name, adapter in changed["adapters"].items() if adapter.get("stage") == "sft")
    changed["adapters"][name]["data"] = str(tmp_path / "rows.jsonl")
    train = changed["adapters"][name].get("train", {})
    changed["adapters"][name]["train"] = {**train, "template": str(tmp_path / "strict.jinja")}
    for work in (plan_study, run_study):
        with pytest.raises(DataError, match=r"rows\.jsonl, line 2: the chat template cannot render .*no system"):
            work(load_recipe(saved(tmp_path, changed)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_hub_rows_are_rendered_where_they_were_read_before_and_else_said_not_to_be(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = recipe(room)
    name = next(name for name, adapter in changed["adapters"].items() if adapter.get("stage") == "sft")
    changed["adapters"][name]["data"] = "org/rows"
    loaded = load_recipe(saved(tmp_path, changed))
    kept = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(kept))
    said = "org/rows was not looked at: it is on the hub and was never read on this machine"
    assert any(said in line for line in render_all(loaded, tmp_path / "runs"))
    (kept / "org___rows/default/0.0.0/0").mkdir(parents=True)
    rows = [{"prompt": "what is blood", "completion": "old"}, {"prompt": "what is blood"}]
    monkeypatch.setattr("crossmatch.data.rows._library", lambda *_: iter(rows[:1]))
    assert any("1 dialogues of org/rows rendered" in line for line in render_all(loaded, tmp_path / "runs"))
    monkeypatch.setattr("crossmatch.data.rows._library", lambda *_: iter(rows))
    with pytest.raises(DataError, match="org/rows, row 2"):
        render_all(loaded, tmp_path / "runs")
