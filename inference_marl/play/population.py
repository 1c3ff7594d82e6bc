"""Seats taken by different actors in different episodes."""

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
"""The name in a population's memory of who plays, int64, `replicates x environments`."""


@hyperparameters
class Population(Actor):
    """One of several actors that do not learn: scripts, or policies that other runs have learned (`Frozen`).

    Opponents of whom a learner does not know which it has met. Who plays is drawn in every environment on its own, and
    stays for the episode. All members decide at every step, and one decision counts, so that the cost is that of all.

    Args:
        members: who may play, at least one.
        by: `episode` to draw a member for each episode, all alike; `task` to take the one whose number, from 0, is the
            task (the experiment's key `tasks`), which may stay for several episodes and be more or less probable.

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
        """Seat the members.

        Raises:
            IncompatibleError: if one learns, or does not fit.
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
        """Every member's, beside the number of a member, which `begin` draws."""
        memory = {MEMBER: torch.zeros(replicates, environments, dtype=torch.int64, device=self.seat.device)}
        return memory | _joined([member.initial_memory(replicates, environments) for member in self._seated])

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        """Draw who plays, where episodes begin.

        Raises:
            IncompatibleError: if the task is to say, and there is none or no member of its number.
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
        """That of whoever plays, if all have categorical ones; else `None`."""
        found = [member.policy(obs, its, mask) for member, its in zip(self._seated, self._apart(memory), strict=True)]
        after = {MEMBER: memory[MEMBER]} | _joined([its for _, its in found])
        categorical = [policy for policy, _ in found if isinstance(policy, dist.Categorical)]
        if len(categorical) < len(found):
            return None, after
        probabilities = [policy.probs.expand(*obs.shape[:2], -1) for policy in categorical]
        return dist.Categorical(probs=select(memory[MEMBER], probabilities)), after

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """The decision of whoever plays; all take one."""
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
        """Everybody remembers."""
        after = [member.remember(its, step) for member, its in zip(self._seated, self._apart(memory), strict=True)]
        return {MEMBER: memory[MEMBER]} | _joined(after)

    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy of whoever plays."""
        believed = [
            member.beliefs(obs, its, draws) for member, its in zip(self._seated, self._apart(memory), strict=True)
        ]
        if not all("policy" in each for each in believed):
            return {}
        return {"policy": select(memory[MEMBER], [each["policy"] for each in believed])}

    def _apart(self, memory: Memory) -> list[Memory]:
        """Each member's memory."""
        apart: list[Memory] = [{} for _ in self.seated]
        for name, value in memory.items():
            number, dot, its = name.partition(".")
            if dot:
                apart[int(number)][its] = value
        return apart


def _joined(memories: Sequence[Memory]) -> Memory:
    return {f"{number}.{name}": value for number, memory in enumerate(memories) for name, value in memory.items()}
