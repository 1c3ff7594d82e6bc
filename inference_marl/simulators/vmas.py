"""Scenarios of VMAS as games."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from inference_marl.described import Horizon, first_line
from inference_marl.simulators.values import finite_actions
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import ForeignGame, Observed, Outcome, Simulator


class Vmas(ForeignGame):
    """A scenario of VMAS, the vectorised multi-agent simulator (Bettini et al., 2022), which the extra `vmas` installs.

    All `replicates x environments` copies are one VMAS environment, on the run's device and in single precision. Its
    random numbers come from one seeded stream, so they depend on the number of copies. A scenario's `done` is
    termination, `horizon` is a time limit. Observations are unbounded; actions are forces in the agents' ranges, or one
    index for all combinations of discrete actions.

    Checkpoints contain the numbers of the world, its entities and the scenario. If these are the complete state, which
    is tested before a run, the run is resumed bit by bit; otherwise new episodes begin, and a run warns at its start.

    VMAS is licensed under the GPL-3.0 and is imported only if it is used.

    Args:
        scenario: name of a scenario, such as `navigation`.
        arguments: keyword arguments of the scenario, such as `n_agents`.
        horizon: steps per episode; `None` if only the scenario ends episodes.
        actions: `continuous` or `discrete`.
        success_reward: mean reward per step and agent from which a replicate counts as successful.

    Raises:
        ValueError: if VMAS is not installed, or the scenario is unknown, cannot be made, or has other spaces.
    """

    def __init__(
        self,
        scenario: str,
        arguments: dict[str, Any] | None = None,
        horizon: Horizon = None,
        actions: Literal["continuous", "discrete"] = "continuous",
        success_reward: float | None = None,
    ) -> None:
        self.scenario, self.given = scenario, dict(arguments or {})
        self.horizon, self.actions, self.success_reward = horizon, actions, success_reward
        env = self.make(1, torch.device("cpu"))
        self.names = tuple(str(agent.name) for agent in env.agents)
        self.observations = tuple(
            self._space("observation", name, space)
            for name, space in zip(self.names, env.observation_space, strict=True)
        )
        self.action_spaces = tuple(
            self._space("action", name, space) for name, space in zip(self.names, env.action_space, strict=True)
        )
        self.resumable = self._is_resumable()

    def make(self, copies: int, device: torch.device) -> Any:
        """Make one VMAS environment with `copies` copies.

        Raises:
            ValueError: if that fails; the message begins with the argument.
        """
        try:
            import vmas  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise ValueError(
                f"scenario: got {self.scenario}, for which VMAS is missing ({first_line(error)}), expected it to be "
                "installed: pip install 'inference-marl[vmas]'"
            ) from error
        known = [*vmas.scenarios, *vmas.mpe_scenarios, *vmas.debug_scenarios]
        if self.scenario not in known:
            raise ValueError(f"scenario: got {self.scenario}, expected one of {', '.join(sorted(known))}")
        try:
            return vmas.make_env(
                self.scenario,
                num_envs=copies,
                device=device,
                continuous_actions=self.actions == "continuous",
                terminated_truncated=True,
                **self.given,
            )
        except Exception as error:
            raise ValueError(
                f"arguments: got {self.given}, with which VMAS's {self.scenario} raises {type(error).__name__} "
                f"({first_line(error)}), expected arguments that it takes"
            ) from error

    def simulator(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, seed: int
    ) -> Simulator:
        """See `ForeignGame.simulator`."""
        return VmasSimulator(self, replicates, environments, device, dtype, seed)

    def _space(self, what: str, agent: str, space: Any) -> Space:
        kind = type(space).__name__
        if kind == "Discrete":
            return Discrete(int(space.n))
        if kind != "Box":
            raise ValueError(
                f"scenario: got {kind} as the {what} space of {agent} in VMAS's {self.scenario}, expected Box or "
                "Discrete"
            )
        if what == "observation":
            return Box(shape=space.shape)
        return Box(space.low.tolist(), space.high.tolist(), space.shape)

    def _is_resumable(self) -> bool:
        """Whether play continues in the same way after the state has been copied to another environment."""
        cpu, dtype, steps = torch.device("cpu"), torch.float32, 3
        one, other = (VmasSimulator(self, 1, 2, cpu, dtype, seed) for seed in (0, 1))
        for simulator in (one, other):
            simulator.reset()
        chances = torch.Generator().manual_seed(0)
        played = [[self._some(space, chances) for space in self.action_spaces] for _ in range(2 * steps)]
        for actions in played[:steps]:
            one.step(actions)
        other.load_state_dict(one.state_dict())
        for actions in played[steps:]:
            mine, same = ((*each.step(actions)[:3], *each.observe().obs) for each in (one, other))
            if not all(map(torch.equal, mine, same)):
                return False
        return True

    @staticmethod
    def _some(space: Space, chances: torch.Generator) -> Tensor:
        if isinstance(space, Discrete):
            return torch.randint(space.n, (1, 2), generator=chances)
        low, high = space.edges(torch.float32, torch.device("cpu"))
        return low + (high - low) * torch.rand((1, 2, *space.shape), generator=chances)


class VmasSimulator(Simulator):
    """Simulates one VMAS environment with `replicates x environments` copies; see `Vmas`."""

    checks_itself = True

    def __init__(
        self, game: Vmas, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, seed: int
    ) -> None:
        self.game, self.shape, self.device, self.dtype = game, (replicates, environments), device, dtype
        self.observations, self.action_spaces = game.observations, game.action_spaces
        self.env = game.make(replicates * environments, device)
        self.clock = torch.zeros(self.shape, dtype=torch.int64, device=device)
        self._obs: tuple[Tensor, ...] = ()
        number = int(np.random.SeedSequence([seed]).generate_state(1)[0])
        own = random.Random(number)
        legacy = np.random.RandomState(number)
        self._random: list[Any] = [
            torch.Generator().manual_seed(number).get_state(),
            legacy.get_state(),
            own.getstate(),
        ]
        self._cuda: Tensor | None = None
        if device.type == "cuda":
            self._cuda = torch.Generator(device).manual_seed(number).get_state()

    def reset(self, where: Tensor | None = None, task: Tensor | None = None) -> None:
        """Begin episodes, see `Simulator.reset`; the task is ignored, as it is for actors only."""
        with self._own_random_numbers():
            if where is None or bool(where.all()) or not self._obs:
                obs = self.env.reset()
                self.clock = torch.zeros_like(self.clock)
            else:
                for copy in where.flatten().nonzero().flatten().tolist():
                    self.env.reset_at(copy, return_observations=False)
                (obs,) = self.env.get_from_scenario(True, False, False, False)
                self.clock = self.clock.masked_fill(where, 0)
        self._see(obs)

    def observe(self) -> Observed:
        """The current observation of each agent."""
        return Observed(self._obs)

    def step(self, actions: Sequence[Tensor]) -> Outcome:
        """Play a joint action, see `Simulator.step`.

        Raises:
            ValueError: if VMAS raises an error or returns numbers that are not finite; the message, in one line, names
                scenario, agent and step.
        """
        taken = [
            self._within(space, action).flatten(0, 1).clone()
            for space, action in zip(self.action_spaces, finite_actions(self.action_spaces, actions), strict=True)
        ]
        try:
            with self._own_random_numbers():
                obs, rewards, terminated, _, _ = self.env.step(taken)
        except Exception as error:
            step = int(self.clock.max()) + 1
            raise ValueError(
                f"VMAS's {self.game.scenario}, step {step} of an episode: got {type(error).__name__} "
                f"({first_line(error)}), expected a step"
            ) from error
        self.clock = self.clock + 1
        self._see(obs)
        paid = torch.stack([self._finite("reward", agent, each) for agent, each in enumerate(rewards)], dim=-1)
        over = terminated.view(self.shape)
        ended = over if self.game.horizon is None else over | (self.clock >= self.game.horizon)
        return Outcome(paid.to(self.dtype), over, ended)

    def state_dict(self) -> dict[str, Any]:
        """All numbers in VMAS's objects by their path, the elapsed steps of each episode, and random states."""
        torchs, numpys, pythons = self._random
        kind, keys, *numbers = numpys
        return {
            "world": {path: _plain(owner) for path, owner in _owners(self.env)},
            "clock": self.clock,
            "obs": list(self._obs),
            "random": {
                "torch": torchs,
                "cuda": self._cuda,
                "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), *numbers],
                "python": [pythons[0], list(pythons[1]), pythons[2]],
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Tensor | None:
        """Restore from `state_dict`, if the scenario is resumable; see `Simulator.load_state_dict`."""
        chances = state["random"]
        kind, keys, *numbers = chances["numpy"]
        version, inner, gauss = chances["python"]
        self._random = [
            chances["torch"].cpu(),
            (kind, keys.cpu().numpy().astype(np.uint32), *numbers),
            (version, tuple(inner), gauss),
        ]
        self._cuda = None if chances["cuda"] is None else chances["cuda"].cpu()
        self.clock = state["clock"].to(self.device)
        self._obs = tuple(obs.to(self.device) for obs in state["obs"])
        if not self._obs:
            return None
        for path, owner in _owners(self.env):
            for name, value in state["world"].get(path, {}).items():
                _put(owner, name, value.to(self.device, copy=True) if isinstance(value, Tensor) else value)
        return None if self.game.resumable else torch.ones(self.shape, dtype=torch.bool, device=self.device)

    def _see(self, obs: Sequence[Tensor]) -> None:
        seen = [self._finite("observation", agent, each) for agent, each in enumerate(obs)]
        self._obs = tuple(each.to(self.dtype) for each in seen)

    def _finite(self, what: str, agent: int, values: Tensor) -> Tensor:
        """Reshape values of an agent to `replicates x environments x event`.

        Raises:
            ValueError: if they are not finite.
        """
        values = values.view(*self.shape, *values.shape[1:])
        if not bool(torch.isfinite(values.sum())):
            wrong = (~torch.isfinite(values)).flatten(2).any(-1).nonzero() if values.dim() > 2 else None
            wrong = (~torch.isfinite(values)).nonzero() if wrong is None else wrong
            if len(wrong):
                replicate, environment = wrong[0].tolist()
                raise ValueError(
                    f"VMAS's {self.game.scenario}, replicate {replicate}, environment {environment}, step "
                    f"{int(self.clock[replicate, environment])} of its episode, agent {self.game.names[agent]}: got "
                    f"{what} that is not finite, expected finite numbers"
                )
        return values

    def _within(self, space: Space, action: Tensor) -> Tensor:
        """Clip an action to its space, in case rounding has moved it outside."""
        if isinstance(space, Discrete):
            return action
        low, high = space.edges(torch.float32, self.device)
        return action.detach().to(torch.float32).clamp(low, high)

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Use this environment's random state inside the context, since all VMAS environments share a global one."""
        shared = type(self.env).vmas_random_state
        before = list(shared)
        cuda = None if self._cuda is None else torch.cuda.get_rng_state(self.device)
        shared[:] = self._random
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self.device)
        try:
            yield
        finally:
            self._random = list(shared)
            shared[:] = before
            if cuda is not None:
                self._cuda = torch.cuda.get_rng_state(self.device)
                torch.cuda.set_rng_state(cuda, self.device)


def _owners(env: Any) -> Iterator[tuple[str, Any]]:
    """Iterate over VMAS's objects, and lists and mappings in them, that may contain numbers, with their paths."""
    seen: set[int] = set()
    todo = [("env", env)]
    while todo:
        path, owner = todo.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        yield path, owner
        items = vars(owner).items() if hasattr(owner, "__dict__") else _items(owner)
        todo += [(f"{path}.{name}", each) for name, each in items if _may_hold(each)]


def _items(owner: Any) -> Iterator[tuple[Any, Any]]:
    return iter(owner.items()) if isinstance(owner, dict) else iter(enumerate(owner))


def _may_hold(value: Any) -> bool:
    # Scenarios are loaded from their files, as modules without a name.
    return isinstance(value, list | dict) or (
        hasattr(value, "__dict__")
        and not isinstance(value, type)
        and not callable(value)
        and (type(value).__module__ == "" or type(value).__module__.startswith("vmas."))
        and not hasattr(type(value), "__members__")
    )


def _plain(owner: Any) -> dict[Any, Any]:
    """The numbers and tensors that an object contains itself."""
    items = vars(owner).items() if hasattr(owner, "__dict__") else _items(owner)
    kinds = Tensor | bool | int | float | None
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in items
        if isinstance(value, kinds) and isinstance(name, str | int)
    }


def _put(owner: Any, name: Any, value: Any) -> None:
    if hasattr(owner, "__dict__"):
        vars(owner)[name] = value
    elif isinstance(owner, dict) or name < len(owner):
        owner[name] = value
