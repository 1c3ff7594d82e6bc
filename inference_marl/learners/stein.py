"""The base of learners with samplers without a density, fitted by Stein variational gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor

from inference_marl.described import (
    BelowOne,
    Clip,
    Count,
    In,
    IncompatibleError,
    Positive,
    Whole,
    hyperparameters,
    within,
)
from inference_marl.guides import Implicit, SamplerNetwork
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.noise import ActionNoise
from inference_marl.inference.objectives import td_target
from inference_marl.inference.optimise import Optimiser, frozen
from inference_marl.inference.replay import Replay
from inference_marl.inference.schedules import ByReplicate, Number, Schedule, current, positive
from inference_marl.inference.stein import Stein, SteinStep
from inference_marl.models import Critic, NetworkCritic
from inference_marl.spaces import Box, Space, separate_actions
from inference_marl.types import Actor, Counting, Experience, Learner, Memory, Metric, Trajectory

DISCREPANCY = Metric(
    "stein_discrepancy",
    "Stein discrepancy",
    higher_is_better=False,
    meaning="Unbiased estimate of the squared kernelised Stein discrepancy between the sampler and the density "
    "proportional to exp(Q / temperature): its mean is 0 for exact draws and otherwise on the scale of squared scores, "
    "so it compares samplers of one critic and temperature only (with tilted_box the density is the tilted one). It "
    "hardly notices modes that the sampler misses.",
)
EXPECTED_VALUE = Metric(
    "expected_value",
    "critic's value of its own beliefs",
    meaning="Mean over a minibatch of Q(s, a, b) with the agent's own action from its policy and the opponents' from "
    "its model of them, which may overestimate.",
)


@hyperparameters
class SteinLearner(Counting, Learner):
    """Base: a critic `Q(s, a, b)` with a target, a sampler and a replay buffer, for actions in boxes.

    A learning step moves the critic towards `r + gamma V(s')`, with V as the subclass defines it, and after warm-up the
    sampler, by `stein`, towards a density proportional to `exp(Q / alpha)`. Samplers have no density, so instead of
    entropy, KL, ELBO and gap the Stein discrepancy is reported (kernel estimates of the former would be those of
    another distribution).

    Args:
        sampler: sampler of actions, without a density.
        critic: Q(s, a, b).
        stein: the sampler's objective.
        temperature: alpha > 0, in units of Q; a number or a schedule over updates.
        discount: gamma in [0, 1).
        value_particles: draws per datum in V.
        replay: transitions kept per replicate.
        batch_size: transitions drawn from the replay buffer per update.
        sampler_batch_size: number of these transitions to which everything except the critic is fitted, since each
            costs as many evaluations of the critic as there are particles; `None` for all.
        learning_rate: Adam's step size for everything except the critic.
        warmup: initial updates in which only the critic is fitted.
        warmup_actions: actions during warm-up: `uniform`, or those of the exploring `policy`.
        noise: exploration noise added to actions after warm-up, which may depend on the number of updates; `None` for
            none.
        max_gradient_norm: clip each replicate's gradient; `None` for no clipping.
    """

    by_replicate = frozenset({"temperature", "discount", "learning_rate"})
    metrics = (DISCREPANCY, EXPECTED_VALUE)

    sampler: Implicit = SamplerNetwork()
    critic: Critic = NetworkCritic()
    stein: Stein = Stein()
    temperature: Positive | Schedule = 1.0
    discount: BelowOne | ByReplicate = 0.95
    value_particles: Count = 16
    replay: Count = 100_000
    batch_size: Count = 256
    sampler_batch_size: Annotated[int | None, In("a positive integer", ", or null for batch_size")] = None
    learning_rate: Positive | ByReplicate = 1e-3
    warmup: Whole = 0
    warmup_actions: Literal["uniform", "policy"] = "uniform"
    noise: ActionNoise | None = None
    max_gradient_norm: Clip = None
    own: Box = field(init=False)
    others: Box = field(init=False)
    target_critic: Critic = field(init=False)
    optimiser: Optimiser = field(init=False)
    transitions: Replay = field(init=False)

    def setup(self) -> None:
        """Bind critic and sampler and create the sampler's optimiser and the replay buffer."""
        seat = self.seat
        self._check_boxes()
        with within("critic"):
            self.critic = self.critic.bind(seat)
        self.target_critic = self.critic.target()
        with within("sampler"):
            self.sampler = self.sampler.bind(seat, *self.sampled)
        parameters = self.sampler.parameters()
        self.optimiser = Optimiser("sampler", parameters, self.learning_rate, self.max_gradient_norm)
        self.transitions = Replay(seat, self.replay)

    def _check_boxes(self) -> None:
        who, spaces = type(self).__name__, self.seat.action_spaces
        if len(spaces) < 2:
            raise IncompatibleError(f"{who} got a game of one agent, expected opponents to model")
        for agent, space in enumerate(spaces):
            if not isinstance(space, Box) or not space.bounded or len(space.shape) != 1:
                raise IncompatibleError(
                    f"{who} got actions {space} of agent {agent}, expected vectors in a Box with finite edges"
                )
        own, others = self.seat.action, self.seat.opponent_action
        assert isinstance(own, Box)  # checked above
        assert isinstance(others, Box)
        self.own, self.others = own, others

    @property
    def sampled(self) -> tuple[Space, Sequence[Space]]:
        """The space that the sampler draws from, and those that it conditions on."""
        raise NotImplementedError(f"{type(self).__name__}.sampled is not defined")

    def next_value(self, next_obs: Tensor) -> Tensor:
        """V(s') under the target critic, `replicates x batch`."""
        raise NotImplementedError(f"{type(self).__name__}.next_value is not defined")

    def improve(self, data: Experience) -> Mapping[str, Tensor]:
        """Fit everything except the critic to a minibatch; returns metrics."""
        raise NotImplementedError(f"{type(self).__name__}.improve is not defined")

    @property
    def alpha(self) -> Number:
        """The current temperature, a number or `replicates x 1`.

        Raises:
            ValueError: if it is not positive.
        """
        (alpha,) = positive(self.updates, temperature=self.temperature)
        return alpha

    @property
    def warming_up(self) -> bool:
        """Whether only the critic is fitted."""
        return self.updates < self.warmup

    @property
    def plays_uniformly(self) -> bool:
        """Whether actions are uniformly random."""
        return self.warming_up and self.warmup_actions == "uniform"

    def uniform(self, box: Box, *count: int) -> Tensor:
        """Uniform points of a box, `replicates x count x dim`, drawn with replicates first."""
        seat = self.seat
        drawn: Tensor = box.uniform(seat.dtype, seat.device).sample((seat.replicates, *count))
        return drawn

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The memory of the noise."""
        return {} if self.noise is None else self.noise.initial_memory(self.seat, replicates, environments)

    def explored(self, action: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Add noise, if any, to an action; also returns the next memory."""
        return (action, memory) if self.noise is None else self.noise(action, self.own, memory, self.updates)

    def store(self, newest: Trajectory) -> None:
        """Add to the replay buffer, and let the critic observe the rewards.

        Raises:
            IncompatibleError: if agents may leave an episode.
        """
        newest.check_all_act(type(self).__name__)
        self.transitions.add(newest.flat)
        reward = newest.flat.seen_by(self.seat).reward
        for critic in {self.critic, self.target_critic}:  # possibly the same
            critic.observe(reward)

    @local_parameters()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Perform one learning step, as in the class docstring; `peers` is not used."""
        data = self.transitions.draw(self.batch_size).seen_by(self.seat)
        with torch.no_grad(), self.target_critic.expected():
            value = self.next_value(data.next_obs)
        target = td_target(data.reward, current(self.discount, self.updates), data.terminated, value)
        self.critic.fit(data.obs, data.action, *data.opponent_actions, target=target)
        self.critic.move(self.target_critic, self.updates + 1)
        found = {} if self.warming_up else self.improve(data.first(self.sampler_batch_size))
        self.updates += 1
        return found

    def of_each(self, opponent_action: Tensor) -> list[Tensor]:
        """Split joint actions of opponents into each opponent's, `... x dim`."""
        return separate_actions(self.seat.opponent_actions, opponent_action)

    def fit_sampler(self, q: Callable[[Tensor], Tensor], *parents: Tensor) -> SteinStep:
        """Take one step that moves the sampler at its parents towards the density proportional to `exp(q / alpha)`.

        Args:
            q: maps the sampler's draws, `n x replicates x batch x dim`, to values `n x replicates x batch`.
            parents: `replicates x batch x event`.
        """
        alpha = self.alpha
        with frozen(self.critic.parameters()):
            draw = partial(self.sampler.unbounded, *parents)
            step = self.stein(draw, self.sampler.target, lambda points: q(points) / alpha)
            self.optimiser.step(step.loss)
        return step
