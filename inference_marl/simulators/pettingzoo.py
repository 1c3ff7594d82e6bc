"""PettingZoo's parallel environments as games."""

from __future__ import annotations

from typing import Any

import torch

from inference_marl.described import Horizon, Positive, Whole
from inference_marl.types import ForeignGame, Simulator


class PettingZoo(ForeignGame):
    """A parallel environment of PettingZoo, given by the import path of its class or factory function.

    Constructing this description, and so building an experiment file that names it, imports `env`, calls it and plays a
    few steps: **third-party code runs, as with any class of a user's own**, so name only environments that you trust.
    `env` must be a subclass of `pettingzoo.ParallelEnv`, or a function that makes one, in a module that uses
    PettingZoo; nothing else is called. Reading a finished run (`inspect`, `read`) runs none of this code, and
    checkpoints contain numbers only.

    Seats are the environment's `possible_agents`, in order. `Discrete` spaces and boxes of any shape are supported; a
    box whose bounds differ by coordinate becomes a vector. Observations outside their box are passed on. Other spaces
    are rejected, except for a dictionary with `observation` and `action_mask`; masks may also be in `infos`. Learners
    that do not heed masks reject games with masks.

    Each of `replicates x environments` copies has its own random seed for each episode, derived from the experiment's
    seed, the replicate, the environment and the number of the episode, so it does not depend on the number of copies
    or processes.

    Termination is PettingZoo's termination. Truncation and `horizon` are time limits, after which values are
    bootstrapped. Agents that leave early, for either reason, count as terminated, and their actions are ignored; only
    learners that support this accept such games (`Maddpg` and related learners).

    A run that was stopped in the middle of an episode replays it from its seed when resumed, and then continues bit by
    bit. If the same seed and actions do not give the same results, or an episode is longer than 10,000 steps, the next
    episode begins instead; a run warns about that at its start if it is known by then.

    Args:
        env: import path of a class or function that makes the environment, such as
            `mpe2.simple_spread_v3.parallel_env`. Files beside the experiment file are found.
        arguments: keyword arguments of `env`.
        horizon: steps after which episodes are truncated; `None` leaves it to the environment.
        agents_leave: whether agents may leave before the others. If not, it is an error.
        processes: number of worker processes that share the copies, for slow environments; 0 for none.
        timeout: seconds that a worker process may take for a step of all its environments before it counts as hanging.
        success_reward: mean reward per step and agent from which a replicate counts as successful.

    Raises:
        ValueError: if the path is invalid, or the environment has other spaces, fails or returns something invalid; the
            message is one line that begins with the argument, or names environment and agent.
    """

    aside = frozenset({"processes", "timeout"})

    def __init__(
        self,
        env: str,
        arguments: dict[str, Any] | None = None,
        horizon: Horizon = None,
        agents_leave: bool = False,
        processes: Whole = 0,
        timeout: Positive = 60.0,
        success_reward: float | None = None,
    ) -> None:
        if "." not in str(env) or not all(part.isidentifier() for part in str(env).split(".")):
            raise ValueError(f"env: got {env!r}, expected an import path such as mpe2.simple_spread_v3.parallel_env")
        # Imported where it is needed, since gymnasium is slow to import.
        from inference_marl.simulators.parallel import Plan

        self.horizon, self.success_reward, self.modules = horizon, success_reward, (env.rpartition(".")[0],)
        self.plan = Plan.of(env, arguments or {}, agents_leave, horizon, processes, timeout)
        self.resumable = self.plan.layout.repeats
        self.observations, self.action_spaces = self.plan.observations, self.plan.action_spaces

    def simulator(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, seed: int
    ) -> Simulator:
        """See `ForeignGame.simulator`."""
        from inference_marl.simulators.parallel import PettingZooSimulator

        return PettingZooSimulator(self.plan, replicates, environments, device, dtype, seed)
