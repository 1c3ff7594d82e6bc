"""The game's rules as known or learned by an agent: initial state, transitions, rewards."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import IncompatibleError, Positive
from inference_marl.inference.conditional import Conditional
from inference_marl.models.critics import Critic
from inference_marl.spaces import Discrete, joint_action
from inference_marl.types import Dynamics, Experience, Game

LEARNED = "dynamics that are learned (DirichletTransition, GaussianEnsemble)"
"""The alternative that error messages name for games that do not provide their rules."""


class TransitionModel(Conditional):
    """`s' ~ T(s' | s, a, b)`: the target is the next state; parents are state, own action and every opponent's action.

    A subclass defines `forward(obs, action, *opponent_actions)`; one that learns from play also `store` and `fit`.
    """

    def store(self, data: Experience) -> None:
        """Store new transitions, `replicates x batch`, without drawing random numbers. Nothing by default."""

    def fit(self) -> None:
        """Fit the stored transitions; raises `NonFiniteError` if the loss is not finite. Nothing by default."""


class InitialState(Conditional):
    """The game's own distribution of initial states, for games that provide their rules as tables. No parents."""

    targets = (Discrete,)

    def setup(self) -> None:
        """Look up the distribution; raises `IncompatibleError` if the game does not provide its rules as tables."""
        rules, _ = self.seat.known_rules(self, LEARNED)
        self.register_buffer("logits", rules.initial.to(self.seat.device, self.seat.dtype).log())

    def forward(self) -> dist.TorchDistribution:
        """Categorical over states, batch shape `()`."""
        return dist.Categorical(logits=self.logits)


class KnownTransition(TransitionModel):
    """The game's own transition probabilities, for games that provide their rules as tables."""

    targets = (Discrete,)
    conditions = (Discrete,)

    def setup(self) -> None:
        """Look up the table.

        Raises:
            IncompatibleError: if the game does not provide its rules as tables, or may end before its horizon.
        """
        table = self.table().to(self.seat.device, self.seat.dtype)
        self.register_buffer("logits", table.log())

    def table(self) -> Tensor:
        """Transition probabilities, float64, `states x actions x (opponents' joint actions) x states`."""
        rules, _ = self.seat.known_rules(self, LEARNED)
        _check_goes_on(rules, type(self).__name__)
        transition, _ = rules.seen_by(self.seat.index)
        # A one-shot game has no next state; any distribution will do, since a horizon of 1 never uses it.
        one_shot = transition.sum(-1, keepdim=True) == 0
        return torch.where(one_shot, torch.full_like(transition, 1 / transition.shape[-1]), transition)

    def forward(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> dist.TorchDistribution:
        """The selected row of the table."""
        joint = joint_action(self.seat.opponent_actions, opponent_actions)
        return dist.Categorical(logits=Vindex(self.logits)[obs, action, joint, :])


class DeterministicTransition(KnownTransition):
    """A deterministic transition function, given as a table or taken from the game.

    With deterministic dynamics the best guide that keeps the dynamics attains the log-evidence.

    Args:
        successors: the next state, nested lists `states x actions x (opponents' joint actions)`; `None` takes them from
            the game, whose transitions must be deterministic.

    Raises:
        ValueError: if `successors` is not nested lists of integers.
    """

    def __init__(self, successors: list[Any] | None = None) -> None:
        super().__init__()
        self.successors = successors
        if successors is not None:
            try:
                table = torch.tensor(successors)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"successors: got {successors!r} ({error}), expected nested lists of states"
                ) from error
            if table.dtype != torch.int64 or table.dim() != 3:
                raise ValueError(
                    f"successors: got shape {tuple(table.shape)} of {table.dtype}, expected whole numbers, states x "
                    "actions x opponent_actions"
                )

    def table(self) -> Tensor:
        """Transition probabilities, all 0 or 1, in the shape of `KnownTransition.table`.

        Raises:
            IncompatibleError: if the game's transitions are random, or `successors` does not fit the game.
        """
        if self.successors is None:
            table = super().table()
            if not bool(((table == 0) | (table == 1)).all()):
                raise IncompatibleError(
                    "DeterministicTransition got a game with random transitions, expected successors or KnownTransition"
                )
            return table
        successors = torch.tensor(self.successors)
        states = self.target.features
        expected = (states, self.seat.action.features, self.seat.opponent_action.features)
        if successors.shape != expected or not bool(((successors >= 0) & (successors < states)).all()):
            raise IncompatibleError(
                f"got shape {tuple(successors.shape)} with states {int(successors.min())} to {int(successors.max())}, "
                f"expected shape {expected} with states 0 to {states - 1}",
                key="successors",
            )
        return torch.nn.functional.one_hot(successors, states).double()


class DirichletTransition(TransitionModel):
    """Tabular dynamics under a Dirichlet prior::

        T_{s, a, b} ~ Dirichlet(concentration, ..., concentration)
        s' ~ Categorical(T_{s, a, b})

    with the posterior predictive `(count + concentration) / (total + concentration |S|)` as `T(s' | s, a, b)`. Discrete
    states and actions.

    Args:
        concentration: parameter of the symmetric Dirichlet, positive; small if each action leads to few states.
    """

    targets = (Discrete,)
    conditions = (Discrete,)
    counts: Tensor

    def __init__(self, concentration: Positive = 0.5) -> None:
        super().__init__()
        self.concentration = concentration

    def setup(self) -> None:
        """Create empty `counts`, `replicates x states x actions x (opponents' joint actions) x states`.

        Raises:
            IncompatibleError: if the game is known to end before its horizon.
        """
        if self.seat.rules is not None:
            _check_goes_on(self.seat.rules, type(self).__name__)
        spaces = (self.parents[0], self.seat.action, self.seat.opponent_action, self.target)
        sizes = [space.features for space in spaces]
        counts = torch.zeros(self.seat.replicates, *sizes, device=self.seat.device, dtype=self.seat.dtype)
        self.register_buffer("counts", counts)

    def store(self, data: Experience) -> None:
        """Count the transitions that did not terminate."""
        _, states, actions, opponent_actions, _ = self.counts.shape
        row = (data.obs * actions + data.action) * opponent_actions + data.opponent_action
        seen = (~data.terminated).to(self.counts.dtype)
        self.counts.view(len(self.counts), -1).scatter_add_(1, row * states + data.next_obs, seen)

    def posterior(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> dist.Dirichlet:
        """The posterior over the row of the table, batch shape `[extra x] replicates x batch`."""
        joint = joint_action(self.seat.opponent_actions, opponent_actions)
        counts = Vindex(self.counts)[self.seat.rows, obs, action, joint, :]
        return dist.Dirichlet(counts + self.concentration)

    def forward(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> dist.TorchDistribution:
        """The posterior predictive."""
        return dist.Categorical(self.posterior(obs, action, *opponent_actions).concentration)


class KnownReward(Critic):
    """The game's own rewards as `Q(s, a, b)`, for planners that know the rules. Never fitted.

    Discrete games provide them as tables (`Game.dynamics`), others as a differentiable function
    (`Game.expected_reward`).
    """

    values: Tensor | None

    def __init__(self) -> None:
        super().__init__()

    def setup(self) -> None:
        """Look up the table, if there is one.

        Raises:
            IncompatibleError: if the game provides neither tables nor `expected_reward`.
        """
        game = self.seat.game
        if game is not None and self.seat.rules is None and type(game).expected_reward is not Game.expected_reward:
            self.register_buffer("values", None)
            return
        rules, _ = self.seat.known_rules(self, "a game with `expected_reward`, or a critic that learns the rewards")
        _, reward = rules.seen_by(self.seat.index)
        self.register_buffer("values", reward.to(self.seat.device, self.seat.dtype).clone())

    def forward(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> Tensor:
        """Rewards `[extra x] replicates x batch`."""
        seat = self.seat
        if self.values is not None:
            joint = joint_action(seat.opponent_actions, opponent_actions)
            looked_up: Tensor = Vindex(self.values)[obs, action, joint]
            return looked_up
        actions = [*opponent_actions[: seat.index], action, *opponent_actions[seat.index :]]
        rewards = None if seat.game is None else seat.game.expected_reward(obs, actions)
        assert rewards is not None  # ensured by `setup`
        return rewards[..., seat.index]

    def fit(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """Do nothing: the rewards are known."""


def _check_goes_on(rules: Dynamics, name: str) -> None:
    """Raise for games that end at some steps but not at every one: modelled trajectories have no terminal state."""
    ends = 1 - rules.transition.sum(-1)
    if bool((ends > 1e-6).any()) and not bool((ends == 1).all()):
        raise IncompatibleError(
            f"{name} got a game that may end at any step, expected one that goes on: give it an absorbing state that "
            "pays nothing"
        )
