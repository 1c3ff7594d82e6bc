"""What tabular learners share: the check of their seat, acting from probabilities, and a table of action values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.inference.objectives import td_target
from inference_marl.inference.schedules import Schedule, as_rate
from inference_marl.inference.tables import check_finite, draw, mean_per_cell, move
from inference_marl.learners.tabular.exploration import Exploration
from inference_marl.spaces import Discrete
from inference_marl.types import Dynamics, Experience, Learner, Posterior, Transition, check_discount


class TabularLearner(Learner):
    """Base: plays probabilities that it computes from tables. A subclass defines `setup`, `forward` and `learn`.

    Attributes:
        updates: how many it has made, for schedules.
        states, actions, opponent_actions: how many there are, once bound.
    """

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0

    def setup(self) -> None:
        """Check the seat.

        Raises:
            IncompatibleError: if observations or actions are not discrete.
        """
        spaces = {
            "observations": self.seat.observation,
            "actions": self.seat.action,
            "opponents' actions": self.seat.opponent_action,
        }
        for what, space in spaces.items():
            if not isinstance(space, Discrete):
                raise IncompatibleError(
                    f"{type(self).__name__} got {what} {space}, expected Discrete: it learns tables; choose a learner "
                    "with networks, or a game with finitely many states and actions"
                )
        self.states, self.actions, self.opponent_actions = (space.features for space in spaces.values())

    def known_rules(self) -> tuple[Dynamics, float | None]:
        """The rules of the game, and its discount.

        Raises:
            IncompatibleError: if the seat's game does not give its rules as tables.
        """
        game = self.seat.game
        rules = None if game is None else game.dynamics()
        if game is None or rules is None:
            name = "no game" if game is None else type(game).__name__
            raise IncompatibleError(
                f"{type(self).__name__} got {name}, which does not give its rules as tables, expected a tabular game "
                "such as MatrixGame or StochasticGame: it knows the payoffs; choose a learner that learns them, such "
                "as JointActionLearner"
            )
        return rules, game.discount

    def table(self, name: str, *shape: int, fill: float = 0.0) -> None:
        """Register a buffer `replicates x shape` of one number."""
        size = (self.seat.replicates, *shape)
        self.register_buffer(name, torch.full(size, fill, dtype=self.seat.dtype, device=self.seat.device))

    @abstractmethod
    def forward(self, obs: Tensor) -> Tensor:
        """Probabilities of the own actions, `replicates x batch x actions`."""

    @abstractmethod
    def learn(self, seen: Experience) -> None:
        """Learn from the newest step, `replicates x environments`."""

    def opponent_model(self, obs: Tensor) -> Tensor | None:
        """What the opponents are believed to do, `replicates x batch x opponent_actions`; `None` without a belief."""
        return None

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """A draw from the policy; its most probable action without `explore`."""
        probabilities = self(obs)
        action: Tensor = draw(probabilities) if explore else probabilities.argmax(-1)
        return action

    @torch.no_grad()
    def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
        """Learn from the newest step; `peers` is not read.

        Raises:
            NonFiniteError: if a reward is not finite.
        """
        seen = batch.seen_by(self.seat)
        check_finite("reward", seen.reward)
        self.learn(seen)
        self.updates += 1

    @torch.no_grad()
    def posterior(self, obs: Tensor, draws: int) -> Posterior:
        """The policy, and what is believed of the opponents, if anything is."""
        return Posterior(policy=self(obs), opponent_model=self.opponent_model(obs))

    def get_extra_state(self) -> dict[str, Any]:
        """The number of updates, for `state_dict`."""
        return {"updates": self.updates}

    def set_extra_state(self, state: Any) -> None:
        """Undo `get_extra_state`."""
        self.updates = state["updates"]


class ValueLearner(TabularLearner):
    """Base: a table of values of the own actions, played through an exploration, moved towards its TD targets::

        y = r + gamma max_a' Q(s', a')        Q(s, a) <- Q(s, a) + rate(y - Q(s, a)) (y - Q(s, a))

    A subclass says with `rates` how far an error moves the table, and may say with `preferences` what is explored from.
    Without exploring, the first of the most preferred actions is played.

    Args:
        exploration: from values to probabilities.
        rate: learning rate in (0, 1]; number or schedule over updates.
        discount: gamma in [0, 1).
        initial: initial values: a number, or `[low, high]` for uniform draws.

    Raises:
        ValueError: if a number is out of its range.
    """

    values: Tensor

    def __init__(
        self,
        exploration: Exploration,
        rate: float | Schedule = 0.1,
        discount: float = 0.95,
        initial: float | tuple[float, float] = 0.0,
    ) -> None:
        super().__init__()
        low, high = initial if isinstance(initial, Sequence) else (initial, initial)
        if low > high:
            raise ValueError(f"initial: got {initial}, expected [low, high] with low <= high")
        check_discount(discount)
        self.exploration = exploration
        self.rate = as_rate("rate", rate)
        self.discount = discount
        self.initial = (float(low), float(high))

    def setup(self) -> None:
        """Check the seat and draw the table, `replicates x states x columns`."""
        super().setup()
        seat, (low, high) = self.seat, self.initial
        shape = (seat.replicates, self.states, self.columns)
        values = torch.rand(shape, device=seat.device, dtype=seat.dtype) * (high - low) + low
        self.register_buffer("values", values)

    @property
    def columns(self) -> int:
        """Values per state: one per own action, unless overridden."""
        return self.actions

    def column(self, seen: Experience) -> Tensor:
        """Which value of its state a datum is about, `replicates x batch`: its own action's, unless overridden."""
        return seen.action

    def preferences(self, obs: Tensor) -> Tensor:
        """What the exploration makes a policy of, `replicates x batch x actions`: the values, unless overridden."""
        return self.values[self.seat.rows, obs]

    def forward(self, obs: Tensor) -> Tensor:
        """The exploring policy, `replicates x batch x actions`."""
        return self.exploration(self.preferences(obs), self.updates)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """A draw from the exploring policy; the most preferred action without `explore`."""
        return super().act(obs) if explore else self.preferences(obs).argmax(-1)

    def next_value(self, obs: Tensor) -> Tensor:
        """What a state is worth, `max_a Q(s, a)`, `replicates x batch`, unless overridden."""
        return self.values[self.seat.rows, obs].max(-1).values

    @abstractmethod
    def rates(self, cell: Tensor, error: Tensor) -> Tensor | float:
        """How far to follow an error, in [0, 1], a number or `replicates x batch`.

        Args:
            cell: the entry of the flat table `states x columns` that is moved, `replicates x batch`.
            error: target minus value, `replicates x batch`.
        """

    def learn(self, seen: Experience) -> None:
        """Move the visited cells towards their targets."""
        cells = self.states * self.columns
        cell = seen.obs * self.columns + self.column(seen)
        target = seen.reward
        if not bool(seen.terminated.all()):
            target = td_target(target, self.discount, seen.terminated, self.next_value(seen.next_obs))
        target = mean_per_cell(cells, cell, target.to(self.values.dtype))
        flat = self.values.view(-1, cells)
        move(flat, cell, target, self.rates(cell, target - flat.gather(1, cell)))


class JointValueLearner(ValueLearner):
    """Base: a table of values of joint actions, weighed with what the opponents are expected to do::

        EV(s, a) = sum_b rho(b | s, a) Q(s, a, b)        y = r + gamma max_a' EV(s', a')

    A subclass says with `replies` what that is.
    """

    @property
    def columns(self) -> int:
        """One value per own and opponents' joint action; the latter runs fastest."""
        return self.actions * self.opponent_actions

    def column(self, seen: Experience) -> Tensor:
        """The value of the joint action that was played, `replicates x batch`."""
        return seen.action * self.opponent_actions + seen.opponent_action

    def rates(self, cell: Tensor, error: Tensor) -> Tensor | float:
        """The learning rate of now, whatever the error."""
        return self.rate(self.updates)

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
