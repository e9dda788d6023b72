"""`evaluate --clean`, scores that are no numbers, and templates of which nobody knows whether training had them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossmatch.cli import run
from crossmatch.data.columns import Item
from crossmatch.errors import DataError, InputError
from crossmatch.evaluation import load_suite
from crossmatch.evaluation.comparison.clean_items import read_clean, touched
from crossmatch.evaluation.runner.records import _chosen
from helpers import copy, make_adapter, make_chat_model

SEEN = (0, 3)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("room")
    make_chat_model(root / "base")
    make_adapter(root / "base", root / "pt", seed=1, size=0.5)
    broken = copy(root / "base", root / "broken") / "model.safetensors"
    weights = load_file(broken)
    weights["lm_head.weight"] = torch.full_like(weights["lm_head.weight"], torch.nan)
    save_file(weights, broken, {"format": "pt"})
    words = "anaemia increase decrease level pressure high low answer question term".split()
    texts = [" ".join([words[i], *words[::-1], *words[i:], words[i]]) for i in range(6)]
    rows = [
        {"id": f"i{i}", "question": text, "options": ["heart", "blood"], "answer": i % 2}
        for i, text in enumerate(texts)
    ]
    (root / "pick.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "pick.yaml").write_text("name: pick\nversion: 1\nkind: choice\ndata: pick.jsonl\n")
    (root / "pt.jsonl").write_text("".join(json.dumps({"text": texts[i]}) + "\n" for i in SEEN))
    held = ["--train", f"pt={root / 'pt.jsonl'}", "--held-out", f"pick={root / 'pick.yaml'}"]
    assert run(["audit", *held, "-o", str(root / "audit.json"), "--processes", "1"]) == 0
    return root


def asked(room: Path, out: Path, *more: str) -> int:
    return run(["evaluate", str(room / "base"), "--suite", str(room / "pick.yaml"), "-o", str(out), *more])


def test_figures_of_the_clean_part(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = ["-a", f"pt={room / 'pt'}", "-w", "pt=0.5"]
    assert asked(room, tmp_path, *adapter, "--clean", str(room / "audit.json"), "--detail") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    facts = summary["conditions"]["own.greedy"]["suites"]["pick"]
    assert (facts["n"], facts["clean"]["n"]) == (6, 4)
    rows = [json.loads(line) for line in (tmp_path / "pt" / "pick.own.greedy.jsonl").read_text().splitlines()]
    kept = [row["chosen"] == row["right"] for row in rows if row["id"] not in {f"i{i}" for i in SEEN}]
    assert facts["clean"]["metrics"]["acc"]["pt"]["value"] == sum(kept) / 4
    printed = capsys.readouterr()
    assert "pick: 4 of 6 items are clean" in printed.err
    # Of so few nothing is printed but their number.
    assert "4 of these are clean" in printed.out
    # Nothing beside the adapter tells how it was trained.
    assert summary["trained_with"] == {"own.greedy": {"pt": None}}
    assert "unknown: the template that pt was trained with" in printed.out


def test_an_audit_of_something_else_is_refused(room: Path, tmp_path: Path) -> None:
    suites, audit = [load_suite(room / "pick.yaml")], json.loads((room / "audit.json").read_text())

    def read(content: Any) -> dict[str, set[str]]:
        (tmp_path / "audit.json").write_text(json.dumps(content))
        return read_clean(tmp_path / "audit.json", suites)

    assert read(audit) == {"pick": {"i1", "i2", "i4", "i5"}}
    held = audit["held_out"]["pick"]
    with pytest.raises(InputError, match="tells of other; none of the suites"):
        read({**audit, "held_out": {"other": held}})
    with pytest.raises(DataError, match="suite pick has no item elsewhere"):
        read({**audit, "held_out": {"pick": {**held, "clean": ["elsewhere"]}}})
    for content in ({}, {"held_out": {}}, {"held_out": {"pick": {}}}):
        with pytest.raises(InputError, match="crossmatch audit -o"):
            read(content)
    with pytest.raises(InputError, match="--clean"):
        read_clean(tmp_path / "nothing.json", suites)
    # Where nothing is touched there is nothing to add.
    assert touched({"pick": {f"i{i}" for i in range(6)}}, suites) == {}
    assert touched({"pick": {"i0"}, "other": set()}, suites) == {"pick": {"i0"}}


def test_scores_that_are_no_numbers_are_refused(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(room, tmp_path, "--checkpoint", f"broken={room / 'broken'}") == 2
    told = capsys.readouterr().err
    assert "variant broken, suite pick: item i" in told
    assert "a log-likelihood is not a number" in told


def test_an_option_without_probability_is_merely_worse() -> None:
    item, options = Item("7", "q", options=("a", "bc"), answer=1), (": a", ": bc")
    found = _chosen(item, [-torch.inf, -3.0], options, ": ")
    assert (found["chosen"], found["chosen_norm"]) == (1, 1)
    # By the option's own length: one and two characters.
    assert _chosen(item, [-2.0, -3.0], options, ": ")["chosen_norm"] == 1
    for bad in (torch.nan, torch.inf):
        with pytest.raises(DataError, match="item 7: a log-likelihood is not a number"):
            _chosen(item, [-1.0, bad], options, ": ")
