"""`run --dry-run` on data sets of the hub: looked at where the library has read them here, else said not to be."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from crossmatch.data.rows import is_cached
from crossmatch.errors import DataError


def put_in_cache(root: Path, owner: str, name: str, rows: list[dict[str, str]]) -> None:
    """What the hub's library leaves of `owner/name` once it has read it."""
    home = root / f"{owner}___{name}" / "default" / "0.0.0" / "0123456789abcdef"
    made = Dataset.from_list(rows)
    home.mkdir(parents=True)
    made.save_to_disk(str(root / "written"))
    (arrow,) = (root / "written").glob("*.arrow")
    arrow.rename(home / f"{name}-train.arrow")
    facts = {
        "builder_name": "json",
        "dataset_name": name,
        "config_name": "default",
        "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
        "features": {key: {"dtype": "string", "_type": "Value"} for key in rows[0]},
        "splits": {"train": {"name": "train", "num_bytes": 1, "num_examples": len(rows), "dataset_name": name}},
    }
    (home / "dataset_info.json").write_text(json.dumps(facts))


def test_a_hub_data_set_is_looked_for_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    assert not is_cached("org/rows")
    put_in_cache(tmp_path, "org", "rows", [{"prompt": "what is blood", "completion": "old"}])
    assert is_cached("org/rows")
    assert is_cached("org/rows@default:train")
    assert not is_cached("org/others")
    with pytest.raises(DataError, match="does not exist"):
        is_cached("nowhere.jsonl")
