"""Who plays the arms: this process, one after another, or several processes side by side."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any

from inference_marl.experiment import Experiment
from inference_marl.runs.arm import play
from inference_marl.runs.errors import ArmError, RunError

REPORT_EVERY = 0.2
"""Seconds between what a process reports of its progress; as long may one outlive whoever started it."""

Report = Callable[[Path, str, int, int], object]
"""What is called while arms are played: with the run's folder, the arm's name, the steps it found done, and the steps
made since."""

Ended = tuple[Path, str, str | None]
"""The run's folder, the arm's name, and why it could not be played to its end, `None` if it was."""


def play_in_turn(runs: Mapping[Path, Experiment], report: Report) -> Generator[Ended, None, None]:
    """Play every arm of some runs in this process.

    Args:
        runs: the experiments by their folders.
        report: is told of the progress.

    Yields:
        Each arm when it has ended.
    """
    for folder, experiment in runs.items():
        for name in experiment.arms:
            try:
                play(experiment, name, folder, partial(report, folder, name))
            except ArmError as error:
                yield folder, name, str(error)
            else:
                yield folder, name, None


def play_in_processes(runs: Mapping[Path, Experiment], jobs: int, report: Report) -> Generator[Ended, None, None]:
    """Play every arm of some runs, at most `jobs` at once, each in a process of its own.

    Processes are started afresh ("spawn"), since torch's threads do not survive a fork. They end when this one does, or
    when the iterator is closed.

    Args:
        runs: the experiments by their folders.
        jobs: processes.
        report: is told of the progress.

    Yields:
        Each arm when it has ended.
    """
    todo = [(folder, name) for folder, experiment in runs.items() for name in experiment.arms]
    busy: dict[Any, _Worker] = {}
    try:
        while todo or busy:
            while todo and len(busy) < jobs:
                worker = _Worker.start(runs)
                busy[worker.connection] = worker
                worker.give(*todo.pop(0))
            for connection in wait(list(busy)):
                worker = busy[connection]
                heard = worker.hear()
                if isinstance(heard, tuple):
                    report(worker.folder, worker.arm, *heard)
                    continue
                if heard is not None and not isinstance(heard, ArmError):
                    raise heard
                ended = worker.folder, worker.arm, None if heard is None else str(heard)
                if todo and worker.process.is_alive():
                    worker.give(*todo.pop(0))
                else:
                    busy.pop(connection).end()
                yield ended
    finally:
        for worker in busy.values():
            worker.end()


@dataclass
class _Worker:
    """A process that plays the arms it is given, and this end of the line to it."""

    process: BaseProcess
    connection: Connection
    arm: str = ""
    folder: Path = Path()

    @classmethod
    def start(cls, runs: Mapping[Path, Experiment]) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, dict(runs)), daemon=True)
        ensure_running()  # before signals are blocked, which its own start would undo
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()  # Ctrl-C reaches the whole group; whoever started us ends us
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()  # so that this end notices when the process is gone
        return cls(process, here)

    def give(self, folder: Path, arm: str) -> None:
        self.folder, self.arm = folder, arm
        self.connection.send((folder, arm))

    def hear(self) -> tuple[int, int] | RunError | OSError | None:
        """Progress, or how the arm ended: `None` if well."""
        try:
            heard: tuple[int, int] | RunError | OSError | None = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            status = self.process.exitcode or 0
            # Below 0 it is the signal that ended the process, and the system ends those that take too much memory.
            hint = "if memory is short, use fewer jobs" if status < 0 else "see what it wrote, or use one job"
            return ArmError(
                f"arms.{self.arm}: got a process that ended by itself (exit status {status}), expected one that plays "
                f"to the end; {hint}"
            )
        return heard

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, runs: Mapping[Path, Experiment]) -> None:
    """Play the arms that are named on the line; answer with progress, then with `None` or the error."""
    said = 0.0

    def report(steps: int, found: int, made: int) -> None:
        nonlocal said
        if time.monotonic() - said > REPORT_EVERY or found + made == steps:
            said = time.monotonic()
            connection.send((found, made))

    try:
        while True:
            folder, arm = connection.recv()
            try:
                play(runs[folder], arm, folder, partial(report, runs[folder].steps))
            except ConnectionError:
                raise
            except (RunError, OSError) as error:
                connection.send(error)
            else:
                connection.send(None)
    except (EOFError, ConnectionError):  # whoever started us is gone
        return
