"""Data exchanged between games and actors: transitions, trajectories and decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.spaces import joint_action
from inference_marl.types.seat import Seat

Memory = dict[str, Tensor]
"""An actor's memory: named tensors `replicates x environments x ...`; empty for most actors."""


class Decision(NamedTuple):
    """An actor's choice at one step.

    Attributes:
        action: `replicates x environments x event`.
        memory: the actor's memory after deciding.
        log_prob: log-probability of the action, `replicates x environments`; `None` if the policy has no density or the
            learner does not need it.
        info: other tensors that learning from this step needs, `replicates x environments x ...`.
    """

    action: Tensor
    memory: Memory
    log_prob: Tensor | None = None
    info: Mapping[str, Tensor] = {}


class Start(NamedTuple):
    """Where episodes and tasks begin, `replicates x environments`.

    Attributes:
        episode: bool; true where an episode begins.
        new_task: bool; true where a task begins, which implies a new episode. Without tasks, every episode counts as
            one.
        task: the current task, or `None` without tasks.
    """

    episode: Tensor
    new_task: Tensor
    task: Tensor | None = None

    @classmethod
    def everywhere(cls, replicates: int, environments: int, device: torch.device, task: Tensor | None = None) -> Start:
        """The start of the first episode of the first task in every environment."""
        yes = torch.ones(replicates, environments, dtype=torch.bool, device=device)
        return cls(yes, yes, task)


@dataclass(frozen=True, slots=True)
class Experience:
    """A transition as one agent observes it: its own observation and reward, and all agents' actions.

    Attributes:
        seat: the agent's seat.
        obs, action, next_obs: `replicates x batch x event`.
        opponent_actions: one tensor per opponent, `replicates x batch x event`.
        reward, terminated, ended: `replicates x batch`.
    """

    seat: Seat
    obs: Tensor
    action: Tensor
    opponent_actions: tuple[Tensor, ...]
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    ended: Tensor

    @property
    def opponent_action(self) -> Tensor:
        """The opponents' joint action as one variable, a value of `seat.opponent_action`."""
        if not self.opponent_actions:
            return torch.zeros_like(self.reward, dtype=torch.int64)
        return joint_action(self.seat.opponent_actions, self.opponent_actions)

    def of_environment(self, environment: int) -> Experience:
        """The experience of one environment, `replicates x 1`."""
        return self.mapped(lambda value: value[:, environment : environment + 1])

    def first(self, count: int | None) -> Experience:
        """The first `count` transitions, or all if `None`."""
        return self if count is None else self.mapped(lambda value: value[:, :count])

    def mapped(self, how: Callable[[Tensor], Tensor]) -> Experience:
        """The experience with a function applied to every tensor."""
        names = ("obs", "action", "reward", "next_obs", "terminated", "ended")
        changed: dict[str, Any] = {name: how(getattr(self, name)) for name in names}
        return replace(self, opponent_actions=tuple(map(how, self.opponent_actions)), **changed)


@dataclass(slots=True)
class Transition:
    """One step of all agents, `replicates x environments`, with a leading time dimension where steps are stacked.

    Attributes:
        obs, actions, next_obs: one tensor per agent, `replicates x environments x event`. `next_obs` precedes any
            reset.
        rewards: `replicates x environments x agents`.
        terminated: bool, `replicates x environments`; true in terminal states, where values are not bootstrapped. A
            time limit is not termination.
        ended: bool, the same shape; true where the episode is over for either reason, so that the next transition
            belongs to another episode.
        log_probs: per agent, `replicates x environments`, or `None`; see `Decision`.
        infos: per agent, see `Decision`.
        alive, next_alive: bool, `replicates x environments x agents`; whether an agent acted, and whether it goes on.
            `None` if all do.
        masks, next_masks: legal actions per agent before and after the step; see `Observed`.
        task: the current task, `replicates x environments`.
        judged: the game's scores of the episodes, if all end with this step; see `Outcome`. It is never stacked.
        task_ended: bool, `replicates x environments`; true where the last episode of the task ends, so that the next
            transition belongs to another trial. `None` without tasks.
    """

    obs: tuple[Tensor, ...]
    actions: tuple[Tensor, ...]
    rewards: Tensor
    next_obs: tuple[Tensor, ...]
    terminated: Tensor
    ended: Tensor
    log_probs: tuple[Tensor | None, ...] = ()
    infos: tuple[Mapping[str, Tensor], ...] = ()
    alive: Tensor | None = None
    next_alive: Tensor | None = None
    masks: tuple[Tensor | None, ...] | None = None
    next_masks: tuple[Tensor | None, ...] | None = None
    task: Tensor | None = None
    judged: Mapping[str, Tensor] | None = None
    task_ended: Tensor | None = None

    @property
    def truncated(self) -> Tensor:
        """Where the episode was truncated: it has ended, but values are bootstrapped."""
        return self.ended & ~self.terminated

    def terminated_for(self, agent: int) -> Tensor:
        """Where this agent's episode terminates: the game has terminated, or the agent has left it."""
        return self.terminated if self.next_alive is None else self.terminated | ~self.next_alive[..., agent]

    def seen_by(self, seat: Seat) -> Experience:
        """The transition as one agent observes it."""
        index = seat.index
        return Experience(
            seat,
            obs=self.obs[index],
            action=self.actions[index],
            opponent_actions=self.actions[:index] + self.actions[index + 1 :],
            reward=self.rewards[..., index],
            next_obs=self.next_obs[index],
            terminated=self.terminated_for(index),
            ended=self.ended,
        )


class Trajectory:
    """Consecutive transitions, and every actor's memory before the first of them.

    Args:
        steps: at least one.
        memories: one per agent; empty for actors without memory.
    """

    __slots__ = ("_stacked", "memories", "steps")

    def __init__(self, steps: Sequence[Transition], memories: tuple[Memory, ...] = ()) -> None:
        self.steps, self.memories = tuple(steps), memories
        self._stacked: Transition | None = None

    @property
    def stacked(self) -> Transition:
        """All steps stacked, `time x replicates x environments x event`; computed on first access."""
        if self._stacked is None:
            self._stacked = _merged(self.steps, torch.stack)
        return self._stacked

    def seen_by(self, seat: Seat) -> Iterator[Experience]:
        """Each step in turn as one agent observes it."""
        return (step.seen_by(seat) for step in self.steps)

    def check_all_act(self, who: str) -> None:
        """Check that all agents act until the end, for learners that would learn from meaningless actions otherwise.

        Raises:
            IncompatibleError: if agents may leave an episode early; `who` names the learner.
        """
        if any(step.alive is not None for step in self.steps):
            raise IncompatibleError(
                f"{who} got a game in which agents may be out, expected one in which all act until the end; choose "
                "another learner or game"
            )

    @property
    def flat(self) -> Transition:
        """All steps concatenated, `replicates x (time environments) x event`, for replay buffers and likelihoods."""
        if len(self.steps) == 1:
            return self.steps[0]
        return _merged(self.steps, lambda values: torch.cat(values, 1))


def _merged(steps: Sequence[Transition], how: Callable[[list[Tensor]], Tensor]) -> Transition:
    def merge(values: Sequence[Any]) -> Any:
        first = values[0]
        if first is None and all(value is None for value in values):
            return None
        if any(value is None for value in values):
            raise ValueError("a trajectory: got steps of which only some have a field, expected all or none")
        if isinstance(first, Tensor):
            return how(list(values))
        if isinstance(first, Mapping):
            return {key: merge([value[key] for value in values]) for key in first}
        return tuple(merge(each) for each in zip(*values, strict=True))

    names = [each.name for each in fields(Transition) if each.name != "judged"]
    return Transition(**{name: merge([getattr(step, name) for step in steps]) for name in names})


def choose(where: Tensor, yes: Mapping[str, Tensor], no: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select from named tensors `replicates x environments x ...`: `yes` where `where` is true, `no` elsewhere."""
    return {key: select(where, [value, yes[key]]) for key, value in no.items()}


def select(which: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Select one of several tensors `replicates x environments x ...` per environment, by the indices `which`."""
    selected = values[0]
    for number, value in enumerate(values[1:], start=1):
        here = which if which.dtype == torch.bool else which == number
        selected = torch.where(here.view(*here.shape, *[1] * (value.dim() - 2)), value, selected)
    return selected
