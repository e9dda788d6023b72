"""What users of Python see of verdicts, vectors, merges, audits: a repr, a frame, a view."""

import contextlib
import io
import json
from pathlib import Path

import pytest

import crossmatch
from crossmatch.cli import run
from crossmatch.evaluation.audit import audit, open_corpus


def test_verdict(models: Path) -> None:
    base, pt = crossmatch.Checkpoint(models / "base"), crossmatch.Adapter(models / "pt")
    verdict = crossmatch.verify(models / "base", base, {"pt": (pt, 1.0)})
    assert repr(verdict).startswith("Verdict(failed; fault ")
    assert "pt 0.000 ± " in repr(verdict)
    assert "(claimed 1)" in repr(verdict)
    weights = verdict.to_pandas()
    assert list(weights.columns) == ["adapter", "claimed", "recovered", "stderr"]
    assert weights.loc[0, "claimed"] == 1.0
    assert len(verdict.to_pandas("modules")) == verdict.modules["adapted"]
    assert "<table>" in verdict._repr_html_()


def test_tuning_vector(models: Path) -> None:
    pt = crossmatch.Adapter(models / "pt")
    merged = 0.3 * pt + 0.7 * crossmatch.Adapter(models / "sft")
    assert repr(pt) == f"Adapter({str(models / 'pt')!r}, 14 tensors)"
    assert repr(merged).startswith("TuningVector(0.3 * Adapter(")
    assert repr(0 * pt) == "TuningVector(zero)"
    frame = pt.to_pandas()
    assert list(frame["rank"]) == [8] * 14
    assert float((frame["norm"] ** 2).sum()) == pytest.approx(pt.norm() ** 2)
    assert "&#x27;" in pt._repr_html_()


def test_merge_manifest(models: Path, tmp_path: Path) -> None:
    base, pt = crossmatch.Checkpoint(models / "base"), crossmatch.Adapter(models / "pt")
    manifest = crossmatch.merge(base, {"pt": (pt, 0.5)}, tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "crossmatch.json").read_text()) == manifest
    assert repr(manifest) == "MergeManifest(0.5 pt, linear, not proved)"
    assert manifest.to_pandas().loc[0, "digest"] == pt.digest


def test_audit(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(
        json.dumps({"text": "one two three four five six seven eight nine ten eleven twelve thirteen"}) + "\n"
    )
    report = audit({"t": open_corpus(file)}, {"h": open_corpus(file)})
    assert repr(report) == "AuditReport(t; h: 1 of 1 items found)"
    assert report.to_pandas().loc[0, "share"] == 1.0
    assert "overlaps" in report._repr_html_()


def said(*arguments: str) -> tuple[int, str]:
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        return run(arguments), err.getvalue()


def test_analyse_writes_tables_and_report_makes_them_again(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _ = said(
        "analyse", str(models / "base"), str(models / "pt"), "--no-alignment", "-o", str(out), "--tables", "--json"
    )
    assert code == 0
    size = (out / "tables" / "size.csv").read_bytes()
    assert (out / "tables" / "size.tex").is_file()
    assert not (out / "tables" / "size_by_module.tex").exists()
    code, told = said("report", str(out), "--tables", str(tmp_path / "again"))
    assert code == 0
    assert (tmp_path / "again" / "size.csv").read_bytes() == size
    assert "tables: " in told


def test_tables_without_a_place_are_refused(models: Path) -> None:
    code, told = said("analyse", str(models / "base"), str(models / "pt"), "--tables")
    assert (code, told) == (2, "error: --tables needs a directory here; write --tables DIR\n")
