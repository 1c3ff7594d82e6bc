"""Executors, which play jobs: one after another in this process, or in parallel worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from typing import Protocol

from inference_marl.runs.errors import RunError
from inference_marl.runs.execution import execute
from inference_marl.runs.job import Job

Ended = Generator[tuple[Job, str | None], None, None]
"""Jobs as they end, each with the reason why it could not be played to its end; `None` if it was."""


class Executor(Protocol):
    """Plays each job by calling `execute`, on any machine that can access the job's folder."""

    def submit(self, jobs: Sequence[Job]) -> Ended:
        """Play jobs, and yield each when it has ended; closing the iterator stops the jobs that are still playing."""


class Serial:
    """Plays jobs in this process, one after another."""

    def submit(self, jobs: Sequence[Job]) -> Ended:
        """See `Executor.submit`."""
        for job in jobs:
            yield job, execute(job)


class Processes:
    """Plays jobs in parallel worker processes.

    Workers are started by "spawn", since torch's threads do not survive a fork. They end when this process does.

    Args:
        number: number of worker processes.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def submit(self, jobs: Sequence[Job]) -> Ended:
        """See `Executor.submit`."""
        todo, busy = list(jobs), dict[object, _Worker]()
        try:
            while todo or busy:
                while todo and len(busy) < self.number:
                    worker = _Worker.start()
                    busy[worker.connection] = worker
                    worker.give(todo.pop(0))
                for connection in wait([worker.connection for worker in busy.values()]):
                    worker = busy[connection]
                    job, heard = worker.job, worker.hear()
                    if isinstance(heard, Exception):
                        raise heard
                    if todo and worker.process.is_alive():
                        worker.give(todo.pop(0))
                    else:
                        busy.pop(connection).end()
                    yield job, heard
        finally:
            for worker in busy.values():
                worker.end()


@dataclass
class _Worker:
    """A worker process, and this end of the connection to it."""

    process: BaseProcess
    connection: Connection
    _job: Job | None = None

    @classmethod
    def start(cls) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there,), daemon=True)
        ensure_running()  # before signals are blocked, since starting it unblocks them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()  # Ctrl-C reaches the whole process group; the parent ends its workers
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()  # so that this end notices when the process has exited
        return cls(process, here)

    @property
    def job(self) -> Job:
        assert self._job is not None
        return self._job

    def give(self, job: Job) -> None:
        self._job = job
        self.connection.send(job)

    def hear(self) -> str | RunError | OSError | None:
        """The value that `execute` returned, or the error that it raised."""
        try:
            heard: str | RunError | OSError | None = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            status = self.process.exitcode or 0
            # A negative exit code is a signal: the system kills processes that use too much memory.
            hint = "if memory is short, use fewer jobs" if status < 0 else "see what it wrote, or use one job"
            return (
                f"arms.{self.job.name}: got a process that ended by itself (exit status {status}), expected one that "
                f"plays to the end; {hint}"
            )
        return heard

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """Play the jobs received on the connection, and answer each with the result or the error of `execute`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            connection.send(execute(job))
        except (RunError, OSError) as error:
            connection.send(error)


def _end_with_parent() -> None:
    """End this process as soon as its parent has exited, since its results would be lost."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
