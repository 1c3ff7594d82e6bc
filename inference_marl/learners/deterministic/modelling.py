"""Base of deterministic actor-critics whose targets ask models of the others, not their actors, what they do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import ClassVar

import torch
from torch import Tensor

from inference_marl.described import hyperparameters, within
from inference_marl.inference.schedules import current
from inference_marl.learners.deterministic.base import DeterministicActorCritic
from inference_marl.learners.deterministic.opponents import OPPONENT_ERROR, OPPONENT_KL, OpponentModule, Pair, compared
from inference_marl.learners.deterministic.stacks import squashed
from inference_marl.spaces import Discrete
from inference_marl.types import POSITIVE, Actor, Member, Memory, Metric, Trajectory, Transition, kept_streams

TARGET_ERROR = Metric(
    "target_error",
    "error of targets by models of the others",
    bounds=POSITIVE,
    higher_is_better=False,
    meaning="Mean absolute difference of a critic's TD target with what the others are believed to do next, from the "
    "one with what their actors would, each averaged over 16 draws; in units of reward.",
)
ROWS, DRAWS, COMPARED_EVERY = 32, 16, 20
"""Transitions and draws of which errors of targets are measured, and the updates from one measurement to the next."""


@hyperparameters
class ModellingOthers(DeterministicActorCritic):
    """Base: a subclass says which models, if any.

    How far they are from the truth is measured now and then, except with sub-policies, of which there is not one truth.

    Attributes:
        described_by: the name of the argument that describes the models.
        module: the models of the others' policies; `None` if their actors are known.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (
        *DeterministicActorCritic.metrics,
        *(OPPONENT_KL, OPPONENT_ERROR, TARGET_ERROR),
    )

    described_by: ClassVar[str]
    module: OpponentModule | None = field(init=False)

    def setup(self) -> None:
        """Create the models, too; see `DeterministicActorCritic`."""
        super().setup()
        described: OpponentModule | None = getattr(self, self.described_by)
        with within(self.described_by):
            self.module = None if described is None else described.bind_all(self.team)

    def member_beliefs(self, member: Member, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy and, where what the models read is known, what the others are believed to do."""
        found = super().member_beliefs(member, obs, memory, draws)
        believed = None if self.module is None else self.module.opponent_model(member.number, obs, draws)
        return found if believed is None else {**found, "opponent_model": believed}

    def store(self, newest: Trajectory) -> None:
        """Fill the replay, and what the models are fitted to."""
        super().store(newest)
        if self.module is not None:
            self.module.observe(newest.flat)

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """Fit the models, and take the steps of `DeterministicActorCritic`."""
        learns = self.module is not None and not self._warming_up and self._ready
        if learns and self.module is not None:
            self.module.fit()
        said = super().learn_all(newest, peers)
        if learns and self.sub_policies == 1 and (self.updates - self.warmup) % COMPARED_EVERY == 1:
            return [{**one, **other} for one, other in zip(said, self._compare(), strict=True)]
        return said

    def _following(self, data: Transition, seen: Sequence[Tensor]) -> list[Tensor]:
        """What everybody does next, as each member believes, `replicates x team x batch x event`."""
        following = super()._following(data, seen)
        return following if self.module is None else self._as_believed(following, data)

    def _as_believed(self, following: Sequence[Tensor], data: Transition) -> list[Tensor]:
        """Each member's own next action, and those that it predicts in place of the others'."""
        predicted = self._predicted(data)
        apart = self.sub_policies > 1

        def believed(agent: int, action: Tensor) -> Iterator[Tensor]:
            for number, seat in enumerate(self.team):
                own = action[:, number] if apart else action
                yield own if seat.index == agent else predicted[number, agent]

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
    def _compare(self) -> list[Mapping[str, Tensor]]:
        """How far what is believed of the others is from what their actors do, and targets are off for that."""
        assert self.module is not None
        with kept_streams(self.seat.device):  # measuring changes nothing
            data = self.draw()
            errors = self._target_errors(data)
            believed = [self.module.beliefs(number, data.obs, DRAWS) for number in range(len(self.team))]
        actual = self._by_actors(data)
        return [
            {
                **compared(self.seat.action_spaces, its, actual, data.alive),
                TARGET_ERROR.name: errors[:, number],
            }
            for number, its in enumerate(believed)
        ]

    def _by_actors(self, data: Transition) -> dict[int, Tensor]:
        """What the team's actors do, by agent: probabilities, `replicates x batch x actions`, or points."""
        seen = [self._feature(value, place, None) for place, value in enumerate(data.obs)]
        actual: dict[int, Tensor] = {}
        for group in self.groups:
            outputs = group.legal(group.outputs(group.actors, seen), data.masks)
            done = outputs.softmax(-1) if isinstance(group.action, Discrete) else squashed(outputs, group.action)
            actual |= zip([seat.index for seat in group.seats], done.unbind(1), strict=True)
        return actual

    def _target_errors(self, data: Transition) -> Tensor:
        """Mean absolute errors of the targets, `replicates x members`, over some transitions."""

        def some(value: Tensor) -> Tensor:
            return value[:, :ROWS].repeat_interleave(DRAWS, 1)

        few = replace(
            data,
            actions=tuple(map(some, data.actions)),
            next_obs=tuple(map(some, data.next_obs)),
            next_alive=None if data.next_alive is None else some(data.next_alive),
            next_masks=data.next_masks and tuple(None if mask is None else some(mask) for mask in data.next_masks),
        )
        seen = [self._feature(value, place, few.next_alive) for place, value in enumerate(few.next_obs)]
        true = super()._following(few, seen)
        one, other = (self._slow_values(seen, each, few.next_alive) for each in (true, self._as_believed(true, few)))
        apart: Tensor = (one - other).unflatten(-1, (-1, DRAWS)).mean(-1).abs().mean(-1)
        apart *= current(self.discount, self.updates)
        return apart
