"""ROMMEO: regularised opponent model with maximum entropy objective (Tian et al., IJCAI 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import BelowOne, Count, IncompatibleError, Positive, Whole, hyperparameters, within
from inference_marl.guides import ClosedForm, Guide, OpponentFirst, Optimal
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.estimators import (
    ElboEstimator,
    Enumerate,
    Local,
    Played,
    Relax,
    Sample,
    discrete_sites,
    drawing,
)
from inference_marl.inference.objectives import (
    one_step,
    optimal_value,
    sampled_value,
    soft_value,
    table_step,
    td_target,
)
from inference_marl.inference.opponents import Joint
from inference_marl.inference.optimise import frozen
from inference_marl.inference.reward_range import OfRange
from inference_marl.inference.schedules import ByReplicate, InverseTime, Schedule, current
from inference_marl.inference.tables import total_correlation
from inference_marl.learners.variational import Beliefs, VariationalLearner, best_of, outlooks, repeat
from inference_marl.models import ControlModel, Critic, EmpiricalFrequency, OpponentPrior, TabularCritic
from inference_marl.spaces import Discrete
from inference_marl.types import POSITIVE, Actor, Decision, Experience, Memory, Metric, Trajectory, about_all

FEW = 10
"""Maximum number of the opponents' joint actions that are enumerated by default."""

TOTAL_CORRELATION = Metric(
    "total_correlation",
    "total correlation of the opponent model",
    bounds=POSITIVE,
    meaning="Total correlation of the believed actions of several opponents: the sum of their entropies minus that of "
    "the joint action, in nats; 0 if they are believed to act independently.",
)


@hyperparameters
class Rommeo(VariationalLearner):
    """ROMMEO: acts on, and learns from, the ELBO of the agent's own optimality::

        model:  b ~ P(b | s),   a ~ Uniform(A),  log p(o = 1 | s, a, b) = Q(s, a, b)
        guide:  b ~ rho(b | s), a ~ pi(a | s, b)           (or the other order)

    It implements both algorithms of the paper:

    * ROMMEO-Q (Algorithm 1): `TabularCritic`, `EmpiricalFrequency`, and a closed-form guide (`Optimal`, Eq. 10 and 11),
      or one of `Tabular` factors fitted by SVI with exact enumeration.
    * ROMMEO-AC (Algorithm 2): `NetworkCritic` with a target, `Amortised` prior, `TanhNormalNetwork` factors fitted by
      reparameterised SVI, and a replay buffer.

    A learning step updates the prior with the opponents' actions, stores the step, moves the critic towards `r + gamma
    V(s')`, where `V` is the ELBO under the target critic, and takes gradient steps on the ELBO for the guide's
    parameters, if any.

    Departures from the paper, see docs/theory.md: the update is at `s_t`, where Algorithm 1 prints `s_{t+1}`; the
    bootstrapped value of discrete games is the exact expectation instead of Algorithm 1's Monte-Carlo form, which is
    unbiased for alpha = 1 only (`bootstrap`); `pi` and `rho` are trained by one SVI step on their joint ELBO, with the
    agent's own action drawn from `pi` as in the authors' code, where Eq. 19 takes it from the replay buffer
    (`improve`); the target critic is updated slowly, where Algorithm 1 copies the critic at intervals
    (`target_interval` of critics).

    Without arguments it is ROMMEO-Q for payoffs of any scale, see "What the default assumes" in docs/learners.md. This
    departs from the paper in its units (`OfRange`, optimistic tables), in an exponent above 1 of the frequencies, and
    in a growing KL weight.

    Args:
        opponent_prior: P(b | s).
        guide: rho and pi, in either order.
        critic: Q(s, a, b).
        discount: gamma in [0, 1).
        estimator: estimator of the ELBO for several opponents with discrete actions; if `None`, `Enumerate` if the
            opponent model or the critic is a table or there are at most `FEW` joint actions, and otherwise `Local`, or
            `Sample` where that is biased.
        bootstrap: the bootstrapped value V(s'): the guide's `elbo`, or `monte_carlo` as in Algorithm 1, see
            `sampled_value`.
        bootstrap_draws: draws per datum of `monte_carlo`.
        improve: the guide's two factors `jointly`, by one step on their ELBO; the policy and then the opponent model,
            `in_turn`, by a step of each with the other fixed; or likewise `with_replay`, where the opponent model's
            step takes the agent's own action from the replay buffer, exactly as in Eq. 18 and 19.
        warmup: initial updates in which actions are uniformly random and the guide is not fitted, so that critic and
            prior learn about the whole action space before the guide selects from it.
        optimality, temperature, kl_weight, replay, batch_size, guide_learning_rate, guide_steps, particles,
            max_gradient_norm: see `VariationalLearner`.
    """

    by_replicate = VariationalLearner.by_replicate | {"discount"}
    metrics = (*VariationalLearner.metrics, TOTAL_CORRELATION)

    opponent_prior: OpponentPrior = EmpiricalFrequency(smoothing=1.0, initial="uniform", exponent=4.0)
    guide: Guide = OpponentFirst(opponent_model=Optimal(), policy=Optimal())
    critic: Critic = TabularCritic("optimistic", InverseTime(start=1.0, scale=1.0), rate_over="visits")
    temperature: Positive | Schedule | OfRange = OfRange(1 / 1000)
    discount: BelowOne | ByReplicate = 0.95
    estimator: ElboEstimator | None = None
    bootstrap: Literal["elbo", "monte_carlo"] = "elbo"
    bootstrap_draws: Count = 16
    improve: Literal["jointly", "in_turn", "with_replay"] = "jointly"
    warmup: Whole = 0
    target_critic: Critic = field(init=False)

    def setup(self) -> None:
        """Bind prior, critic and guide to the seat and create the replay buffer and the guide's optimiser."""
        seat = self.seat
        self._check_default()
        self.bind_prior()
        self.exact = seat.has_table
        with within("critic"):
            self.critic = self.critic.bind(seat)
        self.target_critic = self.critic.target()
        with within("guide"):
            self.guide = self.guide.bind(seat)
        discrete = [space.n for space in seat.opponent_actions if isinstance(space, Discrete)]
        tables = self.guide.opponent_model.over == "joint" or isinstance(self.critic, TabularCritic)
        few = tables or len(discrete) < 2 or math.prod(discrete) <= FEW
        fitting = Local() if Local().suits(seat, self.guide.order[0] == "action") else Sample()
        self.estimates = self.estimator or (Enumerate() if few else fitting)
        self._check_estimator()
        enumerates = bool(discrete) or isinstance(seat.action, Discrete)
        self.make_optimiser(enumerates, follows=isinstance(self.guide.opponent_model, ClosedForm))

    def _check_estimator(self) -> None:
        """Raise for an estimator that is biased in this seat, and for relaxed actions with tables."""
        name, order = type(self.estimates).__name__, type(self.guide).__name__
        if not self.estimates.suits(self.seat, self.guide.order[0] == "action"):
            raise IncompatibleError(
                f"got {name} with own actions {self.seat.action} in {order}, where it is biased, expected Sample, "
                "Enumerate or OpponentFirst",
                key="estimator",
            )
        parts = (self.critic, self.guide.policy, self.guide.opponent_model, self.opponent_prior)
        inner = [getattr(part, "conditional", part) for part in parts]
        if isinstance(self.estimates, Relax):
            for part in inner:
                if isinstance(part, TabularCritic | ClosedForm | Joint) or getattr(part, "over", "one") == "joint":
                    raise IncompatibleError(
                        f"got Relax with {type(part).__name__}, expected networks in all places: tables have no values "
                        "between those of actions",
                        key="estimator",
                    )

    def _check_default(self) -> None:
        """Raise, and name alternatives, if the tables of the default do not fit."""
        boxes = [space for space in self.seat.spaces if not isinstance(space, Discrete)]
        if boxes and isinstance(self.critic, TabularCritic) and isinstance(self.opponent_prior, EmpiricalFrequency):
            raise IncompatibleError(
                f"got {boxes[0]} with tables, as the default has them, expected Discrete states and actions, or other "
                "parts: an opponent_prior (Amortised), a guide (of TanhNormalNetwork, or of CategoricalNetwork for "
                "discrete actions) and a critic (NetworkCritic)",
                key="opponent_prior",
            )

    @property
    def model(self) -> ControlModel:
        """See `VariationalLearner`."""
        alpha, beta = self.weights()
        return ControlModel(self.seat, self.opponent_prior, self.critic, self.likelihood, alpha, beta)

    @property
    def _warming_up(self) -> bool:
        return self.updates < self.warmup

    def _uniform(self) -> dist.TorchDistribution:
        return self.seat.action.uniform(self.seat.dtype, self.seat.device)

    @local_parameters()
    @torch.no_grad()
    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The marginal policy `sum_b pi(a | s, b) rho(b | s)`; `None` if it is an integral and can only be sampled.

        Uniform during warm-up.
        """
        if self._warming_up:
            return self._uniform().expand(obs.shape[:2]), memory
        return (dist.Categorical(probs=self._exact_beliefs(obs)[0]["policy"]) if self.exact else None), memory

    @local_parameters()
    @torch.no_grad()
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Act at `obs`, `replicates x environments x event`.

        With `explore`, a draw from the marginal policy, or a uniform action during warm-up. Without, the most probable
        action of the marginal policy (discrete; estimated by 32 draws if it is an integral), or the one of 32 draws
        with the highest mean value over 16 draws from the opponent model (continuous). Evaluated with the opponents'
        actions that each was drawn with, a lucky pair would win, regardless of its probability.
        """
        if explore:
            action = self._uniform().sample(obs.shape[:2]) if self._warming_up else self.guide(obs, self.model)[0]
            return Decision(action, memory)
        with self.critic.expected():
            if isinstance(self.seat.action, Discrete):
                return Decision(self.beliefs(obs, memory, draws=32)["policy"].argmax(-1), memory)
            candidates = self.guide(repeat(obs, 32), self.model)[0]
            each, wide = repeat(candidates, 16), repeat(obs, 32 * 16)
            opponent_actions = self.guide.believed(self.model, wide, each).sample(wide.shape[:2])
            values = self.model.q(wide, each, *opponent_actions).unflatten(1, (obs.shape[1], 32, 16)).mean(-1)
        return Decision(best_of(candidates, values), memory)

    def store(self, newest: Trajectory) -> None:
        """Pass the trajectory to the prior, the replay buffer and the critic."""
        super().store(newest)
        reward = newest.flat.seen_by(self.seat).reward
        for critic in {self.critic, self.target_critic}:  # possibly the same
            critic.observe(reward)

    @local_parameters()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Perform one learning step, as in the class docstring; `peers` is not used."""
        self.opponent_prior.fit()
        data = self.draw(newest)
        discount = current(self.discount, self.updates)
        target = td_target(data.reward, discount, data.terminated, self._next_value(data))
        self.critic.fit(data.obs, data.action, *data.opponent_actions, target=target)
        self.critic.move(self.target_critic, self.updates + 1)
        if not self._warming_up and self.optimiser is not None:
            self._improve(data)
        self.updates += 1
        self.weights()  # raises if they have become invalid
        return {}

    def _improve(self, data: Experience) -> None:
        """Take a step of the guide, or one of each factor, see `improve`."""
        policy, opponent_model = list(self.guide.policy.parameters()), list(self.guide.opponent_model.parameters())
        if self.improve == "jointly":
            self.fit_guide(data.obs)
            return
        if policy:
            with frozen(opponent_model):
                self.fit_guide(data.obs)
        if opponent_model:
            with frozen(policy):
                self.fit_guide(data.obs, Played("action", data.action) if self.improve == "with_replay" else None)

    def guide_loss(self, model: Callable[[Tensor], Any], guide: Callable[[Tensor], Any], obs: Tensor) -> Tensor:
        """See `VariationalLearner`; uses the estimator."""
        return self.estimates.loss(self.elbo, model, guide, self.seat, obs)

    @torch.no_grad()
    def _next_value(self, data: Experience) -> Tensor:
        if bool(data.terminated.all()):
            return torch.zeros_like(data.reward)
        model = replace(self.model, critic=self.target_critic)
        guide = self.estimates.drawn(partial(self.guide, model=model), self.seat)
        with self.target_critic.expected():
            if self.bootstrap == "monte_carlo":
                value = sampled_value(model, guide, data.next_obs, self.bootstrap_draws)
            else:
                value = soft_value(model, guide, data.next_obs, model.temperature, self.seat.action.log_size)
        return value + self.likelihood.offset

    @local_parameters()
    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """See `VariationalLearner`; with a table over several opponents also their total correlation."""
        found = super().beliefs(obs, memory, draws)
        if not self.exact or len(self.seat.opponents) < 2:
            return found
        sizes = [space.features for space in self.seat.opponent_actions]
        return {**found, TOTAL_CORRELATION.name: total_correlation(found["joint_opponent_model"], sizes)}

    def _exact_beliefs(self, obs: Tensor) -> Beliefs:
        model, log_size = self.model.at(obs), self.seat.action.log_size
        _, prior, q = model
        log_pi, log_rho, second = self.guide.tables(obs, model)
        alpha, beta = model.temperature, model.kl_weight
        log_prior = prior.table()
        step = table_step(log_pi, log_rho, log_prior.unsqueeze(-2), self.likelihood.log_prob(q), alpha, beta, log_size)
        policy = self._uniform().probs.expand_as(step.action) if self._warming_up else step.action
        (opponent_model,) = step.opponent_actions
        opponents = self.seat.opponent_actions
        beliefs = {
            "policy": policy,
            **about_all("opponent_model", opponent_model, opponents),
            **about_all("opponent_prior", log_prior.exp().expand_as(opponent_model), opponents),
        }
        # The ELBO of the optimal guide in this order, in closed form (Eq. 9).
        value = optimal_value(q, log_prior, alpha, beta, self.guide.order[0] == "action", second)
        evidence = value - alpha * log_size - self.likelihood.offset
        return beliefs, (step.reward, step.entropy, step.kl), evidence

    def _drawn_beliefs(self, obs: Tensor, draws: int) -> Beliefs:
        wide, apart = repeat(obs, draws), (obs.shape[1], draws)
        model, seat = self.model, self.seat
        guide = drawing(partial(self.guide, model=model), ["action", *discrete_sites(seat)])
        step = one_step(model, guide, wide)
        prior = model.opponent_prior(wide).outlook(wide.shape[:2])
        beliefs = outlooks("opponent_model", step.opponent_actions, seat, apart)
        beliefs |= outlooks("opponent_prior", prior, seat, apart)
        policy = step.action.unflatten(1, apart)
        if isinstance(seat.action, Discrete):
            policy = self._uniform().probs.expand_as(policy[:, :, 0]) if self._warming_up else policy.mean(2)
        elif self._warming_up:
            policy = self._uniform().sample(policy.shape[:3])
        reward, entropy, kl = (part.unflatten(1, apart).mean(2) for part in (step.reward, step.entropy, step.kl))
        return {"policy": policy, **beliefs}, (reward, entropy, kl), None
