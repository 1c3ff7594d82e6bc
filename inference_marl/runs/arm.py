"""One arm of an experiment while it is played."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference_marl.experiment import Experiment
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.failures import Failures, NonFiniteError
from inference_marl.play import Collector, simulate, update
from inference_marl.runs.errors import ArmError
from inference_marl.runs.measures import Measures
from inference_marl.runs.recorder import Recorder, as_numbers, compact
from inference_marl.spaces import Discrete
from inference_marl.statistics.latents import LATENT
from inference_marl.statistics.metrics import REWARD
from inference_marl.types import Actor, ForeignGame, Game, Trajectory, Transition, seed_streams


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, of which it otherwise returns temporaries of large networks after each update.

    It adapts how much it keeps (64 MB at most) to the largest block ever freed. This allocation touches no memory.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


@dataclass
class Arm:
    """The state of one arm while it is played.

    Attributes:
        watched: the actors of each evaluation, named as in `Experiment.evaluations`.
        failures: the replicates that have failed; their later records are NaN.
        dtypes: dtypes of the recorded play, see `_played`; empty if play is not recorded.
    """

    experiment: Experiment
    name: str
    device: torch.device
    actors: list[Actor]
    collector: Collector
    measures: Measures
    recorder: Recorder
    watched: Mapping[str, Sequence[Actor]]
    failures: Failures
    dtypes: Mapping[str, np.dtype[Any]]
    step: int = 0

    @classmethod
    @local_parameters()
    def start(
        cls,
        experiment: Experiment,
        name: str,
        replicates: int | None = None,
        records: Path | None = None,
        device: torch.device = torch.device("cpu"),
        before_writing: Callable[[], object] | None = None,
    ) -> Arm:
        """Seed the random streams, equally for every arm, and create the arm's actors.

        Args:
            experiment: the experiment.
            name: name of the arm.
            replicates: number of replicates, if not the experiment's.
            records: folder of the records; `None` records nothing.
            device: where tensors live.
            before_writing: see `Recorder`.
        """
        keep_freed_memory()
        seed_streams(experiment.seed, device)
        seats = experiment.seats(replicates, device)
        shape = (seats[0].replicates, experiment.environments)
        actors = experiment.bind(name, replicates, device)
        simulator = simulate(experiment.game, *shape, device, experiment.dtype, experiment.seed)
        collector = Collector(simulator, actors, tasks=experiment.tasks, seed=experiment.seed)
        return cls(
            experiment,
            name,
            device,
            actors,
            collector,
            Measures(experiment.game, seats, experiment.draws),
            Recorder(records, experiment.metrics, shape[0], len(seats), before_writing=before_writing),
            {name: evaluation.seated(actors) for name, evaluation in experiment.evaluations.items()},
            Failures(shape[0]),
            _dtypes(experiment.game) if experiment.record_actions else {},
        )

    def advance(self) -> None:
        """Collect one trajectory, `collect` joint actions in every environment, and learn from it.

        Raises:
            ArmError: if all replicates have failed, naming arm, agent and step.
        """
        try:
            self.failures.step = self.step + 1
            with self.failures.heeded():
                newest = self.collector.collect(self.experiment.collect)
                for number, step in enumerate(newest.steps, start=self.step + 1):
                    self.failures.step = number
                    self.failures.look("reward", step.rewards)
                    if self.failures.why:  # learners see no rewards of failed replicates
                        failed = torch.tensor(list(self.failures.why), device=self.device)
                        step.rewards = step.rewards.index_fill(0, failed, 0.0)
                said = update(self.actors, newest, self.experiment.updates)
                self._measure(newest, said)
        except NonFiniteError as error:
            agent = error.agent if self.failures.agent is None else self.failures.agent
            whose = "" if agent is None else f", agent {agent}"
            raise ArmError(
                f"arms.{self.name}{whose}, step {self.failures.step}: {error}. The last checkpoint is kept; "
                "expected finite numbers: lower the learning rate, clip gradients, or use dtype float64"
            ) from error

    def _measure(self, newest: Trajectory, said: Sequence[Mapping[str, Tensor]]) -> None:
        """Record what was played and learned."""
        self.step += len(newest.steps)
        for step in newest.steps:
            self.recorder.note(REWARD.name, step.rewards)
            for name, value in (step.judged or {}).items():
                self.recorder.note(name, value)
            if self.dtypes:
                self.recorder.append("actions", self._played(step), self.dtypes)
        for agent, diagnostics in enumerate(said):
            for name, value in diagnostics.items():
                self.recorder.note(name, value, agent)
        for suffix, evaluation in self.experiment.evaluations.items():
            if self.step % evaluation.every == 0:
                played = evaluation.play(self.experiment.game, self.watched[suffix])
                for name, value in evaluation.measure(played).items():
                    self.recorder.note(name + suffix, value)
                if kept := evaluation.kept(self.experiment.game, played):
                    self.recorder.failed = sorted(self.failures.why)
                    self.recorder.append(LATENT + suffix, {name: as_numbers(value) for name, value in kept.items()})
        self.record()

    def _played(self, step: Transition) -> dict[str, Tensor]:
        """A record of one step: each agent's action, the state if agents observe it, and where episodes ended."""
        found = {"ended": step.ended}
        if "state" in self.dtypes:
            found["state"] = step.obs[0]
        for agent, action in enumerate(step.actions):
            name = f"action.{agent}"
            found[name] = action if self.dtypes[name].kind != "f" else action.reshape(*action.shape[:2], -1)
        return found

    def record(self) -> None:
        """Make the records due at this step: metrics since the last record, and current beliefs."""
        every = self.experiment.beliefs_every
        metrics, beliefs = self.step % self.experiment.record_every == 0, bool(every) and self.step % every == 0
        if not (metrics or beliefs):
            return
        obs = self.collector.observe().obs
        believed = self.measures.beliefs(obs, self.actors, self.collector.memories)
        for who, belief in enumerate(believed):
            if "policy" in belief:
                self.failures.look("policy", belief["policy"], who)
        self.recorder.failed = sorted(self.failures.why)
        if metrics:
            for name, value, agent in self.measures.metrics(believed, obs):
                self.recorder.note(name, value, agent)
            self.recorder.commit()
        if beliefs:
            self.recorder.everywhere = self.measures.everywhere
            kept = self.measures.kept(believed)
            self.recorder.append("beliefs", {name: as_numbers(value) for name, value in kept.items()})

    def close(self) -> None:
        """Close the environments."""
        self.collector.simulator.close()

    def state_dict(self) -> dict[str, Any]:
        """The content of a checkpoint: tensors, numbers and strings only."""
        return {
            "step": self.step,
            "device": self.device.type,
            "actors": [actor.state_dict() for actor in self.actors],
            "collector": self.collector.state_dict(),
            "recorder": self.recorder.state_dict(),
            "failures": dict(self.failures.why),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from `state_dict`.

        Raises:
            RunError: if records are missing.
            Exception: if it is the state of another arm.
        """
        for actor, saved in zip(self.actors, state["actors"], strict=True):
            actor.load_state_dict(saved)
        self.collector.load_state_dict(state["collector"])
        self.recorder.load_state_dict(state["recorder"], self.device)
        self.failures.why = dict(state["failures"])
        self.step = state["step"]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"])


def _dtypes(game: Game | ForeignGame) -> dict[str, np.dtype[Any]]:
    """Dtypes of the recorded play, by name: actions, the state if all agents observe it, and `ended`."""
    dtypes = {f"action.{agent}": compact(game.action_spaces) for agent in range(len(game.action_spaces))}
    state = game.observations[0]
    if game.shared_observation and isinstance(state, Discrete) and state.n > 1:
        dtypes["state"] = compact([state])
    return {"ended": np.dtype(np.bool_), **dtypes}
