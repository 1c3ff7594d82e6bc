"""Critics `Q(s, a, b)` and the likelihood that they are fitted to."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Annotated, Literal, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import Clip, Count, In, IncompatibleError, Positive, Rate, interval
from inference_marl.inference.conditional import PyroPart
from inference_marl.inference.networks import MLP, track
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.reward_range import RewardRange
from inference_marl.inference.schedules import (
    ByReplicate,
    Number,
    Schedule,
    as_schedule,
    current,
    over_events,
)
from inference_marl.inference.svi import elbo_loss
from inference_marl.inference.tables import finite, mean_per_cell, move, random_table
from inference_marl.spaces import Discrete, encode, joint_action, separate_actions
from inference_marl.types import Counting, Seat


class Critic(PyroPart):
    """Base: the soft action value `Q(s, a, b)`, fitted as the mean of a likelihood::

        y ~ Normal(Q(s, a, b), unit)     # site `td_target`, observed at r + gamma V(s')

    whose negative log-density is Eq. 14 of Tian et al. (2019) up to a constant if `unit` is 1.

    Args:
        target_rate: Polyak averaging rate of the target critic, in (0, 1]; 1 copies the critic.
        target_interval: updates between two steps of the target critic. If both are 1, there is no separate target
            critic.
    """

    def __init__(
        self,
        target_rate: Annotated[float, In("a number in (0, 1]", "; 1 for no target critic")] = 1.0,
        target_interval: Count = 1,
    ) -> None:
        super().__init__()
        self.target_rate, self.target_interval = target_rate, target_interval

    @property
    def has_target(self) -> bool:
        """Whether there is a separate target critic."""
        return self.target_rate != 1 or self.target_interval != 1

    def target(self) -> Self:
        """Return a copy of this critic as its target critic, or this critic itself if there is no separate one."""
        return copy.deepcopy(self) if self.has_target else self

    def move(self, target: Self, updates: int) -> None:
        """Move the target critic towards this one if that is due after `updates` updates."""
        if self.has_target and updates % self.target_interval == 0:
            track(target, self, self.target_rate)

    def bind(self, seat: Seat) -> Self:
        """Return a working copy in `seat`.

        Raises:
            IncompatibleError: if the class cannot represent values over the seat's spaces.
        """
        return self._bound(seat=seat)

    def forward(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> Tensor:
        """Values `[extra x] replicates x batch`, given every opponent's action; batch shapes broadcast."""
        raise NotImplementedError(f"{type(self).__name__}.forward is not defined")

    @property
    def unit(self) -> Number:
        """The standard deviation of the likelihood, in units of reward."""
        return 1.0

    def expected(self) -> AbstractContextManager[None]:
        """Context in which values are posterior means, as they always are for point estimates."""
        return nullcontext()

    def observe(self, reward: Tensor) -> None:
        """Update the range of rewards with new ones, `replicates x batch`. Nothing by default."""

    def fit(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """Move values towards `target`, `replicates x batch`, at the given data.

        Raises:
            NonFiniteError: if the loss or a target is not finite.
        """
        raise NotImplementedError(f"{type(self).__name__}.fit is not defined")

    def likelihood(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """The Pyro model of the class docstring."""
        with ONE_STEP.open(ONE_STEP.sizes(obs, self.seat.observation.event_shape)).within():
            pyro.sample("td_target", dist.Normal(self(obs, action, *opponent_actions), self.unit), obs=target)

    def table(self, obs: Tensor) -> Tensor:
        """All values at `obs`: `[extra x] replicates x batch x actions x (opponents' joint actions)`.

        Raises:
            IncompatibleError: if an action space is not discrete.
        """
        own, opponents = self.seat.action, self.seat.opponent_action
        if not (isinstance(own, Discrete) and isinstance(opponents, Discrete)):
            raise IncompatibleError(f"a table of values: got actions {own} and {opponents}, expected Discrete spaces")
        data = [1] * (obs.dim() - len(self.seat.observation.event_shape))
        action = torch.arange(own.n, device=obs.device).view(-1, 1, *data)
        joint = torch.arange(opponents.n, device=obs.device).view(-1, *data)
        values: Tensor = self(obs, action, *separate_actions(self.seat.opponent_actions, joint))
        return values.movedim((0, 1), (-2, -1))


class TabularCritic(Counting, Critic):
    """A table with one value per replicate, state, action and joint opponent action, moved towards the mean target.

    In every cell that the batch visits, the update is `Q <- Q + rate (mean target - Q)`. For one datum this is a
    gradient step of size `rate` on the likelihood, and the update of Q-learning (Tian et al. 2019, Eq. 13, with
    samples).

    Args:
        initial: initial values: a number, or `[low, high]` for uniform draws (`[0, 1]` in the authors' code). A number
            above every reward is optimistic. `optimistic` adapts to the rewards: an untried action is worth the best
            tried one of its state plus half of the range of rewards seen, or the best over all states where none was
            tried. A cell's first target then replaces its initial value. With bounded rewards values are bounded, by
            `(r_max + gamma range / 2) / (1 - gamma) + range / 2`.
        rate: learning rate in (0, 1]; a number or a schedule.
        target_rate, target_interval: see `Critic`.
        rate_over: argument of the schedule: `updates` of the critic, or each cell's previous `visits` (updates that
            moved it). With `InverseTime(1, 1)` over visits, the rate `1 / (1 + visits)`, a value is the sample mean of
            its targets, which averages out noise if targets do not drift, as in one-shot games. Unvisited cells keep
            their initial value.
    """

    by_replicate = frozenset({"rate"})

    values: Tensor
    visits: Tensor

    def __init__(
        self,
        initial: float | tuple[float, float] | Literal["optimistic"] = (0.0, 1.0),
        rate: Rate | Schedule = 1.0,
        target_rate: float = 1.0,
        rate_over: Literal["updates", "visits"] = "updates",
        target_interval: Count = 1,
    ) -> None:
        super().__init__(target_rate, target_interval)
        self.optimistic = initial == "optimistic"
        if self.optimistic and self.has_target:
            name, got = ("target_rate", target_rate) if target_rate != 1 else ("target_interval", target_interval)
            raise ValueError(
                f"{name}: got {got} with optimistic values, expected 1: what was not tried changes at once"
            )
        self.initial = (0.0, 0.0) if isinstance(initial, str) else interval("initial", initial, strictly=False)
        self.rate = as_schedule(rate)
        self.rate_over = rate_over

    def setup(self) -> None:
        """Draw the initial table."""
        seat = self.seat
        if not seat.is_discrete:
            actions = ", ".join(str(space) for space in seat.spaces[1:])
            raise IncompatibleError(
                f"TabularCritic got states {seat.observation} and actions {actions}, expected Discrete spaces; use "
                "NetworkCritic"
            )
        spaces = (seat.observation, seat.action, seat.opponent_action)
        values = random_table(seat, self.initial, *(space.features for space in spaces))
        self.register_buffer("values", values)
        if self.optimistic or self.rate_over == "visits":
            self.register_buffer("visits", torch.zeros_like(values, dtype=torch.int64))
        if self.optimistic:
            self.rewards = RewardRange(self.seat)

    def observe(self, reward: Tensor) -> None:
        """Update the range of rewards if initial values are `optimistic`."""
        if self.optimistic:
            self.rewards.observe(reward)

    def _hope(self) -> None:
        """Set the values of untried cells, see `initial` of the class."""
        untried = self.visits == 0
        best = self.values.masked_fill(untried, -torch.inf).flatten(2).amax(2)
        hoped = torch.where(best > -torch.inf, best + self.rewards.size / 2, best.amax(1, keepdim=True))
        self.values = torch.where(untried, hoped[..., None, None], self.values)

    def forward(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> Tensor:
        """Values at the given cells, `[extra x] replicates x batch`."""
        joint = joint_action(self.seat.opponent_actions, opponent_actions)
        values: Tensor = Vindex(self.values)[self.seat.rows, obs, action, joint]
        return values

    def table(self, obs: Tensor) -> Tensor:
        """Values at the given states, `replicates x batch x actions x (opponents' joint actions)`."""
        return self.values[self.seat.rows, obs]

    @torch.no_grad()
    def fit(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """Move each visited cell the fraction `rate` of the way to the mean of its targets."""
        target = finite("critic", target)
        _, states, actions, joint = self.values.shape
        cells = states * actions * joint
        cell = (obs * actions + action) * joint + joint_action(self.seat.opponent_actions, opponent_actions)
        target = mean_per_cell(cells, cell, target.to(self.values.dtype))
        move(self.values.view(-1, cells), cell, target, self._rate_at(cell))
        if self.optimistic:
            self._hope()
        self.updates += 1

    def _rate_at(self, cell: Tensor) -> Number:
        """The current learning rate, `replicates x batch` if it differs by cell; also counts the visit."""
        if self.rate_over == "updates" and not self.optimistic:
            return self.rate(self.updates)
        visits = self.visits.view(len(self.visits), -1)
        before = visits.gather(1, cell)
        visits.scatter_(1, cell, before + 1)
        over_visits = self.rate_over == "visits"
        rate = self.rate.at(before, self.values.dtype) if over_visits else self.rate(self.updates)
        return torch.where(before == 0, self.values.new_ones(()), rate) if self.optimistic else rate


class NetworkCritic(Critic):
    """A multilayer perceptron over the features of state, own action and every opponent's action.

    Args:
        hidden: widths of the hidden layers.
        learning_rate: Adam's step size on the likelihood, positive.
        target_rate, target_interval: see `Critic`.
        initial: added to every initial value; a number above every reward is optimistic.
        max_gradient_norm: clip each replicate's gradient; `None` for no clipping.
        units: units of the network's outputs and of `initial`: `reward`, or the `range` of rewards seen, which is then
            also the standard deviation of the likelihood.
        outputs: one `value`, with the agent's own action as an input; or, for discrete actions, the values of all own
            `actions` at once, which halves the cost of sums over them.
    """

    by_replicate = frozenset({"learning_rate", "initial"})
    elbo: Trace_ELBO | TraceMeanField_ELBO = Trace_ELBO()

    def __init__(
        self,
        hidden: Sequence[Count] = (100, 100),
        learning_rate: Positive | ByReplicate = 1e-2,
        target_rate: float = 0.01,
        initial: float | ByReplicate = 0.0,
        max_gradient_norm: Clip = None,
        units: Literal["reward", "range"] = "reward",
        target_interval: Count = 1,
        outputs: Literal["value", "actions"] = "value",
    ) -> None:
        super().__init__(target_rate, target_interval)
        self.units, self.outputs = units, outputs
        self.hidden = tuple(hidden)
        self.learning_rate = learning_rate
        self.initial = initial
        self.max_gradient_norm = max_gradient_norm

    def setup(self) -> None:
        """Create the network and its optimiser.

        Raises:
            IncompatibleError: if `outputs` is `actions` and the agent's own actions are not discrete.
        """
        seat = self.seat
        outputs = 1
        self.spaces = seat.spaces
        if self.outputs == "actions":
            if not isinstance(seat.action, Discrete):
                raise IncompatibleError(f"got actions with {seat.action}, expected value", key="outputs")
            outputs, self.spaces = seat.action.n, (seat.observation, *seat.opponent_actions)
        self.network = MLP(seat, sum(space.features for space in self.spaces), outputs, self.hidden)
        with torch.no_grad():
            self.network.last.bias.zero_().add_(over_events(current(self.initial, 0), 1))
        if self.units == "range":
            self.rewards = RewardRange(seat)
        self.optimiser = Optimiser("critic", self.network.parameters(), self.learning_rate, self.max_gradient_norm)

    def approximation(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """The guide of `likelihood`: empty, since values are point estimates."""

    def forward(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> Tensor:
        """Values `[extra x] replicates x batch`."""
        if self.outputs == "value":
            value: Tensor = self.network(encode(self.spaces, (obs, action, *opponent_actions), self.seat.dtype))
            return value.squeeze(-1) * self.unit
        values: Tensor = self.network(encode(self.spaces, (obs, *opponent_actions), self.seat.dtype))
        chosen: Tensor = Vindex(values)[..., action]
        return chosen * self.unit

    def observe(self, reward: Tensor) -> None:
        """Update the range of rewards if it is the unit of values."""
        if self.units == "range":
            self.rewards.observe(reward)

    @property
    def unit(self) -> Number:
        """See `Critic`."""
        return self.rewards.unit if self.units == "range" else 1.0

    def fit(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """Take one Adam step on the likelihood."""
        model, guide = (partial(each, target=target) for each in (self.likelihood, self.approximation))
        self.optimiser.step(elbo_loss(self.elbo, model, guide, obs.shape[1], obs, action, *opponent_actions))
