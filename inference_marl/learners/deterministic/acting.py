"""The part of deterministic actor-critics that does not learn: networks, replay buffer and acting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from typing import Any, Literal, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference_marl.described import (
    BelowOne,
    Clip,
    Count,
    IncompatibleError,
    NotNegative,
    Positive,
    Rate,
    Whole,
    hyperparameters,
)
from inference_marl.inference.action_gradients import ActionGradient, GumbelSoftmax, one_hot_draw
from inference_marl.inference.noise import ActionNoise, NormalNoise
from inference_marl.inference.replay import Replay
from inference_marl.inference.schedules import ByReplicate
from inference_marl.learners.deterministic.stacks import SUB_POLICY, Actors, Critics, alike, legal
from inference_marl.play import Functional
from inference_marl.spaces import Box
from inference_marl.types import Counting, Decision, Member, Memory, Seat, Team, Trajectory, Transition


@hyperparameters
class DeterministicPolicies(Counting, Team):
    """Base of `DeterministicActorCritic`, which documents the arguments: everything except the updates."""

    by_replicate = frozenset({"learning_rate", "discount"})
    heeds_masks = True

    hidden: Sequence[Count] = (64, 64)
    learning_rate: Positive | ByReplicate = 3e-3
    discount: BelowOne | ByReplicate = 0.95
    target_rate: Rate = 0.01
    replay: Count = 100_000
    batch_size: Count = 256
    warmup: Whole = 50
    warmup_actions: Literal["uniform", "policy"] = "uniform"
    noise: ActionNoise = NormalNoise()
    estimator: ActionGradient = GumbelSoftmax()
    regularisation: NotNegative = 1e-3
    max_gradient_norm: Clip = 0.5
    shared: bool = False
    shared_critic: bool = False
    sub_policies: Count = 1
    twin_critics: bool = False
    target_noise: NotNegative = 0.0
    actor_interval: Count = 1
    groups: Sequence[Actors] = field(init=False)
    critics: Sequence[Critics] = field(init=False)
    replays: Sequence[Replay] = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)
        if self.shared and self.sub_policies > 1:
            raise ValueError(f"sub_policies: got {self.sub_policies} with shared actors, expected 1, or shared: false")

    @abstractmethod
    def sees(self, seat: Seat) -> list[int]:
        """The inputs of a seat's critic, as indices into all agents' observations followed by all agents' actions.

        The seat's own action must be among them.
        """
        raise NotImplementedError(f"{type(self).__name__}.sees is not defined")

    @property
    def knows_others(self) -> bool:
        """Whether targets use the other agents' actors for their next actions."""
        return True

    def setup(self) -> None:
        """Create actors, critics, their target networks and the replay buffer.

        Raises:
            IncompatibleError: if an agent of the team has unbounded actions, or its critic does not take its own
                action.
        """
        seat, team = self.seat, self.team
        places = [self._checked(each) for each in team]
        self.spaces = (*seat.observations, *seat.action_spaces)
        rate, norm = self.learning_rate, self.max_gradient_norm
        seen = [tuple(self.spaces[place] for place in each) for each in places]
        equal = alike([(each.observation, each.action, its) for each, its in zip(team, seen, strict=True)])
        groups = [Actors(team, its, self.hidden, self.shared, self.sub_policies, rate, norm) for its in equal]
        self.groups = cast(Sequence[Actors], nn.ModuleList(groups))
        critics = [
            Critics(
                team,
                its,
                [places[i] for i in its],
                self.hidden,
                self.shared_critic,
                1 + self.twin_critics,
                rate,
                norm,
            )
            for its in (equal if self.shared_critic else alike(seen))
        ]
        self.critics = cast(Sequence[Critics], nn.ModuleList(critics))
        everybody = [each.index for each in team]
        owners = [[index] for index in everybody] if self.sub_policies > 1 else [everybody]
        replays = [Replay(seat, self.replay, self.sub_policies, team=its) for its in owners]
        self.replays = cast(Sequence[Replay], nn.ModuleList(replays))

    def _checked(self, seat: Seat) -> list[int]:
        """Check a seat and return the inputs of its critic, see `sees`."""
        who, own, places = type(self).__name__, len(seat.observations) + seat.index, self.sees(seat)
        if isinstance(seat.action, Box) and not seat.action.bounded:
            raise IncompatibleError(f"{who} got actions {seat.action} in seat {seat.index}, expected finite edges")
        if own not in places:
            raise IncompatibleError(
                f"{who}.sees got {places} for seat {seat.index}, expected the place of its own action, {own}, in them"
            )
        return places

    def member_initial_memory(self, member: Member, replicates: int, environments: int) -> Memory:
        """The memory of the noise, for boxes, and the sub-policy of the episode, if there are several."""
        boxes = isinstance(member.seat.action, Box)
        memory = self.noise.initial_memory(member.seat, replicates, environments) if boxes else {}
        if self.sub_policies == 1:
            return memory
        drawn = torch.randint(self.sub_policies, (replicates, environments), device=member.seat.device)
        return memory | {SUB_POLICY: drawn}

    @property
    def _warming_up(self) -> bool:
        return self.updates < self.warmup

    @property
    def _uniform(self) -> bool:
        """Whether actions are uniformly random."""
        return self._warming_up and self.warmup_actions == "uniform"

    def member_policy(
        self, member: Member, obs: Tensor, memory: Memory, mask: Tensor | None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """A categorical, or a point mass in the box; uniform during warm-up."""
        seat = member.seat
        if self._uniform:
            uniform = seat.action.uniform(seat.dtype, seat.device).expand(obs.shape[:2])
            return uniform if mask is None else dist.Categorical(logits=legal(uniform.logits, mask)), memory
        return self._group(member).policy(member).policy(obs, memory, mask)

    @torch.no_grad()
    def member_act(self, member: Member, obs: Tensor, memory: Memory, explore: bool, mask: Tensor | None) -> Decision:
        """Draw from the policy, with noise in boxes; without `explore`, the actor's mode, also during warm-up."""
        info: Mapping[str, Tensor] = {SUB_POLICY: memory[SUB_POLICY]} if self.sub_policies > 1 else {}
        if not explore:
            return self._group(member).policy(member).act(obs, memory, explore, mask)._replace(info=info)
        distribution, _ = self.member_policy(member, obs, memory, mask)
        assert distribution is not None  # every policy has a density here
        space = member.seat.action
        # With sub-policies, whose info is needed, NaN must not stop the draw.
        safe = self.sub_policies > 1 and isinstance(distribution, dist.Categorical)
        action: Tensor = one_hot_draw(distribution.logits).argmax(-1) if safe else distribution.sample()
        if isinstance(space, Box) and not self._uniform:
            action, memory = self.noise(action, space, memory, self.updates)
        return Decision(action, memory, info=info)

    def member_snapshot(self, member: Member) -> Functional:
        """The actor with its current weights, and its target."""
        group = self._group(member)
        now, slow = group.policy(member), group.policy(member, slow=True)
        parameters = {name: value.detach().clone() for name, value in now.parameters_by_name.items()}
        target = {name: value.detach().clone() for name, value in slow.parameters_by_name.items()}

        def initial(replicates: int, environments: int) -> Memory:
            return self.member_initial_memory(member, replicates, environments)

        several = self.sub_policies > 1
        return Functional(now.module, now.seat, parameters, target, initial_memory=initial if several else None)

    def _group(self, member: Member) -> Actors:
        (its,) = [group for group in self.groups if member.number in group.numbers]
        return its

    def store(self, newest: Trajectory) -> None:
        """Add to the replay buffer, or to those of all sub-policies."""
        batch = newest.flat
        for replay, seat in zip(self.replays, self.team, strict=False):
            replay.add(batch, batch.infos[seat.index][SUB_POLICY] if self.sub_policies > 1 else None)

    def draw(self) -> Transition:
        """Draw a minibatch, `replicates x batch`.

        With several sub-policies there is one for each member: `batch_size` transitions in which it played the first
        sub-policy, followed by those in which it played the second, and so on, `replicates x team x (sub_policies
        batch)`. For a sub-policy that has not been played yet, no agent is `alive`.
        """
        if self.sub_policies == 1:
            return self.replays[0].draw(self.batch_size)
        rows = self.seat.rows
        keys = torch.arange(self.sub_policies, device=rows.device).expand(len(rows), -1)
        drawn = _side_by_side([replay.draw(self.batch_size, keys, also_empty=True) for replay in self.replays])
        played = torch.stack([replay.held(keys) > 0 for replay in self.replays], 1)
        if bool(played.all()):
            return drawn
        there = played.repeat_interleave(self.batch_size, -1).unsqueeze(-1).expand(*drawn.rewards.shape)
        return replace(drawn, alive=there if drawn.alive is None else drawn.alive & there)


def _side_by_side(drawn: Sequence[Transition]) -> Transition:
    """Merge minibatches `replicates x keys x batch x ...` into one, `replicates x drawn x (keys batch) x ...`."""

    def merged(values: Sequence[Any]) -> Any:
        if isinstance(values[0], tuple):
            return tuple(merged(each) for each in zip(*values, strict=True))
        return values[0] if values[0] is None else torch.stack([value.flatten(1, 2) for value in values], 1)

    return Transition(**{each.name: merged([getattr(one, each.name) for one in drawn]) for each in fields(Transition)})
