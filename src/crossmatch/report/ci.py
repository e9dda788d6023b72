"""A verdict for the machines that judge a change: SARIF, JUnit, GitHub's workflow commands.

In: the dict of `verify --json` and the name of the checkpoint. Nothing is passed that was not looked at.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from crossmatch.report.text import plain
from crossmatch.report.verdict_text import (
    REASON_NOTE,
    finding_lines,
    not_checked,
    note_line,
    reason,
    rounding_line,
    sentence,
    weight_line,
)

Json = dict[str, Any]
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_INCONCLUSIVE = "inconclusive"
# Faults that name files or fields, not tensors: the file, where its name does not stand among the places.
_FILES = {
    "config-changed": "config.json",
    "tie-flag-stale": "",
    "generation-config-changed": "generation_config.json",
    "tokenizer-changed": "",
    "chat-template-changed": "",
    "think-template-mismatch": "",
    "eos-mismatch": "",
    "vocab-mismatch": "",
    "adapter-left-behind": "",
    "two-weight-sets": "",
    "export-incomplete": "",
}
_FILE = re.compile(r"[\w-][\w.-]*\.(json|jinja|safetensors|bin|pth?|h5|msgpack|gguf|onnx|model|txt)")
# The check that each fault fails; all others fail that of the adapted modules.
_CHECKS = {
    "export-incomplete": "files can be read",
    "adapter-incomplete": "files can be read",
    "adapter-keys-unused": "files can be read",
    "adapter-truncated": "adapters are whole",
    "adapter-untrained": "adapters are whole",
    "adapter-nonfinite": "adapters are whole",
    "tensors-missing": "other tensors",
    "tensors-extra": "other tensors",
    "untouched-changed": "other tensors",
    "two-weight-sets": "weight_files",
    "adapter-left-behind": "weight_files",
    "config-changed": "config",
    "tie-flag-stale": "config",
    "tokenizer-changed": "tokenizer",
    "chat-template-changed": "chat_template",
    "think-template-mismatch": "chat_template",
    "eos-mismatch": "eos",
    "vocab-mismatch": "vocabulary",
    "generation-config-changed": "generation_config",
    "trained-tokens-lost": "tokenizer",
    "code-changed": "config",
    "processor-changed": "config",
}
_MODULES, _OTHERS, _ROUNDING = "adapted modules", "other tensors", "rounding"


def sarif(verdict: Mapping[str, Any], merged: str, files: Mapping[str, str] | None = None) -> Json:
    """The verdict as a SARIF 2.1.0 log: a result per finding and note, a warning for an inconclusive one.

    files: tensor -> name of its file inside the checkpoint; a tensor without one is placed in the directory.
    """
    rules, results = [], []
    for fault in verdict["findings"]:
        rules.append(_rule(fault["fault"], fault["consequence"], fault["remedy"], "error"))
        places = _locations(fault["fault"], fault["where"], merged, files or {})
        results.append(_result(len(results), rules[-1], " ".join(finding_lines(fault)), places))
    if verdict["verdict"] == _INCONCLUSIVE:
        help_text = "an inconclusive checkpoint is not a verified one; give what it lacks, or decide by other means"
        rules.append(_rule(_INCONCLUSIVE, "the claim could be neither confirmed nor refuted", help_text, "warning"))
        results.append(_result(len(results), rules[-1], sentence(reason(verdict)), [_location(merged)]))
    taken = {rule["id"] for rule in rules}
    # What makes it inconclusive is said above.
    said = {REASON_NOTE} if verdict["verdict"] == _INCONCLUSIVE else set()
    for note in [note for note in verdict["notes"] if note not in said]:
        # A fault and a note may have one name; rules may not.
        name = f"note-{note}" if note in taken else note
        rules.append(_rule(name, note_line(verdict, note), "no fault; what to think of, if anything, it says", "note"))
        results.append(_result(len(results), rules[-1], sentence(note_line(verdict, note)), [_location(merged)]))
    driver = {"name": "crossmatch", "version": version("crossmatch"), "rules": rules}
    unseen = [{"level": "note", "message": _message(f"not checked: {text}")} for text in not_checked(verdict)]
    weights = {plain(name): dict(weight) for name, weight in verdict["weights"].items()}
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": unseen}],
        "results": results,
        "properties": {"verdict": verdict["verdict"], "weights": weights},
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(name: str, consequence: str, remedy: str, level: str) -> Json:
    return {
        "id": name,
        "shortDescription": _message(sentence(name.replace("-", " "))),
        "fullDescription": _message(sentence(consequence)),
        "help": _message(sentence(remedy)),
        "defaultConfiguration": {"level": level},
    }


def _result(index: int, rule: Json, text: str, locations: list[Json]) -> Json:
    level = rule["defaultConfiguration"]["level"]
    message = _message(text)
    return {"ruleId": rule["id"], "ruleIndex": index, "level": level, "message": message, "locations": locations}


def _message(text: str) -> Json:
    # Braces are placeholders there, and brackets before parentheses a link.
    return {"text": text.replace("{", "{{").replace("}", "}}").replace("](", "] (")}


def _locations(fault: str, where: list[str], merged: str, files: Mapping[str, str]) -> list[Json]:
    by_file: dict[str, list[Json]] = {}
    for place in where:
        if fault in _FILES and place not in files:
            own = _FILE.fullmatch(place) is not None
            logical = [] if own else [{"fullyQualifiedName": plain(place), "kind": "property"}]
            by_file.setdefault(place if own else _FILES[fault], []).extend(logical)
        else:
            by_file.setdefault(files.get(place, ""), []).append({"fullyQualifiedName": plain(place), "kind": "tensor"})
    return [_location(merged, file, names) for file, names in by_file.items()] or [_location(merged)]


def _location(merged: str, file: str = "", names: list[Json] | None = None) -> Json:
    path = PurePath(merged)
    text = quote(plain(path.as_posix()))
    uri = f"{'file://' if path.is_absolute() else ''}{text.rstrip('/')}/{quote(plain(file))}"
    # A line of its own means nothing here, but code scanning shows no result without one.
    place: Json = {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}}
    return {**place, "logicalLocations": names} if names else place


def annotations(verdict: Mapping[str, Any], merged: str) -> list[str]:
    """The verdict as GitHub workflow commands: an error a finding, a warning if inconclusive, a notice if verified."""
    name = plain(merged)
    unseen = [f"Not checked: {text}." for text in not_checked(verdict)]
    if verdict["verdict"] == "verified":
        lines = [f"{name} is what it is said to be.", *(weight_line(n, w) for n, w in verdict["weights"].items())]
        lines += [f"Note {note}: {note_line(verdict, note)}." for note in verdict["notes"]]
        return [_command("notice", "crossmatch: verified", [*lines, *unseen])]
    if verdict["verdict"] == _INCONCLUSIVE:
        lines = [f"{name} could not be judged: {reason(verdict)}.", *unseen]
        return [_command("warning", "crossmatch: inconclusive", lines)]
    return [
        _command("error", f"crossmatch: {fault['fault']}", [f"{name}: {first}", *rest])
        for fault in verdict["findings"]
        for first, *rest in (finding_lines(fault),)
    ]


def _command(level: str, title: str, lines: list[str]) -> str:
    message, heading = (
        text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A") for text in ("\n".join(lines), title)
    )
    return f"::{level} title={heading.replace(':', '%3A').replace(',', '%2C')}::{message}"


@dataclass
class _Case:
    """One check: state `passed`, `failure`, `error` or `skipped`, in a few words why, and the whole story."""

    group: str
    name: str
    state: str = "passed"
    kind: str = ""
    message: str = ""
    lines: list[str] = field(default_factory=list)


def junit(verdict: Mapping[str, Any], merged: str) -> str:
    """The verdict as JUnit XML, one test case per check; what was not looked at is skipped, never passed."""
    cases = list(_cases(verdict))
    states = [case.state for case in cases]
    numbers = {"tests": str(len(cases))}
    for key, state in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        numbers[key] = str(states.count(state))
    seconds = f"{verdict.get('seconds', 0.0):.3f}"
    root = ElementTree.Element("testsuites", {"name": "crossmatch verify", **numbers, "time": seconds})
    suite = ElementTree.SubElement(root, "testsuite", {"name": plain(merged), **numbers, "time": seconds})
    for case in cases:
        told = {"classname": f"crossmatch.{case.group}", "name": plain(case.name), "time": "0"}
        element = ElementTree.SubElement(suite, "testcase", told)
        text = "\n".join(case.lines)
        if case.state == "passed":
            if text:
                ElementTree.SubElement(element, "system-out").text = text
            continue
        why = {"message": case.message} | ({"type": case.kind} if case.state != "skipped" else {})
        ElementTree.SubElement(element, case.state, why).text = text or None
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _cases(verdict: Mapping[str, Any]) -> Iterator[_Case]:
    """All checks: the weights first, the small files last."""
    evidence = verdict.get("evidence", {})
    # What a sample of rows has passed is not passed for all rows.
    sampled = ", sampled rows" if evidence.get("sampled") is not None else ""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for fault in verdict["findings"]:
        found.setdefault(_CHECKS.get(fault["fault"], _MODULES), []).append(fault)
    for name, weight in verdict["weights"].items():
        yield _weight(verdict, name, weight, sampled)
    for name, check in ((_MODULES, _modules), (_OTHERS, _others), (_ROUNDING, _rounding)):
        yield _failed("weights", f"{name}{sampled}", found.pop(name)) if name in found else check(verdict, sampled)
    unseen: dict[str, list[str]] = {}
    for text in not_checked(verdict):
        name, _, why = text.partition(":")
        unseen.setdefault(name, []).append(why.strip() or "not looked at")
    for name in dict.fromkeys((*found, *evidence.get("checked", ()), *unseen)):
        if name in found:
            yield _failed("directory", name, found[name])
        elif name in unseen:
            yield _Case("directory", name, "skipped", message="; ".join(unseen[name]))
        else:
            yield _Case("directory", name)


def _failed(group: str, name: str, faults: list[Mapping[str, Any]]) -> _Case:
    message = "; ".join(f"{fault['fault']}: {fault['consequence']}" for fault in faults)
    lines = [line for fault in faults for line in (f"{fault['fault']}:", *finding_lines(fault))]
    return _Case(group, name, "failure", faults[0]["fault"], message, lines)


def _weight(verdict: Mapping[str, Any], name: str, weight: Mapping[str, Any], sampled: str) -> _Case:
    line, case = weight_line(name, weight), f"weight of {name}{sampled}"
    claimed, found, error = weight["claimed"], weight["recovered"], weight["stderr"]
    if claimed is None:
        return _Case("weights", case, "skipped", message="no weight is claimed", lines=[line])
    limits = verdict["thresholds"]
    room = min(limits["weight"], abs(claimed) / 4) if claimed else limits["weight"]
    blurred = found is None or limits["sigmas"] * error > (abs(claimed) / 2 if claimed else limits["weight"])
    if blurred:
        why = "not identifiable" if found is None else "its standard error is too large to tell it from none"
        state = "error" if verdict["verdict"] == _INCONCLUSIVE else "skipped"
        return _Case("weights", case, state, _INCONCLUSIVE, why, [line])
    if verdict["verdict"] == "verified" or abs(found - claimed) <= max(room, limits["sigmas"] * error):
        return _Case("weights", case, lines=[line])
    state, kind = ("failure", "weight") if verdict["verdict"] == "failed" else ("error", _INCONCLUSIVE)
    return _Case("weights", case, state, kind, line, [])


def _modules(verdict: Mapping[str, Any], sampled: str) -> _Case:
    modules = verdict["modules"]
    line = f"{modules['agree']} of {modules['adapted']} adapted modules agree with the claim"
    name = f"{_MODULES}{sampled}"
    if verdict["verdict"] == _INCONCLUSIVE:
        return _Case("weights", name, "error", _INCONCLUSIVE, reason(verdict), [line])
    if not modules["adapted"]:
        return _Case("weights", name, "skipped", message="no adapted module was looked at")
    if modules["disagree"]:
        return _Case("weights", name, "failure", "disagree", line)
    if modules["undecided"] and verdict["verdict"] != "verified":
        return _Case("weights", name, "skipped", message=f"{modules['undecided']} modules hold no evidence either way")
    return _Case("weights", name, lines=[line])


def _others(verdict: Mapping[str, Any], sampled: str) -> _Case:
    tensors, name = verdict["tensors"], f"{_OTHERS}{sampled}"
    others = tensors["total"] - verdict["modules"]["adapted"]
    line = f"{tensors['untouched_identical']} of {others} other tensors are the base's"
    wrong = [*tensors["untouched_changed"], *tensors["missing"], *tensors["extra"]]
    if wrong:
        # A fault that explains them, such as another base, may stand elsewhere.
        return _Case("weights", name, "failure", "tensors", line, [plain(tensor) for tensor in wrong])
    if others <= 0:
        return _Case("weights", name, "skipped", message="none was looked at")
    return _Case("weights", name, lines=[line])


def _rounding(verdict: Mapping[str, Any], sampled: str) -> _Case:
    rounding, name = verdict["rounding"], f"{_ROUNDING}{sampled}"
    line = rounding_line(rounding)
    if rounding.get("violations") is None:
        return _Case("weights", name, "skipped", message=line)
    if "quantised" in verdict["notes"]:
        return _Case("weights", name, "skipped", message=note_line(verdict, "quantised"))
    if not rounding.get("route"):
        state = "error" if verdict["verdict"] == _INCONCLUSIVE else "failure"
        return _Case("weights", name, state, "rounding", line)
    return _Case("weights", name, lines=[line])
