"""Suites: data of every form, prompts as lm-evaluation-harness makes them, and what cannot be asked."""

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import datasets
import pytest

from crossmatch.errors import DataError
from crossmatch.evaluation import load_suite
from crossmatch.evaluation.suites import read_yaml
from harness.build import PROMPTS, SHOTS, harness_prompts
from harness.records import RECORDS, write_data_set

RECIPES = Path(load_suite.__code__.co_filename).parent / "recipes"
OWN = {"id": "1", "question": "q", "reference": "r"}
CHOICE = {"id": "1", "question": "q", "options": ["a", "b"], "answer": 0}
GENERATION = "name: x\nversion: 1\nkind: generation\ndata: d.jsonl"
CHOOSE = "name: x\nversion: 1\nkind: choice\ndata: d.jsonl"
INSTRUCT = "name: x\nversion: 1\nkind: instructions\ndata: d.jsonl"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def harness() -> dict[str, Any]:
    """What the harness itself makes where it is installed, else what it made when prompts.json was written."""
    stored = json.loads(PROMPTS.read_text(encoding="utf-8"))
    if importlib.util.find_spec("lm_eval") is None:
        return stored["prompts"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lm_eval  # pyright: ignore[reportMissingImports]

        made = harness_prompts()
    assert lm_eval.__version__ != stored["lm_eval"] or made == stored["prompts"]
    return made


def write(root: Path, settings: str, *rows: dict[str, Any]) -> Path:
    (root / "s.yaml").write_text(settings, encoding="utf-8")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (root / "d.jsonl").write_text(lines, encoding="utf-8")
    return root / "s.yaml"


def changed_recipe(root: Path, name: str, **changes: Any) -> Path:
    """A copy of a recipe on our records, with other settings."""
    raw = read_yaml(RECIPES / f"{name}.yaml")
    raw["hub"] = {**raw["hub"], "path": str(write_data_set(root / name, RECORDS[name]))}
    file = root / f"{name}.yaml"
    file.write_text(json.dumps({**raw, **changes}), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_prompts_and_continuations_are_those_of_the_harness(harness: dict[str, Any], name: str, tmp_path: Path) -> None:
    suite = load_suite(f"recipe:{name}:{write_data_set(tmp_path, RECORDS[name])}")
    asked = [
        {"prompt": suite.prompt_text(i), "continuations": list(suite.continuations(i)), "target": i.answer}
        for i in suite.items
    ]
    assert asked == harness[name]["plain"]


@pytest.mark.parametrize("name", [name for name in sorted(RECORDS) if "medical" in name])
def test_solved_examples_are_those_of_the_harness(harness: dict[str, Any], name: str, tmp_path: Path) -> None:
    shots = {"fewshot": SHOTS, "fewshot_data": "dev", "fewshot_order": "first"}
    suite = load_suite(changed_recipe(tmp_path, name, **shots))
    assert [suite.prompt_text(i) for i in suite.items] == [row["prompt"] for row in harness[name]["fewshot"]]
    assert all(row["prompt"].count("\n\n") == SHOTS + 1 for row in harness[name]["fewshot"])


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_dialogues_are_those_of_the_harness(harness: dict[str, Any], name: str, tmp_path: Path) -> None:
    shots = {"fewshot": SHOTS, "fewshot_data": "dev", "fewshot_order": "first"} if "medical" in name else {}
    suite = load_suite(changed_recipe(tmp_path, name, chat=True, **shots))
    asked = [{"messages": suite.messages(i), "continuations": list(suite.continuations(i))} for i in suite.items]
    assert asked == harness[name]["chat"]


def test_golden_prompts_say_where_they_come_from() -> None:
    stored = json.loads(PROMPTS.read_text(encoding="utf-8"))
    assert stored["lm_eval"] == "0.4.13"
    assert (Path(__file__).parents[1] / stored["made_by"]).is_file()
    assert set(stored["prompts"]) == set(RECORDS)


@pytest.mark.parametrize(
    ("settings", "row", "message"),
    [
        (CHOOSE, {**CHOICE, "answer": 2}, "line 1: answer must be an index from 0 to 1, not 2"),
        (CHOOSE, {**CHOICE, "answer": -1}, "index from 0 to 1, not -1"),
        (CHOOSE, {**CHOICE, "answer": True}, "index from 0 to 1, not True"),
        (CHOOSE, {**CHOICE, "options": ["a"]}, "at least two texts"),
        (CHOOSE, {**CHOICE, "options": ["a", " "]}, "texts that are not empty"),
        (CHOOSE, {**CHOICE, "options": 3}, "'options' must hold options"),
        (CHOOSE, {**CHOICE, "options": ["a"] * 27}, "at most 26 options"),
        (GENERATION, {"id": 1, "question": "q"}, "no field 'reference'; there are id, question"),
        (GENERATION, {"id": 1, "question": "q", "referense": "r"}, "did you mean referense"),
        (GENERATION, {"id": 1, "question": "q", "reference": " "}, "'reference' must be a text that is not empty"),
        (GENERATION, {"id": 1, "question": " ", "reference": "r"}, "'question' must be a text that is not empty"),
        (GENERATION, {"id": 1, "question": None, "reference": "r"}, "'question' must be a text"),
        (GENERATION, {"id": 1, "question": ["q", 1], "reference": "r"}, "'question' must be a list of texts"),
        (GENERATION, {"question": "q", "reference": "r"}, "line 1: there is no field 'id'"),
        (GENERATION.replace("d.jsonl", "none.jsonl"), {}, "none.jsonl does not exist"),
        (GENERATION.replace("d.jsonl", "s.yaml"), {}, "its kind is not known; it must end in .jsonl"),
        (GENERATION.replace("data: d.jsonl", "limit: 1"), {}, "either data .* or hub .* must be given"),
        (f"{GENERATION}\nlanguge: zh", {}, "did you mean language"),
        (GENERATION.replace("generation", "poem"), {}, "kind: "),
        (f"{GENERATION}\nprompt: 'Say {{questoin}}'", {}, "questoin} is no field"),
        (f"{GENERATION}\nprompt: Say", {}, "question} is missing"),
        (f"{GENERATION}\nprompt: '{{context}} {{question}}'", OWN, "no field 'context'"),
        (f"{GENERATION}\ndescription: 'About {{subject}}'", {}, "subject} is asked for, but fields.subject"),
        (f"{GENERATION}\nfields: {{anwser: a}}", {}, "fields.anwser: Extra inputs"),
        (f"{GENERATION}\nfields: {{question: qustion}}", OWN, "no field 'qustion'; did you mean question"),
        (f"{GENERATION}\nwhere: {{topic: a}}", OWN, "no field 'topic'"),
        (f"{GENERATION}\nwhere: {{id: 2}}", OWN, "no items of those that `where` takes"),
        (f"{GENERATION}\npermutations: 2", {}, "permutations is for choice suites"),
        (f"{GENERATION}\ngenerative: true", {}, "generative is for choice suites"),
        (f"{GENERATION}\nfewshot: 1", OWN, "1 examples are asked for, item 1 has 0 others"),
        (f"{GENERATION}\nfewshot_data: d.jsonl", {}, "fewshot is 0"),
        (f"{INSTRUCT}\nfewshot: 1", {}, "fewshot needs answers"),
        (f"{CHOOSE}\nform: letters", {}, "letters mean nothing without the options"),
        (f"{CHOOSE}\noption_line: '{{letter}}'", {}, "text} is missing"),
        (INSTRUCT, {"id": 1, "question": "q"}, "no field 'checks'"),
        (INSTRUCT, {"id": 1, "question": "q", "checks": []}, "list of {kind, arguments} that is not empty"),
        (INSTRUCT, {"id": 1, "question": "q", "checks": [{"kind": ""}]}, "every check needs a kind"),
        (INSTRUCT, {"id": 1, "question": "q", "checks": [{"kid": "x"}]}, "an object of kind and arguments"),
        ("name: [x", {}, "is not YAML"),
        ("- name", {}, "must hold a mapping"),
        ("", {}, "must hold a mapping"),
    ],
)
def test_suites_that_cannot_be_asked(tmp_path: Path, settings: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        load_suite(write(tmp_path, settings, row))
    assert "\n" not in str(error.value)


def test_duplicates_and_limits(tmp_path: Path) -> None:
    file = write(tmp_path, f"{GENERATION}\nlimit: 1", OWN, OWN)
    with pytest.raises(DataError, match="line 2: id '1' appears twice$"):
        load_suite(file)
    write(tmp_path, f"{GENERATION}\nlimit: 1", OWN, OWN, OWN)
    with pytest.raises(DataError, match=r"line 2: id '1' appears twice \(and 1 more bad rows\)$"):
        load_suite(file)
    (tmp_path / "d.jsonl").write_text(json.dumps(OWN) + "\n\n" + json.dumps({**OWN, "id": "2"}) + "\n")
    assert len(load_suite(file).items) == 1
    (tmp_path / "d.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no items"):
        load_suite(file)


def test_questions_may_hold_any_character(tmp_path: Path) -> None:
    row = {**OWN, "question": "a\u2028b\u0085c {question} {options}"}
    suite = load_suite(write(tmp_path, GENERATION, row))
    assert suite.items[0].question == row["question"]
    assert suite.messages(suite.items[0]) == [{"role": "user", "content": row["question"]}]
