"""Populations: seats taken by different actors in different episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference_marl.described import IncompatibleError, hyperparameters, within
from inference_marl.types import Actor, Decision, Experience, Learner, Memory, Start, select

MEMBER = "member"
"""Name of the entry in a population's memory that says which member plays, int64, `replicates x environments`."""


@hyperparameters
class Population(Actor):
    """One of several actors that do not learn: scripts, or policies learned in other runs (`Frozen`).

    Learners do not know which of the members they play against. A member is drawn independently in every environment,
    and plays for a whole episode. All members compute a decision at every step, of which one is used, so the cost is
    that of all members.

    Args:
        members: the actors that may play, at least one.
        by: `episode` to draw a member for each episode, uniformly; `task` to take the member whose index is the task
            (the experiment's key `tasks`), which may last for several episodes and have other probabilities.

    Raises:
        ValueError: if there are no members.
    """

    members: Sequence[Actor]
    by: Literal["episode", "task"] = "episode"
    seated: nn.ModuleList = field(init=False)

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members: got none, expected at least one actor")
        self.__dict__["reads_task"] = self.by == "task"

    def setup(self) -> None:
        """Bind the members.

        Raises:
            IncompatibleError: if a member learns, or does not fit the seat.
        """
        bound = []
        for number, member in enumerate(self.members):
            with within(f"members[{number}]"):
                if isinstance(member, Learner):
                    raise IncompatibleError(
                        f"got {type(member).__name__}, which learns, expected actors that do not: a script, or, with "
                        "Frozen, what it has learned in a run of its own"
                    )
                bound.append(member.bind(self.seat))
        self.seated = nn.ModuleList(bound)
        self.__dict__["heeds_masks"] = all(member.heeds_masks for member in bound)

    @property
    def _seated(self) -> list[Actor]:
        return [member for member in self.seated if isinstance(member, Actor)]

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The memories of all members, and the index of the member that plays, which `begin` draws."""
        memory = {MEMBER: torch.zeros(replicates, environments, dtype=torch.int64, device=self.seat.device)}
        return memory | _joined([member.initial_memory(replicates, environments) for member in self._seated])

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        """Draw the member that plays, where episodes begin.

        Raises:
            IncompatibleError: if the member is chosen by task, and there is no task or no such member.
        """
        device, shape, count = self.seat.device, start.episode.shape, len(self.seated)
        if self.by == "episode":
            drawn = (torch.rand(shape, device=device) * count).long().clamp_max(count - 1)
        elif start.task is None:
            raise IncompatibleError(
                "Population got no task, expected the key tasks, of the experiment or of its evaluation, or by: episode"
            )
        elif int(start.task.max()) >= count:
            raise IncompatibleError(f"Population got task {int(start.task.max())}, expected at most {count - 1}")
        else:
            drawn = start.task
        before = [None] * count if memory is None else self._apart(memory)
        begun = [member.begin(start, its) for member, its in zip(self._seated, before, strict=True)]
        who = drawn if memory is None else torch.where(start.episode, drawn, memory[MEMBER])
        return {MEMBER: who} | _joined(begun)

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The policy of the member that plays, if all members have categorical policies; else `None`."""
        found = [member.policy(obs, its, mask) for member, its in zip(self._seated, self._apart(memory), strict=True)]
        after = {MEMBER: memory[MEMBER]} | _joined([its for _, its in found])
        categorical = [policy for policy, _ in found if isinstance(policy, dist.Categorical)]
        if len(categorical) < len(found):
            return None, after
        probabilities = [policy.probs.expand(*obs.shape[:2], -1) for policy in categorical]
        return dist.Categorical(probs=select(memory[MEMBER], probabilities)), after

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """The decision of the member that plays; all members compute one."""
        taken = [
            member.act(obs, its, explore, mask) for member, its in zip(self._seated, self._apart(memory), strict=True)
        ]
        who = memory[MEMBER]
        densities = [each.log_prob for each in taken if each.log_prob is not None]
        return Decision(
            select(who, [each.action for each in taken]),
            {MEMBER: who} | _joined([each.memory for each in taken]),
            select(who, densities) if len(densities) == len(taken) else None,
        )

    def remember(self, memory: Memory, step: Experience) -> Memory:
        """Update the memories of all members."""
        after = [member.remember(its, step) for member, its in zip(self._seated, self._apart(memory), strict=True)]
        return {MEMBER: memory[MEMBER]} | _joined(after)

    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy of the member that plays."""
        believed = [
            member.beliefs(obs, its, draws) for member, its in zip(self._seated, self._apart(memory), strict=True)
        ]
        if not all("policy" in each for each in believed):
            return {}
        return {"policy": select(memory[MEMBER], [each["policy"] for each in believed])}

    def _apart(self, memory: Memory) -> list[Memory]:
        """Split the memory into those of the members."""
        apart: list[Memory] = [{} for _ in self.seated]
        for name, value in memory.items():
            number, dot, its = name.partition(".")
            if dot:
                apart[int(number)][its] = value
        return apart


def _joined(memories: Sequence[Memory]) -> Memory:
    return {f"{number}.{name}": value for number, memory in enumerate(memories) for name, value in memory.items()}
