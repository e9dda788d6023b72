"""Cells done by jobs of Slurm, submitted through submitit."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.slurm.slurm import _make_sbatch_string

from crossmatch.errors import CrossmatchError, ExecutorError, InputError
from crossmatch.executors.options import ExecutorOptions
from crossmatch.executors.protocol import Outcome, Start

_WAIT = 0.5


@dataclass(frozen=True)
class _Work:
    """What one job does: its cells, in order, by one worker."""

    start: Start
    cells: tuple[tuple[str, Any], ...]

    def __call__(self) -> list[Outcome]:
        worker, found = self.start(), []
        try:
            for key, cell in self.cells:
                try:
                    worker.answer(cell)
                except CrossmatchError as error:
                    return [*found, Outcome(key, error)]
                found.append(Outcome(key))
        finally:
            worker.close()
        return found


class SlurmExecutor:
    """As many jobs as workers, each with its share of what waits. The cells of a lost job are submitted again."""

    def __init__(self, options: ExecutorOptions, start: Start, folder: Path) -> None:
        self._options, self._start = options, start
        self._waiting: dict[str, Any] = {}
        self._jobs: dict[Any, tuple[tuple[str, Any], ...]] = {}
        self._lost = 0
        try:
            self._submitit = submitit.AutoExecutor(folder=folder, cluster=options.cluster)
        except RuntimeError as error:
            raise InputError(f"--executor slurm: {error}; run it where sbatch is, or with cluster=local") from error
        self._submitit.update_parameters(**_parameters(options))

    def submit(self, key: str, cell: Any) -> None:
        """Have a cell done by a job of the next `collect`."""
        self._waiting.setdefault(key, cell)

    def collect(self) -> Iterator[Outcome]:
        """Submit what waits, and outcomes as jobs end."""
        while self._waiting or self._jobs:
            self._send()
            ended = [job for job in self._jobs if job.done()]
            if not ended:
                time.sleep(_WAIT)
            for job in ended:
                yield from self._ended(job, self._jobs.pop(job))

    def _send(self) -> None:
        cells = tuple(self._waiting.items())
        self._waiting.clear()
        count = min(self._options.workers, len(cells))
        for share in (cells[number::count] for number in range(count)):
            self._jobs[self._submitit.submit(_Work(self._start, share))] = share

    def _ended(self, job: Any, cells: Sequence[tuple[str, Any]]) -> Iterator[Outcome]:
        try:
            found: list[Outcome] = job.result()
        except (FailedJobError, UncompletedJobError) as error:
            self._lost += 1
            if self._lost > self._options.retries:
                reason = " ".join(str(error).split())[-200:]
                raise ExecutorError(
                    f"--executor slurm: {self._lost} jobs were lost, more than {self._options.retries} retries allow "
                    f"({reason}); their logs are in {job.paths.folder}; run the same command to resume"
                ) from error
            # What the job has answered is kept, and is not asked again.
            self._waiting.update(cells)
            return
        yield from found

    def cancel(self) -> None:
        """Cancel what runs or is queued."""
        self._waiting.clear()
        for job in self._jobs:
            job.cancel()


def _parameters(options: ExecutorOptions) -> dict[str, Any]:
    found: dict[str, Any] = {"name": "crossmatch", "timeout_min": options.minutes, "cpus_per_task": options.cpus}
    found |= {"gpus_per_node": int(options.gpus)} if options.gpus else {}
    found |= {"mem_gb": options.memory / 10**9} if options.memory else {}
    if options.cluster == "slurm" and options.partition:
        found["slurm_partition"] = options.partition
    return found


def job_script(options: ExecutorOptions, folder: Path) -> str:
    """The script that sbatch would get for each worker."""
    asked: dict[str, Any] = {
        "job_name": "crossmatch",
        "time": options.minutes,
        "cpus_per_task": options.cpus,
        "partition": options.partition,
        "gpus_per_node": int(options.gpus) or None,
        "mem": f"{options.memory // 10**6}M" if options.memory else None,
    }
    return _make_sbatch_string(f"{sys.executable} -u -m submitit.core._submit {folder}", folder, **asked)
