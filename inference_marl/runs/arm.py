"""One arm of an experiment while it is played.

An arm goes on from its checkpoint if it has one, so whatever stopped it, playing it again ends in the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from torch import Tensor

from inference_marl.described import first_line
from inference_marl.experiment import Experiment
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.optimise import NonFiniteError
from inference_marl.play import Collector, GameSimulator, update
from inference_marl.runs import checkpoint
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.recorder import Recorder
from inference_marl.types import Actor, kept_streams, seed_streams


@dataclass
class Arm:
    """One arm while it runs; everything that changes is here."""

    experiment: Experiment
    name: str
    actors: list[Actor]
    collector: Collector
    recorder: Recorder
    since_record: Tensor
    step: int = 0

    @classmethod
    @local_parameters()
    def start(cls, experiment: Experiment, name: str, replicates: int | None = None) -> Arm:
        """Seed the random numbers, the same for every arm, and make the arm's actors."""
        seed_streams(experiment.seed, experiment.device)
        seats = experiment.seats(replicates)
        shape = (seats[0].replicates, experiment.environments)
        actors = experiment.bind(name, replicates)
        simulator = GameSimulator(experiment.game, *shape, experiment.device, experiment.dtype)
        return cls(
            experiment,
            name,
            actors,
            Collector(simulator, actors),
            Recorder(experiment.game, seats, experiment.steps // experiment.record_every, experiment.draws),
            torch.zeros(*shape, len(seats), device=experiment.device, dtype=experiment.dtype),
        )

    @classmethod
    def from_checkpoint(cls, experiment: Experiment, name: str, folder: Path) -> Arm:
        """As the arm's checkpoint in a run's folder says, or at its start if there is none.

        Raises:
            RunError: if the file is not this arm's checkpoint.
        """
        arm = cls.start(experiment, name)
        path = checkpoint.checkpoint_of(folder, name)
        if path.exists():
            arm.restore(path)
        return arm

    def advance(self) -> None:
        """Play one joint action in every environment, and learn from it.

        Raises:
            ArmError: if a loss is not finite, naming arm, seat, replicate and step.
        """
        try:
            newest = self.collector.collect()
            update(self.actors, newest)
        except NonFiniteError as error:
            raise ArmError(
                f"arms.{self.name}, agent {error.agent}, step {self.step + 1}: {error}. The last checkpoint is kept; "
                "expected finite losses: lower the learning rate, clip gradients, or use dtype float64"
            ) from error
        self.step += 1
        self.since_record = self.since_record + newest.steps[0].rewards
        if self.step % self.experiment.record_every == 0:
            self.record()

    def record(self) -> None:
        """Keep the metrics since the last record, and the current beliefs."""
        reward = self.since_record.mean(1) / self.experiment.record_every
        self.recorder.record(self.collector.observe().obs, self.actors, self.collector.memories, reward)
        self.since_record = torch.zeros_like(self.since_record)

    def save(self, path: Path) -> None:
        """Write a checkpoint: tensors, numbers and strings only."""
        content = {
            "step": self.step,
            "actors": [actor.state_dict() for actor in self.actors],
            "collector": self.collector.state_dict(),
            "recorder": self.recorder.state_dict(),
            "since_record": self.since_record,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.experiment.device.type == "cuda" else None,
        }
        checkpoint.write(path, content)

    def restore(self, path: Path) -> None:
        """Undo `save`. Only tensors and plain containers are read: loading executes no code.

        Raises:
            RunError: if the file does not hold this arm's checkpoint.
        """
        content, device = checkpoint.read(path), self.experiment.device
        try:
            for actor, saved in zip(self.actors, content["actors"], strict=True):
                actor.load_state_dict(saved)
            self.collector.load_state_dict(content["collector"])
            self.recorder.load_state_dict(content["recorder"])
            self.step = content["step"]
            self.since_record = content["since_record"].to(device)
            torch.set_rng_state(content["rng"])
            if content["cuda_rng"] is not None:
                torch.cuda.set_rng_state(content["cuda_rng"])
        except Exception as error:
            raise checkpoint.no_checkpoint(path, error) from error


def play(experiment: Experiment, name: str, folder: Path, report: Callable[[int, int], object]) -> None:
    """Play an arm to its end and leave its checkpoint there.

    Raises:
        ArmError: if the arm cannot go on, whatever its parts raise; its last checkpoint is kept.
        RunError: if what is in the checkpoint's place is none.
    """
    device = experiment.device
    with kept_streams(device), pyro.validation_enabled(False), local_parameters(), _threads(experiment.threads):
        with _as_arm_error(f"arms.{name}"):
            arm = Arm.from_checkpoint(experiment, name, folder)
        found = arm.step
        report(found, 0)
        while arm.step < experiment.steps:
            with _as_arm_error(f"arms.{name}, step {arm.step + 1}"):
                arm.advance()
            if arm.step % experiment.checkpoint_every == 0 or arm.step == experiment.steps:
                arm.save(checkpoint.checkpoint_of(folder, name))
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


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
