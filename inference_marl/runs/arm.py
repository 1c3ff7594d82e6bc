"""How the arms of an experiment are played, one after another or side by side in processes; each leaves a checkpoint.

An arm goes on from its checkpoint if it has one, so whatever stopped it, playing it again ends in the same result.
"""

from __future__ import annotations

import copy
import multiprocessing
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from inference_marl.described import first_line
from inference_marl.inference.svi import NonFiniteError
from inference_marl.runs.recorder import Recorder
from inference_marl.runs.results import write_atomically
from inference_marl.types import Learner, State, Transition

if TYPE_CHECKING:
    from inference_marl.runs.run import Experiment

REPORT_EVERY = 0.2
"""Seconds between what a process reports of its progress; as long may one outlive whoever started it."""


class RunError(RuntimeError):
    """A run cannot go on, or a folder is not one; the message says what to do."""


class ArmError(RunError):
    """An arm cannot go on; the others can.

    Attributes:
        folder: of the run, if it has the results of the others.
    """

    folder: Path | None = None


@dataclass
class Arm:
    """One arm while it runs; everything that changes is here."""

    experiment: Experiment
    name: str
    learners: list[Learner]
    recorder: Recorder
    state: State
    since_record: Tensor
    clock: Tensor
    step: int = 0

    @classmethod
    def start(cls, experiment: Experiment, name: str, replicates: int | None = None) -> Arm:
        """Seed the random numbers, the same for every arm, and make the arm's learners."""
        torch.manual_seed(experiment.seed)
        seats = experiment.seats(replicates)
        shape = (seats[0].replicates, experiment.environments)
        records = experiment.steps // experiment.record_every
        return cls(
            experiment,
            name,
            experiment.bind(name, replicates),
            Recorder(experiment.game, seats, records, experiment.draws),
            experiment.game.reset(*shape, experiment.device, experiment.dtype),
            torch.zeros(shape[0], len(seats), device=experiment.device, dtype=experiment.dtype),
            torch.zeros(shape, dtype=torch.int64, device=experiment.device),
        )

    @classmethod
    def kept(cls, experiment: Experiment, name: str, folder: Path) -> Arm:
        """As the arm's checkpoint in a run's folder says, or at its start if there is none.

        Raises:
            RunError: if the file is not this arm's checkpoint.
        """
        arm = cls.start(experiment, name)
        checkpoint = checkpoint_of(folder, name)
        if checkpoint.exists():
            arm.restore(checkpoint)
        return arm

    def advance(self) -> None:
        """Play one joint action in every environment, and learn from it.

        Raises:
            ArmError: if a loss is not finite, naming arm, seat, replicate and step.
        """
        game = self.experiment.game
        obs = game.observe(self.state)
        actions = tuple(learner.act(seen) for learner, seen in zip(self.learners, obs, strict=True))
        state, rewards, terminated = game.step(self.state, actions)
        self.clock += 1
        ended = terminated if game.horizon is None else terminated | (self.clock >= game.horizon)
        batch = Transition(obs, actions, rewards, game.observe(state), terminated, ended)
        read = any(learner.reads_peers for learner in self.learners)
        peers = copy.deepcopy(self.learners) if read else []
        for seat, learner in enumerate(self.learners):
            try:
                learner.update(batch, peers)
            except NonFiniteError as error:
                raise ArmError(
                    f"arms.{self.name}, agent {seat}, step {self.step + 1}: {error}. The last checkpoint is kept; "
                    "expected finite losses: lower the learning rate, clip gradients, or use dtype float64"
                ) from error
        self.step += 1
        self.since_record += rewards.mean(1)
        self.state = self._next(state, ended)
        if self.step % self.experiment.record_every == 0:
            self.record()

    def record(self) -> None:
        """Keep the metrics since the last record, and the beliefs of now."""
        reward = self.since_record / self.experiment.record_every
        self.recorder.record(self.experiment.game.observe(self.state), self.learners, reward)
        self.since_record = torch.zeros_like(self.since_record)

    def _next(self, state: State, over: Tensor) -> State:
        """Start a new episode where one is over."""
        game = self.experiment.game
        if not bool(over.any()):
            return state
        self.clock = torch.where(over, torch.zeros_like(self.clock), self.clock)
        replicates, environments = over.shape
        fresh = game.reset(replicates, environments, self.experiment.device, self.experiment.dtype)
        if bool(over.all()):
            return fresh
        return {
            key: torch.where(over.view(*over.shape, *[1] * (value.dim() - 2)), fresh[key], value)
            for key, value in state.items()
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint: tensors, numbers and strings only."""
        content = {
            "step": self.step,
            "learners": [learner.state_dict() for learner in self.learners],
            "recorder": self.recorder.state_dict(),
            "state": self.state,
            "since_record": self.since_record,
            "clock": self.clock,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.experiment.device.type == "cuda" else None,
        }
        write_atomically(path, partial(torch.save, content))

    def restore(self, path: Path) -> None:
        """Undo `save`. Only tensors and plain containers are read: loading executes no code.

        Raises:
            RunError: if the file does not hold this arm's checkpoint.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if "learners" in content and "recorder" not in content:
                raise RunError(
                    f"{path}: got the checkpoint of a finished run, whose records were moved to its results "
                    "(metrics.nc, posterior.nc), expected one with records: put summary.json back, or start a new run"
                )
            device = self.experiment.device
            for learner, saved in zip(self.learners, content["learners"], strict=True):
                learner.load_state_dict(saved)
            self.recorder.load_state_dict(content["recorder"])
            self.step = content["step"]
            self.state = {key: value.to(device) for key, value in content["state"].items()}
            self.since_record, self.clock = content["since_record"].to(device), content["clock"].to(device)
            torch.set_rng_state(content["rng"])
            if content["cuda_rng"] is not None:
                torch.cuda.set_rng_state(content["cuda_rng"])
        except RunError:
            raise
        except Exception as error:
            raise no_checkpoint(path, error) from error


def checkpoint_of(folder: Path, name: str) -> Path:
    """Where a run's folder keeps an arm's checkpoint."""
    return folder / "checkpoints" / f"{name}.pt"


def slim(folder: Path) -> None:
    """Take the records out of a finished run's checkpoints: the results hold them, and they are most of the size.

    Raises:
        RunError: if a file there is not a checkpoint.
    """
    for checkpoint in (folder / "checkpoints").glob("*.pt"):
        try:
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
            recorded = content.pop("recorder", None)
        except Exception as error:
            raise no_checkpoint(checkpoint, error) from error
        if recorded is not None:
            write_atomically(checkpoint, partial(torch.save, content))


def no_checkpoint(path: Path, error: Exception) -> RunError:
    """What to say of a file in the place of a checkpoint."""
    return RunError(
        f"{path}: got a file that is not a checkpoint of this experiment ({type(error).__name__}: "
        f"{first_line(error)}), expected one written by this run: delete it to start the arm anew"
    )


Report = Callable[[Path, str, int, int], object]
"""What is called while arms are played: with the run's folder, the arm's name, the steps it found done, and the steps
made since."""

Ended = tuple[Path, str, str | None]
"""The run's folder, the arm's name, and why it could not be played to its end, `None` if it was."""


def play(experiment: Experiment, name: str, folder: Path, report: Callable[[int, int], object]) -> None:
    """Play an arm to its end and leave its checkpoint there.

    Raises:
        ArmError: if the arm cannot go on, whatever its parts raise; its last checkpoint is kept.
        RunError: if what is in the checkpoint's place is none.
    """
    with pyro.validation_enabled(False), _threads(experiment.threads):
        with _as_arm_error(f"arms.{name}"):
            arm = Arm.kept(experiment, name, folder)
        found = arm.step
        report(found, 0)
        while arm.step < experiment.steps:
            with _as_arm_error(f"arms.{name}, step {arm.step + 1}"):
                arm.advance()
            if arm.step % experiment.checkpoint_every == 0 or arm.step == experiment.steps:
                arm.save(checkpoint_of(folder, name))
            report(found, arm.step - found)


@contextmanager
def _as_arm_error(where: str) -> Iterator[None]:
    """What the parts of an arm raise is the arm's failure; the other arms can still be played."""
    try:
        yield
    except RunError:
        raise
    except ValueError as error:  # a part that refuses what the game has led to, in words of its own
        raise ArmError(f"{where}: {first_line(error)}") from error
    except Exception as error:
        raise ArmError(f"{where}: {type(error).__name__}: {first_line(error)}") from error


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


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
