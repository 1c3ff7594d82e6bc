"""PEARL against opponents: soft actor-critic with a latent belief about them (Rakelly et al., ICML 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from inference_marl.described import hyperparameters
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.networks import track_each
from inference_marl.inference.objectives import td_target
from inference_marl.inference.optimise import frozen
from inference_marl.inference.schedules import Number, current, over_events
from inference_marl.inference.svi import elbo_loss
from inference_marl.learners.deterministic.base import CRITIC_LOSS
from inference_marl.learners.latent.acting import BELIEF_SD, LatentPolicy
from inference_marl.learners.latent.contexts import Drawn, Posterior
from inference_marl.learners.latent.encoders import GaussianFactors
from inference_marl.learners.latent.model import TrialModel, reading
from inference_marl.learners.latent.networks import StateValue, Twins, joined
from inference_marl.spaces import Discrete
from inference_marl.types import POSITIVE, Actor, Metric, Trajectory

POSTERIOR_KL = Metric(
    "posterior_kl",
    "KL of the belief about opponents",
    bounds=POSITIVE,
    meaning="KL(q(z | c) || N(0, I)) in nats, mean over the tasks of an update, whose contexts differ in length.",
)
POSTERIOR_SD = Metric(
    "posterior_sd",
    "width of the belief about opponents",
    bounds=POSITIVE,
    meaning="Mean standard deviation of the coordinates of z, over the tasks of an update: 1 for the prior.",
)
OPPONENT_NLL = Metric(
    "opponent_nll",
    "surprise at opponents' actions",
    higher_is_better=False,
    meaning="Mean of -log P(b | s, z) over the steps of an update, summed over opponents, in nats; for boxes "
    "with densities in units of half the width.",
)
TEMPERATURE = Metric("temperature", bounds=POSITIVE, meaning="Weight of the policy's entropy.", tabulated=False)
FITTED_STEPS = Metric(
    "fitted_steps",
    "transitions learned from",
    bounds=POSITIVE,
    meaning="Transitions that an update learns from, in each replicate.",
)
ENCODED_STEPS = Metric(
    "encoded_steps",
    "transitions read as context",
    bounds=POSITIVE,
    meaning="Transitions that an update reads as context, in each replicate.",
)


@hyperparameters
class Pearl(LatentPolicy):
    """PEARL: soft actor-critic whose policy and critics take a belief about the opponents, given the trial so far::

        model:  z ~ N(0, I),   y ~ N(Q(s, a, z), 1/2),   b ~ P(b | s, z)        (see `TrialModel`)
        guide:  z ~ q(z | c),  c = the transitions of the trial so far
        y = r + gamma (min_k Q'_k(s', a', z) - alpha log pi(a' | s', z)),   a' ~ pi(. | s', z)
        pi ascends E[min_k Q_k(s, a, z) - alpha log pi(a | s, z)]

    A trial is a number of episodes against the same opponents, those of a task (the experiment's key `tasks`). The
    memory keeps the belief from one episode to the next and is reset where a task begins. So the agent adapts to
    opponents that it has never met with fixed parameters, by accumulating evidence.

    Other parts make other learners: `context=None` is plain soft actor-critic, `Told` an oracle, and `Recurrent` a
    recurrent actor-critic without a latent variable; `trained_by="opponents"` trains the encoder to predict the
    opponents' actions, not the returns. For discrete actions, expectations over the agent's own action are sums
    (Christodoulou 2019, 'Soft actor-critic for discrete action settings').

    It can also be ROMMEO with a latent opponent: the opponent prior is P(b | s, z), and Q takes the opponents'
    actions::

        Pearl(trained_by="opponents", actor_reads="forecasts", critic_reads="actions")
        y = r + gamma (min_k E_b'[Q'_k(s', a', b')] - alpha log pi(a' | s', b'_1, ..., b'_n)),   b' ~ P(b' | s', z)

    That is Eq. 7 of Tian et al. (2019) with rho := P, so that its KL vanishes. The policy takes several draws of b,
    each with its own z, whereas ROMMEO's pi(a | s, b) takes one. Its actions are evaluated with independent draws of b,
    whereas ROMMEO evaluates them with the draw that the policy was given, so that the policy learns to rely on it.

    Departures from PEARL, to which `published` is closest: the policy's outputs are not regularised; critics and
    encoder share an optimiser; the KL is averaged over tasks, where the code sums over them; the context includes the
    opponents' actions and the next observation, is from one trial, and is kept as sums (`GaussianFactors`).

    Args:
        context: computes the belief from the trial so far; `None` for no belief.
        trained_by: the data that z has to explain, which train the encoder: the `critic`'s targets; the `opponents`'
            actions; `both`, with equal weight; or whole `transitions`: opponents' actions, reward and next observation
            (as in Zintgraf et al. 2020, 'VariBAD', without opponents). Critics take z in all cases. Without a context,
            it says whether P(b | s) is also learned.
        actor_reads: the policy's input from the belief: a `draw` of z (Thompson sampling); its `moments`, mean and
            standard deviation, which include the uncertainty; or `forecasts`, draws of the opponents' actions from P(b
            | s, z) (for discrete actions their probabilities).
        critic_reads: the critics' input, a draw or moments; or the opponents' `actions`, for Q(s, a, b), whose mean
            over forecasts is the value of an action.
        forecasts: number of draws at each step; with few, the policy acts on a random guess as with `draw`.
        renewed: when the policy's belief is updated: with each `episode`, or after every `step`.
        temperature: alpha, a number or a schedule over updates; learned if `None`, such that the policy's entropy is
            `target_entropy` (Haarnoja et al. 2018, Eq. 18).
        target_entropy: in nats, where a box counts as [-1, 1]; if `None`, minus half the number of dimensions for a
            box, and half the entropy of the uniform policy for discrete actions.
        kl_weight: weight of the mean KL over tasks, relative to the mean squared error, or -log P, over transitions; a
            number or a schedule over updates. Relative to squared errors it is in units of squared rewards, so that
            `reward_scale` c reduces its effect by 1/c^2; relative to -log P it has no unit.
        reward_scale: factor of rewards in targets.
        opponent_sd: standard deviation of P(b | s, z) in boxes, in units of half the width; learned if `None`.
        discount: gamma in [0, 1).
        bootstrap: the bootstrapped value V(s'): that of target `critics`, at a draw of the policy (Haarnoja et al.
            2018, 'Soft actor-critic algorithms and applications'); or the target of a separate `value` network
            (Haarnoja et al. 2018, 'Soft actor-critic: off-policy maximum entropy'), as in PEARL.
        target_rate: fraction by which target networks move towards the online ones after every update, in (0, 1].
        tasks_per_update: number of tasks per update.
        batch: transitions of each task; see also `Recurrent`.
        hidden: widths of the hidden layers of policy, critics and opponent model.
        learning_rate: Adam's step size.
        max_gradient_norm: clip each replicate's gradients; `None` for no clipping.
        replay: transitions kept per replicate, over all its environments.

    Attributes:
        actor: the policy.
        critics: Q.
        value: V, or `None`.
        target: Q', or V'.
        opponents: P(b | s, z), or `None`.
        trials: the replay buffer.
    """

    metrics = (
        *(CRITIC_LOSS, POSTERIOR_KL, POSTERIOR_SD, OPPONENT_NLL, BELIEF_SD),
        *(TEMPERATURE, FITTED_STEPS, ENCODED_STEPS),
    )

    @classmethod
    def published(cls) -> Self:
        """The settings of the authors' code (github.com/katerakelly/oyster, configs/default.py)."""
        factors = GaussianFactors(
            latent=5, hidden=(200, 200, 200), prior_factor=False, context_steps=64, least_context_steps=64
        )
        return cls(
            context=factors,
            temperature=1.0,
            kl_weight=0.1 * 16,  # summed over 16 tasks there
            reward_scale=5.0,
            discount=0.99,
            bootstrap="value",
            target_rate=0.005,
            tasks_per_update=16,
            batch=256,
            hidden=(300, 300, 300),
            learning_rate=3e-4,
        )

    @local_parameters()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Take a step of critics, encoder and opponent model, then one of the policy and one of the temperature.

        `peers` is not used.

        Raises:
            NonFiniteError: if a loss is not finite.
        """
        groups = self.trials.draw_tasks(self.tasks_per_update)
        drawn = self.belief.draw(self.trials, groups, self.batch, self.renewed == "episode")
        model = self.model(drawn)
        self.optimiser.step(elbo_loss(self.elbo, model, model.guide, model.seen.reward[0].numel()))
        self._improve(model)
        track_each(self._slow, self._fast, self.target_rate)
        self.updates += 1
        return self._said(model)

    def model(self, drawn: Drawn) -> TrialModel:
        """The model of drawn data with the current weights, which also has the `guide`."""
        seen = self.layout.apart(drawn.steps.rows)
        after = drawn.after.detach()
        discount = over_events(current(self.discount, self.updates), 1)

        @torch.no_grad()
        def target(z: Tensor) -> Tensor:
            z = after.mean if after.sd is None else z
            if isinstance(self.target, StateValue):
                bootstrap = self.target(seen.next_obs, reading(self.critic_reads, after, z))
            else:
                value, log_policy = self._soft(self.target, seen.next_obs, after, z)
                bootstrap = value - self.alpha * log_policy
            return td_target(self.reward_scale * seen.reward, discount, drawn.steps.terminated, bootstrap)

        weight = over_events(current(self.kl_weight, self.updates), 1)
        return TrialModel(
            drawn=drawn,
            seen=seen,
            critics=self.critics,
            critic_reads=self.critic_reads,
            leads_encoder=self.trained_by in ("critic", "both"),
            opponents=self.opponents,
            outcomes=self.outcomes,
            unit=1.0 if self.rewards is None else self.rewards.unit.unsqueeze(-1),
            target=target,
            kl_weight=weight,
        )

    @property
    def alpha(self) -> Number:
        """The current temperature, a number or `replicates x 1 x 1`."""
        if self.temperature is None:
            return self.log_temperature.detach().exp().view(-1, 1, 1)
        return over_events(current(self.temperature, self.updates), 1)

    def _soft(self, critics: Twins, obs: Tensor, believed: Posterior, z: Tensor) -> tuple[Tensor, Tensor]:
        """E min_k Q_k and E log pi under the policy, `replicates x tasks x steps`; one draw, or exact if discrete.

        Args:
            critics: Q or its target.
            obs: features of observations, `replicates x tasks x steps x features`.
            believed: the beliefs at them.
            z: draws from the beliefs.
        """
        steps = obs.shape[1:3]
        policy = self.actor(joined(obs, self._beside(self.actor_reads, obs, believed, z)).flatten(1, 2))
        given = self._beside(self.critic_reads, obs, believed, z)
        if isinstance(self.seat.action, Discrete):
            probabilities, log_policy = (each.unflatten(1, steps) for each in (policy.probs, policy.logits))
            values = critics.least(obs, given, None)
            return (probabilities * values).sum(-1), (probabilities * log_policy).sum(-1)
        action = policy.rsample()
        encoded = self.seat.action.encode(action, self.seat.dtype).unflatten(1, steps)
        return critics.least(obs, given, encoded), policy.log_prob(action).unflatten(1, steps)

    def _improve(self, model: TrialModel) -> None:
        """Take a step of the policy, and of V and the temperature if learned; the encoder gets no gradient."""
        obs, believed = model.seen.obs, model.drawn.before.detach()
        with frozen(self._of_critics):
            worth, log_policy = self._soft(self.critics, obs, believed, model.z)
            self.actor_optimiser.step(model.mean(self.alpha * log_policy - worth))
        if self.value is not None and self.value_optimiser is not None:
            soft = (worth - self.alpha * log_policy).detach()
            value = self.value(obs, reading(self.critic_reads, believed, model.z))
            self.value_optimiser.step(model.mean((value - soft).square()))
        if self.temperature_optimiser is not None:
            lacking = self._wanted_entropy + model.mean(log_policy.detach())
            self.temperature_optimiser.step(-self.log_temperature * lacking)

    @property
    def _wanted_entropy(self) -> float:
        action = self.seat.action
        if isinstance(action, Discrete):
            return action.log_size / 2 if self.target_entropy is None else self.target_entropy
        wider = action.log_size - action.features * math.log(2)
        return wider + (-action.features / 2 if self.target_entropy is None else self.target_entropy)

    def _said(self, model: TrialModel) -> dict[str, Tensor]:
        """The metrics of an update, `replicates` each."""
        zeros = torch.zeros_like(model.squared_error)
        steps, there = model.seen.reward[0].numel(), model.drawn.steps.there
        alpha = self.alpha
        found = {
            CRITIC_LOSS.name: model.squared_error,
            TEMPERATURE.name: alpha.flatten().expand_as(zeros) if isinstance(alpha, Tensor) else zeros + alpha,
            FITTED_STEPS.name: zeros + steps if there is None else there.sum((1, 2)).to(zeros),
            ENCODED_STEPS.name: zeros + model.drawn.encoded,
        }
        if model.opponent_nll is not None:
            found[OPPONENT_NLL.name] = model.opponent_nll
        mean, sd = model.drawn.before.detach()
        if sd is not None:
            kl = (sd.square() + mean.square() - 1) / 2 - sd.log()
            found |= {POSTERIOR_KL.name: kl.sum(-1).mean((1, 2)), POSTERIOR_SD.name: sd.mean((1, 2, 3))}
        return found
