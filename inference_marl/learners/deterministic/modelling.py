"""Base of deterministic actor-critics whose targets ask models of the others, not their actors, what they do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import ClassVar

import torch
from torch import Tensor

from inference_marl.described import hyperparameters, within
from inference_marl.inference.schedules import current
from inference_marl.learners.deterministic.base import DeterministicActorCritic
from inference_marl.learners.deterministic.opponents import OpponentModule, Pair
from inference_marl.learners.deterministic.stacks import squashed
from inference_marl.spaces import Discrete, Space
from inference_marl.types import (
    POSITIVE,
    Actor,
    Member,
    Memory,
    Metric,
    Trajectory,
    Transition,
    about_each,
    kept_streams,
)

OPPONENT_KL = Metric(
    "opponent_kl",
    "KL from what the others are believed to do",
    bounds=POSITIVE,
    higher_is_better=False,
    meaning="Mean over a minibatch and the team's others of KL(their policy || what it is believed to be), in nats; of "
    "discrete actions.",
)
OPPONENT_ERROR = Metric(
    "opponent_error",
    "distance from what the others are believed to do",
    bounds=POSITIVE,
    higher_is_better=False,
    meaning="Root mean square, over a minibatch and the other agents of the team, of the distance between what their "
    "actor does and the mean of what it is believed to do, in units of half the box's width.",
)
TARGET_ERROR = Metric(
    "target_error",
    "error of targets by models of the others",
    bounds=POSITIVE,
    higher_is_better=False,
    meaning="Mean absolute difference of a critic's TD target with what the team's others are believed to do next, "
    "from the one with what their actors would, each averaged over 16 draws by the same random numbers; in units of "
    "reward.",
)
"""How far beliefs are from the truth; what is true is known to the experiment, not to the agent."""
COMPARED = (OPPONENT_KL.name, OPPONENT_ERROR.name, TARGET_ERROR.name)
ROWS, DRAWS, COMPARED_EVERY = 32, 16, 20
"""Transitions and draws of which errors of targets are measured, and the updates from one measurement to the next."""


@hyperparameters
class ModellingOthers(DeterministicActorCritic):
    """Base: a subclass says which models, if any.

    How far they are from the truth is measured now and then, except with sub-policies, of which there is not one truth.

    Attributes:
        described_by: the name of the argument that describes the models.
        module: the models of the others' policies; `None` if their actors are known.
        measured: the newest of the metrics `COMPARED`, `replicates x team x metrics`.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (
        *DeterministicActorCritic.metrics,
        *(OPPONENT_KL, OPPONENT_ERROR, TARGET_ERROR),
    )

    described_by: ClassVar[str]
    module: OpponentModule | None = field(init=False)
    measured: Tensor = field(init=False)

    def setup(self) -> None:
        """Create the models, too; see `DeterministicActorCritic`."""
        super().setup()
        shape = (self.seat.replicates, len(self.team), len(COMPARED))
        self.register_buffer("measured", torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device))
        described: OpponentModule | None = getattr(self, self.described_by)
        with within(self.described_by):
            self.module = None if described is None else described.bind_all(self.team)

    def member_beliefs(self, member: Member, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy and, where what the models read is known, what the others are believed to do."""
        found = super().member_beliefs(member, obs, memory, draws)
        believed = None if self.module is None else self.module.opponent_model(member.number, obs, draws)
        return found if believed is None else {**found, **about_each("opponent_model", believed)}

    def store(self, newest: Trajectory) -> None:
        """Fill the replay, and what the models are fitted to."""
        super().store(newest)
        if self.module is not None:
            self.module.observe(newest.flat)

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """Fit the models, and take the steps of `DeterministicActorCritic`."""
        if self.module is None or self._warming_up:
            return super().learn_all(newest, peers)
        self.module.fit()
        said = super().learn_all(newest, peers)
        if self.sub_policies > 1:
            return said
        if (self.updates - self.warmup) % COMPARED_EVERY == 1:
            self._compare()
        measured = self.measured.clone()
        return [
            {**its, **{name: measured[:, number, COMPARED.index(name)] for name in self._comparable(number)}}
            for number, its in enumerate(said)
        ]

    def _comparable(self, number: int) -> list[str]:
        """What is measured of a member's models: nothing, if nobody whom they model is of the team."""
        others = [isinstance(seat.action, Discrete) for seat in self.team if seat.index != self.team[number].index]
        there = (any(others), not all(others), bool(others))
        return [name for name, is_there in zip(COMPARED, there, strict=True) if is_there]

    @property
    def knows_others(self) -> bool:
        """Without models."""
        return self.module is None

    def _following(self, data: Transition, seen: Sequence[Tensor]) -> list[Tensor]:
        """What everybody does next, as each member believes, `replicates x team x batch x event`."""
        following = super()._following(data, seen)
        return following if self.module is None else self._as_believed(following, data)

    def _as_believed(self, following: Sequence[Tensor], data: Transition) -> list[Tensor]:
        """Each member's own next action, and those that it predicts in place of the others'."""
        predicted = self._predicted(data)

        def believed(agent: int, action: Tensor) -> Iterator[Tensor]:
            for number, seat in enumerate(self.team):
                yield action if seat.index == agent else predicted[number, agent]

        return [torch.stack(list(believed(agent, action)), 1) for agent, action in enumerate(following)]

    def _predicted(self, data: Transition) -> dict[Pair, Tensor]:
        """What every member predicts, on its own minibatch if they differ."""
        assert self.module is not None
        if self.sub_policies == 1:
            return self.module.predict(data.next_obs, data.next_masks)
        found: dict[Pair, Tensor] = {}
        for number in range(len(self.team)):
            obs = [each[:, number] for each in data.next_obs]
            masks = data.next_masks and [None if each is None else each[:, number] for each in data.next_masks]
            its = self.module.predict(obs, masks)
            found |= {pair: drawn for pair, drawn in its.items() if pair[0] == number}
        return found

    @torch.no_grad()
    def _compare(self) -> None:
        """Measure how far what is believed of the others is from what their actors do, and targets are off for that."""
        assert self.module is not None
        with kept_streams(self.seat.device):  # measuring changes nothing
            data = self.replays[0].draw(self.batch_size)
            actual = self._by_actors(data.obs, data.masks)
            for number in range(len(self.team)):
                believed = self.module.beliefs(number, data.obs, DRAWS, data.masks)
                found = compared(self.seat.action_spaces, believed, actual, data.alive)
                found[TARGET_ERROR.name] = self._target_error(number, data)
                for name, values in found.items():
                    self.measured[:, number, COMPARED.index(name)] = values

    def _by_actors(
        self, obs: Sequence[Tensor], masks: Sequence[Tensor | None] | None, slow: bool = False
    ) -> dict[int, Tensor]:
        """What the team's actors do, by agent: probabilities, `replicates x batch x actions`, or points."""
        seen = [self._feature(value, place, None) for place, value in enumerate(obs)]
        actual: dict[int, Tensor] = {}
        for group in self.groups:
            actors = group.slow_actors if slow else group.actors
            outputs = group.legal(group.outputs(actors, seen), masks)
            done = outputs.softmax(-1) if isinstance(group.action, Discrete) else squashed(outputs, group.action)
            actual |= zip([seat.index for seat in group.seats], done.unbind(1), strict=True)
        return actual

    def _target_error(self, number: int, data: Transition) -> Tensor:
        """Mean absolute error of a member's targets over the first transitions, `replicates`."""
        assert self.module is not None
        obs = [value[:, :ROWS] for value in data.next_obs]
        masks = data.next_masks and [None if mask is None else mask[:, :ROWS] for mask in data.next_masks]
        alive = None if data.next_alive is None else data.next_alive[:, :ROWS].repeat_interleave(DRAWS, 1)
        actual = self._by_actors(obs, masks, slow=True)
        believed = self.module.beliefs(number, obs, DRAWS, masks, slow=True)
        one, other = [], []  # everybody's actions as they are, and as they are believed to be
        for agent, space in enumerate(self.seat.action_spaces):
            true = actual.get(agent, believed.get(agent))  # of seats that are not the team's nothing is known
            assert true is not None
            thought = believed.get(agent, true)
            uniform = torch.rand(*obs[0].shape[:2], DRAWS, dtype=self.seat.dtype, device=self.seat.device)
            one.append(drawn_alike(space, true, uniform))
            other.append(drawn_alike(space, thought, uniform))
        seen = [self._feature(value.repeat_interleave(DRAWS, 1), place, alive) for place, value in enumerate(obs)]
        first, second = (self._slow_values(seen, each, alive)[:, number] for each in (one, other))
        apart = (first - second).unflatten(-1, (-1, DRAWS)).mean(-1).abs()
        goes_on = ~data.terminated_for(self.team[number].index)[:, :ROWS]
        found: Tensor = (current(self.discount, self.updates) * apart * goes_on).mean(-1)
        return found


def compared(
    spaces: Sequence[Space], believed: Mapping[int, Tensor], actual: Mapping[int, Tensor], alive: Tensor | None
) -> dict[str, Tensor]:
    """`OPPONENT_KL` and `OPPONENT_ERROR`, as far as there are actions of either kind, `replicates` each.

    Args:
        spaces: everybody's actions.
        believed: by agent, see `OpponentModule.believed`.
        actual: by agent, probabilities `replicates x batch x actions`, or points `replicates x batch x event`.
        alive: who was in, `replicates x batch x agents`; `None` for all.
    """
    found: dict[str, list[Tensor]] = {OPPONENT_KL.name: [], OPPONENT_ERROR.name: []}
    for agent in believed.keys() & actual.keys():
        space, there = spaces[agent], None if alive is None else alive[..., agent]
        one, other = actual[agent], believed[agent]
        if isinstance(space, Discrete):
            ratio = one.clamp_min(1e-30).log() - other.clamp_min(1e-30).log()
            name, values = OPPONENT_KL.name, (one * ratio).sum(-1)
        else:
            _, half_width = space.scale(one.dtype, one.device)
            distance = (one - other.mean(2)) / half_width
            name, values = OPPONENT_ERROR.name, distance.flatten(2).square().sum(-1)
        weight = torch.ones_like(values) if there is None else there.to(values.dtype)
        found[name].append((values * weight).sum(-1) / weight.sum(-1).clamp_min(1))
    means = {name: torch.stack(each).mean(0) for name, each in found.items() if each}
    return {name: each.sqrt() if name == OPPONENT_ERROR.name else each for name, each in means.items()}


def drawn_alike(space: Space, what: Tensor, uniform: Tensor) -> Tensor:
    """Actions as critics see them, `replicates x (batch draws) x event`, the same if what they are drawn from is.

    Args:
        space: of the actions.
        what: probabilities, `replicates x batch x actions`; a point, `x event`, or draws, `x draws x event`.
        uniform: a random number for each draw, `replicates x batch x draws`.
    """
    if isinstance(space, Discrete):
        below = what.cumsum(-1).unsqueeze(2) < uniform.unsqueeze(-1)
        index = below.sum(-1).clamp_max(space.n - 1)
        return space.encode(index, what.dtype).flatten(1, 2)
    draws = what.unsqueeze(2).expand(-1, -1, uniform.shape[2], *space.event_shape) if _is_point(space, what) else what
    return draws.flatten(1, 2)


def _is_point(space: Space, what: Tensor) -> bool:
    return what.dim() == 2 + len(space.event_shape)
