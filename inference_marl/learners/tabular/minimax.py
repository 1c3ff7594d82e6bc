"""The maximin strategy of a known game, which guarantees the game's value against any opponent."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from inference_marl.described import In, hyperparameters
from inference_marl.inference.returns import discount_factor
from inference_marl.learners.tabular.base import TabularLearner
from inference_marl.types import Decision, Experience, Memory

TOLERANCE = 1e-10
"""Changes of values below this, relative to the size of the values, are ignored."""


@hyperparameters
class Minimax(TabularLearner):
    """Plays the maximin strategy, computed from the known rules::

        Q(s, a, b) = r(s, a, b) + gamma sum_s' T(s' | s, a, b) V(s')
        V(s) = max_pi min_b sum_a pi(a) Q(s, a, b)

    whose unique solution is the game's values (Shapley 1953); in each state the strategy attains the maximum and is
    found by linear programming. In two-player zero-sum games a pair of these strategies is a Nash equilibrium; in other
    games it is the agent's security strategy, with several opponents treated as one adversary.

    Values are computed by the policy iteration of Hoffman and Karp (1966) instead of Shapley's value iteration: between
    linear programs the strategy is evaluated against the worst opponent, so that few programs are needed.

    Args:
        discount: gamma in [0, 1); by default the game's. Games that always terminate, such as one-shot games, need
            neither.

    Attributes:
        strategy: `states x actions`, the same for all replicates.
        value: V, the guaranteed value of each state, float64, `states`.
    """

    discount: Annotated[float | None, In("a number in [0, 1)", ", or null for the game's")] = None
    strategy: Tensor = field(init=False)
    value: Tensor = field(init=False)

    def setup(self) -> None:
        """Solve the game.

        Raises:
            IncompatibleError: like all tabular learners, or if the game does not provide its rules as tables, or may go
                on forever without a discount.
        """
        super().setup()
        rules, game_discount = self.known_rules()
        transition, reward = rules.seen_by(self.seat.index)
        strategy, value = solve(reward, transition, game_discount if self.discount is None else self.discount)
        self.register_buffer("strategy", strategy.to(self.seat.device, self.seat.dtype))
        self.register_buffer("value", value.to(self.seat.device))

    def forward(self, obs: Tensor) -> Tensor:
        """The maximin strategy, `replicates x batch x actions`."""
        return self.strategy[obs]

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Draw from the strategy, even without `explore`: its most probable action alone guarantees nothing."""
        return super().act(obs, memory, explore=True, mask=mask)

    def update(self, seen: Experience) -> None:
        """Do nothing: the rules are known."""


def solve(reward: Tensor, transition: Tensor, discount: float | None) -> tuple[Tensor, Tensor]:
    """Maximin strategies `states x actions` and worst-case values `states` of a stochastic game.

    Args:
        reward: `states x actions x opponent_actions`, float64.
        transition: `states x actions x opponent_actions x states`; missing mass is the probability of termination.
        discount: gamma in [0, 1), or `None` for 1.

    Raises:
        IncompatibleError: if the discount is `None` and the game may go on forever.
    """
    transition = discount_factor(transition, discount) * transition
    strategy = maximin(reward)
    value = _against_the_worst(strategy, reward, transition)
    while True:  # every iteration increases some value, and none exceeds the game's
        better = maximin(reward + transition @ value)
        after = _against_the_worst(better, reward, transition)
        if bool((after - value <= TOLERANCE * value.abs().amax().clamp_min(1)).all()):
            return strategy, value
        strategy, value = better, after


def _against_the_worst(strategy: Tensor, reward: Tensor, transition: Tensor) -> Tensor:
    """A strategy's worst-case values, `states`, by policy iteration of the opponent (Howard 1960)."""
    pays = torch.einsum("sa,sab->sb", strategy, reward)
    moves = torch.einsum("sa,sabt->sbt", strategy, transition)
    states, choice = torch.arange(len(pays)), pays.argmin(-1)
    while True:  # every iteration lowers the value of some state, and there are finitely many policies
        chain = torch.eye(len(pays), dtype=pays.dtype) - moves[states, choice]
        value: Tensor = torch.linalg.solve(chain, pays[states, choice])
        q = pays + moves @ value
        worst = q.min(-1)
        worse = q[states, choice] - worst.values > TOLERANCE * q.abs().amax().clamp_min(1)
        if not bool(worse.any()):
            return value
        choice = torch.where(worse, worst.indices, choice)


def maximin(payoff: Tensor) -> Tensor:
    """Strategies `games x actions` that maximise the worst-case expected payoff, for many matrix games at once.

    One linear program, with a block for every game: maximise `sum_s v_s` such that `v_s <= sum_a pi_sa payoff_sab` for
    every `b`, over distributions `pi_s`.

    Args:
        payoff: `games x actions x opponent_actions`, float64.
    """
    from scipy import optimize, sparse  # type: ignore[import-untyped, unused-ignore]  # other learners do not need it

    games, actions, opponent_actions = payoff.shape
    low, high = payoff.amin((1, 2), keepdim=True), payoff.amax((1, 2), keepdim=True)
    scaled = (payoff - low) / torch.where(high > low, high - low, 1.0)  # the solver's tolerances are absolute
    worst = [np.c_[-each.T, np.ones(opponent_actions)] for each in scaled.numpy()]
    total = np.append(np.ones(actions), 0.0)
    found = optimize.linprog(
        c=np.tile(np.append(np.zeros(actions), -1.0), games),
        A_ub=sparse.block_diag(worst, format="csr"),
        b_ub=np.zeros(games * opponent_actions),
        A_eq=sparse.block_diag([total[None]] * games, format="csr"),
        b_eq=np.ones(games),
        bounds=([(0, None)] * actions + [(None, None)]) * games,
        method="highs",
    )
    strategy = torch.from_numpy(found.x).view(games, actions + 1)[:, :-1].clamp_min(0)
    return strategy / strategy.sum(-1, keepdim=True)
