"""Results in trackers: the real packages, in their offline modes."""

import sys
from pathlib import Path

import pytest
from test_tables import summary

from crossmatch.errors import InputError, OutputError
from crossmatch.export.tracking import Tracked, check_tracker, track, tracked


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracked:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.html"
    page.write_text("<p>page</p>")
    found = tracked(summary(), "study+1", page)
    # A few tables are enough to see that they arrive.
    return Tracked(found.name, found.config, found.metrics, {k: found.tables[k] for k in ("differences",)}, page)


def test_metrics_have_intervals_and_names_that_all_take() -> None:
    found = tracked(summary(), "x")
    assert found.metrics["define/bleu/base/value"] == 2.7463005868621626
    assert found.metrics["define/bleu/base/low"] == pytest.approx(2.7463 * 0.9, rel=1e-3)
    assert found.metrics["define/bleu/base/p_holm"] == 0.006
    assert "define/bleu/sft/difference" not in found.metrics
    named = summary()
    suite = named["conditions"]["own.greedy"]["suites"]["define"]
    suite["metrics"]["bleu"] = {"a+b": suite["metrics"]["bleu"]["base"], "a:b": suite["metrics"]["bleu"]["sft"]}
    suite["metrics"].pop("truncated")
    named["variants"] = dict.fromkeys(("a+b", "a:b"), named["variants"]["base"])
    named["reference"] = "a:b"
    names = [name for name in tracked(named, "x").metrics if name.endswith("value") or "value-" in name]
    assert names == ["define/bleu/a_b/value", "define/bleu/a_b/value-2"]


def test_mlflow(told: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    try:
        assert track("mlflow", told).startswith("run ")
        (run,) = mlflow.search_runs(experiment_names=["crossmatch"], output_format="list")
        assert run.info.run_name == "study+1"
        assert run.data.metrics["define/bleu/base/value"] == 2.7463005868621626
        files = {f.name for f in (tmp_path / "mlruns").rglob("artifacts/**/*") if f.is_file()}
        assert {"page.html", "differences.csv"} <= files
    finally:
        mlflow.set_tracking_uri(before)


def test_trackio(told: Tracked, tmp_path: Path) -> None:
    """In a process of its own: its directory is read when it is imported."""
    pytest.importorskip("trackio")
    code = (
        "import os, sys; os.environ['TRACKIO_DIR'] = sys.argv[1]\n"
        "from pathlib import Path\n"
        "from test_tables import summary\n"
        "from crossmatch.export.tracking import track, tracked\n"
        "found = tracked(summary(), 'study', Path(sys.argv[2]))\n"
        "print(track('trackio', found))\n"
        "import trackio\n"
        "run = trackio.Api().runs('crossmatch')[0]\n"
        "print(run.name, len(found.metrics))\n"
    )
    done = in_process(code, tmp_path / "trackio", told.page)
    assert done[0] == "run study of project crossmatch"
    assert done[1].startswith("study ")
    assert list((tmp_path / "trackio").glob("crossmatch*"))


def test_wandb(told: Tracked, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = (
        "import os, sys; os.environ |= {'WANDB_MODE': 'offline', 'WANDB_DIR': sys.argv[1], 'WANDB_SILENT': 'true'}\n"
        "from pathlib import Path\n"
        "from test_tables import summary\n"
        "from crossmatch.export.tracking import track, tracked\n"
        "print(track('wandb', tracked(summary(), 'study', Path(sys.argv[2]))))\n"
    )
    (line,) = in_process(code, tmp_path, told.page)
    assert line.startswith("run ")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def in_process(code: str, *arguments: object) -> list[str]:
    """Lines of stdout, of a process whose children may outlive it."""
    import os
    import subprocess

    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parents[1] / "src"), str(here), str(here.parent)])
    out = Path(str(arguments[0])).parent / "stdout"
    with out.open("w") as stream, (out.parent / "stderr").open("w") as errors:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(
            command, stdout=stream, stderr=errors, env=environment, stdin=subprocess.DEVNULL, timeout=120
        )
    assert done.returncode == 0, (out.parent / "stderr").read_text()[-2000:]
    return out.read_text().splitlines()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"--report-to wandb needs its package: pip install 'wandb"):
        check_tracker("wandb")
    with pytest.raises(InputError, match="--report-to neptune: give one of mlflow, wandb, trackio"):
        check_tracker("neptune")


def test_what_a_tracker_refuses_is_one_line(told: Tracked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("no-such-scheme://x")
    try:
        with pytest.raises(OutputError, match="mlflow did not take the result: "):
            track("mlflow", told)
    finally:
        mlflow.set_tracking_uri(before)
