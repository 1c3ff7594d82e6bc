"""PettingZoo's parallel environments as games."""

from __future__ import annotations

from typing import Any

import torch

from inference_marl.described import Horizon, Positive, Whole
from inference_marl.types import ForeignGame, Simulator


class PettingZoo(ForeignGame):
    """Any parallel environment of PettingZoo, by the import path of what makes it.

    Making this description, and so building an experiment file that names it, imports `env`, calls it and tries what it
    makes for a few steps: **somebody else's code runs, as with any class of a user's own**, so name only environments
    that you trust. `env` must be a class below `pettingzoo.ParallelEnv`, or a function that makes one, of a module that
    uses PettingZoo; nothing else is called. Looking at a finished run (`inspect`, `read`) runs nothing of it, and a
    checkpoint holds numbers only.

    Seats are the environment's `possible_agents`, in order. `Discrete` spaces, and boxes of any shape, are as they are;
    a box whose bounds differ is a vector of them. Observations outside of their box are passed on. Other spaces are
    refused, but for a dictionary with `observation` and `action_mask`; masks may also be in what an environment says
    besides (`infos`). Learners that do not heed masks refuse such games.

    Each of `replicates x environments` copies has its own random seed for each episode, made of the experiment's seed,
    its replicate, its environment and the episode's number: neither the number of copies nor of processes changes it.

    Termination is PettingZoo's termination. Its truncation, and `horizon`, are time limits, after which values are
    bootstrapped. Agents that leave early, for either reason, count as terminated, and what they would do is ignored;
    only learners that know of that accept such games (`Maddpg` and its relatives).

    A run that is stopped in the middle of an episode plays it again from its seed when it is resumed, up to where it
    was, and so goes on to the bit. Where the same seed and actions lead to something else, or an episode is longer than
    10,000 steps, the next episode begins instead; a run says so at its start if that is known by then.

    Args:
        env: import path of a class or function that makes the environment, such as
            `mpe2.simple_spread_v3.parallel_env`. A file beside the experiment file is found.
        arguments: what that is called with.
        horizon: steps after which an episode is cut off; `None` leaves it to the environment.
        agents_leave: whether agents may leave before the others do. If not, it is an error.
        processes: how many processes share the copies, if environments are slow; 0 plays them in the run's own.
        timeout: seconds that a process may take for a step of all its environments, before it counts as hanging.
        success_reward: mean reward per step and agent from which a replicate counts as successful.

    Raises:
        ValueError: if the path leads nowhere or to something else, or the environment has other spaces, or does or says
            something that cannot be used; one line that begins with the argument, or names environment and agent.
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
        # Imported where it is needed: gymnasium takes its time.
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
