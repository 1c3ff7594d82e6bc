"""Learned dynamics for continuous states: an ensemble of Gaussian networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyro
import pyro.distributions as dist
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.nn.functional import softplus

from inference_marl.described import Clip, Count, Positive, interval
from inference_marl.inference.distributions import MixtureOfNormals
from inference_marl.inference.factored import opponent_sites
from inference_marl.inference.networks import MLP
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.replay import Ring, entries_of
from inference_marl.inference.svi import elbo_loss, no_guide
from inference_marl.models.dynamics import TransitionModel
from inference_marl.spaces import Box, Space, encode
from inference_marl.types import Experience


class GaussianEnsemble(TransitionModel):
    """An ensemble of Gaussian networks that predict the change of state, each fitted to its own minibatches::

        k ~ Uniform(members);  s' ~ Normal(s + change_k(s, a, b), exp(log_std_k(s, a, b)))

    The mixture is the predictive distribution, wide where the members disagree (Lakshminarayanan et al. 2017; Chua et
    al. 2018). It is reparameterised, so that plans are differentiable through it. Continuous states.

    Args:
        members: networks per replicate; 1 is a single Gaussian network.
        hidden: widths of the hidden layers.
        log_std: lower and upper bound of the log standard deviation, in units of half the state's range.
        window: transitions remembered per replicate.
        batch_size: transitions that each member independently draws per step.
        steps: gradient steps per call of `fit`.
        learning_rate: Adam's step size, positive.
        max_gradient_norm: clip each member's gradient; `None` for no clipping.
    """

    targets = (Box,)

    def __init__(
        self,
        members: Count = 5,
        hidden: Sequence[Count] = (64, 64),
        log_std: tuple[float, float] = (-5.0, 0.0),
        window: Count = 10_000,
        batch_size: Count = 64,
        steps: Count = 1,
        learning_rate: Positive = 5e-3,
        max_gradient_norm: Clip = None,
    ) -> None:
        super().__init__()
        self.members, self.hidden, self.log_std = members, tuple(hidden), interval("log_std", log_std)
        self.window, self.batch_size, self.steps = window, batch_size, steps
        self.learning_rate, self.max_gradient_norm = learning_rate, max_gradient_norm

    def setup(self) -> None:
        """Create the networks, `replicates x members` in parallel, the replay buffer and the optimiser."""
        self.unit = self.target.scale(self.seat.dtype, self.seat.device)[1] if isinstance(self.target, Box) else 1.0
        crowd = replace(self.seat, replicates=self.seat.replicates * self.members)
        inputs = sum(space.features for space in self.parents)
        self.network = MLP(crowd, inputs, 2 * self.target.features, self.hidden)
        self.memory = Ring(self.seat, self.window, entries_of(self._spaces(), self.seat.dtype))
        self.optimiser = Optimiser("transition", self.network.parameters(), self.learning_rate, self.max_gradient_norm)

    def _spaces(self) -> dict[str, Space]:
        names = ("obs", "action", *opponent_sites(len(self.seat.opponents)), "next_obs")
        return dict(zip(names, (*self.parents, self.target), strict=True))

    def _predict(self, members_first: Tensor, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the next state, from features and states `(replicates members) x batch`."""
        change, log_std = self.network(members_first).chunk(2, dim=-1)
        # Soft bounds, which keep a gradient beyond them (Chua et al. 2018, Appendix A.1).
        low, high = self.log_std
        log_std = low + softplus(high - softplus(high - log_std) - low)
        return obs + self.unit * change, self.unit * log_std.exp()

    def likelihood(self, features: Tensor, obs: Tensor, next_obs: Tensor) -> None:
        """The Pyro model that fits every member; arguments are `(replicates members) x batch x features`."""
        with ONE_STEP.open(ONE_STEP.sizes(obs, self.target.event_shape)).within():
            pyro.sample("next_state", dist.Normal(*self._predict(features, obs)).to_event(1), obs=next_obs)

    def store(self, data: Experience) -> None:
        """Store the newest transitions."""
        values = data.obs, data.action, *data.opponent_actions, data.next_obs
        self.memory.push(dict(zip(self._spaces(), values, strict=True)))

    def fit(self) -> None:
        """Fit every member to its own draws of the stored transitions."""
        for _ in range(self.steps):
            drawn = self.memory.sample(self.members * self.batch_size)
            crowd = {
                name: value.unflatten(1, (self.members, self.batch_size)).flatten(0, 1) for name, value in drawn.items()
            }
            *parents, _ = (crowd[name] for name in self._spaces())
            features = encode(self.parents, parents, self.seat.dtype)
            batch = features, crowd["obs"], crowd["next_obs"]
            self.optimiser.step(elbo_loss(Trace_ELBO(), self.likelihood, no_guide, self.batch_size, *batch))

    def forward(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> dist.TorchDistribution:
        """The mixture, batch shape `[extra x] replicates x batch`, event shape `(dim,)`."""
        features = encode(self.parents, (obs, action, *opponent_actions), self.seat.dtype)
        state = obs.expand(*features.shape[:-1], obs.shape[-1])

        def for_members(value: Tensor) -> Tensor:
            return value.unsqueeze(-3).expand(*value.shape[:-2], self.members, *value.shape[-2:]).flatten(-4, -3)

        # Members are dimension -3 of `replicates x members x batch x dim`, and become the mixture's.
        mean, std = (
            value.unflatten(-3, (self.seat.replicates, self.members)).movedim(-3, -2)
            for value in self._predict(for_members(features), for_members(state))
        )
        return MixtureOfNormals.of(mean.new_zeros(mean.shape[:-1]), mean, std)
