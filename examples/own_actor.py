"""A custom actor that does not learn, the grim trigger strategy, and a learner that plays against it.

Run with `python examples/own_actor.py`; in an experiment file the actor is named `own_actor.Grim`.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame
from inference_marl.learners.tabular import EpsilonGreedy, IndependentQ
from inference_marl.spaces import Discrete
from inference_marl.types import Actor, Experience, Memory

COOPERATE, DEFECT = 0, 1


class Grim(Actor):
    """Cooperates until an opponent defects, and defects for the rest of the episode."""

    def setup(self) -> None:
        """Check that the game fits, now that the seat is known; there are no parameters to create."""
        if self.seat.action != Discrete(2):
            raise IncompatibleError(f"Grim got actions {self.seat.action}, expected {Discrete(2)}")

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The memory at the start of an episode; all state belongs in the memory, never in attributes."""
        return {"offended": torch.zeros(replicates, environments, dtype=torch.bool, device=self.seat.device)}

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        """The action distribution for each replicate and environment, and the memory after deciding."""
        probabilities = torch.nn.functional.one_hot(memory["offended"].long(), 2)  # of COOPERATE and DEFECT
        return dist.Categorical(probs=probabilities.to(self.seat.dtype)), memory

    def remember(self, memory: Memory, step: Experience) -> Memory:
        """The memory after a step, given as this agent observed it."""
        offended = torch.stack([action == DEFECT for action in step.opponent_actions]).any(0)
        return {"offended": memory["offended"] | offended}


def experiment(replicates: int = 200, steps: int = 4000) -> Experiment:
    """Q-learning against `Grim` in ten rounds of the prisoner's dilemma, observing the last joint action."""
    learner = IndependentQ(exploration=EpsilonGreedy(0.1), discount=0.95)
    game = MatrixGame("prisoners_dilemma", horizon=10, memory=1)
    return Experiment(game, {"grim": [learner, Grim()]}, replicates=replicates, steps=steps, record_every=10)


if __name__ == "__main__":
    import own_actor  # the run's spec.yaml then says own_actor, not __main__

    folder = run(own_actor.experiment(), name="own_actor")
    reward = read(folder).metrics["reward"].sel(agent=0).isel(step=slice(-10, None)).mean()
    print(f"At the end the learner earns {reward:.2f} per round; cooperating throughout earns -1.00.")
    print(f"Everything else is in {folder}.")
