"""The base of learners that fit a guide to the ELBO of their own model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from inference_marl.described import (
    Clip,
    Count,
    In,
    IncompatibleError,
    Positive,
    Whole,
    hyperparameters,
    settle,
    within,
)
from inference_marl.guides import Guide, TrajectoryGuide
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.opponents import bind_over_opponents
from inference_marl.inference.optimise import Optimiser, frozen
from inference_marl.inference.replay import Replay
from inference_marl.inference.reward_range import OfRange, RewardRange
from inference_marl.inference.schedules import ByReplicate, Linear, Number, Schedule, positive
from inference_marl.inference.svi import elbo_loss, estimator
from inference_marl.models import ControlModel, ExponentialOptimality, OpponentPrior, Optimality, TrajectoryModel
from inference_marl.spaces import Discrete
from inference_marl.types import POSITIVE, Counting, Experience, Learner, Memory, Metric, Seat, Trajectory, about_each

ELBO_PARTS = (
    Metric(
        "elbo",
        "ELBO",
        higher_is_better=True,
        meaning="Evidence lower bound of the learner's model in the current state, in units of reward: elbo_reward + "
        "elbo_entropy - elbo_kl. It compares guides of one model and critic, not models or critics.",
    ),
    Metric("elbo_reward", "expected value Q", meaning="The critic's expectation under the guide.", tabulated=False),
    Metric(
        "elbo_entropy",
        "weighted entropy (relative to uniform)",
        meaning="Temperature times the policy's entropy minus that of the uniform policy, so at most 0.",
        tabulated=False,
    ),
    Metric(
        "elbo_kl",
        "weighted KL from the model",
        bounds=POSITIVE,
        meaning="kl_weight times KL(rho || P); for a planner with inferred dynamics also their KL.",
        tabulated=False,
    ),
    Metric(
        "elbo_gap",
        "ELBO gap",
        bounds=POSITIVE,
        higher_is_better=False,
        meaning="Log-evidence, the ELBO's upper bound, minus the ELBO: the guide's distance from the exact posterior.",
    ),
)
"""The metrics of the ELBO that variational learners report in addition to beliefs."""

GROWING = OfRange(Linear(start=1 / 400, end=1 / 16, steps=1000))
"""A growing KL weight: the opponent model is optimistic at first and bound to the opponents' actions later.

With common interests, optimism finds the optimum, and play then confirms it. With conflicting interests, optimism
against the evidence leaves both agents in the worst outcome (chicken): the evidence of a count-based prior grows only
with the logarithm of the counts, so the weight has to grow.
"""

Beliefs = tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor], Tensor | None]
"""Beliefs by name, see `Actor.beliefs`; reward, entropy and KL, `replicates x batch`; and the evidence, where known."""


@hyperparameters
class VariationalLearner(Counting, Learner):
    """Base: an opponent prior, a guide, their weights, a replay buffer, and an optimiser of the guide's parameters.

    Args:
        opponent_prior: P(b | s).
        guide: rho and pi.
        optimality: likelihood of optimality given a value; exponential if `None`.
        temperature: alpha > 0, the weight of the policy's entropy: a number in units of reward, a schedule of such
            numbers over updates, or a fraction of the range of rewards seen.
        kl_weight: beta > 0, the weight of KL(rho || P), likewise. Small values let rho ignore the prior. `None` is
            `GROWING` if the temperature is a fraction of the range of rewards seen, and otherwise 1, as in the paper.
        replay: transitions kept per replicate; `None` learns from the newest trajectory only.
        batch_size: transitions drawn from the replay buffer per update.
        guide_learning_rate: Adam's step size for the guide.
        guide_steps: gradient steps on the guide per update.
        particles: draws per datum in the guide's ELBO gradient, for sites that are not enumerated.
        max_gradient_norm: clip each replicate's guide gradient; `None` for no clipping.

    Attributes:
        exact: whether beliefs are exact sums instead of estimates from draws, since all spaces are discrete.
        elbo: Pyro's estimator of the guide's ELBO.
        optimiser: optimiser of the guide's parameters; `None` if it has none.
        transitions: the replay buffer, or `None`.
        rewards: the range of rewards seen; `None` if no weight is a fraction of it.
    """

    by_replicate = frozenset({"temperature", "kl_weight", "guide_learning_rate"})
    metrics: ClassVar[tuple[Metric, ...]] = ELBO_PARTS

    opponent_prior: OpponentPrior
    guide: Guide | TrajectoryGuide
    optimality: Optimality | None = None
    temperature: Positive | Schedule | OfRange = 1.0
    kl_weight: Positive | Schedule | OfRange | None = None
    replay: Annotated[int | None, In("a positive integer", ", or null to learn from the newest trajectory only")] = None
    batch_size: Count = 256
    guide_learning_rate: Positive | ByReplicate = 1e-2
    guide_steps: Whole = 1
    particles: Count = 1
    max_gradient_norm: Clip = None
    exact: bool = field(init=False)
    elbo: Trace_ELBO | TraceEnum_ELBO = field(init=False)
    optimiser: Optimiser | None = field(init=False)
    transitions: Replay | None = field(init=False)
    rewards: RewardRange | None = field(init=False)

    def __post_init__(self) -> None:
        self.likelihood = self.optimality or ExponentialOptimality()
        if self.kl_weight is None:
            settle(self, kl_weight=GROWING if isinstance(self.temperature, OfRange) else 1.0)

    def weights(self) -> tuple[Number, Number]:
        """The current temperature and KL weight in units of reward, a number or `replicates x 1` each.

        Raises:
            ValueError: if one is not positive.
        """
        if self.rewards is None:
            alpha, beta = positive(self.updates, **self._weights)
        else:
            alpha, beta = self.rewards.times(self.updates, **self._weights)
        return alpha, beta

    @property
    def _weights(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "kl_weight": self.kl_weight}

    @property
    def model(self) -> ControlModel | TrajectoryModel:
        """The generative model: prior, values or dynamics, optimality, and the current weights."""
        raise NotImplementedError(f"{type(self).__name__}.model is not defined")

    def pair(self) -> tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]:
        """Model and guide for `pyro.infer.SVI`, to be called with observations, `replicates x batch x event`.

        The model's own parameters are not Pyro statements, since they are fitted to objectives other than the ELBO.
        With `elbo` as the loss this optimises the same objective as `learn`, which averages it over the batch.
        """
        model = self.model
        return local_parameters()(model), partial(self.guide, model=model)

    def bind_prior(self) -> None:
        """Bind the prior and create the range of rewards; the first step of `setup`.

        Raises:
            IncompatibleError: if the prior does not fit, or there are no opponents.
        """
        seat = self.seat
        if len(seat.action_spaces) < 2:
            raise IncompatibleError(f"{type(self).__name__} got a game of one agent, expected opponents to model")
        in_units = any(isinstance(each, OfRange) for each in self._weights.values())
        self.rewards = RewardRange(seat) if in_units else None
        with within("opponent_prior"):
            self.opponent_prior = bind_over_opponents(self.opponent_prior, seat, [seat.observation])

    def make_optimiser(self, enumerates: bool, follows: bool = True) -> None:
        """Create the guide's optimiser and the replay buffer; the last step of `setup`, once the guide is bound.

        Args:
            enumerates: whether the guide's sites are summed out.
            follows: whether the guide's opponent model gives probability 0 to all actions excluded by the prior.

        Raises:
            IncompatibleError: if the prior excludes actions that the guide does not.
        """
        parameters = list(self.guide.parameters())
        if not self.opponent_prior.full_support and (parameters or not follows):
            what = "a guide fitted by SVI" if parameters else "an opponent model that does not follow it"
            raise IncompatibleError(
                f"got {type(self.opponent_prior).__name__} with actions of probability 0 and {what}, whose ELBO is "
                "then minus infinity; expected smoothing > 0 (or another prior with full support), or a guide in "
                "closed form",
                key="opponent_prior",
            )
        self.elbo = estimator(TraceEnum_ELBO if enumerates else Trace_ELBO, self.particles)
        self.optimiser = None
        if parameters:
            self.optimiser = Optimiser("guide", parameters, self.guide_learning_rate, self.max_gradient_norm)
        fitted = {id(parameter) for parameter in parameters}
        self._of_model = tuple(parameter for parameter in self.parameters() if id(parameter) not in fitted)
        self.transitions = Replay(self.seat, self.replay) if self.replay else None

    @local_parameters()
    def store(self, newest: Trajectory) -> None:
        """Update the prior, the range of rewards and the replay buffer.

        Raises:
            IncompatibleError: if agents may leave an episode.
        """
        newest.check_all_act(type(self).__name__)
        for seen in newest.seen_by(self.seat):
            self.opponent_prior.observe_given(self.model, seen.obs, *seen.opponent_actions)
        if self.rewards is not None:
            self.rewards.observe(newest.flat.seen_by(self.seat).reward)
        if self.transitions is not None:
            self.transitions.add(newest.flat)

    def draw(self, newest: Trajectory) -> Experience:
        """Training data, `replicates x batch`: a minibatch from the replay buffer, or the newest trajectory."""
        batch = newest.flat if self.transitions is None else self.transitions.draw(self.batch_size)
        return batch.seen_by(self.seat)

    def fit_guide(self, obs: Tensor, under: Callable[..., Any] | None = None) -> None:
        """Take gradient steps on the ELBO at `obs`, `replicates x batch x event`, if the guide has parameters.

        Args:
            obs: the observations.
            under: a Pyro handler to apply to the guide.

        Raises:
            NonFiniteError: if the loss is not finite.
        """
        if self.optimiser is None:
            return
        model = self.model
        guide: Callable[[Tensor], Any] = partial(self.guide, model=model)
        guide = guide if under is None else under(guide)
        with frozen(self._of_model):
            for _ in range(self.guide_steps):
                self.optimiser.step(self.guide_loss(model, guide, obs))

    def guide_loss(self, model: Callable[[Tensor], Any], guide: Callable[[Tensor], Any], obs: Tensor) -> Tensor:
        """Minus the ELBO at `obs`, averaged over the batch and summed over replicates."""
        return elbo_loss(self.elbo, model, guide, obs.shape[1], obs)

    @local_parameters()
    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """Policy, opponent model, prior and the terms of the ELBO, see `Actor.beliefs`.

        Exact, with the gap to the evidence, if all spaces are discrete; otherwise from `draws` draws per datum.
        """
        types = self.opponent_prior.types(obs)
        beliefs, parts, evidence = self._exact_beliefs(obs) if self.exact else self._drawn_beliefs(obs, draws)
        elbo = parts[0] + parts[1] - parts[2]
        terms = (elbo, *parts) if evidence is None else (elbo, *parts, evidence - elbo)
        found = {**beliefs, **{metric.name: term for metric, term in zip(ELBO_PARTS, terms, strict=False)}}
        return found if types is None else found | {"opponent_type": types}

    def _exact_beliefs(self, obs: Tensor) -> Beliefs:
        raise NotImplementedError(f"{type(self).__name__}._exact_beliefs is not defined")

    def _drawn_beliefs(self, obs: Tensor, draws: int) -> Beliefs:
        raise NotImplementedError(f"{type(self).__name__}._drawn_beliefs is not defined")


def repeat(data: Tensor, times: int) -> Tensor:
    """Repeat each datum: `replicates x batch x event` to `replicates x (batch times) x event`."""
    return data.repeat_interleave(times, dim=1)


def outlooks(name: str, found: Sequence[Tensor], seat: Seat, apart: tuple[int, int]) -> dict[str, Tensor]:
    """Combine `Factored.outlook` of repeated data into beliefs about every opponent.

    Args:
        name: name of the belief.
        found: the outlook of each opponent, `replicates x (batch times) x values`.
        seat: the agent's seat.
        apart: batch size and number of repetitions.
    """
    each = [belief.unflatten(1, apart) for belief in found]
    discrete = [isinstance(space, Discrete) for space in seat.opponent_actions]
    return about_each(name, [belief.mean(2) if mean else belief for belief, mean in zip(each, discrete, strict=True)])


def best_of(actions: Tensor, values: Tensor) -> Tensor:
    """The action of highest value for each datum, from `times` candidates, `replicates x (batch times) x dim`.

    `values` are `replicates x batch x times`.
    """
    best = values.argmax(-1)[..., None, None].expand(*values.shape[:2], 1, actions.shape[-1])
    chosen: Tensor = actions.unflatten(1, values.shape[1:]).gather(2, best).squeeze(2)
    return chosen
