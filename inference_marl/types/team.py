"""Learners of several seats at once, such as those with a critic over everybody's actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Self

import pyro.distributions as dist
from torch import Tensor

from inference_marl.described import IncompatibleError, Whole, hyperparameters
from inference_marl.types.actor import Actor, Learner
from inference_marl.types.seat import Seat
from inference_marl.types.transition import Decision, Memory, Trajectory


@hyperparameters
class Team(Learner):
    """A learner of several seats: one replay, one update, and a policy for each seat.

    An arm that names a team gives it every seat. In a list, the team's argument `seats` says which ones it takes, and
    the other actors fill the rest in order. A subclass defines `setup`, `member_policy`, `learn_all` and usually
    `store`; what plays in a seat is a `Member`.

    Args:
        seats: in a list of actors, the seats that it takes; `None` for the one at its place in a list with one actor
            per seat, and all if it is the only one.

    Attributes:
        team: its seats, once bound; `seat` is the first of them.
        said: the metrics of its members' last update.
    """

    transient = ("said",)

    seats: list[Whole] | None = None
    team: tuple[Seat, ...] = field(init=False)
    said: list[Mapping[str, Tensor]] = field(init=False)

    def bind(self, seat: Seat) -> Self:
        """Refuse a single seat (`IncompatibleError`); see `bind_all`."""
        raise IncompatibleError(f"{type(self).__name__} got seat {seat.index} alone, expected to be bound by its team")

    def bind_all(self, seats: Sequence[Seat]) -> list[Actor]:
        """A working copy that takes these seats; returns what plays in each of them."""
        bound = self._bound(seat=seats[0], team=tuple(seats))
        return [Member(bound, number) for number in range(len(seats))]

    def member_initial_memory(self, member: Member, replicates: int, environments: int) -> Memory:
        """See `Actor.initial_memory`, of a member; empty by default."""
        return {}

    def member_policy(
        self, member: Member, obs: Tensor, memory: Memory, mask: Tensor | None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """See `Actor.policy`, of a member."""
        raise NotImplementedError(f"{type(self).__name__}.member_policy is not defined")

    def member_act(self, member: Member, obs: Tensor, memory: Memory, explore: bool, mask: Tensor | None) -> Decision:
        """See `Actor.act`; by default a draw from the member's policy, or its mode."""
        return Learner.act(member, obs, memory, explore, mask)

    def member_beliefs(self, member: Member, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """See `Actor.beliefs`; by default the member's policy."""
        return Learner.beliefs(member, obs, memory, draws)

    def member_snapshot(self, member: Member) -> Actor:
        """See `Learner.snapshot`; by default a member of a copy of the whole team."""
        team = Learner.snapshot(self)
        assert isinstance(team, Team)
        return Member(team, member.number)

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """As `Learner.learn`, for every member: their metrics in order."""
        raise NotImplementedError(f"{type(self).__name__}.learn_all is not defined")


class Member(Learner):
    """A team's member, which plays in one seat; the first of them learns for all.

    Args:
        of: the team, bound.
        number: the place of its seat among the team's.

    Attributes:
        metrics, reads_peers, heeds_masks: the team's.
    """

    of: Team

    def __init__(self, of: Team, number: int) -> None:
        if number == 0:
            self.of = of  # whose parameters are in this member's state
        else:
            self.__dict__["of"] = of
        self.number, self.seat = number, of.team[number]
        # Of an object, and not of the class, since every team has its own.
        self.__dict__ |= {"metrics": of.metrics, "reads_peers": of.reads_peers, "heeds_masks": of.heeds_masks}

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The member's."""
        return self.of.member_initial_memory(self, replicates, environments)

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The member's."""
        return self.of.member_policy(self, obs, memory, mask)

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """The member's."""
        return self.of.member_act(self, obs, memory, explore, mask)

    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The member's."""
        return self.of.member_beliefs(self, obs, memory, draws)

    def store(self, newest: Trajectory) -> None:
        """Once for the whole team."""
        if self.number == 0:
            self.of.store(newest)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Once for the whole team, by its first member; each reports its own metrics."""
        if self.number == 0:
            self.of.said = self.of.learn_all(newest, peers)
        return self.of.said[self.number]

    def snapshot(self) -> Actor:
        """The member's."""
        return self.of.member_snapshot(self)


def seats_taken(actors: Sequence[Actor], agents: int) -> list[list[int]]:
    """The seats that each of an arm's actors takes: teams those that they name, the others the rest, in order.

    In a list with an actor for each seat, a team that names none takes the one where it stands.

    Raises:
        ValueError: if that is not every seat once.
    """
    named = [actor.seats if isinstance(actor, Team) else [] for actor in actors]
    if len(actors) == agents:
        named = [[number] if its is None else its for number, its in enumerate(named)]
    for number, its in enumerate(named):
        if its is None or (isinstance(actors[number], Team) and not its):
            raise ValueError(f"[{number}].seats: got {its}, expected the seats that it takes among others")
    teams = [seat for its in named for seat in its or []]
    rest = [seat for seat in range(agents) if seat not in teams]
    alone = sum(not isinstance(actor, Team) for actor in actors)
    if len(rest) != alone or sorted([*teams, *rest]) != list(range(agents)):
        raise ValueError(
            f"got {alone} learners{f' and teams in seats {teams}' if teams else ''}, expected one per seat: {agents}"
        )
    return [list(its) if its else [rest.pop(0)] for its in named]
