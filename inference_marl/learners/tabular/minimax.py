"""The minimax strategy of a known game: what no opponent can bring below its value."""

from __future__ import annotations

import numpy as np
import torch
from scipy import optimize, sparse  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from inference_marl.inference.returns import discount_factor
from inference_marl.learners.tabular.base import TabularLearner
from inference_marl.types import Experience, check_discount

TOLERANCE = 1e-10
"""By how much a value must change, relative to the size of the values, to count as another."""


class Minimax(TabularLearner):
    """Plays the strategy that is safe against every opponent, from the known rules; it learns nothing::

        Q(s, a, b) = r(s, a, b) + gamma sum_s' T(s' | s, a, b) V(s')
        V(s) = max_pi min_b sum_a pi(a) Q(s, a, b)

    the unique solution of which are the values of the game (Shapley 1953), each state's strategy one of those that
    reach the maximum, by linear programming. In a two-player zero-sum game two of them play a Nash equilibrium; in any
    other game it is the agent's security strategy, and several opponents count as one who is against it.

    Values settle by the policy iteration of Hoffman and Karp (1966) instead of Shapley's value iteration: between two
    linear programs the strategy found is valued against its worst opponent, so there are few programs to solve.

    Args:
        discount: gamma in [0, 1); the game's if none is given. One-shot games, and those that always terminate, need
            neither.

    Attributes:
        strategy: `states x actions`, the same for all replicates.
        value: V, what each state is worth at least, float64, `states`.

    Raises:
        ValueError: if the discount is out of its range.
    """

    strategy: Tensor
    value: Tensor

    def __init__(self, discount: float | None = None) -> None:
        super().__init__()
        self.discount = check_discount(discount)

    def setup(self) -> None:
        """Solve the game.

        Raises:
            IncompatibleError: if the game does not give its rules as tables, or may go on for ever without a discount,
                besides the reasons of all tabular learners.
        """
        super().setup()
        rules, game_discount = self.known_rules()
        transition, reward = rules.seen_by(self.seat.index)
        strategy, value = solve(reward, transition, game_discount if self.discount is None else self.discount)
        self.register_buffer("strategy", strategy.to(self.seat.device, self.seat.dtype))
        self.register_buffer("value", value.to(self.seat.device))

    def forward(self, obs: Tensor) -> Tensor:
        """The safe strategy, `replicates x batch x actions`."""
        return self.strategy[obs]

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """A draw from the strategy, with or without `explore`: its most probable action alone is not safe."""
        return super().act(obs, explore=True)

    def learn(self, seen: Experience) -> None:
        """Nothing: the rules are known."""


def solve(reward: Tensor, transition: Tensor, discount: float | None) -> tuple[Tensor, Tensor]:
    """Maximin strategies and values of a stochastic game.

    Args:
        reward: `states x actions x opponent_actions`, float64.
        transition: `states x actions x opponent_actions x states`; what a row lacks to 1 is the probability that the
            game terminates there.
        discount: gamma in [0, 1), or `None` for 1.

    Returns:
        Strategies `states x actions`, and what each state is worth against the worst opponent, `states`.

    Raises:
        IncompatibleError: if there is no discount and the game may go on for ever.
    """
    transition = discount_factor(transition, discount) * transition
    strategy = maximin(reward)
    value = _against_the_worst(strategy, reward, transition)
    while True:  # every round raises some value, and none is above the game's
        better = maximin(reward + transition @ value)
        after = _against_the_worst(better, reward, transition)
        if bool((after - value <= TOLERANCE * value.abs().amax().clamp_min(1)).all()):
            return strategy, value
        strategy, value = better, after


def _against_the_worst(strategy: Tensor, reward: Tensor, transition: Tensor) -> Tensor:
    """What a strategy gets at least from every state on, `states`: the opponent's policy iteration (Howard 1960)."""
    pays = torch.einsum("sa,sab->sb", strategy, reward)
    moves = torch.einsum("sa,sabt->sbt", strategy, transition)
    states, choice = torch.arange(len(pays)), pays.argmin(-1)
    while True:  # every round is worse in some state, and there are finitely many policies
        chain = torch.eye(len(pays), dtype=pays.dtype) - moves[states, choice]
        value: Tensor = torch.linalg.solve(chain, pays[states, choice])
        q = pays + moves @ value
        worst = q.min(-1)
        worse = q[states, choice] - worst.values > TOLERANCE * q.abs().amax().clamp_min(1)
        if not bool(worse.any()):
            return value
        choice = torch.where(worse, worst.indices, choice)


def maximin(payoff: Tensor) -> Tensor:
    """Strategies that maximise the worst expected payoff, for many matrix games at once.

    One linear program, with a block for every game: maximise `sum_s v_s` such that `v_s <= sum_a pi_sa payoff_sab` for
    every `b`, over distributions `pi_s`.

    Args:
        payoff: `games x actions x opponent_actions`, float64.

    Returns:
        `games x actions`.
    """
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
