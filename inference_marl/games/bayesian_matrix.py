"""Repeated matrix games against opponents with hidden mixed strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inference_marl.described import Count, IncompatibleError
from inference_marl.games.bayesian import TYPE, BayesianGame
from inference_marl.games.hidden_types import Types
from inference_marl.games.matrix import MatrixGame
from inference_marl.spaces import Box
from inference_marl.types import Observed, State, Step


class BayesianMatrixGame(BayesianGame):
    """A repeated matrix game against an opponent whose hidden type is a mixed strategy.

    Seat 0 always observes 0, so it has to remember the opponent's actions. Seat 1 observes its type, the probabilities
    of its actions, which `learners.scripts.PlaysItsType` plays.

    In rock, paper, scissors against Dirichlet(1), best responses to the posterior mean earn 1/4 per round after one
    round, .300 after 2, .357 after 5, .404 after 15 and .436 after 75 (`learners.scripts.BayesOracle`); an agent that
    knows the type earns 4/9.

    Args:
        payoff: see `MatrixGame`; for two agents.
        populations: types of opponents by population, such as `DirichletTypes`; see `BayesianGame`.
        horizon: rounds per episode. A time limit: no step terminates.
        stochastic: see `MatrixGame`.

    Raises:
        ValueError: if there are not two agents, or types are not probabilities of the second one's actions.
    """

    terminates = False

    def __init__(
        self,
        payoff: str | list[Any],
        populations: Mapping[str, Types],
        *,
        horizon: Count = 75,
        stochastic: bool = False,
    ) -> None:
        common = None if isinstance(payoff, str) else False
        self.rules = MatrixGame(payoff, horizon=None, common=common, stochastic=stochastic)
        if self.rules.agents != 2:
            raise ValueError(f"payoff: got one of {self.rules.agents} agents, expected one of two")
        actions = self.rules.action_spaces[1].features
        super().__init__(populations, 0.0, 1.0, actions)
        self.payoff, self.horizon = payoff, horizon
        self.observations = (self.rules.observations[0], Box(0.0, 1.0, actions))
        self.action_spaces = self.rules.action_spaces

    @property
    def expected_payoff(self) -> Tensor:
        """Mean rewards, float64, `agents x actions x opponent's actions`."""
        return self.rules.expected_payoff

    def check_types(self, points: Tensor) -> str | None:
        """See `BayesianGame`; types must be mixed strategies."""
        sums = points.sum(-1)
        if (sums - 1).abs().max() > 1e-9:
            return f"numbers whose sums are from {sums.min():g} to {sums.max():g}, expected probabilities"
        return super().check_types(points)

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """The state of the matrix game and the `type`."""
        state = self.rules.reset(replicates, environments, device, dtype)
        return state | self.drawn_type(replicates, environments, device, dtype, task)

    def observe(self, state: State) -> Observed:
        """The observations of both seats, see the class."""
        return Observed((state["obs"], state[TYPE]))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Play one round, see `MatrixGame.step`."""
        step = self.rules.step(state, actions)
        return step._replace(state=step.state | {TYPE: state[TYPE]})


def payoffs_of(game: object, agent: int, who: str) -> Tensor:
    """An agent's mean rewards in a matrix game of two agents, float64, `own actions x opponent's actions`.

    Raises:
        IncompatibleError: if it is another game; the message names `who`.
    """
    if not isinstance(game, MatrixGame | BayesianMatrixGame) or game.agents != 2:
        got = type(game).__name__
        raise IncompatibleError(f"{who} got {got}, expected BayesianMatrixGame or MatrixGame, of two agents")
    return game.expected_payoff[agent].movedim(agent, 0)
