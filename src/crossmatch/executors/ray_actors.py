"""Cells done by actors of a Ray cluster: each holds a worker, with the model that it has loaded."""

import logging
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from crossmatch.errors import CrossmatchError, ExecutorError, InputError
from crossmatch.executors.options import ExecutorOptions
from crossmatch.executors.protocol import Outcome, Start, Worker

# Seconds that a cluster's head may take to accept a connection.
_PATIENCE = 10


class _Actor:
    """A worker in a process of the cluster."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._worker: Worker | None = None

    def answer(self, cell: Any) -> CrossmatchError | None:
        """Do a cell; what a user can fix is returned, so that its line is not lost in a traceback."""
        try:
            self._worker = self._worker or self._start()
            self._worker.answer(cell)
        except CrossmatchError as error:
            return error
        return None


def _knock(address: str | None) -> None:
    """Raise InputError if nothing listens at an address: Ray itself tries again for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise InputError(
            f"--executor ray: the cluster at {address} is not reached: {error}; is it started, and the port right?"
        ) from error


class RayExecutor:
    """As many actors as workers, each with one cell at a time. The cell of a lost actor goes to its successor."""

    def __init__(self, options: ExecutorOptions, start: Start) -> None:
        self._options, self._start = options, start
        _knock(options.address)
        self._owner = not ray.is_initialized()
        if self._owner:
            here: dict[str, Any] = {} if options.address else {"num_cpus": options.workers * options.cpus}
            try:
                ray.init(
                    address=options.address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False if not options.address else None,
                    **here,
                )
            except (RayError, ConnectionError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"--executor ray: the cluster at {options.address} is not reached: {reason}"
                ) from error
        resources = {"num_cpus": options.cpus, "num_gpus": options.gpus, "memory": options.memory}
        self._class: Any = ray.remote(_Actor).options(**{k: v for k, v in resources.items() if v})
        self._waiting: deque[tuple[str, Any]] = deque()
        self._known: set[str] = set()
        self._idle = [self._class.remote(start) for _ in range(options.workers)]
        self._lost = 0

    def submit(self, key: str, cell: Any) -> None:
        """Have a cell done by the next actor that is free."""
        if key not in self._known:
            self._known.add(key)
            self._waiting.append((key, cell))

    def collect(self) -> Iterator[Outcome]:
        """Outcomes as they come, in no order."""
        running: dict[Any, tuple[Any, str, Any]] = {}
        while self._waiting or running:
            while self._waiting and self._idle:
                actor, (key, cell) = self._idle.pop(), self._waiting.popleft()
                running[actor.answer.remote(cell)] = actor, key, cell
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            actor, key, cell = running.pop(done)
            try:
                error = ray.get(done)
            except RayActorError as lost:
                self._replace(lost)
                self._waiting.appendleft((key, cell))
                continue
            self._idle.append(actor)
            self._known.discard(key)
            yield Outcome(key, error)

    def _replace(self, lost: RayActorError) -> None:
        self._lost += 1
        if self._lost > self._options.retries:
            raise ExecutorError(
                f"--executor ray: {self._lost} workers were lost, more than {self._options.retries} retries allow "
                f"({' '.join(str(lost).split())[:160]}); run the same command to resume"
            )
        self._idle.append(self._class.remote(self._start))

    def cancel(self) -> None:
        """Let the actors go, and the cluster if it was started here."""
        self._waiting.clear()
        for actor in self._idle:
            ray.kill(actor)
        if self._owner:
            ray.shutdown()
