"""A custom opponent prior: opponents that mostly repeat their last action.

Run with `python examples/own_prior.py`; in an experiment file it is named `own_prior.Habit`.
"""

from __future__ import annotations

from typing import Annotated

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.described import In
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.learners import Rommeo
from inference_marl.models import OpponentPrior, TabularCritic
from inference_marl.spaces import Discrete


class Habit(OpponentPrior):
    """`P(b | s)` puts mass `strength` on the opponents' last action in `s`, and spreads the rest over all actions.

    Args:
        strength: the mass of the last action, in (0, 1).
    """

    targets = (Discrete,)  # supported action spaces; other games are rejected before a run
    conditions = (Discrete,)

    def __init__(self, strength: Annotated[float, In("a number in (0, 1)")] = 0.8) -> None:
        super().__init__()
        self.strength = strength

    def setup(self) -> None:
        """Create buffers, which checkpoints contain, `replicates x ...`, now that shapes are known."""
        states, actions = self.parents[0].features, self.target.features
        even = torch.full((self.seat.replicates, states, actions), 1 / actions, dtype=self.seat.dtype)
        self.register_buffer("probabilities", even.to(self.seat.device))

    def observe(self, obs: Tensor, opponent_action: Tensor) -> None:
        """Record the opponents' actions, `replicates x environments`."""
        actions = self.target.features
        rest = (1 - self.strength) / actions
        for state, action in zip(obs.unbind(1), opponent_action.unbind(1), strict=True):
            row = rest + self.strength * torch.nn.functional.one_hot(action, actions)
            self.probabilities[self.seat.rows.squeeze(1), state] = row.to(self.probabilities)

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The distribution `P(b | s)` at `obs`, batch shape `replicates x batch`."""
        return dist.Categorical(probs=self.probabilities[self.seat.rows, obs])


def experiment(replicates: int = 200, steps: int = 200) -> Experiment:
    """The climbing game with this prior."""
    learner = Rommeo(
        opponent_prior=Habit(0.8),
        guide=OpponentFirst(opponent_model=Optimal(), policy=Optimal()),
        critic=TabularCritic(initial=20.0),
    )
    return Experiment(MatrixGame("climbing"), {"habit": learner}, replicates=replicates, steps=steps)


if __name__ == "__main__":
    import own_prior  # the run's spec.yaml then says own_prior, not __main__

    folder = run(own_prior.experiment(), name="own_prior")
    optimum = read(folder).metrics["joint_optimum_probability"].isel(step=-1).mean()
    print(f"At the end they play the climbing game's optimum with probability {optimum:.2f}.")
    print(f"Everything else is in {folder}.")
