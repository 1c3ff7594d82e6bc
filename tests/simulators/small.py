"""Tiny parallel environments, each with one trait, which tests name by import path."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

HERE = __name__


class Walk(ParallelEnv):  # type: ignore[misc, type-arg, unused-ignore]
    """Agents on a line, who start anywhere and are paid for being near 0; ends by truncation after `length` steps.

    Args:
        agents: their number.
        length: steps until everybody is truncated.
        ends: whether everybody is terminated then instead.
        seeded: whether the seed says where they start.
        fault: what goes wrong.
        at: at which step of an episode, 0 for `reset`.
        of: for whom.
        starts_only: whether that is only in environments whose start is positive.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "walk"}

    def __init__(
        self,
        agents: int = 2,
        length: int = 4,
        ends: bool = False,
        seeded: bool = True,
        fault: str = "",
        at: int = 2,
        of: int = 1,
        starts_only: bool = False,
    ) -> None:
        self.possible_agents = [f"walker_{i}" for i in range(agents)]
        self.agents: list[str] = []
        self.length, self.ends, self.seeded = length, ends, seeded
        self.fault, self.at, self.of, self.starts_only = fault, at, f"walker_{of}", starts_only
        self.space: gymnasium.Space[Any] = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action: gymnasium.Space[Any] = spaces.Box(np.float32(-0.5), np.float32(2.0), (1,), np.float32)
        self.chances = np.random.default_rng()
        self.received: list[dict[str, Any]] = []

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        return self.space

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        return self.action

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.chances = np.random.default_rng(seed if self.seeded else None)
        self.agents = list(self.possible_agents)
        self.steps = 0
        self.places = {agent: self.chances.normal() for agent in self.agents}
        self.faulty = not self.starts_only or self.places[self.possible_agents[0]] > 0
        obs, infos = self.see(), {agent: {} for agent in self.agents}
        if self.due():
            self.go_wrong(obs, {}, {}, {})
        return obs, infos

    def see(self) -> dict[str, Any]:
        return {agent: np.array([self.places[agent], self.steps], dtype=np.float32) for agent in self.agents}

    def due(self) -> bool:
        return self.faulty and self.steps == self.at

    def step(self, actions: Any) -> Any:
        self.received.append(actions)
        self.steps += 1
        for agent in self.agents:
            self.places[agent] += float(np.sum(actions[agent])) + 0.01 * self.chances.normal()
        over = self.steps >= self.length
        obs = self.see()
        rewards: dict[str, Any] = {agent: -abs(self.places[agent]) for agent in self.agents}
        ended = dict.fromkeys(self.agents, over and self.ends)
        cut = dict.fromkeys(self.agents, over and not self.ends)
        if self.due():
            self.go_wrong(obs, rewards, ended, cut)
        infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not (ended.get(agent) or cut.get(agent))]
        if self.due() and self.fault == "vanishes":
            self.agents.remove(self.of)
        if self.due() and self.fault == "stranger":
            self.agents.append("nobody")
        if self.due() and self.fault == "agents":
            self.agents = None  # type: ignore[assignment]
        return obs, rewards, ended, cut, infos

    def go_wrong(self, obs: Any, rewards: Any, ended: Any, cut: Any) -> None:
        match self.fault:
            case "nan observation":
                obs[self.of][0] = np.nan
            case "infinite reward":
                rewards[self.of] = np.inf
            case "nan reward":
                rewards[self.of] = float("nan")
            case "wrong shape":
                obs[self.of] = np.zeros(3)
            case "wrong type":
                obs[self.of] = np.array(["a", "b"])
            case "reward of words":
                rewards[self.of] = "much"
            case "no reward":
                del rewards[self.of]
            case "no observation":
                del obs[self.of]
            case "no end":
                del ended[self.of]
            case "huge observation":
                obs[self.of] = np.array([1e300, 0.0])
            case "huge reward":
                rewards[self.of] = 1e300
            case "end in words":
                ended[self.of] = "no"
            case "leaves":
                ended[self.of] = True
            case "exception":
                raise RuntimeError("half\nfinished")
            case "dies":
                os._exit(3)
            case "hangs":
                time.sleep(3600)
            case "leaves the program":
                sys.exit("enough")


class Asymmetric(Walk):
    """Boxes whose bounds differ, and discrete values that do not begin at 0."""

    def __init__(self, kind: str = "box") -> None:
        super().__init__()
        self.kind = kind

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        if self.kind == "discrete":
            return spaces.Discrete(4, start=10)
        if self.kind == "image":
            return spaces.Box(0, 255, (4, 5, 3), np.uint8)
        return spaces.Box(np.array([-1, 0, -np.inf, 5]), np.array([1, 9, np.inf, 5]), (4,), np.float64)

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        if self.kind == "discrete":
            return spaces.Discrete(3, start=-1)
        if self.kind == "image":
            return spaces.Box(-1, 1, (2, 2), np.float64)
        return spaces.Box(np.float32([-0.25, 3]), np.float32([1.5, 7]), (2,), np.float32)

    def see(self) -> dict[str, Any]:
        some: Any = {
            "discrete": np.int64(10 + self.steps % 4),
            "image": np.full((4, 5, 3), self.steps, dtype=np.uint8),
            "box": np.array([0.5, 12.0, 3.0, 5.0]),  # the second is out of its bounds
        }[self.kind]
        return dict.fromkeys(self.agents, some)


class Unsupported(Walk):
    """A space that nobody here can use."""

    def __init__(self, what: str, which: str) -> None:
        super().__init__()
        kinds: dict[str, gymnasium.Space[Any]] = {
            "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
            "MultiBinary": spaces.MultiBinary(3),
            "Tuple": spaces.Tuple([spaces.Discrete(2)]),
            "Text": spaces.Text(3),
            "integers": spaces.Box(0, 3, (2,), np.int64),
            "empty": spaces.Box(0, 1, (0,), np.float32),
        }
        if what == "observation":
            self.space = kinds[which]
        else:
            self.action = kinds[which]


class Leaving(Walk):
    """Three agents of whom `walker_k` leaves after `k + 1` steps; the last one is truncated if `cut`."""

    def __init__(self, cut: bool = False, last: bool = True) -> None:
        super().__init__(agents=3, length=99)
        self.cut, self.last = cut, last

    def step(self, actions: Any) -> Any:
        assert sorted(actions) == sorted(self.agents)
        self.received.append(actions)
        self.steps += 1
        who = self.agents
        leaves = {agent: self.steps > int(agent[-1]) for agent in who}
        cut = {agent: leaves[agent] and self.cut and agent == "walker_2" for agent in who}
        ended = {agent: leaves[agent] and not cut[agent] for agent in who}
        obs = self.see()
        if not self.last:  # whoever leaves sees nothing any more
            obs = {agent: seen for agent, seen in obs.items() if not leaves[agent]}
        self.agents = [agent for agent in who if not leaves[agent]]
        return obs, dict.fromkeys(who, 1.0), ended, cut, {agent: {} for agent in who}


class Returning(Leaving):
    """The first agent comes back after the second step."""

    def step(self, actions: Any) -> Any:
        found = super().step(actions)
        if self.steps == 2:
            self.agents = ["walker_0", *self.agents]
        return found


class Masked(Walk):
    """Four actions, of which two are legal at each step; an illegal one raises."""

    def __init__(self, where: str = "infos", none_left: bool = False, forgets: bool = False) -> None:
        super().__init__(length=5)
        self.where, self.none_left, self.forgets = where, none_left, forgets
        self.action = spaces.Discrete(4)

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        if self.where == "infos":
            return self.space
        return spaces.Dict({"observation": self.space, "action_mask": spaces.MultiBinary(4)})

    def legal(self) -> Any:
        mask = np.zeros(4, dtype=np.int8)
        mask[[self.steps % 4, (self.steps + 1) % 4]] = 1
        return mask * 0 if self.none_left and self.steps == 2 else mask

    def told(self, obs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        legal = {} if self.forgets and self.steps == 2 else {"action_mask": self.legal()}
        if self.where == "infos":
            return obs, {agent: dict(legal) for agent in obs}
        return {agent: {"observation": seen, **legal} for agent, seen in obs.items()}, {agent: {} for agent in obs}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        obs, _ = super().reset(seed)
        return self.told(obs)

    def step(self, actions: Any) -> Any:
        mask = self.legal()
        assert all(mask[action] for action in actions.values()), "illegal"
        obs, rewards, ended, cut, _ = super().step(actions)
        obs, infos = self.told(obs)
        return obs, rewards, ended, cut, infos


class Mixed(Walk):
    """Terminates one agent and truncates the other, at once."""

    def step(self, actions: Any) -> Any:
        obs, rewards, ended, cut, infos = super().step(actions)
        if not self.agents:
            ended["walker_0"], cut["walker_0"] = True, False
        return obs, rewards, ended, cut, infos


class Careless(Walk):
    """Draws from the random numbers of Python, numpy and torch that are everybody's, and seeds some of them."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        import torch  # which takes its time in a process

        self.torch = torch

    def draw(self) -> float:
        return random.random() + float(np.random.normal()) + float(self.torch.rand(()))  # noqa: NPY002

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.torch.manual_seed(0 if seed is None else seed)
        super().reset(seed)
        self.places = {agent: self.draw() for agent in self.agents}
        return self.see(), {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        self.places = {agent: place + self.draw() for agent, place in self.places.items()}
        return super().step(actions)


class Remembering(Walk):
    """Notes the seeds of its episodes."""

    seeds: ClassVar[list[int | None]] = []

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.seeds.append(seed)
        return super().reset(seed)


class Parent(Walk):
    """Has a process of its own, whose number it writes to a file."""

    def __init__(self, pids: str, closes: bool = True, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.closes = closes
        self.process = subprocess.Popen(["sleep", "1000"])
        with Path(pids).open("a") as file:
            file.write(f"{self.process.pid}\n")

    def close(self) -> None:
        if self.closes:
            self.process.kill()
            self.process.wait()


class Slow(Walk):
    """Sleeps at every step."""

    def step(self, actions: Any) -> Any:
        time.sleep(0.02)
        return super().step(actions)


class Turns(AECEnv):  # type: ignore[misc, type-arg, unused-ignore]
    """Of PettingZoo's other kind."""


def makes_nothing() -> None:
    """No environment."""


def raises(**arguments: Any) -> Any:
    raise ValueError("not today")


NUMBER = 3


def exported(name: str, **arguments: Any) -> Any:
    """A game of this package, as other libraries see it."""
    from inference_marl import games

    return games.PettingZooGame(getattr(games, name)(**arguments))
