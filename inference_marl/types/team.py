"""Learners of several seats at once, such as those with a critic over everybody's actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import pyro.distributions as dist
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.types.actor import Actor, Learner
from inference_marl.types.metric import Metric
from inference_marl.types.seat import Seat
from inference_marl.types.transition import Decision, Memory, Trajectory


class Team(Learner):
    """A learner of several seats: one replay, one update, and a policy for each seat.

    An arm that names a team gives it every seat. In a list, the team's argument `seats` says which ones it takes, and
    the other actors fill the rest in order. A subclass defines `setup`, `member_act`, `member_snapshot`, `learn_all`
    and usually `store`; what plays in a seat is a `Member`.

    Attributes:
        seats: indices of the seats that it takes in a list; `None` if it takes all.
        team: its seats, once bound; `seat` is the first of them.
    """

    seats: list[int] | None
    team: tuple[Seat, ...]

    def bind(self, seat: Seat) -> Self:
        """Refuse a single seat (`IncompatibleError`); see `bind_all`."""
        raise IncompatibleError(f"{type(self).__name__} got seat {seat.index} alone, expected to be bound by its team")

    def bind_all(self, seats: Sequence[Seat]) -> list[Actor]:
        """A working copy that takes these seats; returns what plays in each of them."""
        bound = self._bound(seat=seats[0], team=tuple(seats))
        return [Member(bound, number) for number in range(len(seats))]

    def member_policy(
        self, number: int, obs: Tensor, memory: Memory, mask: Tensor | None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """See `Actor.policy`, of the member with that number."""
        raise NotImplementedError(f"{type(self).__name__}.member_policy is not defined")

    def member_act(self, number: int, obs: Tensor, memory: Memory, explore: bool, mask: Tensor | None) -> Decision:
        """See `Actor.act`; by default a draw from the member's policy, or its mode."""
        return super(Member, Member(self, number)).act(obs, memory, explore, mask)

    def member_snapshot(self, number: int) -> Actor:
        """See `Learner.snapshot`."""
        raise NotImplementedError(f"{type(self).__name__}.member_snapshot is not defined")

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """As `Learner.learn`, for every member: their metrics in order."""
        raise NotImplementedError(f"{type(self).__name__}.learn_all is not defined")


class Member(Learner):
    """A team's member, which plays in one seat; the first of them learns for all.

    Args:
        of: the team, bound.
        number: the place of its seat among the team's.

    Attributes:
        metrics: the team's.
    """

    of: Team
    metrics: tuple[Metric, ...]  # type: ignore[misc]  # of an object, since every team has its own

    def __init__(self, of: Team, number: int) -> None:
        if number == 0:
            self.of = of  # whose parameters are in this member's state
        else:
            self.__dict__["of"] = of
        self.number, self.seat, self.metrics = number, of.team[number], of.metrics

    @property
    def reads_peers(self) -> bool:  # type: ignore[override]
        """Whether the team does."""
        return self.of.reads_peers

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The member's."""
        return self.of.member_policy(self.number, obs, memory, mask)

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """The member's."""
        return self.of.member_act(self.number, obs, memory, explore, mask)

    def store(self, newest: Trajectory) -> None:
        """Once for the whole team."""
        if self.number == 0:
            self.of.store(newest)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Once for the whole team, by its first member; each reports its own metrics."""
        if self.number == 0:
            self.of.__dict__["_said"] = self.of.learn_all(newest, peers)
        said: Mapping[str, Tensor] = self.of.__dict__["_said"][self.number]
        return said

    def snapshot(self) -> Actor:
        """The member's."""
        return self.of.member_snapshot(self.number)
