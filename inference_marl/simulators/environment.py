"""PettingZoo environments as arrays by seat, with checks of everything that they return at every step.

This module does not import torch, so that worker processes start quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from inference_marl.described import first_line
from inference_marl.simulators.chances import Chances
from inference_marl.simulators.recipe import RAISED, FaultError, Recipe

Array = NDArray[Any]

LARGEST = float(np.finfo(np.float32).max)
"""Maximum absolute value of rewards and of numbers in observations."""
LOOKED_AT = 3
"""Number of steps for which an environment is tried before a run."""
MASK = "action_mask"
"""PettingZoo's name of the mask of legal actions, in observations and in `infos`."""


@dataclass(frozen=True)
class Layout:
    """The agents and spaces of an environment.

    Attributes:
        agents: names of the agents, in the order of seats.
        observations, action_spaces: Gymnasium spaces, one per agent.
        masked: whether each agent receives a mask of legal actions.
        repeats: whether the same seed and actions gave the same results, when it was tried.
    """

    agents: tuple[Any, ...]
    observations: tuple[gymnasium.Space[Any], ...]
    action_spaces: tuple[gymnasium.Space[Any], ...]
    masked: tuple[bool, ...]
    repeats: bool


class Seen(NamedTuple):
    """The observations of all agents, in one environment or in several, with a leading dimension `copies`.

    Attributes:
        obs: one array per agent, `event`; zeros for an agent that has left.
        alive: whether each agent goes on, `agents`.
        masks: legal actions per agent, `actions`; `None` for agents without masks.
    """

    obs: list[Array]
    alive: Array
    masks: list[Array | None]


class Played(NamedTuple):
    """The result of a step, in one environment or in several, as `Seen`.

    Attributes:
        seen: the observations after the step.
        rewards: `agents`.
        terminated, ended: whether the game has terminated, and whether the episode has ended.
    """

    seen: Seen
    rewards: Array
    terminated: bool | Array
    ended: bool | Array


class Environment:
    """One environment, with agents identified by their seats.

    Args:
        recipe: how to make it.
        name: its name in messages.
        masked: whether each agent receives masks of legal actions; inferred from the first observation if `None`.
    """

    def __init__(self, recipe: Recipe, name: str = "", masked: Sequence[bool] | None = None) -> None:
        self.recipe, self.name, self.chances = recipe, name, Chances()
        with self.chances.used(0):
            self.env = recipe.make()
        self.agents = tuple(getattr(self.env, "possible_agents", ()))
        if not self.agents:
            raise FaultError(f"env: got {recipe.path} without possible_agents, expected all agents that there may be")
        self.observations = tuple(self._space("observation", agent) for agent in self.agents)
        self.action_spaces = tuple(self._space("action", agent) for agent in self.agents)
        self.masked = masked
        self.alive = np.zeros(len(self.agents), dtype=bool)
        self.clock = 0

    def layout(self) -> Layout:
        """The layout; plays a few steps, twice, to find out whether the environment is reproducible.

        Raises:
            FaultError: if the environment returns something invalid.
        """
        first, second = (self._tried() for _ in range(2))
        assert self.masked is not None
        repeats = len(first) == len(second) and all(map(np.array_equal, first, second))
        return Layout(self.agents, self.observations, self.action_spaces, tuple(self.masked), repeats)

    def _tried(self) -> list[Array]:
        """The results of the first steps, with always the same actions; copied, since arrays may be reused."""
        seen = self.begin(0)
        found = [*map(np.array, seen.obs), seen.alive]
        chances = np.random.default_rng(0)
        for _ in range(LOOKED_AT):
            acting = zip(self.action_spaces, seen.masks, strict=True)
            seen, rewards, _, ended = self.step([_some_action(space, mask, chances) for space, mask in acting])
            found += [*map(np.array, seen.obs), seen.alive, rewards]
            if ended:
                break
        return found

    def begin(self, seed: int) -> Seen:
        """Begin an episode, whose randomness is determined by the seed."""
        self.clock = 0
        with self._asked("observations", " from reset"), self.chances.used(seed):
            obs, infos = self.env.reset(seed=seed)
        there = self._there()
        self.alive = np.array([agent in there for agent in self.agents])
        if not self.alive.all() and not self.recipe.agents_leave:
            missing = self.agents[int(np.argmin(self.alive))]
            self._refuse("no such agent", "all to be there from the beginning; or say agents_leave: true", missing)
        return self._seen(obs, infos, self.alive, self.alive)

    def step(self, actions: Sequence[Array]) -> Played:
        """Play a joint action; the actions of agents that have left are ignored."""
        acted = self.alive
        said = {
            agent: _said(space, action)
            for agent, space, action, there in zip(self.agents, self.action_spaces, actions, acted, strict=True)
            if there
        }
        self.clock += 1
        with self._asked("a step"), self.chances.used():
            obs, rewards, terminations, truncations, infos = self.env.step(said)
        there = self._there()
        paid = np.zeros(len(self.agents))
        over, cut = np.zeros_like(acted), np.zeros_like(acted)
        for seat, agent in enumerate(self.agents):
            if acted[seat]:
                paid[seat] = self._reward(rewards, agent)
                over[seat], cut[seat] = (self._end(each, agent) for each in (terminations, truncations))
        going = acted & ~over & ~cut
        self._check_leaving(acted, going, over, there)
        ended = not going.any()
        # Agents truncated together with the last ones may be bootstrapped, so they count as going on.
        self.alive = acted & ~over if ended else going
        seen = self._seen(obs, infos, acted, self.alive, going)
        limit = self.recipe.horizon is not None and self.clock >= self.recipe.horizon
        return Played(seen, paid, bool(ended and over[acted].all()), bool(ended or limit))

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _space(self, what: str, agent: Any) -> gymnasium.Space[Any]:
        try:
            space: gymnasium.Space[Any] = getattr(self.env, f"{what}_space")(agent)
        except RAISED as error:
            raise FaultError(
                f"env: got {type(error).__name__} ({first_line(error)}) from {self.recipe.path} when asked for the "
                f"{what} space of agent {agent}, expected one"
            ) from error
        if what == "observation" and isinstance(space, spaces.Dict) and "observation" in space.spaces:
            space = space["observation"]
        kinds = "iufb" if what == "observation" else "f"
        of_numbers = isinstance(space, spaces.Box) and space.dtype.kind in kinds and 0 not in space.shape
        if isinstance(space, spaces.Discrete) or of_numbers:
            return space
        expected = "Discrete, or Box of numbers" if what == "observation" else "Discrete, or Box of floating numbers"
        also = ', or Dict with an "observation" of these' if what == "observation" else ""
        got = " ".join(str(space).split())
        raise FaultError(
            f"env: got {got} as the {what} space of agent {agent} in {self.recipe.path}, expected {expected}{also}"
        )

    @contextmanager
    def _asked(self, expected: str, where: str = "") -> Iterator[None]:
        """Convert errors of third-party code inside the context to `FaultError`."""
        try:
            yield
        except RAISED as error:
            self._refuse(f"{type(error).__name__} ({first_line(error)}){where}", expected, error=error)

    def _there(self) -> set[Any]:
        """The agents that the environment currently has."""
        with self._asked("agents"):
            there = set(self.env.agents)
        if not there <= set(self.agents):
            stranger = next(iter(there - set(self.agents)))
            known = ", ".join(map(str, self.agents))
            self._refuse("an agent that appears from nowhere", f"one of possible_agents: {known}", stranger)
        return there

    def _check_leaving(self, acted: Array, going: Array, over: Array, there: set[Any]) -> None:
        """Check that no agents appear, leave without an end or, unless `agents_leave`, end before the others."""
        for seat, agent in enumerate(self.agents):
            if agent in there and not acted[seat]:
                self._refuse("an agent that was not there before", "none to join or to come back", agent)
            if agent not in there and going[seat]:
                self._refuse("an agent that is gone", "it to be terminated or truncated before it leaves", agent)
        if self.recipe.agents_leave or (going == acted).all():
            return
        if going.any():
            self._refuse(
                "an agent that leaves before the others",
                "all to stay until the end; or say agents_leave: true",
                self.agents[int(np.argmax(acted & ~going))],
            )
        if not over[acted].all() and over[acted].any():
            self._refuse(
                "an end that terminates it and cuts others off",
                "the same end for all; or say agents_leave: true",
                self.agents[int(np.argmax(over))],
            )

    def _of(self, values: Any, agent: Any, what: str) -> Any:
        if not isinstance(values, Mapping) or agent not in values:
            self._refuse(f"no {what}", "one for every agent that acted", agent)
        return values[agent]

    def _end(self, ends: Any, agent: Any) -> bool:
        given = self._of(ends, agent, "end")
        end = np.asarray(given)
        if end.shape != () or end.dtype.kind not in "biu":
            self._refuse(f"{_short(given)} as its end", "true or false", agent)
        return bool(end)

    def _reward(self, rewards: Any, agent: Any) -> float:
        given = self._of(rewards, agent, "reward")
        reward = np.asarray(given)
        if reward.size != 1 or reward.dtype.kind not in "iufb":
            self._refuse(f"{_short(given)} as its reward", "a number", agent)
        if not np.isfinite(reward).all():
            self._refuse(f"a reward of {reward.item()}", "a finite number", agent)
        if abs(reward.item()) > LARGEST:
            self._refuse(f"a reward of {reward.item():.3g}", "one that single precision can hold", agent)
        return float(reward.item())

    def _seen(self, obs: Any, infos: Any, acted: Array, wanted: Array, choosing: Array | None = None) -> Seen:
        """The agents' observations, required for the agents in `wanted`; agents in `choosing` may have masks."""
        choosing = wanted if choosing is None else choosing
        seen: list[Array] = []
        masks: list[Array | None] = []
        masked = self.masked or [self._is_masked(obs, infos, agent) for agent in self.agents]
        for seat, agent in enumerate(self.agents):
            space = self.observations[seat]
            given = obs.get(agent) if isinstance(obs, Mapping) and acted[seat] else None
            if given is None and wanted[seat]:
                self._refuse("no observation", "one for every agent that goes on", agent)
            inner = given["observation"] if isinstance(given, Mapping) and "observation" in given else given
            seen.append(_nothing(space) if inner is None else self._observation(space, inner, agent))
            masks.append(self._mask(given, infos, seat, bool(choosing[seat])) if masked[seat] else None)
        self.masked = masked
        return Seen(seen, wanted.copy(), masks)

    def _observation(self, space: gymnasium.Space[Any], given: Any, agent: Any) -> Array:
        value = np.asarray(given)
        if isinstance(space, spaces.Discrete):
            if value.shape != () or value.dtype.kind not in "iu":
                self._refuse(f"{_short(given)} as its observation", f"an integer of {space}", agent)
            if not 0 <= int(value) - int(space.start) < int(space.n):
                self._refuse(f"an observation of {int(value)}", f"one of {space}", agent)
            return np.asarray(int(value) - int(space.start))
        if value.dtype.kind not in "iufb" or value.shape != space.shape:
            got = f"an observation of shape {value.shape} and type {value.dtype}"
            self._refuse(got, f"numbers of shape {space.shape}", agent)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            self._refuse(f"an observation with {value[~np.isfinite(value)][0]} in it", "finite numbers", agent)
        if value.dtype.kind == "f" and value.dtype.itemsize > 4 and value.size and np.abs(value).max() > LARGEST:
            largest = f"an observation with {np.abs(value).max():.3g} in it"
            self._refuse(largest, "numbers that single precision can hold", agent)
        return value.astype(np.float64) if value.dtype.itemsize > 8 else value

    def _is_masked(self, obs: Any, infos: Any, agent: Any) -> bool:
        if not isinstance(self.action_spaces[self.agents.index(agent)], spaces.Discrete):
            return False
        return any(
            isinstance(each, Mapping) and isinstance(each.get(agent), Mapping) and MASK in each[agent]
            for each in (obs, infos)
        )

    def _mask(self, given: Any, infos: Any, seat: int, chooses: bool) -> Array:
        """The mask of an agent's legal actions; all actions for an agent that no longer acts."""
        agent, count = self.agents[seat], int(self.action_spaces[seat].n)  # type: ignore[attr-defined]
        if not chooses:
            return np.ones(count, dtype=bool)
        said = infos.get(agent) if isinstance(infos, Mapping) else None
        found = [each[MASK] for each in (given, said) if isinstance(each, Mapping) and MASK in each]
        if not found:
            self._refuse("no action mask", "one at every step, as at the first", agent)
        mask = np.asarray(found[0])
        if mask.shape != (count,) or mask.dtype.kind not in "iufb":
            self._refuse(f"an action mask of shape {mask.shape}", f"({count},), one for each action", agent)
        if not mask.any():
            self._refuse("an action mask without a legal action", "at least one", agent)
        return mask.astype(bool)

    def _refuse(
        self, got: str, expected: str, agent: Any | None = None, error: BaseException | None = None
    ) -> NoReturn:
        where = f"{self.recipe.path}{f', {self.name}' if self.name else ''}, step {self.clock} of its episode"
        whose = "" if agent is None else f", agent {agent}"
        raise FaultError(f"{where}{whose}: got {got}, expected {expected}") from error


def _said(space: gymnasium.Space[Any], action: Array) -> Any:
    """An action in the environment's format, clipped to its space, in case rounding has moved it outside."""
    if isinstance(space, spaces.Discrete):
        return np.int64(int(action) + int(space.start))
    assert isinstance(space, spaces.Box)
    return np.clip(action.reshape(space.shape).astype(space.dtype), space.low, space.high)


def _some_action(space: gymnasium.Space[Any], mask: Array | None, chances: np.random.Generator) -> Array:
    if isinstance(space, spaces.Discrete):
        legal = np.arange(int(space.n)) if mask is None else np.flatnonzero(mask)
        return np.asarray(chances.choice(legal))
    assert isinstance(space, spaces.Box)
    low, high = np.maximum(space.low, -1.0), np.minimum(space.high, 1.0)
    low, high = np.minimum(low, space.high), np.maximum(high, space.low)
    return np.asarray(chances.uniform(low, high))


def _nothing(space: gymnasium.Space[Any]) -> Array:
    return np.zeros(space.shape or (), dtype=np.int64 if isinstance(space, spaces.Discrete) else space.dtype)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
