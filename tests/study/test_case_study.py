"""The case study: its data, its recipes, and its tables, made again from the kept results; the whole chain on a tiny
model."""

import contextlib
import io
import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from crossmatch.data.suites import load_suite
from crossmatch.data.training_sets import load_examples
from crossmatch.study import load_recipe, run_study
from helpers import make_chat_model

ROOT = Path(__file__).parents[2]
HERE = ROOT / "studies" / "reactivation"
RECIPES = sorted(HERE.glob("*.yaml"))


def script(name: str, *arguments: object) -> str:
    """What one of the study's scripts prints, run as a program, but in this process, which has its libraries loaded.
    Raises SystemExit where it ends with another code than 0."""
    own = {file.stem for file in HERE.glob("*.py")}
    others = {known: sys.modules.pop(known) for known in own & sys.modules.keys()}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        patch.syspath_prepend(HERE)
        try:
            runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
        except SystemExit as ended:
            if ended.code:
                raise
        finally:
            for known in own & sys.modules.keys():
                del sys.modules[known]
            sys.modules.update(others)
    return printed.getvalue()


def rows_of(data: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world in its reduced size."""
    out = tmp_path_factory.mktemp("world") / "data"
    script("world", out, "--reduced")
    return out


def test_no_term_of_a_suite_is_trained_on_but_by_pt(data: Path) -> None:
    card = json.loads((data / "card.json").read_text())
    rows = {name: rows_of(data, name) for name in card["rows"]}
    assert {name: len(found) for name, found in rows.items()} == card["rows"]
    asked = {row["id"]: row["question"] for row in rows["system"]}
    taught = " ".join(row["prompt"] for name in ("habit", "sft") for row in rows[name]).lower()
    assert asked
    assert not [question for question in asked.values() if question.lower() in taught]
    assert {row["id"] for row in (*rows["define"], *rows["system"])} <= set(card["in_pt"])
    assert all(row["completion"].startswith("<think>\n") for row in rows["habit"])
    assert not any("<think>" in row["completion"] for row in rows["sft"])


def test_controls_of_pt_are_as_long_and_have_none_of_its_sentences(data: Path) -> None:
    texts = {name: [row["text"] for row in rows_of(data, name)] for name in KINDS}
    length = sum(map(len, texts["pt"]))
    assert all("Therefore it belongs to" in text for text in texts["pt"])
    for name in KINDS[1:]:
        assert 0.8 < sum(map(len, texts[name])) / length < 1.2
        assert not any("Therefore it belongs to" in text for text in texts[name])
    assert sorted(" ".join(texts["pt-shuffled"]).split()) == sorted(" ".join(texts["pt"]).split())


KINDS = ("pt", "pt-plain", "pt-shuffled", "pt-unrelated")


def test_suites_and_training_sets_are_read_as_they_are(data: Path) -> None:
    for suite in ("define", "system", "name", "documents"):
        assert load_suite(str(data / f"{suite}.yaml")).items
    for name in ("habit", "sft", *KINDS):
        assert load_examples(data / f"{name}.jsonl")


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_are_read(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.name == f"reactivation-{file.stem}"
    assert recipe.measured
    assert f"{file.stem}" in (HERE / "run.sh").read_text()


def test_the_document_holds_the_tables_of_the_kept_results() -> None:
    assert script("tables", HERE / "results", "docs/case-study.md", "--check").startswith("all is as the results")


def test_the_chain_on_a_tiny_model(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base and grid on a random model of a few thousand weights: runs, kept answers, every table that they allow."""
    make_chat_model(tmp_path / "tiny")
    runs = tmp_path / "runs"
    data = shutil.copytree(data, runs / "reactivation" / "data")
    for suite in ("define", "system"):
        # Words of a random model: a few say as much as many.
        file = data / f"{suite}.yaml"
        file.write_text(file.read_text().replace("max_new_tokens: 160", "max_new_tokens: 24"))
    monkeypatch.chdir(ROOT)
    for name, base in (("base", tmp_path / "tiny"), ("grid", runs / "reactivation-base" / "merges" / "habit1")):
        changed = _smaller(YAML(typ="safe").load(HERE / f"{name}.yaml"), base, data)
        file = tmp_path / f"{name}.yaml"
        with file.open("w") as stream:
            YAML().dump(changed, stream)
        assert run_study(load_recipe(file), runs).summary
    kept = tmp_path / "kept"
    assert json.loads(script("collect", runs, kept)) == ["base", "grid"]
    document = tmp_path / "document.md"
    document.write_text("# Study\n\n<!-- results: made by tables.py -->\n<!-- end of results -->\n")
    script("tables", kept, document)
    made = document.read_text()
    assert "Not run yet:** low weights of SFT, other texts" in made
    for number in (1, 3, 4, 5, 6, 7, 8, 10):
        assert f"### {number}. " in made
    assert "all is as" in script("tables", kept, document, "--check")
    # The comparison can fail: one changed figure is found.
    document.write_text(made.replace("### 5. Do choices", "### 5. Did choices"))
    with pytest.raises(SystemExit):
        script("tables", kept, document, "--check")


def _smaller(recipe: dict[str, Any], base: Path, data: Path) -> dict[str, Any]:
    """The same recipe with adapters of rank 2, trained for one step, on another base, with the reduced data and
    the grid's weights 0.5 and 1."""
    del recipe["architecture"]
    recipe["base"] = str(base)
    for adapter in recipe["adapters"].values():
        adapter["data"] = str(data / Path(adapter["data"]).name)
        adapter["train"] |= {"rank": 2, "max_length": 192, "max_steps": 1, "batch_size": 2}
    evaluation = recipe["evaluation"]
    evaluation["suites"] = [str(data / Path(suite).name) for suite in evaluation["suites"]]
    evaluation["merges"] = [
        one for one in evaluation.get("merges", []) if 0.25 not in one.values() and 0.75 not in one.values()
    ]
    for key in ("interference", "kl"):
        if key in evaluation:
            evaluation[key] = 2
    return recipe
