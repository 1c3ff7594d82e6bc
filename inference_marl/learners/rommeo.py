"""ROMMEO: regularised opponent model with maximum entropy objective (Tian et al., IJCAI 2019)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import within
from inference_marl.guides import ClosedForm, Guide
from inference_marl.inference.networks import track
from inference_marl.inference.objectives import one_step, optimal_value, soft_value, td_target
from inference_marl.inference.schedules import Schedule
from inference_marl.learners.variational import VariationalLearner, at_least
from inference_marl.models import ControlModel, Critic, OpponentPrior, Optimality
from inference_marl.spaces import Discrete
from inference_marl.types import Experience, Learner, Posterior, Transition, check_discount


class Rommeo(VariationalLearner):
    """An agent that acts on, and learns from, the ELBO of its own optimality::

        model:  b ~ P(b | s),   a ~ Uniform(A),  log p(o = 1 | s, a, b) = Q(s, a, b)
        guide:  b ~ rho(b | s), a ~ pi(a | s, b)           (or the other order)

    One implementation for both algorithms of the paper:

    * ROMMEO-Q (Algorithm 1): `TabularCritic`, `EmpiricalFrequency`, and a guide in closed form (`Optimal`, Eq. 10
      and 11), or one of `Tabular` factors fitted by SVI with exact enumeration.
    * ROMMEO-AC (Algorithm 2): `NetworkCritic` with a target, `Amortised` prior, `TanhNormalNetwork` factors fitted
      by reparameterised SVI, replay.

    A step of learning is: show the prior what the opponents did; store the step; move the critic towards
    `r + gamma V(s')`, where `V` is the ELBO under the target critic; take gradient steps on the ELBO for the
    guide's parameters, if it has any.

    Departures from the paper: the update is at `s_t`, where Algorithm 1 prints `s_{t+1}`; the bootstrap of discrete
    games is the exact expectation instead of Algorithm 1's Monte-Carlo form, which is unbiased for alpha = 1 only;
    `pi` and `rho` are trained by one SVI step on their joint ELBO, with the own action drawn from `pi` as in the
    authors' code, where Eq. 19 takes it from replay.

    Args:
        opponent_prior: P(b | s).
        guide: rho and pi, in an order.
        critic: Q(s, a, b).
        optimality: how a value becomes a likelihood.
        temperature: alpha > 0, the weight of the policy's entropy, in units of reward; number or schedule over
            updates.
        kl_weight: beta > 0, the weight of KL(rho || P); 1 in the paper. Small values let rho ignore the prior.
        discount: gamma in [0, 1).
        replay: transitions kept per replicate; `None` learns from the newest step alone.
        batch_size: transitions drawn from replay per update.
        warmup: updates during which actions are uniformly random and the guide stays as it is, so that the critic
            and the prior have seen the whole action space before the guide decides what to see.
        guide_learning_rate: Adam's step size for the guide.
        guide_steps: gradient steps on the guide per update.
        particles: draws per datum in the guide's ELBO gradient, for sites that are not enumerated.
        max_gradient_norm: clip each replicate's guide gradient; `None` for no clipping.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        opponent_prior: OpponentPrior,
        guide: Guide,
        critic: Critic,
        optimality: Optimality | None = None,
        temperature: float | Schedule = 1.0,
        kl_weight: float | Schedule = 1.0,
        discount: float = 0.95,
        replay: int | None = None,
        batch_size: int = 256,
        warmup: int = 0,
        guide_learning_rate: float = 1e-2,
        guide_steps: int = 1,
        particles: int = 1,
        max_gradient_norm: float | None = None,
    ) -> None:
        super().__init__(
            opponent_prior,
            guide,
            optimality,
            temperature,
            kl_weight,
            replay,
            batch_size,
            guide_learning_rate,
            guide_steps,
            particles,
            max_gradient_norm,
        )
        check_discount(discount)
        at_least("warmup", warmup, 0)
        self.critic = critic
        self.discount, self.warmup = discount, warmup

    def setup(self) -> None:
        """Bind prior, critic and guide to the seat, and make the replay and the guide's optimiser.

        Raises:
            IncompatibleError: if a part does not fit the seat or the others.
        """
        seat = self.seat
        prior = self.bind_prior()
        self.discrete = isinstance(seat.action, Discrete)
        with within("critic"):
            self.critic = self.critic.bind(seat)
        self.target_critic = self.critic if self.critic.target_rate == 1 else copy.deepcopy(self.critic)
        model = ControlModel(seat, prior, self.critic, self.optimality)
        self.bind_guide(model, self.discrete, follows=isinstance(self.guide.opponent_model, ClosedForm))

    @property
    def model(self) -> ControlModel:
        """The generative side: prior, critic, optimality and the current weights."""
        model: ControlModel = self._model[0]
        return model

    @property
    def _warming_up(self) -> bool:
        return self.updates < self.warmup

    def _uniform(self) -> dist.TorchDistribution:
        return self.seat.action.uniform(self.seat.dtype, self.seat.device)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """Actions at `obs`, `replicates x environments x event`.

        With `explore`, a draw from the marginal policy `sum_b pi(a | s, b) rho(b | s)`, or a uniform action during
        warm-up. Without, the most probable action of the marginal policy (discrete), or of 32 draws the one with
        the highest value against the opponents' action it was drawn with (continuous).
        """
        if explore:
            if self._warming_up:
                random: Tensor = self._uniform().sample(obs.shape[:2])
                return random
            action: Tensor = self.guide(obs)[0]
            return action
        with self.critic.expected():
            if self.discrete:
                return self.posterior(obs, draws=1).policy.argmax(-1)
            wide = _repeat(obs, 32)
            actions, opponent_actions = self.guide(wide)
            values = self.model.q(wide, actions, opponent_actions).unflatten(1, (obs.shape[1], 32))
        best = values.argmax(-1)[..., None, None].expand(*obs.shape[:2], 1, actions.shape[-1])
        chosen: Tensor = actions.unflatten(1, (obs.shape[1], 32)).gather(2, best).squeeze(2)
        return chosen

    def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
        """One step of learning, as in the class docstring; `peers` is not read."""
        newest = batch.seen_by(self.seat)
        data = self.remember(newest)
        target = td_target(data.reward, self.discount, data.terminated, self._next_value(data))
        self.critic.fit(data.obs, data.action, data.opponent_action, target)
        if self.target_critic is not self.critic:
            track(self.target_critic, self.critic, self.critic.target_rate)
        if self.fitting is not None and not self._warming_up:
            for _ in range(self.guide_steps):
                self.fitting.step(data.obs.shape[1], data.obs)
        self.updates += 1
        self.set_weights()

    @torch.no_grad()
    def _next_value(self, data: Experience) -> Tensor:
        if bool(data.terminated.all()):
            return torch.zeros_like(data.reward)
        with self.model.reading(self.target_critic), self.target_critic.expected():
            value = soft_value(self.model, self.guide, data.next_obs, self.model.temperature, self.seat.action.log_size)
        return value + self.optimality.offset

    @torch.no_grad()
    def posterior(self, obs: Tensor, draws: int) -> Posterior:
        """Policy, opponent model, prior and the parts of the ELBO at `obs`, `replicates x batch x event`.

        Exact for discrete spaces; from `draws` draws per datum for continuous ones. The policy is the one that is
        played: uniform during warm-up.
        """
        if self.discrete:
            step = one_step(self.model, self.guide, obs)
            prior = self.opponent_prior(obs)
            policy = self._uniform().probs.expand_as(step.action) if self._warming_up else step.action
            return Posterior(
                policy,
                step.opponent_action,
                prior.probs.expand_as(step.opponent_action),
                step.reward,
                step.entropy,
                step.kl,
                self._evidence(obs, prior.logits),
                self.opponent_prior.types(obs),
            )
        wide = _repeat(obs, draws)
        step = one_step(self.model, self.guide, wide)
        prior = self.opponent_prior(wide).expand(wide.shape[:2]).sample()
        policy = self._uniform().sample(wide.shape[:2]) if self._warming_up else step.action
        apart = (obs.shape[1], draws)
        reward, entropy, kl = (part.unflatten(1, apart).mean(2) for part in (step.reward, step.entropy, step.kl))
        return Posterior(
            policy.unflatten(1, apart),
            step.opponent_action.unflatten(1, apart),
            prior.unflatten(1, apart),
            reward,
            entropy,
            kl,
            opponent_type=self.opponent_prior.types(obs),
        )

    def _evidence(self, obs: Tensor, log_prior: Tensor) -> Tensor:
        """The ELBO of the best guide of this order, in closed form (Eq. 9), `replicates x batch`."""
        model, policy_first = self.model, self.guide.order[0] == "action"
        value = optimal_value(model.q_table(obs), log_prior, model.temperature, model.kl_weight, policy_first)
        return value - model.temperature * self.seat.action.log_size - self.optimality.offset


def _repeat(obs: Tensor, times: int) -> Tensor:
    """Each datum `times` in a row: `replicates x batch x event` to `replicates x (batch times) x event`."""
    return obs.repeat_interleave(times, dim=1)
