"""Executors: how they are asked for; the same cells on a real Ray cluster and in processes of submitit."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from note_workers import Starting

from crossmatch.checkpoint import read_json
from crossmatch.errors import CrossmatchError, DataError, ExecutorError, InputError
from crossmatch.executors import open_executor, parse_executor, submission


def done(folder: Path) -> list[str]:
    return sorted(line for file in folder.glob("*.notes") for line in file.read_text().splitlines())


def test_options_are_read_and_refused() -> None:
    found = parse_executor("ray:workers=4,gpus=0.5,memory=16GB,address=ray://head:10001")
    assert (found.workers, found.gpus, found.memory, found.address) == (4, 0.5, 16 * 10**9, "ray://head:10001")
    assert parse_executor({"kind": "slurm", "partition": "gpu", "minutes": 30}).minutes == 30
    for text, message in {
        "spark": "give one of local, ray, slurm",
        "ray:worker=2": "did you mean workers",
        "ray:workers=0": "cannot be 0",
        "ray:memory=much": "written as 16GB",
        "local:workers=2": "it takes no options",
        "slurm:cluster=here": "slurm or local",
    }.items():
        with pytest.raises(InputError, match=message):
            parse_executor(text)


def test_cells_are_done_here_in_order_and_once(tmp_path: Path) -> None:
    executor = open_executor(parse_executor("local"), Starting(tmp_path), tmp_path)
    for cell in ("a", "b", "a", "bad", "c"):
        executor.submit(cell, cell)
    found = {outcome.key: outcome.error for outcome in executor.collect()}
    assert done(tmp_path) == ["a", "b", "c"]
    assert str(found.pop("bad")) == "suite x, line 3: no"
    assert not any(found.values())


def test_what_would_be_submitted_is_shown(tmp_path: Path) -> None:
    command = ["crossmatch", "sweep", "my study.yaml"]
    assert submission(parse_executor("local"), command, tmp_path) is None
    line = submission(parse_executor("ray:address=http://head:8265"), command, tmp_path)
    assert line == "ray job submit --address http://head:8265 --working-dir . -- crossmatch sweep 'my study.yaml'"
    pytest.importorskip("submitit")
    script = submission(parse_executor("slurm:partition=gpu,gpus=1,cpus=8,memory=64GB,minutes=90"), command, tmp_path)
    assert script is not None
    for wanted in ("--partition=gpu", "--gpus-per-node=1", "--cpus-per-task=8", "--mem=64000M", "--time=90"):
        assert f"#SBATCH {wanted}" in script


@pytest.mark.slow
def test_jobs_of_submitit_do_cells_and_lost_ones_are_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    # Jobs find the workers where they lie.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    executor = open_executor(parse_executor("slurm:cluster=local,workers=2"), Starting(tmp_path), tmp_path / "jobs")
    for cell in ("a", "b", "c", "kill1", "bad"):
        executor.submit(cell, cell)
    found = {outcome.key: outcome.error for outcome in executor.collect()}
    assert set(done(tmp_path)) >= {"a", "b", "c", "kill1"}
    assert isinstance(found["bad"], DataError)
    assert len(list(tmp_path.glob("*.notes"))) >= 2
    executor.cancel()


# Kept till the end: where tests of other modules come between, it would be started twice, 20 seconds each time.
@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A real cluster of this machine, with room for two workers."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patched:
        # Actors find the workers where they lie.
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        for _ in range(3):
            # Its agent has 15 seconds to start, whatever else the machine does.
            with suppress(Exception):
                ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
                break
        else:
            pytest.skip("a local Ray cluster does not start here: its agent was too slow, three times")
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore")
def test_actors_do_cells_and_lost_ones_are_replaced(cluster: Any, tmp_path: Path) -> None:
    executor = open_executor(parse_executor("ray:workers=2"), Starting(tmp_path), tmp_path)
    for cell in ("a", "b", "kill1", "c", "bad", "d", "kill2", "e"):
        executor.submit(cell, cell)
    found = {outcome.key: outcome.error for outcome in executor.collect()}
    assert done(tmp_path) == ["a", "b", "c", "d", "e", "kill1", "kill2"]
    assert isinstance(found["bad"], DataError)
    executor.submit("always", "always")
    with pytest.raises(ExecutorError, match=r"4 workers were lost, more than 3 retries allow.*run the same command"):
        list(executor.collect())
    executor.cancel()


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_on_two_workers_is_the_one_in_process_byte_for_byte(
    cluster: Any, searched: Path, study: dict[str, Any], tmp_path: Path
) -> None:
    from crossmatch import sweep
    from crossmatch.sweeping.run import ANSWERS

    small = {**study, "shard": 8, "suites": study["suites"][:1], "goals": ["rougeL"], "constraints": []}
    sweep(small, tmp_path / "here")
    killed: list[int] = []

    def kill_one() -> None:
        """Kill the process of one worker in the middle of its work."""
        folder, until = tmp_path / "there" / ANSWERS, time.monotonic() + 200
        while time.monotonic() < until and not killed:
            for file in folder.glob("*.jsonl"):
                lines = file.read_bytes().count(b"\n")
                if lines >= 5:
                    pid = int(file.name.rsplit("-", 2)[1])
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    break
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    sweep({**small, "executor": "ray:workers=2"}, tmp_path / "there")
    killer.join()
    assert killed
    here, there = ((tmp_path / name / "sweep.json").read_bytes() for name in ("here", "there"))
    assert here == there
    workers = {file.name for file in (tmp_path / "there" / ANSWERS).glob("*.jsonl")}
    assert len(workers) >= 3
    # What the lost worker had answered was not asked again.
    places = [
        tuple(json.loads(line)[:3])
        for file in (tmp_path / "there" / ANSWERS).glob("*.jsonl")
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    assert len(places) == len(set(places))
    assert read_json(tmp_path / "there" / "sweep.json")["recommendation"]["sentence"]


@pytest.mark.xdist_group("ray")
def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(CrossmatchError, match=r"the cluster at 127.0.0.1:1 is not reached"):
        open_executor(parse_executor("ray:workers=1,address=127.0.0.1:1"), Starting(tmp_path), tmp_path)
