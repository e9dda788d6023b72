"""The Python entries: one for each command, with the names of its options and an example that runs."""

import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import crossmatch
from crossmatch.cli import app
from crossmatch.errors import InputError
from workplace import workplace  # noqa: F401

COMMANDS: Any = get_command(app).commands  # type: ignore[attr-defined]
ENTRIES = ("verify", "identify", "inspect", "evaluate", "compare", "audit", "analyse", "train", "run", "doctor", "init")
# What an option of the command is called where Python has a better word, or where the command alone has it.
RENAMED = {"no_alignment": "alignment"}
OF_THE_TERMINAL = {
    "as_json",
    "detail",
    "sarif",
    "junit",
    "annotate",
    "svg",
    "fail_above",
    "dry_run",
    "tables",
    "figures",
}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_example_runs(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(workplace)
    entry = getattr(crossmatch, name)
    # Others build on these.
    if name == "compare" and not Path("answers").exists():
        crossmatch.evaluate("models/base", "choice.yaml", "answers", adapter={"sft": "runs/sft"}, weight={"sft": 0.7})
    (found,) = doctest.DocTestFinder(recurse=False).find(entry, name, globs={})
    assert found.examples
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found, out=(seen := []).append)
    assert not result.failed, "".join(seen)


@pytest.mark.parametrize("name", ENTRIES)
def test_names_are_those_of_the_options(name: str) -> None:
    taken = set(inspect.signature(getattr(crossmatch, name)).parameters)
    for parameter in COMMANDS[name].params:
        wanted = RENAMED.get(parameter.name, parameter.name)
        known = {
            "calibration",
            "dtype",
            "public_key",
            "partial",
            "summary",
            "margin",
            "output",
            "report_to",
            "attest",
            "bom",
        }
        if wanted not in OF_THE_TERMINAL | known:
            assert wanted in taken, f"{name}: {wanted}"


def test_a_claim_by_paths_by_parts_and_by_manifest(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(workplace)
    adapter, weight = {"pt": "runs/pt", "sft": "runs/sft"}, {"pt": 0.3, "sft": 0.7}
    by_paths = crossmatch.verify("models/merged", "models/base", adapter=adapter, weight=weight)
    base = crossmatch.Checkpoint("models/base")
    parts = {name: (crossmatch.Adapter(path), weight[name]) for name, path in adapter.items()}
    by_parts = crossmatch.verify("models/merged", base, parts)
    by_manifest = crossmatch.verify("models/merged", quick=True)
    assert {v.verdict for v in (by_paths, by_parts, by_manifest)} == {"verified"}
    wrong = crossmatch.verify("models/merged", "models/base", adapter=adapter, weight={"pt": 0.7, "sft": 0.3})
    assert wrong.faults == ("weights-swapped",)
    with pytest.raises(InputError, match="half a claim"):
        crossmatch.verify("models/merged", adapter=adapter, weight=weight)
    with pytest.raises(InputError, match="pt has no weight"):
        crossmatch.verify("models/merged", "models/base", adapter=adapter, weight={"sft": 0.7})


def test_identify_by_either_name(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(workplace)
    found = crossmatch.identify("models/merged", "models/base", candidates={"pt": "runs/pt", "sft": "runs/sft"})
    assert found.verdict == "identified"


def test_the_names_cost_nothing_until_used() -> None:
    import subprocess
    import sys

    code = "import sys, crossmatch; print(sorted({'torch', 'transformers', 'pydantic'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
