"""Networks of tasks: critics that read a belief, and what opponents do if they are of some kind."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference_marl.inference.networks import MLP
from inference_marl.inference.plates import Plates
from inference_marl.learners.latent.contexts import Posterior
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Seat

OF_TASKS = Plates(("replicate", "task", "batch"))
"""A latent of the opponents is in the first two."""

LOG_SD = (-5.0, 1.0)
"""Bounds of the log standard deviation of what is predicted, in units of half a box's width, or of rewards' range."""


def joined(*parts: Tensor) -> Tensor:
    """Features side by side, `replicates x tasks x (steps or 1) x features` each; the steps broadcast."""
    steps = max(part.shape[2] for part in parts)
    return torch.cat([part.expand(-1, -1, steps, -1) for part in parts if part.shape[-1]], -1)


def outlook_features(spaces: Sequence[Space], draws: int) -> int:
    """The last dimension of `OpponentActions.outlook`."""
    return sum(space.features * (1 if isinstance(space, Discrete) else draws) for space in spaces)


def repeated(values: Tensor, times: int) -> Tensor:
    """Each step so many times in a row, `replicates x tasks x (steps times) x features`."""
    return values.repeat_interleave(times, 2)


class Twins(nn.Module):
    """Two critics Q(s, a, c), c being a belief or the opponents' actions; of discrete actions, tables over them.

    Args:
        seat: whose.
        features: of c.
        hidden: widths of their hidden layers.
    """

    def __init__(self, seat: Seat, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.discrete = isinstance(seat.action, Discrete)
        given = seat.observation.features + features
        inputs, outputs = (given, seat.action.features) if self.discrete else (given + seat.action.features, 1)
        self.each = nn.ModuleList(MLP(seat, inputs, outputs, hidden, OF_TASKS) for _ in range(2))

    def forward(self, obs: Tensor, given: Tensor, action: Tensor | None) -> list[Tensor]:
        """Both values, `replicates x tasks x steps`; where `action` is `None`, of all actions in a last dimension.

        Args:
            obs: encoded, `replicates x tasks x steps x features`.
            given: c, `replicates x tasks x (steps or 1) x features`.
            action: encoded, as `obs`.
        """
        if not self.discrete and action is not None:
            x = joined(obs, action, given)
            return [critic(x).squeeze(-1) for critic in self.each]
        tables = [critic(joined(obs, given)) for critic in self.each]
        return tables if action is None else [(table * action).sum(-1) for table in tables]

    def least(self, obs: Tensor, given: Tensor, action: Tensor | None) -> Tensor:
        """The smaller value (Fujimoto et al. 2018); arguments as for `forward`.

        Where several things are given for each step, `replicates x tasks x (steps times) x features`, the smaller of
        the mean values over them.
        """
        times = max(given.shape[2] // obs.shape[2], 1)
        if times == 1:
            return torch.minimum(*self(obs, given, action))
        wide = self(repeated(obs, times), given, None if action is None else repeated(action, times))
        return torch.minimum(*(value.unflatten(2, (-1, times)).mean(3) for value in wide))


class StateValue(nn.Module):
    """V(s, c), c being a belief.

    Args:
        seat, features, hidden: see `Twins`.
    """

    def __init__(self, seat: Seat, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.network = MLP(seat, seat.observation.features + features, 1, hidden, OF_TASKS)

    def forward(self, obs: Tensor, given: Tensor) -> Tensor:
        """Values, `replicates x tasks x steps`; arguments as for `Twins`."""
        value: Tensor = self.network(joined(obs, given)).squeeze(-1)
        return value


class OpponentActions(nn.Module):
    """P(b | s, z), independently for every opponent: a normal in each coordinate of a box, or a categorical.

    Args:
        seat: whose opponents they are.
        features: of z.
        hidden: widths of the hidden layers.
        sd: the normals' standard deviation in units of half the box's width; learnt, if `None`.
    """

    def __init__(self, seat: Seat, features: int, hidden: Sequence[int], sd: float | None) -> None:
        super().__init__()
        self.spaces, self.sd = seat.opponent_actions, sd
        self.widths = [self._outputs(space) for space in self.spaces]
        self.network = MLP(seat, seat.observation.features + features, sum(self.widths), hidden, OF_TASKS)

    def _outputs(self, space: Space) -> int:
        return space.features * (2 if self.sd is None and not isinstance(space, Discrete) else 1)

    def forward(self, obs: Tensor, z: Tensor) -> list[dist.TorchDistribution]:
        """One distribution per opponent, `replicates x tasks x steps`, over its action as features.

        Args:
            obs: encoded, `replicates x tasks x steps x features`.
            z: `replicates x tasks x (steps or 1) x features`.
        """
        found: list[dist.TorchDistribution] = []
        parts = self.network(joined(obs, z)).split(self.widths, -1)
        for space, outputs in zip(self.spaces, parts, strict=True):
            if isinstance(space, Discrete):
                found.append(dist.OneHotCategorical(logits=outputs, validate_args=False))
                continue
            if self.sd is None:
                found.append(normal(outputs).to_event(1))
            else:
                found.append(dist.Normal(outputs, self.sd, validate_args=False).to_event(1))
        return found

    @torch.no_grad()
    def expected(self, obs: Tensor, believed: Posterior, draws: int) -> list[dist.TorchDistribution]:
        """P(b | s, z) of so many draws of z for every step, without gradient: `replicates x tasks x (steps draws)`.

        Args:
            obs: encoded, `replicates x tasks x steps x features`.
            believed: what z is drawn from, `replicates x tasks x (steps or 1) x features`.
            draws: of each step; they are side by side.
        """
        steps = obs.shape[2]
        wide = Posterior._make(
            None if each is None else repeated(each.expand(-1, -1, steps, -1), draws) for each in believed
        )
        return self.forward(repeated(obs, draws), wide.draw())

    @torch.no_grad()
    def actions(self, obs: Tensor, believed: Posterior, draws: int) -> Tensor:
        """Draws of everybody's action, `replicates x tasks x (steps draws) x features`; arguments as for `expected`."""
        acts = self.expected(obs, believed, draws)
        return torch.cat([_drawn(space, act) for space, act in zip(self.spaces, acts, strict=True)], -1)

    @torch.no_grad()
    def outlook(self, obs: Tensor, believed: Posterior, draws: int) -> Tensor:
        """What opponents may do, as features for a policy, `replicates x tasks x steps x features`.

        Of actions in boxes so many draws side by side, each given a z of its own; of discrete ones their probabilities,
        the mean over as many z. Arguments as for `expected`.
        """
        found = []
        for space, act in zip(self.spaces, self.expected(obs, believed, draws), strict=True):
            if isinstance(space, Discrete):
                found.append(act.probs.unflatten(2, (-1, draws)).mean(3))
            else:
                found.append(_drawn(space, act).unflatten(2, (-1, draws)).flatten(3))
        return torch.cat(found, -1)


def _drawn(space: Space, act: dist.TorchDistribution) -> Tensor:
    """A draw, as features, of what an opponent does; one beyond the edges of its box is moved there."""
    value: Tensor = act.sample()
    if isinstance(space, Box):
        low, high = (space.encode(edge, value.dtype) for edge in space.edges(value.dtype, value.device))
        value = value.clamp(low, high)
    return value


class Outcomes(nn.Module):
    """P(r | s, a, b, z) and P(s' | s, a, b, z): what a step leads to, with opponents of this kind.

    Rewards are normal, in units of their range, and so is each coordinate of what is observed next in a box; a discrete
    observation is a categorical.

    Args:
        seat, features, hidden: see `OpponentActions`.
    """

    def __init__(self, seat: Seat, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.discrete = isinstance(seat.observation, Discrete)
        inputs = sum(space.features for space in seat.spaces) + features
        next_obs = seat.observation.features * (1 if self.discrete else 2)
        self.network = MLP(seat, inputs, 2 + next_obs, hidden, OF_TASKS)

    def forward(self, *given: Tensor) -> tuple[dist.TorchDistribution, dist.TorchDistribution]:
        """Of the reward, and of the next observation as features, `replicates x tasks x steps`.

        Args:
            given: s, a, everybody's b, and z, encoded, `replicates x tasks x (steps or 1) x features` each.
        """
        outputs = self.network(joined(*given))
        reward, after = normal(outputs[..., :2]), outputs[..., 2:]
        reward = dist.Normal(reward.loc.squeeze(-1), reward.scale.squeeze(-1), validate_args=False)
        if self.discrete:
            return reward, dist.OneHotCategorical(logits=after, validate_args=False)
        return reward, normal(after).to_event(1)


def normal(outputs: Tensor) -> dist.Normal:
    """Normals from their means and log standard deviations, the two halves of the last dimension."""
    mean, log_sd = outputs.chunk(2, -1)
    return dist.Normal(mean, log_sd.clamp(*LOG_SD).exp(), validate_args=False)
