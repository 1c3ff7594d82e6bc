"""An agent that plans whole trajectories by conditioning on their optimality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from inference_marl.described import within
from inference_marl.guides import ExactTrajectory, TrajectoryGuide
from inference_marl.inference.exact import evaluate, smooth
from inference_marl.inference.schedules import Schedule
from inference_marl.learners.variational import VariationalLearner, at_least
from inference_marl.models import Critic, OpponentPrior, Optimality, TransitionModel
from inference_marl.models.trajectory import TrajectoryModel
from inference_marl.spaces import Discrete
from inference_marl.types import Learner, Posterior, Transition


class Planner(VariationalLearner):
    """Acts by conditioning on optimality: at every step it infers the next `horizon` steps, and plays the first.

        model:  b_t ~ P(b | s_t),  a_t ~ Uniform(A),  log p(o_t = 1) = R(s_t, a_t, b_t),  s_{t+1} ~ T(. | s_t, a_t, b_t)
        guide:  b_t ~ rho(b | t, s_t),  a_t ~ pi(a | t, s_t, b_t),  s_{t+1} ~ T, or inferred

    (Tian et al. 2019, Eq. 5 and 23-32.) There are no values to learn: what it learns are the parts of the model. A
    step of learning is: show the prior what the opponents did; fit the transition and the reward to what happened;
    then solve for the guide (`ExactTrajectory`), or take gradient steps on the trajectory's ELBO for its parameters.

    With a critic that draws its values, such as `BayesianCritic`, the reward is the current draw's in all of this.

    The horizon recedes: at every step the plan starts anew from the observed state, whatever time is left.

    Args:
        opponent_prior: P(b | s).
        reward: R(s, a, b): `KnownReward`, or a critic that learns it (its values are rewards of one step).
        guide: rho, pi and, if they are inferred, the dynamics.
        transition: T(s' | s, a, b); `None` for a horizon of 1.
        horizon: steps to plan.
        optimality: how a reward becomes a likelihood.
        temperature: alpha > 0, the weight of the policy's entropy, in units of reward; number or schedule over updates.
        kl_weight: beta > 0, the weight of KL(rho || P).
        replay: transitions kept per replicate; `None` learns from the newest step alone.
        batch_size: transitions drawn from replay per update.
        guide_learning_rate: Adam's step size for the guide.
        guide_steps: gradient steps on the guide per update. They start from every state of a discrete game, and from
            the observed ones of a continuous game.
        particles: draws per datum in the guide's ELBO gradient, for sites that are not enumerated.
        max_gradient_norm: clip each replicate's guide gradient; `None` for no clipping.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        opponent_prior: OpponentPrior,
        reward: Critic,
        guide: TrajectoryGuide,
        transition: TransitionModel | None = None,
        horizon: int = 1,
        optimality: Optimality | None = None,
        temperature: float | Schedule = 1.0,
        kl_weight: float | Schedule = 1.0,
        replay: int | None = None,
        batch_size: int = 256,
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
        at_least("horizon", horizon, 1)
        if transition is None and horizon > 1:
            raise ValueError(f"transition: got none with horizon = {horizon}, expected one; without, plan 1 step")
        self.reward, self.transition, self.horizon = reward, transition, horizon

    def setup(self) -> None:
        """Bind the parts to the seat, and make the replay and the guide's optimiser.

        Raises:
            IncompatibleError: if a part does not fit the seat or the others.
        """
        seat = self.seat
        prior = self.bind_prior()
        with within("reward"):
            self.reward = self.reward.bind(seat)
        if self.transition is not None:
            with within("transition"):
                parents = [seat.observation, seat.action, seat.opponent_action]
                self.transition = self.transition.bind(seat, seat.observation, parents)
        self.tabular = all(
            isinstance(space, Discrete) for space in (seat.observation, seat.action, seat.opponent_action)
        )
        model = TrajectoryModel(seat, prior, self.transition, self.reward, self.optimality, self.horizon)
        self.bind_guide(model, self.guide.enumerate and isinstance(seat.action, Discrete))

    @property
    def model(self) -> TrajectoryModel:
        """The generative side: prior, transition, reward, optimality and the current weights."""
        model: TrajectoryModel = self._model[0]
        return model

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """The first action of a plan from `obs`, `replicates x environments x event`.

        With `explore`, a draw from the guide, so from the marginal policy `sum_b pi(a | 0, s, b) rho(b | 0, s)`.
        Without, its most probable action (discrete), or that of 16 draws which earns most on average over 16 plans
        each (continuous).
        """
        if explore:
            opponent_action = self.guide.believe(0, obs).expand(obs.shape[:2]).sample()
            action: Tensor = self.guide.choose(0, obs, opponent_action).expand(obs.shape[:2]).sample()
            return action
        if isinstance(self.seat.action, Discrete):
            return self._first_step(obs)[0].argmax(-1)
        # Candidates are judged by their mean over plans: the best single plan would be the luckiest.
        candidates = self._sample(obs.repeat_interleave(16, dim=1)).action
        plans = self._sample(obs.repeat_interleave(16 * 16, dim=1), candidates.repeat_interleave(16, dim=1))
        value = plans.parts[0].unflatten(1, (obs.shape[1], 16, 16)).mean(-1)
        best = value.argmax(-1)[..., None, None].expand(*obs.shape[:2], 1, candidates.shape[-1])
        chosen: Tensor = candidates.unflatten(1, (obs.shape[1], 16)).gather(2, best).squeeze(2)
        return chosen

    def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
        """One step of learning, as in the class docstring; `peers` is not read."""
        newest = batch.seen_by(self.seat)
        data = self.remember(newest)
        if self.transition is not None:
            self.transition.fit(newest)
        self.reward.fit(data.obs, data.action, data.opponent_action, data.reward)
        self.updates += 1
        self.set_weights()
        if isinstance(self.guide, ExactTrajectory):
            self.guide.solve()
        elif self.fitting is not None:
            starts = self._every_state() if isinstance(self.seat.observation, Discrete) else data.obs
            for _ in range(self.guide_steps):
                self.fitting.step(starts.shape[1], starts)

    def _every_state(self) -> Tensor:
        seat = self.seat
        return torch.arange(seat.observation.features, device=seat.device).expand(seat.replicates, -1)

    @torch.no_grad()
    def posterior(self, obs: Tensor, draws: int) -> Posterior:
        """Policy and opponent model of the first step, prior, and the parts of the ELBO of the whole trajectory.

        Exact for discrete games, with the evidence, `log P(o_{1:T} = 1 | s)` (for weights of 1): its gap to the ELBO is
        what the guide gives away, by its factors and by keeping the dynamics. From `draws` draws per datum otherwise.
        """
        if self.tabular:
            return self._exact_posterior(obs)
        wide = obs.repeat_interleave(draws, dim=1)
        apart = (obs.shape[1], draws)
        plan = self._sample(wide)
        if isinstance(self.seat.action, Discrete):
            policy, opponent_model = self._first_step(obs)
            prior = self.opponent_prior(obs).probs.expand_as(opponent_model)
        else:
            prior = self.opponent_prior(wide).expand(wide.shape[:2]).sample().unflatten(1, apart)
            policy, opponent_model = plan.action.unflatten(1, apart), plan.opponent_action.unflatten(1, apart)
        reward, entropy, kl = (part.unflatten(1, apart).mean(2) for part in plan.parts)
        types = self.opponent_prior.types(obs)
        return Posterior(policy, opponent_model, prior, reward, entropy, kl, opponent_type=types)

    def _exact_posterior(self, obs: Tensor) -> Posterior:
        policy, opponent_model = self._first_step(obs)
        model, here = self.model, (self.seat.rows, obs)
        reward, transition, log_prior = model.tables()
        weights = {"temperature": model.temperature, "kl_weight": model.kl_weight}
        parts = evaluate(reward, transition, log_prior, self.guide.tables(), **weights)
        return Posterior(
            policy,
            opponent_model,
            self.opponent_prior(obs).probs.expand_as(opponent_model),
            parts.reward[here],
            parts.entropy[here],
            parts.kl[here],
            smooth(reward, transition, log_prior, model.horizon, dynamics="inferred", **weights).v[:, 0][here],
            self.opponent_prior.types(obs),
        )

    def _first_step(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of the first own and opponents' actions, `replicates x batch x actions`."""
        opponent_model = self.guide.believe(0, obs).probs.expand(*obs.shape[:2], -1)
        every = torch.arange(opponent_model.shape[-1], device=obs.device).view(-1, 1, 1)
        policy = self.guide.choose(0, obs, every).probs
        return (policy * opponent_model.movedim(-1, 0).unsqueeze(-1)).sum(0), opponent_model

    def _sample(self, obs: Tensor, action: Tensor | None = None) -> _Plan:
        """One trajectory per datum; it begins with `action` if one is given, `replicates x batch x event`."""
        given = {} if action is None else {"action_0": action}
        guide, model = (poutine.condition(part, data=given) for part in (self.guide, self.model))
        guide_trace = poutine.trace(guide).get_trace(obs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(obs)
        guide_trace.compute_log_prob()
        model_trace.compute_log_prob()

        def total(name: str) -> Tensor:
            value = torch.zeros(obs.shape[:2], dtype=self.seat.dtype, device=obs.device)
            for site in (f"{name}_{t}" for t in range(self.horizon)):
                value = value + model_trace.nodes[site]["log_prob"]
                if site in guide_trace.nodes:
                    value = value - guide_trace.nodes[site]["log_prob"]
            return value

        # Dynamics are kept here, since only discrete states can be bent: their terms cancel.
        divergence = -total("opponent_action")
        parts = (total("optimality"), total("action"), divergence)
        action, opponent_action = (guide_trace.nodes[site]["value"] for site in ("action_0", "opponent_action_0"))
        return _Plan(parts, action, opponent_action)  # type: ignore[arg-type]


class _Plan(NamedTuple):
    """A drawn trajectory per datum: reward, entropy and KL, `replicates x batch`, and the first actions."""

    parts: tuple[Tensor, Tensor, Tensor]
    action: Tensor
    opponent_action: Tensor
