"""MASQL: multiagent soft Q-learning (Wei, Wicke, Freelan and Luke, AAAI Spring Symposium 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import hyperparameters
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.objectives import drawn_value
from inference_marl.learners.stein import DISCREPANCY, EXPECTED_VALUE, SteinLearner
from inference_marl.learners.variational import best_of
from inference_marl.spaces import Space, joint_space, separate_actions
from inference_marl.types import Decision, Experience, Memory, about_each


@hyperparameters
class Masql(SteinLearner):
    """MASQL: soft Q-learning over joint actions, where each agent plays its own part of a sampled joint action::

        (a, b) ~ q(a, b | s), fitted to the density proportional to exp(Q(s, a, b) / alpha)
        target = r + gamma V(s'),   V(s) = alpha log integral exp(Q'(s, a, b) / alpha) da db

    V is estimated from `value_particles` uniform joint actions, see `drawn_value`: it is too low if few of them meet a
    narrow peak of Q, the more so the smaller alpha is. Each agent draws a joint action independently, so if q has
    several modes the agents may miscoordinate.

    Departures from the authors' code (github.com/ml3705454/mapr2, maci/learners/masql.py): there V lacks a factor alpha
    (`drawn_value`) and the sampler's target is tilted to the middle of the box (`Stein`, `coordinates="tilted_box"`).
    Its settings are two layers of 100, learning rates of 3e-4, a discount of .99, target updates of .01 every 10
    updates, and a temperature of .1 (the script of ROMMEO anneals it: `0.1 + 500 exp(-0.1 max(t - 10, 0))` at step t);
    actions are sampled in evaluation, too.

    Args:
        sampler, critic, stein, temperature, discount, value_particles, replay, batch_size, sampler_batch_size,
            learning_rate, warmup, warmup_actions, noise, max_gradient_norm: see `SteinLearner`.
    """

    @property
    def sampled(self) -> tuple[Space, Sequence[Space]]:
        """The spaces of the joint action, the agent's own first, and of the observation."""
        return joint_space([self.own, self.others]), [self.seat.observation]

    def separate(self, joint: Tensor) -> list[Tensor]:
        """Split joint actions into the agent's own and every opponent's, `... x dim`."""
        return separate_actions([self.own, *self.seat.opponent_actions], joint)

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """`None`, since actions can only be sampled; uniform during warm-up."""
        uniform = self.own.uniform(self.seat.dtype, self.seat.device).expand(obs.shape[:2])
        return uniform if self.plays_uniformly else None, memory

    @local_parameters()
    @torch.no_grad()
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Sample the own part of a joint action at `obs`, `replicates x environments x event`, with noise, if any.

        A uniform action during warm-up. Without `explore`, its part of the one of 32 joint draws with the highest
        value.
        """
        if explore:
            if self.plays_uniformly:
                return Decision(self.uniform(self.own, obs.shape[1]), memory)
            (joint,) = self.sampler.particles(obs, count=1)
            return Decision(*self.explored(self.separate(joint)[0], memory))
        action, *opponent_actions = self.separate(self.sampler.particles(obs, count=32))
        with self.critic.expected():
            values = self.critic(obs, action, *opponent_actions)
        return Decision(best_of(action.movedim(0, 2).flatten(1, 2), values.movedim(0, 2)), memory)

    def next_value(self, next_obs: Tensor) -> Tensor:
        """See `SteinLearner`."""
        box = self.sampler.target
        joint = self.uniform(box, self.value_particles, next_obs.shape[1]).movedim(1, 0)
        return drawn_value(self.target_critic(next_obs, *self.separate(joint)), self.alpha, box.log_size)

    def improve(self, data: Experience) -> Mapping[str, Tensor]:
        """See `SteinLearner`."""
        step = self.fit_sampler(lambda joint: self.critic(data.obs, *self.separate(joint)), data.obs)
        value = (self.alpha * step.log_density.unsqueeze(-1)).squeeze(-1)
        return {DISCREPANCY.name: step.discrepancy, EXPECTED_VALUE.name: value}

    @local_parameters()
    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """Policy and opponent model, the two parts of joint draws. The policy is uniform during warm-up."""
        action, *opponent_actions = self.separate(self.sampler.particles(obs, count=draws).movedim(0, 2))
        if self.plays_uniformly:
            action = self.uniform(self.own, *action.shape[1:3])
        return {"policy": action, **about_each("opponent_model", opponent_actions)}
