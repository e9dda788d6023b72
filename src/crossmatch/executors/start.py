"""Opening an executor, and the command or the script that would start it."""

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from crossmatch.errors import InputError, pip_line
from crossmatch.executors.local import LocalExecutor
from crossmatch.executors.options import ExecutorOptions
from crossmatch.executors.protocol import Executor, Start

_NEEDS = {"ray": "ray", "slurm": "submitit"}


def check_installed(options: ExecutorOptions) -> None:
    """Raise InputError, with the pip line, if the executor's library is not installed."""
    module = _NEEDS.get(options.kind)
    if module is not None and find_spec(module) is None:
        raise InputError(f"--executor {options.kind} needs {module}, not installed: {pip_line(options.kind)}")


def open_executor(options: ExecutorOptions, start: Start, folder: Path) -> Executor:
    """An executor, ready to take cells. folder: where jobs of Slurm keep their scripts and logs.

    Raises InputError if its library is not installed, or its cluster is not reached.
    """
    check_installed(options)
    if options.kind == "ray":
        from crossmatch.executors.ray_actors import RayExecutor

        return RayExecutor(options, start)
    if options.kind == "slurm":
        from crossmatch.executors.slurm_jobs import SlurmExecutor

        return SlurmExecutor(options, start, folder)
    return LocalExecutor(start)


def submission(options: ExecutorOptions, command: Sequence[str], folder: Path) -> str | None:
    """What starts this command there: the `ray job submit` line, or the script of one of Slurm's jobs; None for
    local."""
    if options.kind == "ray":
        address = options.address or "http://127.0.0.1:8265"
        return f"ray job submit --address {address} --working-dir . -- {shlex.join(command)}"
    if options.kind == "slurm":
        check_installed(options)
        from crossmatch.executors.slurm_jobs import job_script

        return job_script(options, folder)
    return None
