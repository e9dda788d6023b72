"""Every kind of result: its schema is in docs/, real outputs have that form, and other files are refused in one line."""

import contextlib
import json
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
from typing_extensions import TypedDict

from crossmatch.cli import run
from crossmatch.cli.schema import all_kinds
from crossmatch.errors import DataError
from crossmatch.result_kinds import AUDIT, KINDS, OVERLAP, RECORD, SUMMARY, Kind
from helpers import make_adapter, make_chat_model

ROOT = Path(__file__).parents[2]


def test_the_files_in_docs_are_what_the_code_declares() -> None:
    # A document that is checked builds its kind's model without descriptions; those of the schemas must not lack them.
    for kind in KINDS.values():
        with contextlib.suppress(ValueError):
            kind.check("{}")
    texts = runpy.run_path(str(ROOT / "docs" / "_schemas.py"))["generated"]()
    old = [
        str(file.relative_to(ROOT)) for file, text in texts.items() if not file.is_file() or file.read_text() != text
    ]
    assert not old, "run `make generated`"
    kept = set((ROOT / "docs" / "schemas").iterdir())
    assert kept == {file for file in texts if file.parent.name == "schemas"}


def test_a_schema_does_not_depend_on_which_union_the_process_saw_first() -> None:
    class One(TypedDict):
        value: float | str | None
        word: Literal["b", "a"]

    class Other(TypedDict):
        value: str | float | None
        word: Literal["a", "b"]

    first, second = (Kind("kind", model, "A kind.", "again").schema() for model in (One, Other))
    assert first == second
    assert first["properties"]["value"]["anyOf"] == [{"type": "number"}, {"type": "string"}, {"type": "null"}]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """All schemas of objects inside of a schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from objects(item)
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for item in schema.values():
            yield from objects(item)


def test_schemas_are_of_the_draft_and_open_for_later_fields() -> None:
    """Fields are added within one version: what a pipeline pinned must not refuse them. What is written is held to
    exactly what is declared by `Kind.check`, below."""
    for name in KINDS:
        schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        for found in objects(schema):
            assert found.get("additionalProperties") is not False, (name, found)
        document = schema["properties"] if "properties" in schema else schema["anyOf"][0]
        assert document, name


def test_the_command_lists_and_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    lines = capsys.readouterr().out
    assert all(f"{name} " in lines for name in all_kinds())
    assert max(map(len, lines.splitlines())) < 80
    assert run(["schema", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)["schemas"]} == set(all_kinds())
    assert run(["schema", "verdict"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["seconds"] == {"type": "number"}
    assert run(["schema", "summery"]) == 2
    assert "summary" in capsys.readouterr().err


# --- real outputs ----------------------------------------------------------------------------------------------------


class Outputs:
    """Runs commands and holds what they print to its published schema; seen: the kinds held so far, with how many."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.seen = capsys, Counter[str]()

    def holds(self, name: str, value: Any) -> None:
        schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(value)
        # The schema is open for later versions' fields; this one writes what it declares.
        all_kinds()[name].check(json.dumps(value))
        self.seen[name] += 1

    def printed(self, name: str, *arguments: object, code: int = 0) -> None:
        assert run([*map(str, arguments), "--json"]) == code, self.capsys.readouterr().err
        self.holds(name, json.loads(self.capsys.readouterr().out))

    def written(self, name: str, file: Path) -> None:
        self.holds(name, json.loads(file.read_text()))


@pytest.fixture
def outputs(capsys: pytest.CaptureFixture[str]) -> Outputs:
    return Outputs(capsys)


def test_a_field_that_is_not_declared_is_found(outputs: Outputs) -> None:
    with pytest.raises(ValueError, match="more"):
        outputs.holds("page", {"schema_version": 1, "report": "x", "more": 1})


def test_merges_and_verdicts(models: Path, tmp_path: Path, outputs: Outputs) -> None:
    parts = ["-a", f"pt={models / 'pt'}", "-a", f"sft={models / 'sft'}", "-w", "pt=0.3", "-w", "sft=0.7"]
    merge, out = ["merge", models / "base", *parts], tmp_path / "merged"
    outputs.printed("merge-plan", *merge, "--dry-run")
    outputs.printed("merge", *merge, "-o", out)
    outputs.written("merge-manifest", out / "crossmatch.json")
    outputs.printed("merge", *merge, "--to", "adapter", "-o", tmp_path / "adapter")
    outputs.written("merge-manifest", tmp_path / "adapter" / "crossmatch.json")
    outputs.printed("verdict", "verify", out, "--detail")
    outputs.printed("verdict", "verify", out, "--quick")
    outputs.printed(
        "verdict", "verify", out, "-a", f"pt={models / 'pt'}", "-w", "pt=1", "--base", models / "base", code=1
    )
    outputs.printed("verdict", "identify", out, "--base", models / "base", *parts[:4])
    for path in (out, models / "pt"):
        outputs.printed("inspect", "inspect", path)
    assert outputs.seen == {"merge-plan": 1, "merge": 2, "merge-manifest": 2, "verdict": 4, "inspect": 2}


def test_vectors(models: Path, tmp_path: Path, outputs: Outputs) -> None:
    assert (
        run(["merge", str(models / "base"), "-a", f"pt={models / 'pt'}", "-w", "pt=1", "-o", str(tmp_path / "m")]) == 0
    )
    outputs.capsys.readouterr()
    pair = [models / "base", tmp_path / "m"]
    outputs.printed("vector", "vectors", "extract", *pair, "-o", tmp_path / "v")
    outputs.printed("vector", "vectors", "extract", *pair, "--rank", 2, "-o", tmp_path / "r")
    outputs.printed(
        "vector", "vectors", "add", "-a", f"a={tmp_path / 'v'}", "-a", f"b={models / 'sft'}", "-o", tmp_path / "s"
    )
    for name in ("v", "r", "s"):
        outputs.written("vector-manifest", tmp_path / name / "crossmatch.json")
    outputs.printed("inspect", "vectors", "inspect", tmp_path / "s")
    outputs.printed("scaled", "vectors", "scale", tmp_path / "v", "-g", "0.5", "-g", "1", "-o", tmp_path / "g")
    outputs.written("strengths", tmp_path / "g" / "crossmatch.json")
    outputs.printed("applied", "vectors", "apply", models / "base", tmp_path / "v", "-o", tmp_path / "applied")
    outputs.printed("applied", "vectors", "remove", tmp_path / "m", tmp_path / "v", "-o", tmp_path / "removed")


def test_analysis(models: Path, tmp_path: Path, outputs: Outputs) -> None:
    vectors = [models / "pt", models / "sft"]
    asked = ["analyse", models / "base", *vectors, "--sign-conflict", "--cache", tmp_path / "c", "-o", tmp_path / "out"]
    outputs.printed("analysis", *asked)
    outputs.written("analysis", tmp_path / "out" / "analysis.json")
    outputs.printed("page", "report", tmp_path / "out")
    assert outputs.seen == {"analysis": 2, "page": 1}


def test_evaluation_audit_comparison(tmp_path: Path, outputs: Outputs) -> None:
    make_chat_model(tmp_path / "base")
    make_adapter(tmp_path / "base", tmp_path / "sft", seed=2, size=0.5)
    rows = [
        {
            "id": f"i{i}",
            "question": f"what is {w}",
            "options": ["heart", "blood"],
            "answer": i % 2,
            "reference": f"a {w}",
        }
        for i, w in enumerate(("heart", "blood", "cell"))
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "what is heart disease of the old cell"}) + "\n")
    common = "version: 1\ndata: data.jsonl\nmax_new_tokens: 4\n"
    (tmp_path / "pick.yaml").write_text(f"name: pick\nkind: choice\npermutations: 1\n{common}")
    (tmp_path / "say.yaml").write_text(f"name: say\nkind: generation\nsustain: 1\n{common}")
    suites = ["--suite", tmp_path / "pick.yaml", "--suite", tmp_path / "say.yaml"]
    out = tmp_path / "out"
    outputs.printed(
        "summary", "evaluate", tmp_path / "base", *suites, "-a", f"sft={tmp_path / 'sft'}", "-w", "sft=1", "-o", out
    )
    outputs.written("summary", out / "summary.json")
    outputs.written("samples", out / "samples.json")
    for file in out.glob("*/*.jsonl"):
        for line in file.read_text().splitlines():
            outputs.holds("record", json.loads(line))
    outputs.printed("comparison", "compare", f"{out}:base", f"{out}:sft")
    outputs.printed(
        "audit", "audit", "--train", f"t={tmp_path / 'train.jsonl'}", "--held-out", f"say={tmp_path / 'say.yaml'}"
    )
    # Base and sft, three items of each suite.
    assert outputs.seen["record"] >= 12
    assert set(outputs.seen) == {"summary", "samples", "record", "comparison", "audit"}


# --- reading ---------------------------------------------------------------------------------------------------------


def an_audit(**changes: Any) -> dict[str, Any]:
    return {"schema_version": 1, "signature": "s", "train": {}, "held_out": {}, "pairs": [], **changes}


def read_audit(tmp_path: Path, value: Any) -> Any:
    (tmp_path / "audit.json").write_text(json.dumps(value))
    return AUDIT.read(tmp_path / "audit.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 2}, "schema_version is 2, this crossmatch reads audit of version 1; update crossmatch"),
        ({"schema_version": 0}, "schema_version is 0, .* write one by crossmatch audit -o"),
        ({"pairs": {}}, "is no audit: pairs: input should be a valid list; write one by crossmatch audit -o"),
        ({"held_out": {"say": {"n": "3"}}}, "is no audit: held_out.say.n: input should be a valid integer"),
    ],
)
def test_another_version_or_form_is_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        read_audit(tmp_path, an_audit(**changes))
    assert "\n" not in str(error.value)
    assert str(tmp_path / "audit.json") in str(error.value)


def test_a_version_that_was_always_there_is_missed(tmp_path: Path) -> None:
    value = an_audit()
    del value["schema_version"]
    with pytest.raises(DataError, match="schema_version: field required"):
        read_audit(tmp_path, value)


def test_fields_of_a_later_release_are_passed_over(tmp_path: Path) -> None:
    assert read_audit(tmp_path, an_audit(later=1))["later"] == 1


def test_files_of_releases_without_versions_are_read_with_a_note(tmp_path: Path) -> None:
    old = {"first": "pt", "second": "sft", "weights": [0.3, 0.7], "cosine": 0.1, "modules": []}
    (tmp_path / "overlap.json").write_text(json.dumps(old))
    said: list[str] = []
    assert OVERLAP.read(tmp_path / "overlap.json", said.append) == old
    assert "overlap.json has no schema_version" in said[0]
    OVERLAP.replace(tmp_path / "overlap.json", {"schema_version": 1, **old})  # type: ignore[typeddict-item]
    assert OVERLAP.read(tmp_path / "overlap.json", said.append)["schema_version"] == 1
    assert len(said) == 1


def test_what_is_written_is_checked_in_tests_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value: Any = {"schema_version": 1, "nothing": "of it"}
    with pytest.raises(ValueError, match=r"overlap: first: Field required"):
        OVERLAP.write(tmp_path / "x.json", value)
    monkeypatch.delenv("CROSSMATCH_CHECK_RESULTS")
    OVERLAP.write(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text()) == value


def test_a_damaged_result_stops_a_command_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"schema_version": SUMMARY.version, "reference": "base", "variants": [], "conditions": {}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert run(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "summary.json is no summary: variants: input should be a valid dictionary; run crossmatch evaluate" in error
    with pytest.raises(DataError, match="line 1 is no record: variant: field required; evaluate again"):
        RECORD.known({"suite": "s"}, "a.jsonl, line 1")
