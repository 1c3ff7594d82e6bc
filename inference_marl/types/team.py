"""Learners that control several seats, such as those with a critic of all agents' actions."""

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
    """A learner of several seats, with one replay buffer, one update, and a policy for each seat.

    A team that is an arm by itself takes all seats. In a list, its argument `seats` says which ones it takes, and the
    other actors fill the rest in order. A subclass defines `setup`, `member_policy`, `learn_all` and usually `store`; a
    `Member` plays in each seat.

    Args:
        seats: the seats that it takes in a list of actors; if `None`, the seat at its position in a list with one actor
            per seat, or all seats if it is the only actor.

    Attributes:
        team: its seats, once bound; `seat` is the first of them.
        said: the metrics of its members' last update.
    """

    transient = ("said",)

    seats: list[Whole] | None = None
    team: tuple[Seat, ...] = field(init=False)
    said: list[Mapping[str, Tensor]] = field(init=False)

    def bind(self, seat: Seat) -> Self:
        """Raise `IncompatibleError`: a team is bound by `bind_all`."""
        raise IncompatibleError(f"{type(self).__name__} got seat {seat.index} alone, expected to be bound by its team")

    def bind_all(self, seats: Sequence[Seat]) -> list[Actor]:
        """Bind a copy of the team to these seats, and return the member that plays in each of them."""
        bound = self._bound(seat=seats[0], team=tuple(seats))
        return [Member(bound, number) for number in range(len(seats))]

    def member_initial_memory(self, member: Member, replicates: int, environments: int) -> Memory:
        """The initial memory of a member, see `Actor.initial_memory`; empty by default."""
        return {}

    def member_policy(
        self, member: Member, obs: Tensor, memory: Memory, mask: Tensor | None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The policy of a member, see `Actor.policy`."""
        raise NotImplementedError(f"{type(self).__name__}.member_policy is not defined")

    def member_act(self, member: Member, obs: Tensor, memory: Memory, explore: bool, mask: Tensor | None) -> Decision:
        """The decision of a member, see `Actor.act`; by default a sample from its policy, or the mode."""
        return Learner.act(member, obs, memory, explore, mask)

    def member_beliefs(self, member: Member, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The beliefs of a member, see `Actor.beliefs`; by default its policy."""
        return Learner.beliefs(member, obs, memory, draws)

    def member_snapshot(self, member: Member) -> Actor:
        """The snapshot of a member, see `Learner.snapshot`; by default a member of a copy of the whole team."""
        team = Learner.snapshot(self)
        assert isinstance(team, Team)
        return Member(team, member.number)

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """Make one update of all members and return their metrics in order, see `Learner.learn`."""
        raise NotImplementedError(f"{type(self).__name__}.learn_all is not defined")


class Member(Learner):
    """A member of a team, which plays in one seat; the first member learns for all.

    Args:
        of: the bound team.
        number: the index of its seat in `Team.team`.

    Attributes:
        metrics, reads_peers, heeds_masks: those of the team.
    """

    of: Team

    def __init__(self, of: Team, number: int) -> None:
        if number == 0:
            self.of = of  # registered, so that the first member's state has the team's parameters
        else:
            self.__dict__["of"] = of
        self.number, self.seat = number, of.team[number]
        # Attributes of the instance rather than the class, since teams differ.
        self.__dict__ |= {"metrics": of.metrics, "reads_peers": of.reads_peers, "heeds_masks": of.heeds_masks}

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """See `Team.member_initial_memory`."""
        return self.of.member_initial_memory(self, replicates, environments)

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """See `Team.member_policy`."""
        return self.of.member_policy(self, obs, memory, mask)

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """See `Team.member_act`."""
        return self.of.member_act(self, obs, memory, explore, mask)

    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """See `Team.member_beliefs`."""
        return self.of.member_beliefs(self, obs, memory, draws)

    def store(self, newest: Trajectory) -> None:
        """Store the trajectory once for the whole team."""
        if self.number == 0:
            self.of.store(newest)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Make the team's update if this is its first member, and return this member's metrics."""
        if self.number == 0:
            self.of.said = self.of.learn_all(newest, peers)
        return self.of.said[self.number]

    def snapshot(self) -> Actor:
        """See `Team.member_snapshot`."""
        return self.of.member_snapshot(self)


def seats_taken(actors: Sequence[Actor], agents: int) -> list[list[int]]:
    """The seats of each of an arm's actors: teams take those that they name, other actors the rest, in order.

    In a list with one actor per seat, a team that names none takes the seat at its position.

    Raises:
        ValueError: if not every seat is taken exactly once.
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
