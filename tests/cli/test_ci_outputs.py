"""The verdict for machines: SARIF, JUnit and annotations, whatever the names in a stranger's file."""

import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_cli import call, pair

from crossmatch.cli.verdict_output import show
from crossmatch.report.ci import annotations, junit, sarif
from crossmatch.report.text import plain
from crossmatch.verification import RecoveredWeight, Verdict
from crossmatch.verification.faults import FAULTS, NOTES
from crossmatch.verification.verdict import Finding

HOSTILE = "a%b,c:d\r\n::error title=x::y\x1b[31m\x00\u202e\ud800 {0} [t](http://e) ]]> <b>&\"' ##[add-mask]q"
UP = "model.layers.0.mlp.up_proj.weight"


def made(word: str = "verified", findings: tuple[Finding, ...] = (), **changes: Any) -> dict[str, Any]:
    """The facts of a verdict as `verify --json` gives them."""
    fields: dict[str, Any] = {
        "weights": {"pt": RecoveredWeight(0.3, 0.30001, 2e-5), "sft": RecoveredWeight(0.7, 0.7, 2e-5)},
        "modules": {"adapted": 14, "agree": 14, "disagree": 0, "undecided": 0},
        "tensors": {"total": 21, "untouched_identical": 7, "untouched_changed": [], "missing": [], "extra": []},
        "rounding": {"route": "once", "replay": {"route": "once", "mismatch": 0.0}, "violations": 0.0},
        "evidence": {
            "checked": ["tokenizer", "chat_template", "config", "weight_files"],
            "not_checked": ["eos: no end of sequence is declared", "tokenizer: compared by digest only"],
        },
        "thresholds": {"weight": 0.01, "sigmas": 4.0},
        "seconds": 1.5,
    }
    return Verdict(word, findings, **{**fields, **changes}).to_dict()


def failed(where: tuple[str, ...] = (UP, HOSTILE)) -> dict[str, Any]:
    findings = (
        Finding("weights-uneven", where, f"the weights of {where[-1]} are others"),
        Finding("adapter-left-behind", ("adapter_config.json",), "loaders attach it"),
        Finding("generation-config-changed", ("top_p",), "other than in base"),
    )
    return made("failed", findings, notes=("rounded-twice",))


def open_question() -> dict[str, Any]:
    unknown = {"pt": RecoveredWeight(0.3, None, None), "sft": RecoveredWeight(0.7, 0.69, 0.4)}
    modules = {"adapted": 14, "agree": 11, "disagree": 0, "undecided": 3}
    return made("inconclusive", notes=("not-identifiable",), weights=unknown, modules=modules)


def check_sarif(log: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the schema of SARIF 2.1.0 requires of the objects that are used, and what code scanning adds to it."""
    json.dumps(log, allow_nan=False, ensure_ascii=False).encode()
    assert set(log) == {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert set(run) <= {"tool", "invocations", "results", "properties"}
    driver = run["tool"]["driver"]
    assert driver["name"] == "crossmatch"
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])
    for rule in driver["rules"]:
        assert set(rule) == {"id", "shortDescription", "fullDescription", "help", "defaultConfiguration"}
        assert all(rule[key]["text"] for key in ("shortDescription", "fullDescription", "help"))
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
    for invocation in run["invocations"]:
        assert isinstance(invocation["executionSuccessful"], bool)
        for notification in invocation["toolExecutionNotifications"]:
            assert notification["message"]["text"]
    for result in run["results"]:
        assert set(result) == {"ruleId", "ruleIndex", "level", "message", "locations"}
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        check_text(result["message"]["text"])
        assert result["locations"]
        for location in result["locations"]:
            place = location["physicalLocation"]
            assert re.fullmatch(r"[A-Za-z0-9_.!~*'()%/:-]+", place["artifactLocation"]["uri"])
            assert place["region"]["startLine"] >= 1
            for logical in location.get("logicalLocations", [{"fullyQualifiedName": "x"}]):
                assert logical["fullyQualifiedName"].isprintable()
    return run


def check_text(text: str) -> None:
    """Printable, with doubled braces and without a link."""
    assert text
    assert text.isprintable()
    assert not re.search(r"(?<!\{)\{(?:\{\{)*(?!\{)", text)
    assert "](" not in text


def test_sarif_of_a_failed_merge() -> None:
    run = check_sarif(sarif(failed(), "out/merged", {UP: "model-00001.safetensors"}))
    results = {result["ruleId"]: result for result in run["results"]}
    assert {name: r["level"] for name, r in results.items()} == {
        "weights-uneven": "error",
        "adapter-left-behind": "error",
        "generation-config-changed": "error",
        "rounded-twice": "note",
    }
    rule = run["tool"]["driver"]["rules"][0]
    consequence, remedy = FAULTS["weights-uneven"]
    assert rule["fullDescription"]["text"].lower() == f"{consequence}.".lower()
    assert rule["help"]["text"].lower() == f"{remedy}.".lower()

    def uris(name: str) -> list[str]:
        return [p["physicalLocation"]["artifactLocation"]["uri"] for p in results[name]["locations"]]

    assert uris("weights-uneven") == ["out/merged/model-00001.safetensors", "out/merged/"]
    names = [p["logicalLocations"][0]["fullyQualifiedName"] for p in results["weights-uneven"]["locations"]]
    assert names == [UP, plain(HOSTILE)]
    assert uris("adapter-left-behind") == ["out/merged/adapter_config.json"]
    assert uris("generation-config-changed") == ["out/merged/generation_config.json"]
    unseen = run["invocations"][0]["toolExecutionNotifications"]
    assert unseen[0]["message"]["text"] == "not checked: eos: no end of sequence is declared"


def test_sarif_of_other_verdicts() -> None:
    assert check_sarif(sarif(made(), "/data/my merge"))["results"] == []
    run = check_sarif(sarif(open_question(), "/data/my merge"))
    # Once: a note beside it would say that it is no fault.
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [("inconclusive", "warning")]
    assert "3 of 14 adapted modules hold no evidence" in run["results"][0]["message"]["text"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "file:///data/my%20merge/"
    # The fault and the note of one name keep apart; every fault and note can be told.
    findings = tuple(Finding(fault, (UP,), "seen") for fault in FAULTS)
    check_sarif(sarif(made("failed", findings, notes=tuple(NOTES)), HOSTILE))


def cases(verdict: Mapping[str, Any], merged: str = "m") -> dict[str, tuple[str, str]]:
    """Test case -> its state and what is said of it, from the XML; the counts must be right."""
    suite = ElementTree.fromstring(junit(verdict, merged).encode())[0]
    found, states = {}, []
    for case in suite.iter("testcase"):
        assert case.attrib["classname"].startswith("crossmatch.")
        child = next((c for c in case if c.tag != "system-out"), None)
        states.append("passed" if child is None else child.tag)
        text = "" if child is None else f"{child.attrib['message']} {child.text or ''}"
        found[case.attrib["name"]] = (states[-1], text)
    assert len(found) == len(states) == int(suite.attrib["tests"])
    for key, state in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.attrib[key]) == states.count(state)
    return found


def test_junit_passes_what_was_checked_and_nothing_else() -> None:
    found = cases(made())
    assert {name: state for name, (state, _) in found.items()} == {
        "weight of pt": "passed",
        "weight of sft": "passed",
        "adapted modules": "passed",
        "other tensors": "passed",
        "rounding": "passed",
        "tokenizer": "skipped",
        "chat_template": "passed",
        "config": "passed",
        "weight_files": "passed",
        "eos": "skipped",
    }
    assert "compared by digest only" in found["tokenizer"][1]
    sampled = made(notes=("sampled",), evidence={"sampled": {"rows": 32}})
    assert {name for name, (state, _) in cases(sampled).items() if state == "passed"} == {
        f"{name}, sampled rows"
        for name in ("weight of pt", "weight of sft", "adapted modules", "other tensors", "rounding")
    }
    # Refused before a weight was read: there is nothing to pass.
    states = cases(Verdict.refused("export-incomplete", "a shard is cut off").to_dict())
    assert {name: state for name, (state, _) in states.items()} == {
        "adapted modules": "skipped",
        "other tensors": "skipped",
        "rounding": "skipped",
        "files can be read": "failure",
    }


def test_junit_of_failures() -> None:
    found = cases(failed(), HOSTILE)
    assert {name for name, (state, _) in found.items() if state == "failure"} == {
        "adapted modules",
        "weight_files",
        "generation_config",
    }
    consequence, remedy = FAULTS["weights-uneven"]
    text = found["adapted modules"][1].lower()
    assert all(part in text for part in ("weights-uneven", consequence, remedy, "seen: the weights of"))
    swapped = {"pt": RecoveredWeight(0.3, 0.7, 2e-5), "sft": RecoveredWeight(0.7, 0.3, 2e-5)}
    found = cases(made("failed", (Finding("weights-swapped"),), weights=swapped))
    assert [found[f"weight of {name}"][0] for name in ("pt", "sft")] == ["failure", "failure"]
    # Another base explains the other tensors; these do not pass for that.
    tensors = {"total": 21, "untouched_identical": 6, "untouched_changed": [HOSTILE], "missing": [], "extra": []}
    assert cases(made("failed", (Finding("base-differs"),), tensors=tensors))["other tensors"][0] == "failure"
    for fault in FAULTS:
        assert any(
            fault in text for state, text in cases(made("failed", (Finding(fault),))).values() if state == "failure"
        )


def test_junit_of_an_open_question_is_an_error() -> None:
    found = cases(open_question())
    assert found["weight of pt"] == ("error", "not identifiable pt not identifiable (claimed 0.3)")
    # 0.69 is near the claim, and says nothing.
    assert found["weight of sft"][0] == "error"
    assert found["adapted modules"][0] == "error"
    assert NOTES["not-identifiable"] in found["adapted modules"][1]
    nothing = {"pt": RecoveredWeight(0.3, 0.3, 2e-5)}
    assert cases(made("inconclusive", weights=nothing))["adapted modules"][0] == "error"


def decoded(line: str) -> tuple[str, str, str]:
    """Level, title and message, as the runner reads them."""
    level, properties, message = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line).groups()  # type: ignore[union-attr]
    (title,) = properties.split(",")
    for code, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        title, message = title.replace(code, character), message.replace(code, character)
    return level, title.removeprefix("title="), message


def test_annotations_cannot_be_forged() -> None:
    lines = annotations(failed(), HOSTILE)
    assert len(lines) == 3
    for line in lines:
        assert line.isprintable()
        assert "##[" not in line
        assert not re.search(r"%(?!25|0A|0D|3A|2C)", line)
    level, title, message = decoded(lines[0])
    assert (level, title) == ("error", "crossmatch: weights-uneven")
    first, second, third = message.split("\n")
    assert first == f"{plain(HOSTILE)}: Modules carry different weights."
    assert second.startswith("Seen: the weights of a%b,c:d\\r\\n::error title=x::y\\x1b[31m\\x00\\u202e\\ud800")
    assert third == "Merge again, or claim the weights by module."
    assert "title=crossmatch%3A weights-uneven::" in lines[0]
    assert "a%25b" in lines[0]


def test_annotations_of_other_verdicts() -> None:
    (line,) = annotations(made(notes=("rounded-twice",)), "m")
    level, title, message = decoded(line)
    assert (level, title) == ("notice", "crossmatch: verified")
    assert "pt 0.300010 ± 0.000020 (claimed 0.3)" in message
    assert "Not checked: eos: no end of sequence is declared." in message
    assert NOTES["rounded-twice"] in message
    (line,) = annotations(open_question(), "m")
    assert decoded(line)[0] == "warning"
    assert NOTES["not-identifiable"] in line


def test_the_text_for_people_prints_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show(HOSTILE, Verdict("failed", (Finding("tensors-extra", (HOSTILE,), HOSTILE),), modules={"adapted": 0}))
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("::") or "##[" in line for line in lines)


def test_verify_writes_them(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = [models / "base", "--base", models / "base", *pair(models)]
    log, tests = tmp_path / "v.sarif", tmp_path / "v.xml"
    code, out, err = call(capsys, "verify", *claim, "--sarif", log, "--junit", tests, "--annotate")
    assert code == 1
    assert out.startswith("FAILED")
    first = next(line for line in out.splitlines() if line.startswith("::"))
    assert decoded(first)[:2] == ("error", "crossmatch: adapter-not-applied")
    run = check_sarif(json.loads(log.read_text()))
    assert run["results"][0]["ruleId"] == "adapter-not-applied"
    assert int(ElementTree.parse(tests).getroot().attrib["failures"]) >= 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ["v.sarif", "v.xml"]
    code, out, err = call(capsys, "verify", *claim, "--json", "--annotate")
    assert json.loads(out)["faults"][0] == "adapter-not-applied"
    assert "::error title=crossmatch%3A adapter-not-applied::" in err


def test_files_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept.xml").write_text("old")
    twice = tmp_path / "kept.xml"
    for arguments, text in (
        (["--sarif", tmp_path / "none" / "v.sarif"], "cannot be written"),
        (["--junit", tmp_path], "is no regular file"),
        (["--junit", "/dev/null"], "is no regular file"),
        (["--junit", twice, "--sarif", twice], "given twice"),
    ):
        # The checkpoint is not there, which would be said first if the work had begun.
        code, out, err = call(capsys, "verify", tmp_path / "absent", *arguments)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert text in err
    assert twice.read_text() == "old"
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
