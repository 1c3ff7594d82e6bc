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

from inference_marl.described import first_line
from inference_marl.experiment import Experiment
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.optimise import NonFiniteError
from inference_marl.play import Collector, GameSimulator, update
from inference_marl.runs import checkpoint
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.measures import Measures
from inference_marl.runs.recorder import Recorder, Values, as_numbers, compact, records_of
from inference_marl.spaces import Discrete
from inference_marl.statistics.metrics import REWARD
from inference_marl.types import Actor, Transition, kept_streams, seed_streams


@dataclass
class Arm:
    """One arm while it runs; everything that changes is here."""

    experiment: Experiment
    name: str
    actors: list[Actor]
    collector: Collector
    measures: Measures
    recorder: Recorder
    step: int = 0

    @classmethod
    @local_parameters()
    def start(cls, experiment: Experiment, name: str, replicates: int | None = None, folder: Path | None = None) -> Arm:
        """Seed the random numbers, the same for every arm, and make the arm's actors.

        Args:
            experiment: what is run.
            name: the arm's.
            replicates: their number, if not the experiment's.
            folder: the run's; `None` records nothing.
        """
        seed_streams(experiment.seed, experiment.device)
        seats = experiment.seats(replicates)
        shape = (seats[0].replicates, experiment.environments)
        actors = experiment.bind(name, replicates)
        simulator = GameSimulator(experiment.game, *shape, experiment.device, experiment.dtype)
        records = None if folder is None else records_of(folder, name)
        return cls(
            experiment,
            name,
            actors,
            Collector(simulator, actors),
            Measures(experiment.game, seats, experiment.draws),
            Recorder(records, experiment.metrics, shape[0], len(seats)),
        )

    @classmethod
    def from_checkpoint(cls, experiment: Experiment, name: str, folder: Path) -> Arm:
        """As the arm's checkpoint in a run's folder says, or at its start if there is none.

        Raises:
            RunError: if the file is not this arm's checkpoint.
        """
        arm = cls.start(experiment, name, folder=folder)
        path = checkpoint.checkpoint_of(folder, name)
        if path.exists():
            arm.restore(path)
        else:
            arm.recorder.cut()  # what was recorded before the first checkpoint
        return arm

    def advance(self) -> None:
        """Play one joint action in every environment, and learn from it.

        Raises:
            ArmError: if a loss is not finite, naming arm, seat, replicate and step.
        """
        try:
            newest = self.collector.collect()
            said = update(self.actors, newest)
        except NonFiniteError as error:
            raise ArmError(
                f"arms.{self.name}, agent {error.agent}, step {self.step + 1}: {error}. The last checkpoint is kept; "
                "expected finite losses: lower the learning rate, clip gradients, or use dtype float64"
            ) from error
        self.step += 1
        self.recorder.note(REWARD.name, newest.steps[0].rewards)
        for agent, diagnostics in enumerate(said):
            for name, value in diagnostics.items():
                self.recorder.note(name, value, agent)
        if self.experiment.record_actions:
            self.recorder.append("actions", self._played(newest.steps[0]))
        self.record()

    def _played(self, step: Transition) -> dict[str, Values]:
        """What was played, as it is recorded: each agent's actions, in which state, and where the episode ended."""
        game = self.experiment.game
        dtype = compact(game.action_spaces)
        found = {"ended": step.ended.cpu().numpy()}
        if game.shared_observation and isinstance(game.observations[0], Discrete) and game.observations[0].n > 1:
            found["state"] = step.obs[0].cpu().numpy().astype(compact(game.observations[:1]))
        for agent, action in enumerate(step.actions):
            flat = action.reshape(*action.shape[:2], -1) if dtype.kind == "f" else action
            found[f"action.{agent}"] = flat.detach().cpu().numpy().astype(dtype)
        return found

    def record(self) -> None:
        """Make the records that are due at this step: the metrics since the last one, and the current beliefs."""
        every = self.experiment.beliefs_every
        metrics, beliefs = self.step % self.experiment.record_every == 0, bool(every) and self.step % every == 0
        if not (metrics or beliefs):
            return
        obs = self.collector.observe().obs
        believed = self.measures.beliefs(obs, self.actors, self.collector.memories)
        if metrics:
            for name, value, agent in self.measures.metrics(believed, obs):
                self.recorder.note(name, value, agent)
            self.recorder.commit()
        if beliefs:
            self.recorder.everywhere = self.measures.everywhere
            kept = self.measures.kept(believed)
            self.recorder.append("beliefs", {name: as_numbers(value) for name, value in kept.items()})

    def save(self, path: Path) -> None:
        """Write a checkpoint: tensors, numbers and strings only."""
        content = {
            "step": self.step,
            "actors": [actor.state_dict() for actor in self.actors],
            "collector": self.collector.state_dict(),
            "recorder": self.recorder.state_dict(),
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
            self.recorder.load_state_dict(content["recorder"], device)
            self.step = content["step"]
            torch.set_rng_state(content["rng"])
            if content["cuda_rng"] is not None:
                torch.cuda.set_rng_state(content["cuda_rng"])
        except RunError:  # of the records
            raise
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
