"""Networks batched over tasks: critics that take a belief, and models of opponents and outcomes given z."""

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
"""Plates of trials; the latent variable of the opponents is in the first two."""

LOG_SD = (-5.0, 1.0)
"""Bounds of predictions' log standard deviation, in units of half a box's width, or of the range of rewards."""


def joined(*parts: Tensor) -> Tensor:
    """Concatenate features, `replicates x tasks x (steps or 1) x features` each; the steps broadcast."""
    steps = max(part.shape[2] for part in parts)
    return torch.cat([part.expand(-1, -1, steps, -1) for part in parts if part.shape[-1]], -1)


def outlook_features(spaces: Sequence[Space], draws: int) -> int:
    """The number of features of `OpponentActions.outlook`."""
    return sum(space.features * (1 if isinstance(space, Discrete) else draws) for space in spaces)


def repeated(values: Tensor, times: int) -> Tensor:
    """Repeat each step, `replicates x tasks x (steps times) x features`."""
    return values.repeat_interleave(times, 2)


class Twins(nn.Module):
    """Two critics Q(s, a, c), where c is a belief or the opponents' actions; for discrete a, outputs for all actions.

    Args:
        seat: the learner's seat.
        features: number of features of c.
        hidden: widths of the hidden layers.
    """

    def __init__(self, seat: Seat, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.discrete = isinstance(seat.action, Discrete)
        given = seat.observation.features + features
        inputs, outputs = (given, seat.action.features) if self.discrete else (given + seat.action.features, 1)
        self.each = nn.ModuleList(MLP(seat, inputs, outputs, hidden, OF_TASKS) for _ in range(2))

    def forward(self, obs: Tensor, given: Tensor, action: Tensor | None) -> list[Tensor]:
        """Both values, `replicates x tasks x steps`; if `action` is `None`, of all actions in a last dimension.

        Args:
            obs: features of observations, `replicates x tasks x steps x features`.
            given: c, `replicates x tasks x (steps or 1) x features`.
            action: features of actions, as `obs`.
        """
        if not self.discrete and action is not None:
            x = joined(obs, action, given)
            return [critic(x).squeeze(-1) for critic in self.each]
        tables = [critic(joined(obs, given)) for critic in self.each]
        return tables if action is None else [(table * action).sum(-1) for table in tables]

    def least(self, obs: Tensor, given: Tensor, action: Tensor | None) -> Tensor:
        """The smaller value (Fujimoto et al. 2018); arguments as for `forward`.

        With several c for each step, `replicates x tasks x (steps times) x features`, it is the smaller of the two
        means over them.
        """
        times = max(given.shape[2] // obs.shape[2], 1)
        if times == 1:
            return torch.minimum(*self(obs, given, action))
        wide = self(repeated(obs, times), given, None if action is None else repeated(action, times))
        return torch.minimum(*(value.unflatten(2, (-1, times)).mean(3) for value in wide))


class StateValue(nn.Module):
    """A state value V(s, c), where c is a belief.

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
    """P(b | s, z), independent over opponents: a normal in each coordinate of a box, or a categorical.

    Args:
        seat: the learner's seat.
        features: number of coordinates of z.
        hidden: widths of the hidden layers.
        sd: the normals' standard deviation in units of half the box's width; learned if `None`.
    """

    def __init__(self, seat: Seat, features: int, hidden: Sequence[int], sd: float | None) -> None:
        super().__init__()
        self.spaces, self.sd = seat.opponent_actions, sd
        self.widths = [self._outputs(space) for space in self.spaces]
        self.network = MLP(seat, seat.observation.features + features, sum(self.widths), hidden, OF_TASKS)

    def _outputs(self, space: Space) -> int:
        return space.features * (2 if self.sd is None and not isinstance(space, Discrete) else 1)

    def forward(self, obs: Tensor, z: Tensor) -> list[dist.TorchDistribution]:
        """One distribution per opponent over its action as features, `replicates x tasks x steps`.

        Args:
            obs: features of observations, `replicates x tasks x steps x features`.
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
        """P(b | s, z) at several draws of z for every step, without gradients: `replicates x tasks x (steps draws)`.

        Args:
            obs: features of observations, `replicates x tasks x steps x features`.
            believed: the distribution of z, `replicates x tasks x (steps or 1) x features`.
            draws: number of draws per step, which are adjacent.
        """
        steps = obs.shape[2]
        wide = Posterior._make(
            None if each is None else repeated(each.expand(-1, -1, steps, -1), draws) for each in believed
        )
        return self.forward(repeated(obs, draws), wide.draw())

    @torch.no_grad()
    def actions(self, obs: Tensor, believed: Posterior, draws: int) -> Tensor:
        """Draw all opponents' actions, `replicates x tasks x (steps draws) x features`; arguments as for `expected`."""
        acts = self.expected(obs, believed, draws)
        return torch.cat([_drawn(space, act) for space, act in zip(self.spaces, acts, strict=True)], -1)

    @torch.no_grad()
    def outlook(self, obs: Tensor, believed: Posterior, draws: int) -> Tensor:
        """Predictions of the opponents' actions as features for a policy, `replicates x tasks x steps x features`.

        For boxes, `draws` concatenated draws, each with its own z; for discrete actions, their probabilities, averaged
        over as many z. Arguments as for `expected`.
        """
        found = []
        for space, act in zip(self.spaces, self.expected(obs, believed, draws), strict=True):
            if isinstance(space, Discrete):
                found.append(act.probs.unflatten(2, (-1, draws)).mean(3))
            else:
                found.append(_drawn(space, act).unflatten(2, (-1, draws)).flatten(3))
        return torch.cat(found, -1)


def _drawn(space: Space, act: dist.TorchDistribution) -> Tensor:
    """Draw an opponent's action as features, clipped to the box."""
    value: Tensor = act.sample()
    if isinstance(space, Box):
        low, high = (space.encode(edge, value.dtype) for edge in space.edges(value.dtype, value.device))
        value = value.clamp(low, high)
    return value


class Outcomes(nn.Module):
    """The outcomes of a step given the opponents, P(r | s, a, b, z) and P(s' | s, a, b, z).

    Rewards are normal, in units of their range. Next observations are normal in each coordinate of a box, or
    categorical.

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
        """The distributions of the reward and of the next observation as features, `replicates x tasks x steps`.

        Args:
            given: features of s, a, all opponents' b, and z, `replicates x tasks x (steps or 1) x features` each.
        """
        outputs = self.network(joined(*given))
        reward, after = normal(outputs[..., :2]), outputs[..., 2:]
        reward = dist.Normal(reward.loc.squeeze(-1), reward.scale.squeeze(-1), validate_args=False)
        if self.discrete:
            return reward, dist.OneHotCategorical(logits=after, validate_args=False)
        return reward, normal(after).to_event(1)


def normal(outputs: Tensor) -> dist.Normal:
    """Normals from means and log standard deviations, the two halves of the last dimension."""
    mean, log_sd = outputs.chunk(2, -1)
    return dist.Normal(mean, log_sd.clamp(*LOG_SD).exp(), validate_args=False)
