"""PR2-AC: probabilistic recursive reasoning, actor-critic (Wen, Yang, Luo, Wang and Pan, ICLR 2019)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import Count, NotNegative, hyperparameters
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.networks import MLP, track
from inference_marl.inference.noise import ActionNoise, NormalNoise
from inference_marl.inference.objectives import drawn_value
from inference_marl.inference.optimise import Optimiser, frozen
from inference_marl.learners.stein import DISCREPANCY, EXPECTED_VALUE, SteinLearner
from inference_marl.spaces import Space
from inference_marl.types import Decision, Experience, Memory, about_each


@hyperparameters
class Pr2Ac(SteinLearner):
    """PR2-AC: an actor-critic that models the opponents' responses to each of its own actions::

        b ~ rho(b | s, a), fitted to the density proportional to exp(Q(s, a, b) / alpha), at replayed s and a
        mu(s) ascends E_{b ~ rho(b | s, mu(s))} Q(s, mu(s), b)
        target = r + gamma E_{b ~ rho(b | s', a')} Q'(s', a', b),   a' = mu'(s')

    with targets `'` that are updated slowly, at the critic's rate. The gradient of mu is the total derivative,
    including the dependence of the responses on a. Means are over `value_particles` draws. With `value="soft"` the
    target bootstraps from `alpha log integral exp(Q'(s', a', b) / alpha) db` instead, from as many uniform b, see
    `drawn_value`.

    Departures from the authors' code (github.com/ml3705454/mapr2, maci/learners/mavb_ac.py): there the target is the
    soft value without a factor alpha (`drawn_value`); mu ascends that expression with draws of rho instead of uniform
    ones, made at the replayed action, so that they do not respond to mu's action, and with Q at s' instead of s; a
    function of (s, a) is also fitted to Q and subtracted in rho's target, which changes no gradient; and rho's target
    is tilted to the middle of the box (`Stein`). Its settings are two layers of 100 and learning rates of 1e-2.

    Args:
        hidden: widths of mu's hidden layers.
        value: the bootstrapped value, `mean` or `soft`, see above.
        regularisation: weight of the mean square of mu's outputs before `tanh`, which keeps its gradients alive.
        noise: exploration noise, which may depend on the number of updates; `None` for none.
        sampler, critic, stein, temperature, discount, value_particles, replay, batch_size, sampler_batch_size,
            learning_rate, warmup, warmup_actions, max_gradient_norm: see `SteinLearner`.
    """

    hidden: Sequence[Count] = (100, 100)
    value: Literal["mean", "soft"] = "mean"
    regularisation: NotNegative = 1e-3
    noise: ActionNoise | None = NormalNoise()
    actor: MLP = field(init=False)
    slow_actor: MLP = field(init=False)
    actor_optimiser: Optimiser = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)

    def setup(self) -> None:
        """See `SteinLearner`; also creates the actor, its target and its optimiser."""
        super().setup()
        self.actor = MLP(self.seat, self.seat.observation.features, self.own.features, self.hidden)
        self.slow_actor = copy.deepcopy(self.actor)
        parameters = self.actor.parameters()
        self.actor_optimiser = Optimiser("actor", parameters, self.learning_rate, self.max_gradient_norm)

    @property
    def sampled(self) -> tuple[Space, Sequence[Space]]:
        """The spaces of the opponents' joint action, and of the observation and the agent's own action."""
        return self.others, [self.seat.observation, self.own]

    def outputs(self, actor: MLP, obs: Tensor) -> Tensor:
        """Outputs of the actor or its target before squashing, `replicates x batch x dim`."""
        found: Tensor = actor(self.seat.observation.encode(obs, self.seat.dtype))
        return found

    def mu(self, actor: MLP, obs: Tensor) -> Tensor:
        """Actions of the actor or its target, `replicates x batch x dim`."""
        return self.own.decode(torch.tanh(self.outputs(actor, obs)))

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """A point mass at mu(s), without noise; uniform during warm-up."""
        if self.plays_uniformly:
            return self.own.uniform(self.seat.dtype, self.seat.device).expand(obs.shape[:2]), memory
        return dist.Delta(self.mu(self.actor, obs)).to_event(1), memory

    @torch.no_grad()
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Play mu(s) with noise, or a uniform action during warm-up; without `explore`, mu(s)."""
        if not explore:
            return Decision(self.mu(self.actor, obs), memory)
        if self.plays_uniformly:
            return Decision(self.uniform(self.own, obs.shape[1]), memory)
        return Decision(*self.explored(self.mu(self.actor, obs), memory))

    def next_value(self, next_obs: Tensor) -> Tensor:
        """See `SteinLearner`."""
        action = self.mu(self.slow_actor, next_obs)
        if self.value == "mean":
            answers = self.sampler.particles(next_obs, action, count=self.value_particles)
            mean: Tensor = self.target_critic(next_obs, action, *self.of_each(answers)).mean(0)
            return mean
        uniform = self.uniform(self.others, self.value_particles, next_obs.shape[1]).movedim(1, 0)
        q = self.target_critic(next_obs, action, *self.of_each(uniform))
        return drawn_value(q, self.alpha, self.others.log_size)

    def improve(self, data: Experience) -> Mapping[str, Tensor]:
        """See `SteinLearner`."""
        obs, action = data.obs, data.action
        step = self.fit_sampler(lambda answers: self.critic(obs, action, *self.of_each(answers)), obs, action)
        with frozen([*self.critic.parameters(), *self.sampler.parameters()]):
            loss, value = self.actor_loss(obs)
            self.actor_optimiser.step(loss)
        track(self.slow_actor, self.actor, self.critic.target_rate)
        return {DISCREPANCY.name: step.discrepancy, EXPECTED_VALUE.name: value.detach()}

    def actor_loss(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The actor's loss and the value that it ascends, `replicates` each."""
        outputs = self.outputs(self.actor, obs)
        action = self.own.decode(torch.tanh(outputs))
        answers = self.sampler.particles(obs, action, count=self.value_particles)
        value = self.critic(obs, action, *self.of_each(answers)).mean((0, -1))
        return self.regularisation * outputs.square().mean((-1, -2)) - value, value

    @local_parameters()
    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy, `draws` copies of mu(s) or uniform during warm-up, and the predicted responses to mu(s)."""
        action = self.mu(self.actor, obs)
        answers = self.sampler.particles(obs, action, count=draws).movedim(0, 2)
        policy = action.unsqueeze(2).expand(-1, -1, draws, -1)
        if self.plays_uniformly:
            policy = self.uniform(self.own, obs.shape[1], draws)
        return {"policy": policy, **about_each("opponent_model", self.of_each(answers))}
