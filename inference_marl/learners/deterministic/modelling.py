"""The base of deterministic actor-critics whose targets use models of the others instead of their actors."""

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
    meaning="Mean over a minibatch and the team's other agents of KL(their policy || the model of it), in nats, for "
    "discrete actions.",
)
OPPONENT_ERROR = Metric(
    "opponent_error",
    "distance from what the others are believed to do",
    bounds=POSITIVE,
    higher_is_better=False,
    meaning="Root mean square, over a minibatch and the team's other agents, of the distance between their actor's "
    "action and the mean of the model of it, in units of half the box's width.",
)
TARGET_ERROR = Metric(
    "target_error",
    "error of targets by models of the others",
    bounds=POSITIVE,
    higher_is_better=False,
    meaning="Mean absolute difference between a critic's TD target with the team's other agents' next actions by the "
    "models and with those by their actors, each averaged over 16 draws with the same random numbers, in units of "
    "reward.",
)
"""Errors of the models of the others, relative to the actual policies, which agents do not know."""
COMPARED = (OPPONENT_KL.name, OPPONENT_ERROR.name, TARGET_ERROR.name)
ROWS, DRAWS, COMPARED_EVERY = 32, 16, 20
"""Transitions and draws for measuring errors of targets, and updates between measurements."""


@hyperparameters
class ModellingOthers(DeterministicActorCritic):
    """Base: a deterministic actor-critic whose targets may use models of the other agents.

    The models' errors are measured every few updates, except with sub-policies, where there is no single true policy.

    Attributes:
        described_by: name of the argument that describes the models; a subclass sets it.
        module: the models of the others' policies; `None` to use their actors.
        measured: the latest values of the metrics `COMPARED`, `replicates x team x metrics`.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (
        *DeterministicActorCritic.metrics,
        *(OPPONENT_KL, OPPONENT_ERROR, TARGET_ERROR),
    )

    described_by: ClassVar[str]
    module: OpponentModule | None = field(init=False)
    measured: Tensor = field(init=False)

    def setup(self) -> None:
        """See `DeterministicActorCritic`; also creates the models."""
        super().setup()
        shape = (self.seat.replicates, len(self.team), len(COMPARED))
        self.register_buffer("measured", torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device))
        described: OpponentModule | None = getattr(self, self.described_by)
        with within(self.described_by):
            self.module = None if described is None else described.bind_all(self.team)

    def member_beliefs(self, member: Member, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy and, if the models' inputs are known, the beliefs about the others' actions."""
        found = super().member_beliefs(member, obs, memory, draws)
        believed = None if self.module is None else self.module.opponent_model(member.number, obs, draws)
        return found if believed is None else {**found, **about_each("opponent_model", believed)}

    def store(self, newest: Trajectory) -> None:
        """Add to the replay buffer and to the data of the models."""
        super().store(newest)
        if self.module is not None:
            self.module.observe(newest.flat)

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """Fit the models and take the steps of `DeterministicActorCritic`."""
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
        """The metrics of a member's models: none if they model no agent of the team."""
        others = [isinstance(seat.action, Discrete) for seat in self.team if seat.index != self.team[number].index]
        there = (any(others), not all(others), bool(others))
        return [name for name, is_there in zip(COMPARED, there, strict=True) if is_there]

    @property
    def knows_others(self) -> bool:
        """Whether there are no models."""
        return self.module is None

    def _following(self, data: Transition, seen: Sequence[Tensor]) -> list[Tensor]:
        """All agents' next actions as each member believes, `replicates x team x batch x event`."""
        following = super()._following(data, seen)
        return following if self.module is None else self._as_believed(following, data)

    def _as_believed(self, following: Sequence[Tensor], data: Transition) -> list[Tensor]:
        """Each member's own next action, and its predictions of the others' actions."""
        predicted = self._predicted(data)

        def believed(agent: int, action: Tensor) -> Iterator[Tensor]:
            for number, seat in enumerate(self.team):
                yield action if seat.index == agent else predicted[number, agent]

        return [torch.stack(list(believed(agent, action)), 1) for agent, action in enumerate(following)]

    def _predicted(self, data: Transition) -> dict[Pair, Tensor]:
        """Every member's predictions, on its own minibatch if these differ."""
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
        """Measure the errors of the models and of the targets that use them."""
        assert self.module is not None
        with kept_streams(self.seat.device):  # measuring does not affect play or learning
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
        """The actions of the team's actors, by agent: probabilities, `replicates x batch x actions`, or points."""
        seen = [self._feature(value, place, None) for place, value in enumerate(obs)]
        actual: dict[int, Tensor] = {}
        for group in self.groups:
            actors = group.slow_actors if slow else group.actors
            outputs = group.legal(group.outputs(actors, seen), masks)
            done = outputs.softmax(-1) if isinstance(group.action, Discrete) else squashed(outputs, group.action)
            actual |= zip([seat.index for seat in group.seats], done.unbind(1), strict=True)
        return actual

    def _target_error(self, number: int, data: Transition) -> Tensor:
        """Mean absolute error of a member's targets over the first `ROWS` transitions, `replicates`."""
        assert self.module is not None
        obs = [value[:, :ROWS] for value in data.next_obs]
        masks = data.next_masks and [None if mask is None else mask[:, :ROWS] for mask in data.next_masks]
        alive = None if data.next_alive is None else data.next_alive[:, :ROWS].repeat_interleave(DRAWS, 1)
        actual = self._by_actors(obs, masks, slow=True)
        believed = self.module.beliefs(number, obs, DRAWS, masks, slow=True)
        one, other = [], []  # all agents' actions: actual and believed
        for agent, space in enumerate(self.seat.action_spaces):
            true = actual.get(agent, believed.get(agent))  # policies outside the team are unknown
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
    """`OPPONENT_KL` for discrete actions and `OPPONENT_ERROR` for those in boxes, `replicates` each.

    Args:
        spaces: action spaces of all agents.
        believed: beliefs by agent, see `OpponentModule.believed`.
        actual: actual policies by agent: probabilities `replicates x batch x actions`, or points `replicates x batch x
            event`.
        alive: which agents had not left, `replicates x batch x agents`; `None` for all.
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
    """Draw actions as features, `replicates x (batch draws) x event`, as a function of given random numbers.

    Args:
        space: action space.
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
