"""Actors, which play a game, and learners, which are actors that also learn from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.spaces import Discrete
from inference_marl.types.binding import Part
from inference_marl.types.metric import Metric
from inference_marl.types.transition import Decision, Experience, Memory, Start, Trajectory, choose


class Actor(Part):
    """Controls one seat of a game, for all replicates at once.

    Scripts, frozen policies, policies at hypothetical parameters and learners are all actors, so one collector plays
    any of them. A subclass usually defines `policy`, and `setup` if it has parameters or buffers. State that lasts for
    an episode belongs in its memory, never in its attributes.

    Attributes:
        seat: its place in the game, once bound.
        heeds_masks: whether it takes only legal actions in games with action masks.
        reads_task: whether `begin` receives the task, for actors that are part of the game, such as a population of
            opponents; a learner that sets it is an oracle.
        metrics: the metrics that `beliefs`, and a learner's `learn`, may return.
        transient: names of attributes that change but need not be in `state_dict`, such as a cache. State that must be
            saved belongs in parameters, buffers, submodules (`inference.optimise.Optimiser`, `inference.replay.Replay`)
            or counters (`Counting`).
    """

    heeds_masks: ClassVar[bool] = False
    reads_task: ClassVar[bool] = False
    transient: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[Metric, ...]] = ()

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The memory at the start of an episode, tensors `replicates x environments x ...`; empty by default."""
        return {}

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        """The memory at the start of an episode or task; by default it is reset where an episode begins.

        Args:
            start: where episodes and tasks begin; `start.task` is `None` for actors that do not set `reads_task`.
            memory: the current memory; `None` before the first episode.
        """
        if memory is not None and not memory:
            return memory
        fresh = self.initial_memory(*start.episode.shape)
        return fresh if memory is None else choose(start.episode, fresh, memory)

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The distribution over the agent's own action, and the memory after seeing `obs`.

        Args:
            obs: `replicates x environments x event`.
            memory: see `begin`.
            mask: legal actions, `replicates x environments x actions`; only for actors that set `heeds_masks`.

        Returns:
            A distribution with batch shape `replicates x environments`, or `None` for actors that can only sample; and
            the memory.
        """
        raise NotImplementedError(f"{type(self).__name__}.policy is not defined")

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Sample an action from the policy, or take its mode without `explore`; arguments as for `policy`."""
        distribution, memory = self.policy(obs, memory, mask)
        if distribution is None:
            raise NotImplementedError(f"{type(self).__name__}.act is not defined, and its policy has no density")
        with torch.no_grad():
            action = distribution.sample() if explore else most_probable(distribution)
        return Decision(action, memory, distribution.log_prob(action))

    def remember(self, memory: Memory, step: Experience) -> Memory:
        """The memory after a step; may modify `memory` in place. Called only if overridden.

        Args:
            memory: as returned by `act`.
            step: the step as this agent observed it, `replicates x environments`.
        """
        return memory

    def slow(self) -> Actor:
        """The target policy, for actors that have one; otherwise the actor itself."""
        return self

    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy and the beliefs at `obs`, by name.

        The names are `policy` and, with an opponent model, `opponent_model`, `opponent_prior` and `opponent_type`. Each
        is a marginal distribution: probabilities `replicates x batch x values` for discrete actions, samples
        `replicates x batch x draws x dim` for continuous ones. With several opponents the names end in the opponent's
        position in `Seat.opponents`: `opponent_model_0` and so on; where their joint actions are in a table,
        `joint_opponent_model` and `joint_opponent_prior` are returned as well (`types.beliefs`). A latent belief about
        the opponents is `latent_mean` and, unless it is a point, `latent_sd`, `replicates x batch x features`;
        evaluations over trials may record it. The result also has the declared `metrics` that are known at `obs`, such
        as the ELBO, `replicates x batch`.

        Args:
            obs: `replicates x batch x event`.
            memory: see `begin`; if it is empty, `obs` may be arbitrary observations.
            draws: number of samples, where beliefs are sampled.
        """
        distribution, _ = self.policy(obs, memory)
        if distribution is None:
            return {}
        distribution = distribution.expand(obs.shape[:2])
        if isinstance(self.seat.action, Discrete):
            return {"policy": distribution.probs}
        return {"policy": distribution.sample((draws,)).movedim(0, 2)}


class Learner(Actor):
    """An actor that learns from trajectories.

    Every learner first stores each trajectory, then makes as many updates as the experiment specifies. Its
    `state_dict()` must hold everything that it needs to resume; see `transient`.

    Attributes:
        reads_peers: whether `learn` reads the other agents' policies.
    """

    reads_peers: ClassVar[bool] = False

    def store(self, newest: Trajectory) -> None:
        """Store the newest trajectory, e.g. in a replay buffer or counts; must not draw random numbers."""

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Make one update and return any of the declared `metrics` by name, `replicates` each.

        Args:
            newest: the newest trajectory of all agents.
            peers: the policy of every seat before this round of updates. Read-only, and empty unless some learner sets
                `reads_peers`, as centralised and opponent-aware learners do.

        Raises:
            NonFiniteError: if a loss is not finite; the learner is then in its state before the gradient step.
        """
        raise NotImplementedError(f"{type(self).__name__}.learn is not defined")

    def snapshot(self) -> Actor:
        """The current policy, unaffected by further learning.

        By default it is a copy without the submodules marked `only_for_learning`, such as replay buffer and optimisers.
        Learners whose policy is differentiable in its parameters return a `play.Functional`, so that others can
        differentiate through their updates.
        """
        left_out: dict[int, Any] = {
            id(module): None for module in self.modules() if getattr(module, "only_for_learning", False)
        }
        return copy.deepcopy(self, left_out).requires_grad_(False)


def most_probable(distribution: dist.TorchDistribution) -> Tensor:
    """The mode of a distribution; for a categorical, the first of its most probable values.

    Raises:
        IncompatibleError: if the mode has no closed form.
    """
    if isinstance(distribution, dist.Independent):
        return most_probable(distribution.base_dist)
    if isinstance(distribution, dist.Delta):
        value: Tensor = distribution.v
        return value
    if isinstance(distribution, dist.Categorical):
        best: Tensor = distribution.probs.argmax(-1)
        return best
    try:
        mode: Tensor = distribution.mode
    except NotImplementedError as error:
        raise IncompatibleError(
            f"{type(distribution).__name__}: got a distribution without a mode, expected one with a mode, or an actor "
            "that defines `act` without exploration"
        ) from error
    return mode
