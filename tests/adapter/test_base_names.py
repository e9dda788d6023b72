"""Does an adapter's config name the base that it is given, as hubs, caches and directories call it?"""

import json
import shutil
from pathlib import Path

import pytest

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import Checkpoint
from crossmatch.cli import run
from helpers import copy


def _named(models: Path, out: Path, name: str | None) -> Adapter:
    config = copy(models / "pt", out) / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": name}))
    return Adapter(out)


@pytest.mark.parametrize(
    ("named", "lies_in"),
    [
        ("org/Model-1B", "Model-1B"),
        ("org/model-1b", "Model-1B"),
        ("org/Model-1B@main", "Model-1B"),
        ("/data/models/Model-1B/", "Model-1B"),
        ("org/Model-1B", "models--org--Model-1B/snapshots/0123abcd"),
        ("/root/.cache/huggingface/hub/models--org--Model-1B/snapshots/0123abcd", "Model-1B"),
        (None, "elsewhere"),
    ],
)
def test_a_name_that_means_this_base_is_no_other(models: Path, tmp_path: Path, named: str | None, lies_in: str) -> None:
    shutil.copytree(models / "base", tmp_path / lies_in)
    adapter = _named(models, tmp_path / "adapter", named)
    assert adapter.other_name(Checkpoint(tmp_path / lies_in)) is None


def test_the_name_in_the_bases_config_counts(models: Path, tmp_path: Path) -> None:
    base = copy(models / "base", tmp_path / "renamed")
    config = base / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": "org/Model-1B"}))
    assert _named(models, tmp_path / "adapter", "org/Model-1B").other_name(Checkpoint(base)) is None


def test_a_record_of_the_same_weights_outdoes_the_name(models: Path, tmp_path: Path) -> None:
    base = Checkpoint(models / "base")
    _named(models, tmp_path / "adapter", "org/Other")
    record = tmp_path / "adapter/crossmatch.json"
    record.write_text(json.dumps({"base": {"digest": base.digest}}))
    assert Adapter(tmp_path / "adapter").other_name(base) is None
    record.unlink()
    assert Adapter(tmp_path / "adapter").other_name(base) == "org/Other"


def test_a_merge_says_that_another_base_is_named(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _named(models, tmp_path / "adapter", "org/Other-1B")
    given = [
        "merge",
        str(models / "base"),
        "-a",
        f"pt={tmp_path / 'adapter'}",
        "-w",
        "pt=1",
        "-o",
        str(tmp_path / "out"),
    ]
    assert run(given) == 0
    told = capsys.readouterr().err
    assert f"note: adapter pt names org/Other-1B as its base, not {models / 'base'}: is it the same model?" in told
