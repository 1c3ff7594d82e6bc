"""A planner that conditions trajectories on their optimality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from inference_marl.described import Count, IncompatibleError, hyperparameters, within
from inference_marl.guides import ExactTrajectory, TrajectoryGuide
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.exact import evaluate, smooth
from inference_marl.inference.factored import opponent_sites
from inference_marl.learners.variational import Beliefs, VariationalLearner, best_of, outlooks, repeat
from inference_marl.models import Critic, TransitionModel
from inference_marl.models.trajectory import TrajectoryModel
from inference_marl.spaces import Discrete, separate_actions
from inference_marl.types import Actor, Decision, Memory, Trajectory, about_all


@hyperparameters
class Planner(VariationalLearner):
    """Planning as inference: conditions the next `horizon` steps on optimality and plays the first action::

        model:  b_t ~ P(b | s_t),  a_t ~ Uniform(A),  log p(o_t = 1) = R(s_t, a_t, b_t),  s_{t+1} ~ T(. | s_t, a_t, b_t)
        guide:  b_t ~ rho(b | t, s_t),  a_t ~ pi(a | t, s_t, b_t),  s_{t+1} ~ T, or inferred

    (Tian et al. 2019, Eq. 5 and 23-32.) The planner learns the parts of the model, not values. A learning step updates
    the prior with the opponents' actions, fits the transition and the reward models, then solves for the guide
    (`ExactTrajectory`) or takes gradient steps on the trajectory's ELBO. With a critic that samples its values, such as
    `BayesianCritic`, a plan uses the current draw.

    The horizon recedes: every step replans from the observed state, regardless of the time left.

    Args:
        opponent_prior: P(b | s).
        reward: R(s, a, b): `KnownReward`, or a critic that learns it (its values are one-step rewards).
        guide: rho, pi and, if they are inferred, the dynamics.
        transition: T(s' | s, a, b); `None` for a horizon of 1.
        horizon: number of steps to plan.
        guide_steps: gradient steps on the guide per update, from every state of a discrete game and from the observed
            states of a continuous one.
        optimality, temperature, kl_weight, replay, batch_size, guide_learning_rate, particles, max_gradient_norm: see
            `VariationalLearner`.
    """

    guide: TrajectoryGuide
    reward: Critic
    transition: TransitionModel | None = None
    horizon: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transition is None and self.horizon > 1:
            raise ValueError(f"transition: got none with horizon = {self.horizon}, expected one; without, plan 1 step")

    def setup(self) -> None:
        """Bind the parts to the seat and create the replay buffer and the guide's optimiser.

        Raises:
            IncompatibleError: if a part does not fit, or actions are mixed or too many for tables.
        """
        seat = self.seat
        if seat.opponents and not (seat.has_joint_action and seat.is_of_one_kind):
            raise IncompatibleError(
                f"Planner got actions {', '.join(map(str, seat.action_spaces))}, expected all Box with one dimension, "
                "or all Discrete and few enough for tables over joint actions"
            )
        self.bind_prior()
        with within("reward"):
            self.reward = self.reward.bind(seat)
        if self.transition is not None:
            with within("transition"):
                self.transition = self.transition.bind(seat, seat.observation, seat.spaces)
        self.exact = seat.is_discrete
        with within("guide"):
            self.guide = self.guide.bind(seat, self.horizon)
        self._solve()
        self.make_optimiser(self.guide.enumerate and isinstance(seat.action, Discrete))

    @property
    def model(self) -> TrajectoryModel:
        """See `VariationalLearner`."""
        alpha, beta = self.weights()
        return TrajectoryModel(
            self.seat,
            self.opponent_prior,
            self.transition,
            self.reward,
            self.likelihood,
            self.horizon,
            temperature=alpha,
            kl_weight=beta,
        )

    @local_parameters()
    def _solve(self) -> None:
        """Recompute a closed-form guide."""
        if isinstance(self.guide, ExactTrajectory):
            self.guide.solve(self.model)

    @local_parameters()
    @torch.no_grad()
    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The marginal policy of the plan's first step; `None` for continuous actions, which can only be sampled."""
        if not isinstance(self.seat.action, Discrete):
            return None, memory
        return dist.Categorical(probs=self._first_step(obs)[0]), memory

    @local_parameters()
    @torch.no_grad()
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Play the first action of a plan from `obs`, `replicates x environments x event`.

        With `explore` it is drawn from the guide, i.e. from the marginal policy `sum_b pi(a | 0, s, b) rho(b | 0, s)`.
        Without, it is the most probable action (discrete), or the one of 16 draws with the highest mean reward over 16
        plans each (continuous).
        """
        if explore:
            opponent_actions = self.guide.believe(0, obs, self.model).sample(obs.shape[:2])
            return Decision(self.guide.choose(0, obs, *opponent_actions).expand(obs.shape[:2]).sample(), memory)
        if isinstance(self.seat.action, Discrete):
            return Decision(self._first_step(obs)[0].argmax(-1), memory)
        # Candidates are compared by their mean over plans: the best single plan would be a lucky one.
        candidates = self._sample(repeat(obs, 16)).action
        plans = self._sample(repeat(obs, 16 * 16), repeat(candidates, 16))
        return Decision(best_of(candidates, plans.parts[0].unflatten(1, (obs.shape[1], 16, 16)).mean(-1)), memory)

    def store(self, newest: Trajectory) -> None:
        """Pass the trajectory to the prior, the replay buffer, the reward and the transition model."""
        super().store(newest)
        self.reward.observe(newest.flat.seen_by(self.seat).reward)
        if self.transition is not None:
            self.transition.store(newest.flat.seen_by(self.seat))

    @local_parameters()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Perform one learning step, as in the class docstring; `peers` is not used."""
        self.opponent_prior.fit()
        data = self.draw(newest)
        if self.transition is not None:
            self.transition.fit()
        self.reward.fit(data.obs, data.action, *data.opponent_actions, target=data.reward)
        self.updates += 1
        self._solve()
        self.fit_guide(self._every_state() if isinstance(self.seat.observation, Discrete) else data.obs)
        return {}

    def _every_state(self) -> Tensor:
        seat = self.seat
        return torch.arange(seat.observation.features, device=seat.device).expand(seat.replicates, -1)

    def _drawn_beliefs(self, obs: Tensor, draws: int) -> Beliefs:
        wide = repeat(obs, draws)
        apart = (obs.shape[1], draws)
        plan, model = self._sample(wide), self.model
        if isinstance(self.seat.action, Discrete):
            beliefs = self._discrete_beliefs(obs)
        else:
            prior = model.opponent_prior(wide).outlook(wide.shape[:2])
            beliefs = {"policy": plan.action.unflatten(1, apart)}
            beliefs |= outlooks("opponent_model", plan.opponent_actions, self.seat, apart)
            beliefs |= outlooks("opponent_prior", prior, self.seat, apart)
        reward, entropy, kl = (part.unflatten(1, apart).mean(2) for part in plan.parts)
        return beliefs, (reward, entropy, kl), None

    def _discrete_beliefs(self, obs: Tensor) -> dict[str, Tensor]:
        policy, opponent_model = self._first_step(obs)
        prior, opponents = self.model.opponent_prior(obs).table().exp(), self.seat.opponent_actions
        return {
            "policy": policy,
            **about_all("opponent_model", opponent_model, opponents),
            **about_all("opponent_prior", prior.expand_as(opponent_model), opponents),
        }

    def _exact_beliefs(self, obs: Tensor) -> Beliefs:
        """Beliefs about the first step and terms of the trajectory; evidence `log P(o_{1:T} = 1 | s)` at weights 1."""
        model, here = self.model, (self.seat.rows, obs)
        reward, transition, log_prior = model.tables()
        weights = {"temperature": model.temperature, "kl_weight": model.kl_weight}
        parts = evaluate(reward, transition, log_prior, self.guide.tables(model), **weights)
        evidence = smooth(reward, transition, log_prior, model.horizon, dynamics="inferred", **weights).v[:, 0]
        of_trajectory = (parts.reward[here], parts.entropy[here], parts.kl[here])
        return self._discrete_beliefs(obs), of_trajectory, evidence[here]

    def _first_step(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of the first own and opponents' actions, `replicates x batch x actions`."""
        opponent_model = self.guide.believe(0, obs, self.model).table().exp().expand(*obs.shape[:2], -1)
        every = torch.arange(opponent_model.shape[-1], device=obs.device).view(-1, 1, 1)
        policy = self.guide.choose(0, obs, *separate_actions(self.seat.opponent_actions, every)).probs
        return (policy * opponent_model.movedim(-1, 0).unsqueeze(-1)).sum(0), opponent_model

    def _sample(self, obs: Tensor, action: Tensor | None = None) -> _Plan:
        """Sample one trajectory per datum, starting with `action` if given, `replicates x batch x event`."""
        given = {} if action is None else {"action_0": action}
        pair = partial(self.guide, model=self.model), self.model
        guide, model = (poutine.condition(part, data=given) for part in pair)
        guide_trace = poutine.trace(guide).get_trace(obs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(obs)
        guide_trace.compute_log_prob()
        model_trace.compute_log_prob()

        def total(sites: Iterable[str]) -> Tensor:
            value = torch.zeros(obs.shape[:2], dtype=self.seat.dtype, device=obs.device)
            for site in sites:
                value = value + model_trace.nodes[site]["log_prob"]
                if site in guide_trace.nodes:
                    value = value - guide_trace.nodes[site]["log_prob"]
            return value

        # Dynamics are kept here, since only those of discrete states can be inferred, so their terms cancel.
        steps, count = range(self.horizon), len(self.seat.opponents)
        divergence = -total(site for t in steps for site in opponent_sites(count, t))
        own, optimality = ([f"{name}_{t}" for t in steps] for name in ("action", "optimality"))
        parts = (total(optimality), total(own), divergence)
        action, *others = (guide_trace.nodes[site]["value"] for site in ("action_0", *opponent_sites(count, 0)))
        return _Plan(parts, action, tuple(others))  # type: ignore[arg-type]


class _Plan(NamedTuple):
    """A sampled trajectory per datum: reward, entropy and KL, `replicates x batch`, and the first actions."""

    parts: tuple[Tensor, Tensor, Tensor]
    action: Tensor
    opponent_actions: tuple[Tensor, ...]
