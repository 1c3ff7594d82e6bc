"""Simulates separate copies of a parallel environment, in this process or in worker processes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from inference_marl.simulators.copies import combined
from inference_marl.simulators.environment import Array, Layout, Seen
from inference_marl.simulators.processes import GRACE, Elsewhere, Here, Host
from inference_marl.simulators.recipe import Recipe
from inference_marl.simulators.values import finite_actions
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Observed, Outcome, Simulator

LONGEST = 10_000
"""Maximum number of an episode's steps that are kept, to replay it when a run is resumed."""
BOUND = 1e30
"""Bounds beyond this count as infinite, such as the largest number of single precision."""


@dataclass(frozen=True)
class Plan:
    """How to make copies of an environment, where to play them, and their spaces.

    Attributes:
        recipe: how to make a copy.
        processes: number of worker processes that share the copies; 0 for this process.
        timeout: seconds that a worker may take to answer.
        layout: the agents and spaces of the environment.
        observations, action_spaces: one of this package's spaces per agent.
    """

    recipe: Recipe
    processes: int
    timeout: float
    layout: Layout
    observations: tuple[Space, ...]
    action_spaces: tuple[Space, ...]

    @classmethod
    def of(
        cls,
        path: str,
        arguments: Mapping[str, Any],
        agents_leave: bool,
        horizon: int | None,
        processes: int,
        timeout: float,
    ) -> Plan:
        """Make an environment and try it; arguments and errors are those of `PettingZoo`."""
        recipe = Recipe(path, dict(arguments), agents_leave, horizon)
        host = _host(recipe, processes, timeout, ["tried before a run"])
        try:
            host.hear()
            host.ask("layout", patience=10.0)
            layout: Layout = host.hear()
        finally:
            host.close(GRACE)
        try:
            observations = tuple(_space(space, loose=True) for space in layout.observations)
            action_spaces = tuple(_space(space) for space in layout.action_spaces)
        except ValueError as error:
            raise ValueError(
                f"env: got {path} with a space that cannot be used ({error}), expected low < high"
            ) from error
        return cls(recipe, processes, timeout, layout, observations, action_spaces)

    def host(self, names: Sequence[str]) -> Host:
        """Start a host of copies with these names; they exist once it has answered."""
        return _host(self.recipe, self.processes, self.timeout, names, self.layout.masked)


def _host(
    recipe: Recipe, processes: int, timeout: float, names: Sequence[str], masked: Sequence[bool] | None = None
) -> Host:
    return Elsewhere(recipe, names, masked, timeout) if processes else Here(recipe, names, masked)


class PettingZooSimulator(Simulator):
    """Simulates `replicates x environments` separate copies of an environment; see `PettingZoo`."""

    checks_itself = True

    def __init__(
        self, plan: Plan, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, seed: int
    ) -> None:
        self.plan, self.shape, self.seed = plan, (replicates, environments), seed
        self.device, self.dtype = device, dtype
        self.observations, self.action_spaces = plan.observations, plan.action_spaces
        copies = replicates * environments
        parts = np.array_split(range(copies), max(1, min(plan.processes, copies)))
        self._ranges = [range(int(part[0]), int(part[-1]) + 1) for part in parts]
        self._hosts: list[Host] = []
        with self._closed_if_it_fails():
            self._hosts += [plan.host([self._name(n) for n in each]) for each in self._ranges]
            for host in self._hosts:
                host.hear()
        self._episodes = np.zeros(copies, dtype=np.int64)  # episodes begun in each copy
        self._since = np.zeros(copies, dtype=np.int64)  # steps of the current episode
        self._log: list[list[Array]] = []  # actions of the last steps, as many as the longest episode needs
        self._seen: Seen | None = None

    def reset(self, where: Tensor | None = None, task: Tensor | None = None) -> None:
        """Begin episodes, see `Simulator.reset`; the task is ignored, as it is for actors only."""
        begun = np.ones(self._episodes.size, dtype=bool)
        if where is not None and self._seen is not None:
            begun = where.cpu().numpy().reshape(-1)
        self._episodes[begun] += 1
        self._since[begun] = 0
        seeds = {int(copy): self._seed(int(copy)) for copy in np.flatnonzero(begun)}
        answers = self._ask("begin", lambda its: [{copy - its.start: seeds[copy] for copy in its if copy in seeds}])
        self._seen = combined(np.concatenate, answers)

    def observe(self) -> Observed:
        """The current observation of each agent."""
        assert self._seen is not None
        obs = tuple(map(self._tensor, self.observations, self._seen.obs))
        masks: tuple[Tensor | None, ...] | None = None
        if any(mask is not None for mask in self._seen.masks):
            masks = tuple(None if mask is None else self._flags(mask) for mask in self._seen.masks)
        return Observed(obs, self._flags(self._seen.alive) if self.plan.recipe.agents_leave else None, masks)

    def step(self, actions: Sequence[Tensor]) -> Outcome:
        """Play a joint action, see `Simulator.step`.

        Raises:
            ValueError: if an environment fails or returns something invalid; the message, in one line, names
                environment, replicate, agent and step.
        """
        played = [action.detach().cpu().flatten(0, 1).numpy() for action in finite_actions(self.action_spaces, actions)]
        self._since += 1
        self._log = [*self._log, played][-min(int(self._since.max()), LONGEST) :] if self.plan.layout.repeats else []
        answers = self._ask("step", lambda its: [[action[its] for action in played]])
        seen, rewards, terminated, ended = zip(*answers, strict=True)
        self._seen = combined(np.concatenate, seen)
        paid = torch.from_numpy(np.concatenate(rewards)).view(*self.shape, -1).to(self.device, self.dtype)
        return Outcome(paid, self._flags(np.concatenate(terminated)), self._flags(np.concatenate(ended)))

    def close(self) -> None:
        """Close all environments, and end their processes."""
        for host in self._hosts:
            host.close(GRACE)

    def state_dict(self) -> dict[str, Any]:
        """The number of episodes begun in each copy, and the actions of the current one.

        The state of an environment is not plain data, so it is restored by replaying the episode.
        """
        seen = [] if self._seen is None else [torch.from_numpy(obs.copy()) for obs in self._seen.obs]
        actions = [torch.from_numpy(np.stack(each)) for each in zip(*self._log, strict=True)]
        numbers = {"episodes": torch.from_numpy(self._episodes.copy()), "since": torch.from_numpy(self._since.copy())}
        return {**numbers, "actions": actions, "seen": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> Tensor | None:
        """Restore from `state_dict`; return where episodes could not be replayed, see `Simulator.load_state_dict`."""
        self._episodes, self._since = (state[name].cpu().numpy().copy() for name in ("episodes", "since"))
        if not state["seen"]:
            self._seen = None
            return None
        self._log = [list(each) for each in zip(*(each.cpu().numpy() for each in state["actions"]), strict=True)]
        self._seen, there = self._again()
        for now, before in zip(self._seen.obs, state["seen"], strict=True):
            there &= (now == before.cpu().numpy()).reshape(len(there), -1).all(1)
        if there.all():
            return None
        if self.plan.layout.repeats:
            warnings.warn(
                f"{self.plan.recipe.path}: got other observations when its episodes were played again, expected those "
                f"of before; in {int((~there).sum())} of {len(there)} environments new ones begin, and numbers may "
                "differ from those of an unbroken run",
                stacklevel=2,
            )
        return self._flags(~there)

    def _again(self) -> tuple[Seen, Array]:
        """Replay the current episodes; return the observations, and whether each copy could be restored."""
        none = [np.zeros((0, self._episodes.size))] * len(self.action_spaces)
        log = [np.stack(each) for each in zip(*self._log, strict=True)] or none
        steps = np.where(self._since <= len(self._log), self._since, 0)
        answers = self._ask(
            "again",
            lambda its: [[self._seed(copy) for copy in its], steps[its].tolist(), [each[:, its] for each in log]],
            patience=1.0 + float(steps.max()),
        )
        seen, done = zip(*answers, strict=True)
        return combined(np.concatenate, seen), np.concatenate(done) & (self._since == steps)

    def _name(self, copy: int) -> str:
        replicate, environment = divmod(copy, self.shape[1])
        return f"copy {copy} (replicate {replicate}, environment {environment})"

    def _seed(self, copy: int) -> int:
        """The seed of a copy's current episode."""
        replicate, environment = divmod(copy, self.shape[1])
        said = [self.seed, replicate, environment, int(self._episodes[copy])]
        return int(np.random.SeedSequence(said).generate_state(1)[0] >> 1)

    def _ask(self, what: str, arguments: Callable[[range], list[Any]], patience: float = 1.0) -> list[Any]:
        """Call a method on all hosts, each with the arguments for its copies, and return the answers."""
        with self._closed_if_it_fails():
            for host, its in zip(self._hosts, self._ranges, strict=True):
                host.ask(what, *arguments(its), patience=patience)
            return [host.hear() for host in self._hosts]

    @contextmanager
    def _closed_if_it_fails(self) -> Iterator[None]:
        """Close the simulator if anything fails inside the context, so that no worker process is left."""
        try:
            yield
        except BaseException:
            for host in self._hosts:
                host.close(0.0)
            raise

    def _flags(self, values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).view(*self.shape, *values.shape[1:]).to(self.device)

    def _tensor(self, space: Space, values: Array) -> Tensor:
        kind = space.stored(self.dtype)
        return torch.from_numpy(values).view(*self.shape, *space.event_shape).to(self.device, kind)


def _space(space: gymnasium.Space[Any], loose: bool = False) -> Space:
    """Convert a space to one of this package's; in a `loose` box, bounds without a number between them are dropped."""
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    assert isinstance(space, spaces.Box)
    low, high = (np.asarray(edge, dtype=np.float64) for edge in (space.low, space.high))
    low, high = (np.where(np.abs(edge) > BOUND, np.copysign(math.inf, edge), edge) for edge in (low, high))
    if loose:
        low, high = np.where(low < high, low, -math.inf), np.where(low < high, high, math.inf)
    if (low == low.flat[0]).all() and (high == high.flat[0]).all():
        return Box(float(low.flat[0]), float(high.flat[0]), space.shape or 1)
    return Box(low.flatten().tolist(), high.flatten().tolist(), low.size)
