"""Advantage Alignment with tables of logits and of values."""

from __future__ import annotations

from dataclasses import field

import torch
from torch import Tensor, nn

from inference_marl.described import IncompatibleError, NotNegative, Rate, hyperparameters
from inference_marl.inference.schedules import ByReplicate, Schedule, current, over_events
from inference_marl.inference.tables import mean_per_cell, move
from inference_marl.learners.alignment.base import AdvantageAlignment, CategoricalPolicy, Values
from inference_marl.spaces import Discrete
from inference_marl.types import Memory, Seat, Trajectory


class LogitTable(CategoricalPolicy):
    """A table of logits, `replicates x states x actions`, initially 0."""

    def __init__(self, seat: Seat) -> None:
        super().__init__()
        shape = (seat.replicates, seat.observation.features, seat.action.features)
        self.table = nn.Parameter(torch.zeros(shape, dtype=seat.dtype, device=seat.device), requires_grad=False)
        self.rows = seat.rows

    def logits(self, obs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """See `CategoricalPolicy`."""
        return self.table[self.rows, obs], memory


@hyperparameters
class TabularAlignment(AdvantageAlignment):
    """Advantage Alignment, or LOQA, with tables of logits and of values.

    In each state, the logits' step is `step_size` times the mean gradient over the trajectory's visits, and values move
    the fraction `critic_rate` towards the visits' mean return.

    Args:
        step_size: step size of the logits, not negative; a number or a schedule over updates.
        critic_rate: learning rate of the values, in (0, 1].
        beta, weight, discount, trace_decay, past_trace_decay, entropy: see `AdvantageAlignment`.
    """

    by_replicate = AdvantageAlignment.by_replicate | {"step_size", "critic_rate"}

    step_size: NotNegative | Schedule = 0.4
    critic_rate: Rate | ByReplicate = 0.3
    actor: LogitTable = field(init=False)
    own_values: Tensor = field(init=False)
    other_values: Tensor = field(init=False)
    other_action_values: Tensor = field(init=False)

    def setup(self) -> None:
        """Check the seat and create the tables.

        Raises:
            IncompatibleError: like the base, or if an agent's observations are not `Discrete`.
        """
        super().setup()
        seat = self.seat
        for space in seat.observations:
            if not isinstance(space, Discrete):
                raise IncompatibleError(
                    f"{type(self).__name__} got observations {space}, expected Discrete; choose RecurrentAlignment, or "
                    "a game with finitely many observations"
                )
        (j,) = seat.opponents
        states, actions = seat.observations[j].features, seat.action_spaces[j].features
        self.actor = LogitTable(seat)
        sizes: dict[str, tuple[int, ...]] = {"own_values": (seat.observation.features,), "other_values": (states,)}
        if self.weight == "loqa":
            sizes |= {"other_action_values": (states, actions)}
        for name, size in sizes.items():
            table = torch.zeros(seat.replicates, *size, dtype=seat.dtype, device=seat.device)
            self.register_buffer(name, table)

    def values(self, newest: Trajectory) -> Values:
        """Look up the values."""
        i, rows, played = self.seat.index, self.seat.rows, newest.stacked
        own, own_next = (self.own_values[rows, obs[i]] for obs in (played.obs, played.next_obs))
        other, other_next = (self.other_values[rows, obs[1 - i]] for obs in (played.obs, played.next_obs))
        of_actions = self.other_action_values[rows, played.obs[1 - i]] if self.weight == "loqa" else None
        return Values(own, own_next, other, other_next, of_actions)

    @torch.no_grad()
    def follow(self, newest: Trajectory, weights: Tensor) -> None:
        """Take a step along the mean gradient in each visited state."""
        i, played, table = self.seat.index, newest.stacked, self.actor.table
        obs, actions, weights = (_by_replicate(each) for each in (played.obs[i], played.actions[i], weights))
        cells = table.flatten(1)
        index = obs * table.shape[-1] + actions
        gains = torch.zeros_like(cells).scatter_add_(1, index, weights).view_as(table)
        visits = torch.zeros_like(table[..., 0]).scatter_add_(1, obs, torch.ones_like(weights)).unsqueeze(-1)
        log_policy = table.log_softmax(-1)
        policy = log_policy.exp()
        mean = (gains - policy * gains.sum(-1, keepdim=True)) / visits.clamp_min(1)
        surprise = -log_policy
        entropy = (policy * surprise).sum(-1, keepdim=True)
        rise = policy * (surprise - entropy) * (visits > 0)
        step, weight = (over_events(current(each, self.updates), 1) for each in (self.step_size, self.entropy))
        table.add_(step * (mean + weight * rise))

    @torch.no_grad()
    def fit(self, newest: Trajectory, said: Values, own: Tensor, other: Tensor) -> None:
        """Move the values towards the mean returns."""
        i, played = self.seat.index, newest.stacked
        obs, other_obs, own, other = map(_by_replicate, (played.obs[i], played.obs[1 - i], own, other))
        targets = [(self.own_values, obs, own), (self.other_values, other_obs, other)]
        if self.weight == "loqa":
            table = self.other_action_values
            chosen = other_obs * table.shape[-1] + _by_replicate(played.actions[1 - i])
            targets.append((table.view(len(table), -1), chosen, other))
        for table, cell, target in targets:
            move(table, cell, mean_per_cell(table.shape[1], cell, target), current(self.critic_rate, 0))


def _by_replicate(value: Tensor) -> Tensor:
    """Reshape `time x replicates x environments` to `replicates x (time environments)`."""
    return value.transpose(0, 1).flatten(1)
