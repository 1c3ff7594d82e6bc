"""The bases of tabular learners: checks of the seat, acting from probabilities, tables of action values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import BelowOne, IncompatibleError, Rate, hyperparameters, interval
from inference_marl.inference.objectives import td_target
from inference_marl.inference.schedules import ByReplicate, Number, Schedule, current
from inference_marl.inference.tables import draw, finite, mean_per_cell, move, random_table
from inference_marl.learners.tabular.exploration import Exploration
from inference_marl.spaces import Discrete
from inference_marl.types import Actor, Counting, Decision, Dynamics, Experience, Learner, Memory, Trajectory, about_all


@hyperparameters
class TabularLearner(Counting, Learner):
    """Base: plays probabilities computed from tables. A subclass defines `setup`, `forward` and `update`.

    Attributes:
        states, actions: sizes of the spaces, once bound.
    """

    heeds_masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.updates = 0

    def setup(self) -> None:
        """Check the seat; raises `IncompatibleError` if observations or actions are not discrete."""
        seat = self.seat
        others = [("opponents' actions", space) for space in seat.opponent_actions]
        for what, space in (("observations", seat.observation), ("actions", seat.action), *others):
            if not isinstance(space, Discrete):
                raise IncompatibleError(
                    f"{type(self).__name__} got {what} {space}, expected Discrete: it learns tables; choose a learner "
                    "with networks, or a game with finitely many states and actions"
                )
        self.states, self.actions = seat.observation.features, seat.action.features

    @property
    def opponent_actions(self) -> int:
        """Number of the opponents' joint actions, for learners with a table over them.

        Raises:
            IncompatibleError: if there are too many for a table.
        """
        return self.seat.opponent_action.features

    def known_rules(self) -> tuple[Dynamics, float | None]:
        """The game's rules and discount; raises `IncompatibleError` if it has no tables."""
        return self.seat.known_rules(self, "a learner that does not have to know them, such as JointActionLearner")

    def table(self, name: str, *shape: int, fill: float = 0.0) -> None:
        """Register a constant buffer `replicates x shape`."""
        size = (self.seat.replicates, *shape)
        self.register_buffer(name, torch.full(size, fill, dtype=self.seat.dtype, device=self.seat.device))

    @abstractmethod
    def forward(self, obs: Tensor) -> Tensor:
        """Probabilities of the agent's own actions, `replicates x batch x actions`."""

    @abstractmethod
    def update(self, seen: Experience) -> None:
        """Learn from one step in every environment, `replicates x environments`."""

    def belief(self, obs: Tensor) -> Tensor | None:
        """Opponents' believed policy, `replicates x batch x opponent_actions`; `None` without a belief."""
        return None

    def preferences(self, obs: Tensor) -> Tensor:
        """Scores whose first maximum is played without exploration: the policy, unless overridden."""
        probabilities: Tensor = self(obs)
        return probabilities

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        """Probabilities of the agent's own actions, renormalised over legal ones."""
        return dist.Categorical(probs=_legal(self(obs), mask)), memory

    @torch.no_grad()
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """A draw from the policy; the most preferred action without `explore`."""
        if explore:
            return Decision(draw(_legal(self(obs), mask)), memory)
        preferences = self.preferences(obs)
        if mask is not None:
            preferences = preferences.masked_fill(~mask, -torch.inf)
        return Decision(preferences.argmax(-1), memory)

    def store(self, newest: Trajectory) -> None:
        """Check that agents cannot leave an episode; subclasses with counts update them here.

        Raises:
            IncompatibleError: if agents may leave an episode.
        """
        newest.check_all_act(type(self).__name__)

    @torch.no_grad()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Learn from each step in turn; `peers` is not used.

        Raises:
            NonFiniteError: if a reward is not finite.
            IncompatibleError: if agents may leave an episode.
        """
        for seen in newest.seen_by(self.seat):
            reward = finite("reward", seen.reward)
            self.update(seen if reward is seen.reward else replace(seen, reward=reward))
            self.updates += 1
        return {}

    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy and, if there is one, the belief about the opponents."""
        model = self.belief(obs)
        believed = {} if model is None else about_all("opponent_model", model, self.seat.opponent_actions)
        return {"policy": self(obs), **believed}


@hyperparameters
class ValueLearner(TabularLearner):
    """Base: a table of values of the agent's own actions with an exploration policy, updated with TD targets::

        y = r + gamma max_a' Q(s', a')        Q(s, a) <- Q(s, a) + rate(y - Q(s, a)) (y - Q(s, a))

    A subclass defines `rates`, the learning rate given an error, and may override `preferences`, the scores from which
    it explores. Without exploration, the first of the most preferred actions is played.

    Args:
        exploration: maps values to probabilities.
        rate: learning rate in (0, 1]; a number or a schedule over updates.
        discount: gamma in [0, 1).
        initial: initial values: a number, or `[low, high]` for uniform draws.
    """

    by_replicate = frozenset({"rate", "discount"})

    exploration: Exploration
    rate: Rate | Schedule = 0.1
    discount: BelowOne | ByReplicate = 0.95
    initial: float | tuple[float, float] = 0.0
    values: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        interval("initial", self.initial, strictly=False)

    def setup(self) -> None:
        """Check the seat and draw the table, `replicates x states x columns`."""
        super().setup()
        ends = interval("initial", self.initial, strictly=False)
        self.register_buffer("values", random_table(self.seat, ends, self.states, self.columns))

    @property
    def columns(self) -> int:
        """Values per state: one per own action, unless overridden."""
        return self.actions

    def column(self, seen: Experience) -> Tensor:
        """The column that a datum updates, `replicates x batch`: the own action, unless overridden."""
        return seen.action

    def preferences(self, obs: Tensor) -> Tensor:
        """The scores from which it explores, `replicates x batch x actions`: the values, unless overridden."""
        return self.values[self.seat.rows, obs]

    def forward(self, obs: Tensor) -> Tensor:
        """The exploring policy, `replicates x batch x actions`."""
        return self.exploration(self.preferences(obs), self.updates)

    def next_value(self, obs: Tensor) -> Tensor:
        """The value of a state, `max_a Q(s, a)`, `replicates x batch`, unless overridden."""
        return self.values[self.seat.rows, obs].max(-1).values

    @abstractmethod
    def rates(self, cell: Tensor, error: Tensor) -> Number:
        """The learning rate for an error, in [0, 1]: a number, `replicates x batch` or `replicates x 1`.

        Args:
            cell: the updated entry of the flat table `states x columns`, `replicates x batch`.
            error: target minus value, `replicates x batch`.
        """

    def update(self, seen: Experience) -> None:
        """Move the visited cells towards their targets."""
        cells = self.states * self.columns
        cell = seen.obs * self.columns + self.column(seen)
        target = seen.reward
        if not bool(seen.terminated.all()):
            discount = current(self.discount, self.updates)
            target = td_target(target, discount, seen.terminated, self.next_value(seen.next_obs))
        target = mean_per_cell(cells, cell, target.to(self.values.dtype))
        flat = self.values.view(-1, cells)
        move(flat, cell, target, self.rates(cell, target - flat.gather(1, cell)))


@hyperparameters
class JointValueLearner(ValueLearner):
    """Base: a table of values of joint actions, averaged over the opponents' predicted actions::

        EV(s, a) = sum_b rho(b | s, a) Q(s, a, b)        y = r + gamma max_a' EV(s', a')

    A subclass defines `replies`, the prediction rho.
    """

    @property
    def columns(self) -> int:
        """One value per own and opponents' joint action; the latter varies fastest."""
        return self.actions * self.opponent_actions

    def column(self, seen: Experience) -> Tensor:
        """The column of the joint action played, `replicates x batch`."""
        return seen.action * self.opponent_actions + seen.opponent_action

    def rates(self, cell: Tensor, error: Tensor) -> Number:
        """The current learning rate, for all errors."""
        return current(self.rate, self.updates)

    def joint_values(self, obs: Tensor) -> Tensor:
        """`Q(s, ., .)`, `replicates x batch x actions x opponent_actions`."""
        return self.values[self.seat.rows, obs].view(*obs.shape, self.actions, self.opponent_actions)

    @abstractmethod
    def replies(self, obs: Tensor) -> Tensor:
        """`rho(b | s, a)`, which broadcasts with `replicates x batch x actions x opponent_actions`."""

    def expected_values(self, obs: Tensor) -> Tensor:
        """`EV(s, .)`, `replicates x batch x actions`."""
        return (self.joint_values(obs) * self.replies(obs)).sum(-1)

    def preferences(self, obs: Tensor) -> Tensor:
        """The expected values, `replicates x batch x actions`, unless overridden."""
        return self.expected_values(obs)

    def next_value(self, obs: Tensor) -> Tensor:
        """The best expected value, `max_a EV(s, a)`, `replicates x batch`."""
        return self.expected_values(obs).max(-1).values


def _legal(probabilities: Tensor, mask: Tensor | None) -> Tensor:
    """Probabilities given that the action is legal; uniform over legal actions if all have probability 0."""
    if mask is None:
        return probabilities
    legal = torch.where(mask, probabilities, 0.0)
    total = legal.sum(-1, keepdim=True)
    return torch.where(total > 0, legal, mask.to(legal.dtype)) / torch.where(
        total > 0, total, mask.sum(-1, keepdim=True)
    )
