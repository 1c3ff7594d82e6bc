"""Cross-play: partners and opponents from other replicates, for evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, hyperparameters
from inference_marl.types import Actor, Decision, Experience, Memory, Start


@hyperparameters
class Stranger(Actor):
    """The learner of its seat as trained in the next replicate: a guest for an evaluation's `seats`.

    Agents that learn together may find conventions that no other agents share. Replicates learn independently, so this
    evaluates cross-play with agents trained in the same way (Hu et al. 2020, '"Other-play" for zero-shot
    coordination'). Replicate `r` meets replicate `r + 1`, and the last one the first.

    Attributes:
        who: the learner.
    """

    alone: ClassVar[bool] = True
    who: ClassVar[Actor]

    def setup(self) -> None:
        """Reject seats in which no one learns.

        Raises:
            IncompatibleError: always; use `of`.
        """
        raise IncompatibleError(
            "got a Stranger where nobody else learns, expected it among the seats of an evaluation, in the place of a "
            "learner"
        )

    @classmethod
    def of(cls, actor: Actor) -> Stranger:
        """A stranger that plays in place of `actor`, always with its current policy.

        Raises:
            IncompatibleError: if `actor` is told the task, since the meaning of a task may depend on the replicate.
        """
        if actor.reads_task:
            raise IncompatibleError(
                f"Stranger got {type(actor).__name__} which is told the task, expected one who is not"
            )
        made = cls()
        # Not registered as a submodule: it belongs to the arm.
        made.__dict__ |= {"who": actor, "seat": actor.seat}
        made.__dict__["heeds_masks"] = actor.heeds_masks
        return made

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """See `Actor.initial_memory`."""
        return _back(self.who.initial_memory(replicates, environments))

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        """See `Actor.begin`."""
        there = Start(start.episode.roll(1, 0), start.new_task.roll(1, 0))
        return _back(self.who.begin(there, None if memory is None else _there(memory)))

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """The decision at `obs` of the learner in the next replicate."""
        mask = None if mask is None else mask.roll(1, 0)
        found = self.who.act(obs.roll(1, 0), _there(memory), explore, mask)
        density = None if found.log_prob is None else found.log_prob.roll(-1, 0)
        return Decision(found.action.roll(-1, 0), _back(found.memory), density, _back(found.info))

    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The beliefs at `obs` of the learner in the next replicate."""
        return _back(self.who.beliefs(obs.roll(1, 0), _there(memory), draws))

    def remember(self, memory: Memory, step: Experience) -> Memory:
        """See `Actor.remember`."""
        if type(self.who).remember is Actor.remember:
            return memory
        return _back(self.who.remember(_there(memory), step.mapped(lambda value: value.roll(1, 0))))


def _there(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move named tensors of each replicate to the next one."""
    return {name: torch.roll(value, 1, 0) for name, value in values.items()}


def _back(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `_there`."""
    return {name: torch.roll(value, -1, 0) for name, value in values.items()}
