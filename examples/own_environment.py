"""A custom PettingZoo environment: two agents at a narrow door, through which only one can go at a time.

Run with `python examples/own_environment.py`. In an experiment file the game is

    game: {class_path: PettingZoo, init_args: {env: own_environment.Door, arguments: {length: 10}}}
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import Space, spaces
from pettingzoo import ParallelEnv  # type: ignore[import-untyped, unused-ignore]

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.learners.tabular import Boltzmann, IndependentQ
from inference_marl.simulators import PettingZoo


class Door(ParallelEnv[str, Any, Any]):  # type: ignore[misc, unused-ignore]
    """Each agent waits (0) or goes (1); both get reward 1 if exactly one goes. Agents observe their own last action.

    An environment keeps the state of one copy, and takes all randomness from the seed that it is given, so that a
    resumed run continues bit by bit. The time limit is a truncation, after which `agents` is empty.

    Args:
        length: steps per episode.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "door"}

    def __init__(self, length: int = 10) -> None:
        self.length = length
        self.possible_agents = ["left", "right"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Space[Any]:
        """The agent's last action; random at the start of an episode."""
        return spaces.Discrete(2)

    def action_space(self, agent: str) -> Space[Any]:
        """Wait or go."""
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode; return observations and infos by agent."""
        self.agents, self.steps = list(self.possible_agents), 0
        last = np.random.default_rng(seed).integers(2, size=2)
        return dict(zip(self.agents, last, strict=True)), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        """Play a step; return observations, rewards, terminations, truncations and infos by agent."""
        self.steps += 1
        everyone, over = self.agents, self.steps == self.length
        paid = float(sum(actions.values()) == 1)
        if over:
            self.agents = []
        return (
            dict(actions),
            dict.fromkeys(everyone, paid),
            dict.fromkeys(everyone, False),
            dict.fromkeys(everyone, over),
            {agent: {} for agent in everyone},
        )


def experiment(replicates: int = 10, steps: int = 1000) -> Experiment:
    """Independent Q-learners, which have to learn to take turns."""
    door = PettingZoo("own_environment.Door", {"length": 10})
    learner = IndependentQ(exploration=Boltzmann(0.1), discount=0.9)
    return Experiment(door, {"q": learner}, replicates=replicates, steps=steps, record_every=50)


if __name__ == "__main__":
    import own_environment  # the environment is then known by this name, not as __main__

    folder = run(own_environment.experiment(), name="own_environment")
    through = read(folder).metrics["reward"].isel(step=-1).mean()
    print(f"At the end exactly one goes in {100 * through:.0f} % of the steps; by chance that would be 50 %.")
    print(f"Everything else is in {folder}.")
