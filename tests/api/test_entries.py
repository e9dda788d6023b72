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
# In an order in which the examples can build on each other.
ENTRIES = (
    *("verify", "identify", "inspect", "evaluate", "compare", "report", "audit", "predict", "sweep", "analyse"),
    *("train", "calibrate", "merge", "run", "doctor", "init"),
)
VECTORS = ("extract", "add", "scale", "apply", "remove", "inspect")
# What an option is called where Python has a better word, or keeps its own for itself.
RENAMED = {"no_alignment": "alignment", "set": "setting"}
# What the command alone has: the terminal, files for machines (the result has `tables()` and `to_pandas()`), a plan.
OF_THE_COMMAND = {
    *("json", "detail", "sarif", "junit", "annotate", "attest", "bom", "summary", "svg", "fail_above", "dry_run"),
    *("report_to", "sign", "from", "point"),
}
TABLES = {"tables", "figures"}


def entry_of(name: str) -> Any:
    """`verify`, or `vectors.add`."""
    found: Any = crossmatch
    for part in name.split("."):
        found = getattr(found, part)
    return found


EVERY = (*ENTRIES, *(f"vectors.{name}" for name in VECTORS))


def test_every_command_has_an_entry() -> None:
    # `schema` prints files of this package.
    assert set(COMMANDS) == {*ENTRIES, "vectors", "schema"}
    assert set(COMMANDS["vectors"].commands) == set(VECTORS)
    reference = (Path(__file__).parents[2] / "docs/reference/python.md").read_text()
    for name in EVERY:
        entry = entry_of(name)
        assert f"::: {entry.__module__}.{entry.__name__}\n" in reference, name


@pytest.mark.parametrize("name", EVERY)
def test_the_example_runs(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(workplace)
    entry = entry_of(name)
    # Others build on these.
    if name in ("compare", "report") and not Path("answers").exists():
        crossmatch.evaluate("models/base", "choice.yaml", "answers", adapter={"sft": "runs/sft"}, weight={"sft": 0.7})
    (found,) = doctest.DocTestFinder(recurse=False).find(entry, name, globs={})
    assert found.examples
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found, out=(seen := []).append)
    assert not result.failed, "".join(seen)


@pytest.mark.parametrize("name", EVERY)
def test_names_are_those_of_the_options(name: str) -> None:
    taken = set(inspect.signature(entry_of(name)).parameters)
    command = COMMANDS
    for part in name.split("."):
        command = (command if isinstance(command, dict) else command.commands)[part]
    for parameter in command.params:
        long = [text for text in parameter.opts if text.startswith("--")]
        option = long[0][2:].replace("-", "_") if long else parameter.name
        # -a is another way to write what `analyse` takes as arguments.
        wanted = "vectors" if (name, option) == ("analyse", "adapter") else RENAMED.get(option, option)
        if wanted not in OF_THE_COMMAND | (set() if name == "report" else TABLES):
            assert wanted in taken, f"{name}: {wanted}"


def test_entries_stay_where_rooms_have_their_names() -> None:
    import crossmatch.report
    import crossmatch.vectors
    from crossmatch.report import write_report
    from crossmatch.vectors import Summing

    assert inspect.isfunction(write_report)
    assert inspect.isclass(Summing)
    assert inspect.isfunction(crossmatch.report)
    assert inspect.isfunction(crossmatch.vectors.apply)


def test_a_margin_is_a_number_of_points(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(workplace)
    kept: Any = {"adapter": {"sft": "runs/sft"}, "weight": {"sft": 0.7}}
    found = crossmatch.evaluate("models/base", "choice.yaml", "answers", margin=7.0, **kept)
    margins = {answer.get("margin") for answer in found.summary["answers"]}
    assert 7.0 in margins
    with pytest.raises(InputError, match="margin 0"):
        crossmatch.evaluate("models/base", "choice.yaml", "answers", margin=0.0, **kept)


def test_a_merge_by_paths_and_by_objects(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(workplace)
    pair, weight = {"pt": "runs/pt", "sft": "runs/sft"}, {"pt": "0.3,mlp:0.2", "sft": 0.7}
    both = crossmatch.merge("models/base", adapter=pair, weight=weight, output="runs/both", to="adapter")
    assert both["predicate"]["form"]["exact"]
    parts = {name: (crossmatch.Adapter(path), 0.5) for name, path in pair.items()}
    plain = crossmatch.merge(crossmatch.Checkpoint("models/base"), parts, "models/plain")
    assert plain["predicate"]["verdict"] is None
    with pytest.raises(InputError, match="and not both"):
        crossmatch.merge("models/base", parts, "models/x", adapter=pair, weight=weight)
    with pytest.raises(InputError, match="no output"):
        crossmatch.merge("models/base", adapter=pair, weight=weight)
    with pytest.raises(InputError, match="come from the sweep"):
        crossmatch.merge("models/base", from_="runs/sweep", output="models/x")
    with pytest.raises(InputError, match="point needs from_"):
        crossmatch.merge("models/base", adapter=pair, weight=weight, point=3, output="models/x")
    with pytest.raises(InputError, match="--sign nowhere.pem: no such file"):
        crossmatch.merge("models/base", adapter=pair, weight=weight, output="models/x", sign="nowhere.pem")
    # Without the extra, or with a file that is no key, nothing is merged first.
    with pytest.raises(InputError, match=r"model-signing|no private key"):
        crossmatch.merge("models/base", adapter=pair, weight=weight, output="models/x", sign="models/base/config.json")
    assert not Path("models/x").exists()


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
