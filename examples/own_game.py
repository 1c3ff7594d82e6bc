"""A custom game: a common resource that regrows only while some of it is left.

Run with `python examples/own_game.py`; in an experiment file it is named `own_game.Common`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.described import Count
from inference_marl.games import check_actions
from inference_marl.learners.tabular import Boltzmann, IndependentQ
from inference_marl.spaces import Discrete
from inference_marl.types import Game, Observed, State, Step


class Common(Game):
    """Agents take 0, 1 or 2 units of a stock that all observe. A stock that is not empty then grows by one unit.

    A game is a pure function of its state, a dictionary of tensors `replicates x environments x ...`. So it can be
    played in many environments at once, used for looking ahead, and saved in a checkpoint.

    Args:
        agents: number of agents.
        size: maximum stock, with which episodes begin.
        horizon: steps per episode; a time limit, not termination.
    """

    terminates = False
    shared_observation = True

    def __init__(self, agents: Count = 2, size: Count = 8, horizon: Count = 20) -> None:
        self.size, self.horizon = size, horizon
        self.observations = (Discrete(size + 1),) * agents
        self.action_spaces = (Discrete(3),) * agents

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Begin with a full stock."""
        return {"stock": torch.full((replicates, environments), self.size, device=device)}

    def observe(self, state: State) -> Observed:
        """All agents observe the stock."""
        return Observed((state["stock"],) * self.agents)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Take from the stock; if there is not enough, it is divided in proportion to the demands."""
        stock = state["stock"]
        check_actions(self.action_spaces, actions, stock.shape)
        wanted = torch.stack(list(actions), -1)
        total = wanted.sum(-1)
        rewards = wanted * (stock / total.clamp_min(1)).clamp_max(1).unsqueeze(-1)
        left = (stock - total).clamp_min(0)
        grown = torch.where(left > 0, (left + 1).clamp_max(self.size), left)
        return Step({"stock": grown}, rewards, terminated=torch.zeros_like(left, dtype=torch.bool))


def experiment(replicates: int = 50, steps: int = 4000) -> Experiment:
    """Independent Q-learners, which have to learn not to exhaust the stock."""
    learner = IndependentQ(exploration=Boltzmann(0.1), discount=0.95)
    return Experiment(Common(), {"q": learner}, replicates=replicates, steps=steps, record_every=100)


if __name__ == "__main__":
    import own_game  # the run's spec.yaml then says own_game, not __main__

    folder = run(own_game.experiment(), name="own_game")
    earned = read(folder).metrics["reward"].isel(step=-1).mean()
    print(f"At the end each agent takes {earned:.2f} per step; by taking one unit in turn they would get 0.50.")
    print(f"Everything else is in {folder}.")
