"""Suites: data of every form, prompts as lm-evaluation-harness makes them, and what cannot be asked."""

import csv
import importlib.util
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from crossmatch.data.suites import parse_settings, read_yaml
from crossmatch.errors import DataError
from crossmatch.evaluation import Item, known_recipes, load_suite
from crossmatch.evaluation.metrics.bleu_rouge import bleu_signature
from harness.build import PROMPTS, SHOTS, harness_prompts
from harness.records import RECORDS, write_data_set

RECIPES = Path(load_suite.__code__.co_filename).parent / "recipes"
OWN = {"id": "1", "question": "q", "reference": "r"}
CHOICE = {"id": "1", "question": "q", "options": ["a", "b"], "answer": 0}
GENERATION = "name: x\nversion: 1\nkind: generation\ndata: d.jsonl"
CHOOSE = "name: x\nversion: 1\nkind: choice\ndata: d.jsonl"
INSTRUCT = "name: x\nversion: 1\nkind: instructions\ndata: d.jsonl"


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
    assert (Path(__file__).parents[2] / stored["made_by"]).is_file()
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
        (f"{GENERATION}\nfields: {{contxt: a}}", {}, "fields.contxt: unknown field; did you mean context"),
        (f"{GENERATION}\nfields: {{question: {{column: q, joins: a}}}}", {}, "question.joins: unknown .* join?"),
        (f"{CHOOSE}\nfields: {{answer: {{column: a, ass: letter}}}}", {}, "answer.ass: unknown field; did you mean as"),
        (GENERATION.replace("data: d.jsonl", "hub: {path: x/y, nam: z}"), {}, "hub.nam: unknown .* mean name"),
        (f"{GENERATION}\nfields: {{question: q, options: o}}", {}, "fields.options is not read: .* reads .* reference"),
        (f"{CHOOSE}\nfields: {{question: q, reference: r}}", {}, "fields.reference is not read: .* options, answer"),
        (f"{GENERATION}\noption_line: '{{text}}'", {}, "option_line is for choice suites"),
        (f"{GENERATION}\nwindow: 512", {}, "window is for text suites"),
        (f"{GENERATION}\nfewshot_order: first", {}, "fewshot is 0"),
        (f"{GENERATION}\nsubjects: {{a: A}}", {}, "fields.subject names no column"),
        (GENERATION, {**OWN, "input": "Hb 7 g/l"}, "does not use 'input' of its data; map it, .*context: input"),
        (GENERATION, {**OWN, "system": "You are"}, "does not use 'system' .* `system: TEXT`"),
        (f"{GENERATION}\nignored: [inptu]", {**OWN, "input": "x"}, "no row of d.jsonl has 'inptu'; did you mean input"),
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


FOUR = {"A": "ampicillin", "B": "ceftriaxone", "C": "doxycycline", "D": "nitrofurantoin"}
BY_LETTER = "fields: {question: question, options: options, answer: {column: answer, as: letter}}"


@pytest.mark.parametrize(
    "answer", ["D", "d", " (D) ", "D.", "（D）", "D. nitrofurantoin", "(D) nitrofurantoin", "D、nitrofurantoin"]
)
def test_letters_of_answers(tmp_path: Path, answer: str) -> None:
    file = write(tmp_path, f"{CHOOSE}\n{BY_LETTER}", {"question": "q", "options": FOUR, "answer": answer})
    assert load_suite(file).items[0].answer == 3


@pytest.mark.parametrize("answer", ["E", "AD", "doxycycline", "D. doxycycline", "(D) or (A)", "", "Do"])
def test_letters_that_are_none(tmp_path: Path, answer: str) -> None:
    file = write(tmp_path, f"{CHOOSE}\n{BY_LETTER}", {"question": "q", "options": FOUR, "answer": answer})
    with pytest.raises(DataError, match="line 1: answer must be a letter from A to D"):
        load_suite(file)


YES_NO = 'fields: {question: question, options: {values: ["yes", "no"]}, answer: answer}'
NO_YES = 'fields: {question: question, options: {values: ["no", "yes"]}, answer: {column: answer, as: text}}'
PLAIN = "fields: {question: question, options: options, answer: answer}"


@pytest.mark.parametrize(
    ("fields", "row", "options", "answer"),
    [
        (BY_LETTER, {"options": {**FOUR, "E": ""}, "answer": "D"}, tuple(FOUR.values()), 3),
        (BY_LETTER, {"options": {**FOUR, "E": None}, "answer": "D"}, tuple(FOUR.values()), 3),
        (BY_LETTER, {"options": json.dumps(FOUR), "answer": "C"}, tuple(FOUR.values()), 2),
        (PLAIN, {"options": '["x", "y"]', "answer": "1"}, ("x", "y"), 1),
        (PLAIN, {"options": [0.5, 1.5, -2], "answer": 2.0}, ("0.5", "1.5", "-2"), 2),
        (PLAIN, {"options": ["x", "y"], "answer": "1.0"}, ("x", "y"), 1),
        # A truth value is no index: what it means decides, whatever the order of the options.
        (YES_NO, {"answer": True}, ("yes", "no"), 0),
        (YES_NO, {"answer": False}, ("yes", "no"), 1),
        (NO_YES, {"answer": True}, ("no", "yes"), 1),
    ],
)
def test_options_and_answers_of_other_tables(
    tmp_path: Path, fields: str, row: dict[str, Any], options: tuple[str, ...], answer: int
) -> None:
    item = load_suite(write(tmp_path, f"{CHOOSE}\n{fields}", {"question": "q", **row})).items[0]
    assert (item.options, item.answer) == (options, answer)


def test_an_option_that_is_empty_within_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, f"{CHOOSE}\n{BY_LETTER}", {"question": "q", "options": {**FOUR, "B": ""}, "answer": "D"})
    with pytest.raises(DataError, match="texts that are not empty"):
        load_suite(file)


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


def same_rows(root: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    file = root / f"data{suffix}"
    if suffix == ".jsonl":
        file.write_text("\ufeff" + "\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return file


def test_every_kind_of_file_gives_the_same_items(tmp_path: Path) -> None:
    rows = RECORDS["medmcqa"][""]["validation"]
    suites = {s: load_suite(f"recipe:medmcqa:{same_rows(tmp_path, s, rows)}") for s in (".jsonl", ".json", ".csv")}
    suites[".parquet"] = load_suite(f"recipe:medmcqa:{same_rows(tmp_path, '.parquet', rows)}")
    suites["hub"] = load_suite(f"recipe:medmcqa:{write_data_set(tmp_path / 'hub', RECORDS['medmcqa'])}")
    assert len({suite.items for suite in suites.values()}) == 1
    assert len({suite.digest for suite in suites.values()}) == 5
    assert [item.id for item in suites["hub"].items] == ["c0", "c1", "c2", "c3"]


def test_rows_without_ids_go_by_their_number(tmp_path: Path) -> None:
    suite = load_suite(f"recipe:mmlu-medical:{write_data_set(tmp_path, RECORDS['mmlu-medical'])}")
    assert [item.id for item in suite.items[:3]] == ["anatomy-1", "anatomy-2", "clinical_knowledge-1"]
    assert [item.subject for item in suite.items[:3]] == ["anatomy", "anatomy", "clinical_knowledge"]
    rows = [row for config in RECORDS["mmlu-medical"].values() for row in config["test"]]
    local = load_suite(f"recipe:mmlu-medical:{same_rows(tmp_path, '.jsonl', rows)}")
    assert [item.id for item in local.items[:3]] == ["1", "2", "3"]
    assert list(map(local.prompt_text, local.items)) == list(map(suite.prompt_text, suite.items))


def test_the_digest_is_that_of_what_is_asked(tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        return load_suite(changed_recipe(tmp_path, "medqa", **changes)).digest

    first = digest()
    assert digest() == first
    hub = {"path": str(tmp_path / "medqa"), "split": "test"}
    assert load_suite(changed_recipe(tmp_path, "medqa", hub={**hub, "revision": "v2"})).digest != first
    others = [digest(version=2), digest(chat=True), digest(delimiter=""), digest(limit=2), digest(seed=1)]
    assert len({first, *others}) == 6
    changed = [{**row, "ending0": "another"} for row in RECORDS["medqa"][""]["test"]]
    write_data_set(tmp_path / "medqa", {"": {"test": changed}})
    assert load_suite(tmp_path / "medqa.yaml").digest not in {first, *others}


def test_examples_are_drawn_by_the_seed_and_never_the_item_itself(tmp_path: Path) -> None:
    rows = [{**OWN, "id": str(i), "question": f"q{i % 8}", "reference": f"r{i}"} for i in range(10)]
    file = write(tmp_path, f"{GENERATION}\nfewshot: 5\nseed: 3", *rows)
    suite = load_suite(file)
    for item in suite.items:
        assert len({shot.id for shot in suite.shots[item.id]}) == 5
        assert item.question not in {shot.question for shot in suite.shots[item.id]}
    assert load_suite(file).shots == suite.shots
    # One item's examples do not depend on how many are asked.
    file.write_text(f"{GENERATION}\nfewshot: 5\nseed: 3\nlimit: 2")
    assert load_suite(file).shots == {i: suite.shots[i] for i in ("0", "1")}
    file.write_text(f"{GENERATION}\nfewshot: 5\nseed: 4")
    assert load_suite(file).shots != suite.shots
    # Two ask what items 0 and 1 do: eight others are left.
    file.write_text(f"{GENERATION}\nfewshot: 9")
    with pytest.raises(DataError, match="fewshot: 9 examples are asked for, item 0 has 8 others"):
        load_suite(file)


def test_examples_from_a_file_of_their_own(tmp_path: Path) -> None:
    solved = [{**OWN, "id": f"s{i}", "question": f"q{i}", "reference": f"r{i}"} for i in range(4)]
    (tmp_path / "solved.jsonl").write_text("\n".join(json.dumps(row) for row in solved))
    text = f"{GENERATION}\nfewshot: 2\nfewshot_data: solved.jsonl\nfewshot_order: first\nsystem: Be brief."
    suite = load_suite(write(tmp_path, text, {**OWN, "question": "q0"}))
    (item,) = suite.items
    assert suite.messages(item) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "r1"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "r2"},
        {"role": "user", "content": "q0"},
    ]
    plain = replace(suite, settings=suite.settings.model_copy(update={"chat": False}))
    assert plain.prompt_text(item) == "Be brief.\n\nq1 r1\n\nq2 r2\n\nq0"
    before = suite.digest
    (tmp_path / "solved.jsonl").write_text("\n".join(json.dumps({**row, "reference": "x"}) for row in solved))
    assert load_suite(tmp_path / "s.yaml").digest != before


@pytest.mark.parametrize(
    ("settings", "continuations"),
    [
        ("chat: true", ("a", "b")),
        ("chat: false", (" a", " b")),
        ("chat: false\ndelimiter: ''", ("a", "b")),
        ('chat: true\ndelimiter: "\\n"', ("\na", "\nb")),
        ("prompt: '{question} {options}'\nform: letters", ("A", "B")),
        ("prompt: '{question} {options}'\nform: letters\nchat: false", (" A", " B")),
    ],
)
def test_continuations_stand_behind_their_delimiter(tmp_path: Path, settings: str, continuations: tuple[str]) -> None:
    suite = load_suite(write(tmp_path, f"{CHOOSE}\n{settings}", CHOICE))
    assert suite.continuations(suite.items[0]) == continuations


def test_options_are_written_as_the_suite_says(tmp_path: Path) -> None:
    settings = f"{CHOOSE}\nprompt: \"{{question}}\\n{{options}}\"\noption_line: '({{letter}}) {{text}};'"
    suite = load_suite(write(tmp_path, settings, {**CHOICE, "options": ["{letter}", "{question}"]}))
    assert suite.prompt_text(suite.items[0]) == "q\n(A) {letter};\n(B) {question};"


OPTIONS = {"A": "窦性心律", "B": "房颤", "C": "室颤"}


@pytest.mark.parametrize(
    "options",
    [
        [{"key": k, "value": v} for k, v in OPTIONS.items()],
        {"key": list(OPTIONS), "value": list(OPTIONS.values())},
        {**OPTIONS, "D": None},
        dict(reversed(OPTIONS.items())),
        "A 窦性心律\nB 房颤\nC 室颤",
        "A. 窦性心律\nB．房颤\n(C) 室颤\n",
        list(OPTIONS.values()),
    ],
)
def test_cmexam_in_every_form_that_it_comes_in(tmp_path: Path, options: Any) -> None:
    row = {"Question": " 心电图示P波消失？", "Options": options, "Answer": "B", "Explanation": "f波"}
    several = {**row, "Answer": "AB"}
    suite = load_suite(f"recipe:cmexam:{same_rows(tmp_path, '.json', [row, several, {**row, 'Answer': None}])}")
    (item,) = suite.items
    assert suite.prompt_text(item) == "心电图示P波消失？\nA. 窦性心律\nB. 房颤\nC. 室颤\n答案："
    assert (suite.continuations(item), item.answer, suite.left_out) == ((" A", " B", " C"), 1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"A": "x", "C": "y"}, "options must be lettered A, B, C, ..., not A, C"),
        ([{"key": "A", "value": "x"}, {"key": "A", "value": "y"}], "must be lettered A, B, C"),
        ([{"key": "A", "text": "x"}], "no field 'value'; there are key, text"),
        ({"key": ["A"], "value": ["x", "y"]}, "lists of one length"),
        ("A x\ny", "every line must be an option"),
        ([1, True], "must be a text that is not empty, not True"),
    ],
)
def test_options_that_cannot_be_read(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_suite(write(tmp_path, CHOOSE, {**CHOICE, "options": options}))


@pytest.mark.parametrize(
    ("form", "values", "bad", "message"),
    [
        ("index", [1, "1"], [2, "2", "B", None, 0.5], "index from 0 to 1"),
        ("number", [2, "2"], [0, 3, "x"], "number from 1 to 2"),
        ("letter", ["B", " b "], ["C", "AB", "", 1], "letter from A to B"),
        ("text", ["no", " no"], ["maybe", "", 1], "text of one option"),
    ],
)
def test_answers_in_every_form(tmp_path: Path, form: str, values: list[Any], bad: list[Any], message: str) -> None:
    settings = f"{CHOOSE}\nfields: {{options: {{values: ['yes', 'no']}}, answer: {{column: gold, as: {form}}}}}"
    for value in values:
        suite = load_suite(write(tmp_path, settings, {"question": "q", "gold": value}))
        assert (suite.items[0].answer, suite.items[0].options, suite.items[0].id) == (1, ("yes", "no"), "1")
    for value in bad:
        with pytest.raises(DataError, match=f"line 1: answer must be .*{message}"):
            load_suite(write(tmp_path, settings, {"question": "q", "gold": value}))


def test_alpaca_files(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Say", "input": "what", "output": "a"},
        {"instruction": "Ask", "input": "", "output": "b"},
        {"instruction": "Do", "output": "c"},
    ]
    file = tmp_path / "valid zh 0.json"
    file.write_text(json.dumps(rows))
    suite = load_suite(f"recipe:alpaca-zh:{file}")
    assert [(i.question, i.reference) for i in suite.items] == [("Say\nwhat", "a"), ("Ask", "b"), ("Do", "c")]
    assert (suite.settings.name, suite.settings.language) == ("alpaca-zh-valid_zh_0", "zh")
    file.write_text(json.dumps([{"instruction": "Say", "input": "x", "output": ""}]))
    with pytest.raises(DataError, match="item 1: field 'output' must be a text that is not empty, for the reference"):
        load_suite(f"recipe:alpaca:{file}")


def test_instructions_carry_their_checks(tmp_path: Path) -> None:
    checks = [{"kind": "words", "arguments": {"least": 3, "note": None}}, {"kind": "no_comma"}]
    suite = load_suite(write(tmp_path, INSTRUCT, {"id": "1", "question": "Say", "checks": checks}))
    assert suite.items[0].checks == (("words", {"least": 3}), ("no_comma", {}))
    settings = f"{INSTRUCT}\nfields: {{id: key, question: prompt, checks: [instruction_id_list, kwargs]}}"
    row = {"key": 7, "prompt": "Say", "instruction_id_list": ["a:b", "c"], "kwargs": [{"n": 1, "m": None}, None]}
    suite = load_suite(write(tmp_path, settings, row))
    assert suite.items[0] == Item("7", "Say", checks=(("a:b", {"n": 1}), ("c", {})))
    with pytest.raises(DataError, match="instruction_id_list and kwargs must be lists of one length"):
        load_suite(write(tmp_path, settings, {**row, "kwargs": [{}]}))
    row["kwargs"] = [{"n": float("inf")}, {}]
    write(tmp_path, settings)
    (tmp_path / "d.jsonl").write_text(json.dumps(row).replace("Infinity", "1e999"))
    with pytest.raises(DataError, match="arguments of check 'a:b' are not plain JSON"):
        load_suite(tmp_path / "s.yaml")


def test_columns_that_are_not_read_are_known(tmp_path: Path) -> None:
    row = {**OWN, "topic": "blood", "exp": "", "input": "left out", "ctx": "a passage"}
    fields = "fields: {id: id, question: question, reference: reference, context: ctx}"
    found = load_suite(write(tmp_path, f"{GENERATION}\nignored: [input]\n{fields}", row))
    # An empty column holds nothing that could be lost.
    assert found.unused == ("ctx (the prompt has no {context})", "topic")
    plain = load_suite(write(tmp_path, GENERATION, OWN))
    assert plain.unused == ()
    assert "ignored" not in plain.settings.to_dict()


def test_settings_for_others_are_carried(tmp_path: Path) -> None:
    settings = f"{CHOOSE}\ngenerative: true\npermutations: 3\nmax_new_tokens: 16"
    found = load_suite(write(tmp_path, settings, CHOICE)).settings
    assert (found.generative, found.permutations, found.max_new_tokens) == (True, 3, 16)


def test_few_faulty_rows_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    rows = [{**OWN, "id": str(i)} for i in range(199)]
    bad = {"id": "bad", "question": "", "reference": "r"}
    file = write(tmp_path, f"{GENERATION}\nfaulty: leave_out", *rows, bad)
    suite = load_suite(file)
    assert (len(suite.items), suite.left_out) == (199, 1)
    write(tmp_path, f"{GENERATION}\nfaulty: leave_out", *rows, bad, bad, bad)
    with pytest.raises(DataError, match=r"line 200: field 'question' .*\(and 2 more bad rows\)"):
        load_suite(file)


def test_rows_of_a_subject(tmp_path: Path) -> None:
    rows = [{**OWN, "id": str(i), "meta": {"topic": "ab"[i % 2], "year": i}} for i in range(6)]
    suite = load_suite(write(tmp_path, f"{GENERATION}\nwhere: {{meta.topic: b, meta.year: [1, 2, 5]}}", *rows))
    assert [item.id for item in suite.items] == ["1", "5"]


def test_recipes_are_listed_and_all_can_be_read() -> None:
    names = ("alpaca", "alpaca-zh", "cmexam", "cmmlu-medical", "medmcqa", "medqa", "mmlu-medical", "pubmedqa")
    assert known_recipes() == names
    for name in names:
        file = RECIPES / f"{name}.yaml"
        assert parse_settings(read_yaml(file), file).name == name
    chosen = parse_settings(read_yaml(RECIPES / "pubmedqa.yaml"), RECIPES).where["pubid"]
    assert len(chosen) == len(set(chosen)) == 500


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recipe:medqq", "no recipe 'medqq'; did you mean medqa.; known are alpaca"),
        ("recipe:../medqa", "no recipe '../medqa'"),
        ("recipe:alpaca", "no data of its own; give yours as in recipe:alpaca:valid.jsonl"),
        ("recipe:medqa:nothing.csv", "nothing.csv does not exist"),
        ("data.jsonl", "a suite's data; give the YAML"),
        ("nothing.yaml", "nothing.yaml cannot be read"),
    ],
)
def test_names_that_are_no_suite(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_suite(name)


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        ({"path": "./none"}, r"\./none, split test: the data set cannot be read: "),
        ({"path": "./set", "split": "tset"}, r"split tset: the data set cannot be read: .*tset"),
        ({"path": "./set", "name": "nope"}, r"\(nope\), split test: the data set cannot be read"),
        ({"path": ""}, "hub.path: "),
        ({"path": "a/b", "splt": "x"}, "hub.splt: unknown field; did you mean split?"),
    ],
)
def test_data_sets_that_cannot_be_read(tmp_path: Path, hub: dict[str, Any], message: str) -> None:
    write_data_set(tmp_path / "set", RECORDS["medqa"])
    settings = {"name": "x", "version": 1, "kind": "generation", "hub": hub}
    (tmp_path / "s.yaml").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=message) as error:
        load_suite(tmp_path / "s.yaml")
    assert "\n" not in str(error.value)


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "s.yaml").write_text("name: x\nversion: 1\nkind: generation\nhub: {path: nobody/nothing, split: dev}")
    with pytest.raises(DataError, match="nobody/nothing, split dev: the data set cannot be read: .*by `data:`$"):
        load_suite(tmp_path / "s.yaml")


def test_data_sets_with_a_script_are_not_run(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text("raise SystemExit('run')")
    (tmp_path / "s.yaml").write_text("name: x\nversion: 1\nkind: generation\nhub: {path: ./set}")
    with pytest.raises(DataError, match="scripts are no longer supported.*refs/convert/parquet"):
        load_suite(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b'{"id": "1", "question": "\\ud800", "reference": "r"}', "half a character"),
        ("d.jsonl", b'{"id": "1", "question": NaN}', "line 1: not JSON: NaN is no JSON number"),
        ("d.jsonl", b'{"a": ' * 100_000, "line 1: not JSON: nested too deeply"),
        ("d.jsonl", b'\n{"a": 1', "line 2: not JSON"),
        ("d.jsonl", b"[1]", "line 1: an object is needed, not list"),
        ("d.jsonl", b'{"id": ' + b"1" * 5000 + b"}", "line 1: not JSON: Exceeds the limit"),
        ("d.jsonl", b"\xff\xfe", "cannot be read as text"),
        ("d.json", b'{"id": 1}', "must hold a list of objects"),
        ("d.json", b"[1]", "item 1: an object is needed, not int"),
        ("d.csv", b"id,question,reference\n1,q", "row 1: it has another number of cells than the header"),
        ("d.csv", b"id,question,reference\n1,q,r,s", "row 1: it has another number of cells"),
        ("d.csv", b"id,id,reference\n1,q,r", "two columns have one name"),
        ("d.csv", b'id,question,reference\n1,"q"x,r', "is not CSV"),
        ("d.csv", b"", "holds no items"),
        ("d.parquet", b"PAR1", "is not parquet"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    file = write(tmp_path, GENERATION.replace("d.jsonl", name)) if name != "d.jsonl" else tmp_path / "s.yaml"
    file.write_text(GENERATION.replace("d.jsonl", name))
    with pytest.raises(DataError, match=message) as error:
        load_suite(file)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def bombs() -> Iterator[tuple[str, str]]:
    merged = ["l0: &l0 {a: 1}", *(f"l{i}: &l{i} {{<<: [*l{i - 1}, *l{i - 1}, *l{i - 1}]}}" for i in range(1, 40))]
    yield "\n".join(merged), "aliases counted"
    doubled = ["l0: &l0 [a]", *(f"l{i}: &l{i} [*l{i - 1}, *l{i - 1}]" for i in range(1, 40))]
    yield "\n".join(doubled), "aliases counted"
    yield "a: &a [*a]", "aliases counted"
    yield "[" * 20_000, "nested too deeply"
    yield "a: " + "x" * 200_000, "of which at most"
    yield "!!python/object/apply:os.system [ls]", "is not YAML"
    yield f"{GENERATION}\n? {'k' * 50_000}\n: 1", r"unknown field 'k{80}\.\.\.'"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("text", "message"), list(bombs()), ids=range(7))
def test_hostile_yaml_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        load_suite(tmp_path / "s.yaml")


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "d.jsonl")
    os.mkfifo(tmp_path / "s.yaml")
    with pytest.raises(DataError, match="is no regular file"):
        load_suite(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").unlink()
    (tmp_path / "s.yaml").write_text(GENERATION)
    with pytest.raises(DataError, match="is no regular file"):
        load_suite(tmp_path / "s.yaml")


def test_japanese_needs_its_tokenizer_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": str(i), "question": f"q{i}", "reference": "r"} for i in range(2)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "ask.yaml"
    file.write_text("name: ask\nversion: 1\nkind: generation\nlanguage: ja\ndata: x.jsonl\n")
    monkeypatch.setattr("crossmatch.data.suite_config.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'ipadic.*' 'mecab-python3"):
        load_suite(str(file))
    monkeypatch.setattr("crossmatch.data.suite_config.find_spec", lambda name: name)
    assert load_suite(str(file)).settings.language == "ja"


def test_japanese_is_cut_into_words() -> None:
    pytest.importorskip("MeCab")
    pytest.importorskip("ipadic")
    assert "tok:ja-mecab" in bleu_signature("ja")
