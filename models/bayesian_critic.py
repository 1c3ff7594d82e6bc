"""A critic with a posterior over the weights of its last layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor
from torch.nn.functional import pad

from inference_marl.described import Clip, Count, In, Positive, Rate
from inference_marl.inference.schedules import ByReplicate
from inference_marl.inference.svi import estimator
from inference_marl.models.critics import NetworkCritic
from inference_marl.spaces import encode
from inference_marl.types import Counting

MEMORY = 0.05
"""Minimum weight of the newest minibatch in the running mean of squared features, which drift during learning."""


class BayesianCritic(Counting, NetworkCritic):
    """A `NetworkCritic` with a Bayesian last layer::

        model:  w ~ Normal(initial, prior_scale)             # site `critic_weight`, one vector per replicate
                y ~ Normal(phi(s, a, b) . w, noise_scale)    # site `td_target`, observed at r + gamma V(s')
        guide:  w ~ Normal(mean, scale)                      # independent coordinates

    where `phi` is the last layer's input with a constant 1 appended, so that `w` holds weights and bias; the prior mean
    is `initial` for the bias and 0 for the weights. Earlier layers are point estimates, fitted by the same ELBO. `mean`
    is the last layer of the network itself, so the expected value is that of the `NetworkCritic` with this network.
    `scale` is not fitted but set to the ELBO's optimum given the features: `scale^-2 = prior_scale^-2 + data E[phi^2] /
    noise_scale^2`, with a running mean of `phi^2` over minibatches.

    A minibatch stands for all data: the KL divergence from the prior is weighted by `batch / data`, where `data` counts
    the transitions seen so far, one per update and environment, and at most `memory`. So the loss per datum is `E[-log
    p(y | w)] + KL / data`, and with all data as the batch it is minus the ELBO over `data`. With a moving target, an
    unlimited memory measures uncertainty about the bootstrapped value, not about the true one.

    Exploration is Thompson sampling: values are computed from one draw of `w` per replicate, redrawn every
    `resample_every` updates, so that a policy pursues a possibly optimal action long enough to find out (randomised
    value functions: Osband et al. 2016, "Deep Exploration via Bootstrapped DQN", for the motivation; Azizzadenesheli et
    al. 2018, "Efficient Exploration through Bayesian Deep Q-Networks", for the last layer). Inside `expected()`, which
    bootstrapping and play without exploration use, values are posterior means.

    Args:
        hidden, learning_rate, target_rate, initial, max_gradient_norm, target_interval: see `NetworkCritic`.
        prior_scale: prior standard deviation of the weights, positive.
        noise_scale: standard deviation of a target around its mean, in units of reward, positive.
        resample_every: updates between draws of the weights.
        memory: maximum number of transitions that the posterior represents; `None` for all. Set it to the capacity of
            the replay buffer if that drops data; a smaller number keeps the critic exploring.
        particles: draws of the weights per gradient step.
    """

    by_replicate = frozenset({"learning_rate"})

    noise: Tensor
    second_moment: Tensor

    def __init__(
        self,
        hidden: Sequence[Count] = (100, 100),
        learning_rate: Positive | ByReplicate = 1e-2,
        target_rate: Rate = 0.01,
        initial: float = 0.0,
        max_gradient_norm: Clip = None,
        prior_scale: Positive = 1.0,
        noise_scale: Positive = 1.0,
        resample_every: Count = 1,
        memory: Annotated[int | None, In("a positive integer", ", or null to remember everything")] = None,
        particles: Count = 8,
        target_interval: Count = 1,
    ) -> None:
        super().__init__(
            hidden, learning_rate, target_rate, initial, max_gradient_norm, target_interval=target_interval
        )
        self.prior_scale, self.noise_scale = prior_scale, noise_scale
        self.resample_every, self.memory, self.particles = resample_every, memory, particles
        self._expects = False

    def setup(self) -> None:
        """Create the network, the first draw and the optimiser; without data `scale` is the prior's."""
        super().setup()
        mean = self._mean()
        self.register_buffer("prior_mean", torch.zeros_like(mean[0, 0]))
        self.prior_mean[-1] = self.initial
        self.register_buffer("second_moment", torch.zeros_like(mean))
        self.register_buffer("noise", torch.randn_like(mean))
        self.elbo = estimator(TraceMeanField_ELBO, self.particles)

    @property
    def data(self) -> int:
        """Number of transitions that the posterior represents, including those of the next update."""
        seen = (self.updates + 1) * self.seat.environments
        return seen if self.memory is None else min(seen, self.memory)

    def _mean(self) -> Tensor:
        """Posterior mean of the weights, `replicates x 1 x (features + 1)`."""
        last = self.network.last
        return torch.cat([last.weight.transpose(-1, -2), last.bias], dim=-1)

    @property
    def scale(self) -> Tensor:
        """Posterior standard deviations of the weights, `replicates x 1 x (features + 1)`."""
        precision = self.prior_scale**-2 + self.data * self.second_moment / self.noise_scale**2
        return precision.rsqrt()

    def _features(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> Tensor:
        """`phi`, `[extra x] replicates x batch x (features + 1)`."""
        features: Tensor = self.network.features(encode(self.spaces, (obs, action, *opponent_actions), self.seat.dtype))
        return pad(features, (0, 1), value=1.0)

    def likelihood(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """The Pyro model of the class docstring."""
        with pyro.plate("replicate", obs.shape[0], dim=-2):
            with poutine.scale(scale=obs.shape[1] / self.data):
                weights = pyro.sample("critic_weight", dist.Normal(self.prior_mean, self.prior_scale).to_event(1))
            value = (self._features(obs, action, *opponent_actions) * weights).sum(-1)
            with pyro.plate("batch", obs.shape[1], dim=-1):
                pyro.sample("td_target", dist.Normal(value, self.noise_scale), obs=target)

    def approximation(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """The guide of the class docstring."""
        with pyro.plate("replicate", obs.shape[0], dim=-2), poutine.scale(scale=obs.shape[1] / self.data):
            pyro.sample("critic_weight", dist.Normal(self._mean(), self.scale).to_event(1))

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Use the posterior mean instead of the current draw."""
        before, self._expects = self._expects, True
        try:
            yield
        finally:
            self._expects = before

    def forward(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> Tensor:
        """Values under the current draw, or in expectation inside `expected()`; `[extra x] replicates x batch`."""
        if self._expects:
            return super().forward(obs, action, *opponent_actions)
        weights = self._mean() + self.scale * self.noise
        return (self._features(obs, action, *opponent_actions) * weights).sum(-1)

    def uncertainty(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor) -> Tensor:
        """Posterior standard deviation of the value, `[extra x] replicates x batch`; excludes target noise."""
        deviations = self._features(obs, action, *opponent_actions) * self.scale
        norm: Tensor = torch.linalg.vector_norm(deviations, dim=-1)
        return norm

    def fit(self, obs: Tensor, action: Tensor, *opponent_actions: Tensor, target: Tensor) -> None:
        """Take one Adam step on minus the ELBO, with a new draw every `resample_every` steps."""
        super().fit(obs, action, *opponent_actions, target=target)
        with torch.no_grad():
            squares = self._features(obs, action, *opponent_actions).square().mean(-2, keepdim=True)
            self.second_moment.lerp_(squares, max(1 / (self.updates + 1), MEMORY))
        self.updates += 1
        if self.updates % self.resample_every == 0:
            self.noise.normal_()
