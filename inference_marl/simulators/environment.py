"""PettingZoo environments as arrays, looked at closely: every agent's values at every step, by seat.

Imports nothing of torch's, so that a process that plays environments starts quickly.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv  # type: ignore[import-untyped, unused-ignore]

from inference_marl.described import first_line

Array = NDArray[Any]

RAISED = (Exception, SystemExit)
"""What somebody else's code may raise: leaving the program is none of its business."""
LARGEST = float(np.finfo(np.float32).max)
"""The largest reward or number in an observation."""
LOOKED_AT = 3
"""Steps in which an environment is tried out before a run."""
MASK = "action_mask"
"""What PettingZoo calls legal actions, in an observation or in what it says besides."""


class FaultError(ValueError):
    """Something that an environment does or says and that cannot be used; one line."""


class Recipe(NamedTuple):
    """How an environment is made and understood; plain data.

    Attributes:
        path: import path of what makes it.
        arguments: what that is called with.
        agents_leave: whether agents may leave before the others.
        horizon: steps after which an episode is cut off, beside the environment's own limits.
    """

    path: str
    arguments: Mapping[str, Any]
    agents_leave: bool = False
    horizon: int | None = None

    def make(self) -> ParallelEnv[Any, Any, Any]:
        """Import and call what makes it.

        Raises:
            FaultError: if that cannot be done, or gives anything but a parallel environment; begins with the argument.
        """
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on standard output
        module, _, name = self.path.rpartition(".")
        try:
            home = importlib.import_module(module)
            factory = getattr(home, name)
        except RAISED as error:
            raise FaultError(
                f"env: got {self.path}, which cannot be imported ({type(error).__name__}: {first_line(error)}), "
                "expected the import path of what makes a parallel environment; install its package, or put its file "
                "beside the experiment's"
            ) from error
        if not callable(factory):
            raise FaultError(
                f"env: got {self.path}, a {type(factory).__name__}, expected what makes a parallel environment"
            )
        if not ((isinstance(factory, type) and issubclass(factory, ParallelEnv)) or _uses_pettingzoo(home)):
            raise FaultError(
                f"env: got {self.path}, which has nothing to do with PettingZoo and was not called, expected a class "
                "below ParallelEnv, or a function of a module that imports PettingZoo, or such a class, at its top"
            )
        try:
            made = factory(**self.arguments)
        except RAISED as error:
            raise FaultError(
                f"arguments: got {dict(self.arguments)}, with which {self.path} raises {type(error).__name__} "
                f"({first_line(error)}), expected arguments that it takes"
            ) from error
        if not isinstance(made, ParallelEnv):
            hint = f"; its module may have {module}.parallel_env" if name == "env" else ""
            raise FaultError(f"env: got {self.path}, which makes a {type(made).__name__}, expected a ParallelEnv{hint}")
        return made


@dataclass(frozen=True)
class Layout:
    """What an environment is made of.

    Attributes:
        agents: their names, in the order of seats.
        observations, action_spaces: gymnasium's spaces, one per agent.
        masked: which agents are told what is legal.
        repeats: whether the same seed and actions lead to the same, as far as that was tried.
    """

    agents: tuple[Any, ...]
    observations: tuple[gymnasium.Space[Any], ...]
    action_spaces: tuple[gymnasium.Space[Any], ...]
    masked: tuple[bool, ...]
    repeats: bool


class Seen(NamedTuple):
    """What all agents see.

    Attributes:
        obs: one array per agent, `event`; zeros for an agent that is out.
        alive: which agents go on, `agents`.
        masks: one per agent, `actions`, or `None` for those who are never told.
    """

    obs: list[Array]
    alive: Array
    masks: list[Array | None]


class Played(NamedTuple):
    """What a step brings.

    Attributes:
        seen: after it.
        rewards: `agents`.
        terminated, ended: whether the game is over, and whether the episode is.
    """

    seen: Seen
    rewards: Array
    terminated: bool
    ended: bool


class Chances:
    """Python's, numpy's and torch's global random numbers as one environment has them, apart from everybody else's.

    So an environment that draws from them repeats what it did, draws nothing from a learner's, and does not depend on
    how many others there are. Torch's are those of the CPU, once something has imported torch.
    """

    def __init__(self) -> None:
        self._own: tuple[Any, ...] | None = None

    @contextmanager
    def used(self, seed: int | None = None) -> Iterator[None]:
        """What is drawn inside is the environment's, from the seed on if there is one."""
        before = _chances()
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - the global stream is what this is about
            if (torch := sys.modules.get("torch")) is not None:
                torch.random.default_generator.manual_seed(seed)
        elif self._own is not None:
            _set_chances(self._own)
        try:
            yield
        finally:
            self._own = _chances()
            _set_chances(before)


def _chances() -> tuple[Any, ...]:
    torch = sys.modules.get("torch")
    return random.getstate(), np.random.get_state(), None if torch is None else torch.get_rng_state()  # noqa: NPY002


def _set_chances(states: tuple[Any, ...]) -> None:
    of_python, of_numpy, of_torch = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)  # noqa: NPY002
    if of_torch is not None:
        sys.modules["torch"].set_rng_state(of_torch)


class Environment:
    """One environment, whose agents have the numbers of their seats.

    Args:
        recipe: how it is made.
        name: which of several it is, for messages.
        masked: which agents are told what is legal; found out in the first observation if `None`.
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
        """What it is made of, and whether its seed says all; plays a few steps, twice.

        Raises:
            FaultError: if something cannot be used.
        """
        first, second = (self._tried() for _ in range(2))
        assert self.masked is not None
        repeats = len(first) == len(second) and all(map(np.array_equal, first, second))
        return Layout(self.agents, self.observations, self.action_spaces, tuple(self.masked), repeats)

    def _tried(self) -> list[Array]:
        """What the first steps bring, with actions that are always the same; copied, since arrays may be used again."""
        seen = self.begin(0)
        found = [*map(np.array, seen.obs), seen.alive]
        chances = np.random.default_rng(0)
        for _ in range(LOOKED_AT):
            seen, rewards, _, ended = self.step(
                [_some_action(space, mask, chances) for space, mask in self._acting(seen)]
            )
            found += [*map(np.array, seen.obs), seen.alive, rewards]
            if ended:
                break
        return found

    def _acting(self, seen: Seen) -> list[tuple[gymnasium.Space[Any], Array | None]]:
        return list(zip(self.action_spaces, seen.masks, strict=True))

    def begin(self, seed: int) -> Seen:
        """Begin an episode, in which all that is random follows from the seed."""
        self.clock = 0
        try:
            with self.chances.used(seed):
                obs, infos = self.env.reset(seed=seed)
            there = set(self.env.agents)
        except RAISED as error:
            self._refuse(f"{type(error).__name__} ({first_line(error)}) from reset", "observations", error=error)
        self._check_known(there)
        self.alive = np.array([agent in there for agent in self.agents])
        if not self.alive.all() and not self.recipe.agents_leave:
            missing = self.agents[int(np.argmin(self.alive))]
            self._refuse("no such agent", "all to be there from the beginning; or say agents_leave: true", missing)
        return self._seen(obs, infos, self.alive, self.alive)

    def step(self, actions: Sequence[Array]) -> Played:
        """Play one joint action, of which those of agents that are out are ignored."""
        acted = self.alive
        said = {
            agent: _said(space, action)
            for agent, space, action, there in zip(self.agents, self.action_spaces, actions, acted, strict=True)
            if there
        }
        self.clock += 1
        try:
            with self.chances.used():
                obs, rewards, terminations, truncations, infos = self.env.step(said)
            there = set(self.env.agents)
        except RAISED as error:
            self._refuse(f"{type(error).__name__} ({first_line(error)})", "a step", error=error)
        self._check_known(there)
        paid = np.zeros(len(self.agents))
        over, cut = np.zeros_like(acted), np.zeros_like(acted)
        for seat, agent in enumerate(self.agents):
            if not acted[seat]:
                if agent in there:
                    self._refuse("an agent that was not there before", "none to join or to come back", agent)
                continue
            paid[seat] = self._reward(rewards, agent)
            over[seat], cut[seat] = (self._end(each, agent) for each in (terminations, truncations))
            if agent not in there and not (over[seat] or cut[seat]):
                self._refuse("an agent that is gone", "it to be terminated or truncated before it leaves", agent)
        going = acted & ~over & ~cut
        ended = not going.any()
        self._check_leaving(acted, over, cut)
        # Whoever is cut off together with the last ones may be bootstrapped, so counts as going on.
        self.alive = acted & ~over if ended else going
        seen = self._seen(obs, infos, acted, self.alive, going)
        limit = self.recipe.horizon is not None and self.clock >= self.recipe.horizon
        return Played(seen, paid, bool(ended and over[acted].all()), bool(ended or limit))

    def close(self) -> None:
        """Give back what it holds."""
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

    def _check_known(self, there: set[Any]) -> None:
        if not there <= set(self.agents):
            stranger = next(iter(there - set(self.agents)))
            known = ", ".join(map(str, self.agents))
            self._refuse("an agent that appears from nowhere", f"one of possible_agents: {known}", stranger)

    def _check_leaving(self, acted: Array, over: Array, cut: Array) -> None:
        """Refuse agents that do not all end alike, unless that is expected."""
        if self.recipe.agents_leave or not (over | cut).any():
            return
        going = acted & ~over & ~cut
        if going.any():
            self._refuse(
                "an agent that leaves before the others",
                "all to stay until the end; or say agents_leave: true",
                self.agents[int(np.argmax(over | cut))],
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
        """What agents see: of those that are `wanted` it must be there; those that are `choosing` may be masked."""
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
        """What is legal for an agent; everything for one that does not choose any more."""
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


class Batch(NamedTuple):
    """What is seen in several environments, which every array leads with.

    Attributes:
        obs: one array per agent, `copies x event`.
        alive: `copies x agents`.
        masks: one per agent, `copies x actions`, or `None`.
    """

    obs: list[Array]
    alive: Array
    masks: list[Array | None]

    @classmethod
    def of(cls, several: Sequence[Seen]) -> Batch:
        """Stacked."""
        obs = [np.stack(values) for values in zip(*(seen.obs for seen in several), strict=True)]
        alive = np.stack([seen.alive for seen in several])
        each = zip(*(seen.masks for seen in several), strict=True)
        masks = [None if any(mask is None for mask in values) else np.stack(values) for values in each]
        return cls(obs, alive, masks)

    @classmethod
    def joined(cls, several: Sequence[Batch]) -> Batch:
        """One after another."""
        obs = [np.concatenate(values) for values in zip(*(batch.obs for batch in several), strict=True)]
        alive = np.concatenate([batch.alive for batch in several])
        each = zip(*(batch.masks for batch in several), strict=True)
        masks = [None if any(mask is None for mask in values) else np.concatenate(values) for values in each]
        return cls(obs, alive, masks)


class Copies:
    """Several environments made alike: what a process plays.

    Args:
        recipe: how they are made.
        names: which ones they are, for messages.
        masked: see `Environment`.
    """

    def __init__(self, recipe: Recipe, names: Sequence[str], masked: Sequence[bool] | None = None) -> None:
        self.all = [Environment(recipe, name, masked) for name in names]
        self._seen: list[Seen | None] = [None] * len(self.all)

    def layout(self) -> Layout:
        """See `Environment.layout`, of the first."""
        return self.all[0].layout()

    def begin(self, seeds: Mapping[int, int]) -> Batch:
        """Begin episodes with these seeds, by number of the environment; what is seen in all."""
        for number, seed in seeds.items():
            self._seen[number] = self.all[number].begin(seed)
        return self._batch()

    def step(self, actions: Sequence[Array]) -> tuple[Batch, Array, Array, Array]:
        """Play a step in all, with one array of actions per agent, `copies x event`.

        Returns:
            What is seen, rewards `copies x agents`, and where the game is over and the episode is, `copies`.
        """
        played = [env.step([action[number] for action in actions]) for number, env in enumerate(self.all)]
        self._seen = [each.seen for each in played]
        rewards = np.stack([each.rewards for each in played])
        return (
            self._batch(),
            rewards,
            np.array([each.terminated for each in played]),
            np.array([each.ended for each in played]),
        )

    def again(self, seeds: Sequence[int], steps: Sequence[int], actions: Sequence[Array]) -> tuple[Batch, Array]:
        """Play episodes again up to where they were.

        Args:
            seeds: those of the episodes, `copies`.
            steps: how many steps each has had, `copies`.
            actions: one array per agent, `time x copies x event`, of which each episode has had the last ones.

        Returns:
            What is seen then, and where that could be done, `copies`.
        """
        done = np.ones(len(self.all), dtype=bool)
        for number, (env, seed, count) in enumerate(zip(self.all, seeds, steps, strict=True)):
            seen = env.begin(seed)
            try:
                for time in range(len(actions[0]) - count, len(actions[0])):
                    seen = env.step([action[time, number] for action in actions]).seen
            except FaultError:  # since it is another episode
                done[number] = False
            self._seen[number] = seen
        return self._batch(), done

    def close(self) -> None:
        """Give back what they hold."""
        for env in self.all:
            with suppress(*RAISED):  # what matters has been said, or is on its way
                env.close()

    def _batch(self) -> Batch:
        return Batch.of([seen for seen in self._seen if seen is not None])


def _uses_pettingzoo(module: ModuleType, deep: bool = True) -> bool:
    """Whether a module has something of PettingZoo's, or below it, among its names, or a module that has.

    What has not, such as `os.system`, is never called: a file would need no code of anybody's to do whatever it likes.
    """
    for value in list(vars(module).values()):
        kind = type(value)  # not `isinstance`, which asks the value
        if issubclass(kind, ModuleType):
            if value.__name__.partition(".")[0] == "pettingzoo" or (deep and _uses_pettingzoo(value, deep=False)):
                return True
        elif issubclass(kind, type | FunctionType):
            home = str(value.__module__).partition(".")[0]
            if home == "pettingzoo" or (issubclass(kind, type) and issubclass(value, ParallelEnv)):
                return True
    return False


def _said(space: gymnasium.Space[Any], action: Array) -> Any:
    """An action as the environment takes it, inside of its space also if rounding has moved it."""
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
