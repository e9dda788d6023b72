"""Where work is done: in this process, on a Ray cluster, or by jobs of Slurm; what the work is, is not known here."""

from crossmatch.executors.options import LOCAL, ExecutorOptions, parse_executor
from crossmatch.executors.protocol import Executor, Outcome, Start, Worker
from crossmatch.executors.start import open_executor, submission

__all__ = [
    "LOCAL",
    "Executor",
    "ExecutorOptions",
    "Outcome",
    "Start",
    "Worker",
    "open_executor",
    "parse_executor",
    "submission",
]
