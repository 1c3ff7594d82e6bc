"""Policies learned in other runs, as actors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.config.files import load
from inference_marl.described import IncompatibleError, Whole, settle
from inference_marl.experiment import Experiment
from inference_marl.runs import checksums, sources
from inference_marl.runs.errors import RunError
from inference_marl.runs.folder import SPEC
from inference_marl.runs.job import Job, jobs_of
from inference_marl.types import Actor, Decision, Experience, Learner, Memory, Start, is_belief


class Frozen(Actor):
    """The policy that an agent has learned in another run, loaded from its last checkpoint and fixed.

    Replicate `r` plays as replicate `r` of the other run; if that run has fewer, its replicates are reused in order.
    The checkpoint's digest is part of this actor's description, including `spec.yaml`, so a run is never played or
    resumed with another checkpoint.

    Args:
        run: the folder of the other run, relative to the working directory.
        arm: the arm in that run; may be omitted if there is only one.
        agent: the agent in that run whose policy is used; if `None`, the one in the seat in which this actor plays.
        explore: whether it acts as in training; if `None`, as the other actors do. Set it to play the same stochastic
            policy in training and evaluation.
        digest: the required digest of the other run's `spec.yaml` and checkpoint; their current one if `None`.

    Raises:
        ValueError: if there is no such run, arm, agent or checkpoint, or the digest differs.
    """

    alone = True

    def __init__(
        self,
        run: str,
        arm: str | None = None,
        agent: Whole | None = None,
        explore: bool | None = None,
        digest: str | None = None,
    ) -> None:
        self.run, self.agent, self.explore = run, agent, explore
        spec = Path(run) / SPEC
        if not spec.is_file():
            raise ValueError(
                f"run: got {run}, where there is no spec.yaml, expected the folder of a run, as seen from the working "
                "directory; run the experiment that makes it first"
            )
        experiment = _experiment(spec, spec.read_bytes())
        known = list(experiment.arms)
        if arm not in known and (arm is not None or len(known) > 1):
            raise ValueError(f"arm: got {arm or 'none'}, expected one of {', '.join(known)}")
        if agent is not None and agent not in range(experiment.game.agents):
            raise ValueError(f"agent: got {agent}, expected one from 0 to {experiment.game.agents - 1}")
        self.arm: str = known[0] if arm is None else arm
        self._job = _job(experiment, self.arm, Path(run))
        self.digest = _digest(spec, self._job.checkpoint)
        if digest not in (None, self.digest):
            raise ValueError(
                f"digest: got {digest}, expected {self.digest}, that of {self._job.checkpoint} and its spec.yaml: they "
                "have changed since, as when a run is played on; put back those of then, or begin a new run with null"
            )
        settle(self, arm=self.arm, digest=self.digest)

    def setup(self) -> None:
        """Load the policy from the checkpoint.

        Raises:
            IncompatibleError: if it has other spaces, or the checkpoint is invalid or belongs to another run.
        """
        job, agent = self._job, self.seat.index if self.agent is None else self.agent
        its = job.experiment.seats(device=self.seat.device)
        if agent >= len(its) or (its[agent].observation, its[agent].action) != (
            self.seat.observation,
            self.seat.action,
        ):
            there = f"{its[agent].observation} and {its[agent].action}" if agent < len(its) else "no such agent"
            raise IncompatibleError(
                f"Frozen got agent {agent} of {self.run}, with {there}, expected one that observes "
                f"{self.seat.observation} and acts in {self.seat.action}"
            )
        learned = _policies(job, self.seat.device)[agent]
        self.__dict__ |= {"learned": learned, "heeds_masks": learned.heeds_masks}
        # Indices of its replicates among those of all arms that were played as one, for each replicate here.
        each = job.experiment.replicates // len(job.stands_for)
        first = each * job.stands_for.index(self.arm)
        self._its = slice(first, first + each)
        self._times = -(-self.seat.replicates // each)
        rows = torch.zeros(self._times, job.experiment.replicates, dtype=torch.int64, device=self.seat.device)
        rows[:, self._its] = torch.arange(self._times * each, device=rows.device).view(self._times, each)
        self.__dict__["_rows"] = rows % self.seat.replicates
        self._dtype = job.experiment.dtype

    learned: Actor
    _rows: Tensor

    def _there(self, value: Tensor) -> Tensor:
        """Map `replicates x batch x ...` to the replicates of its learner, each repeated several times."""
        value = value.to(self._dtype) if value.is_floating_point() else value
        return torch.cat([value[rows] for rows in self._rows], 1)

    def _here(self, value: Tensor) -> Tensor:
        """Undo `_there`."""
        value = value.to(self.seat.dtype) if value.is_floating_point() else value
        return torch.cat([part[self._its] for part in value.chunk(self._times, 1)])[: self.seat.replicates]

    def _memory_there(self, memory: Memory) -> Memory:
        return {name: self._there(value) for name, value in memory.items()}

    def _memory_here(self, memory: Memory) -> Memory:
        return {name: self._here(value) for name, value in memory.items()}

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        """As its learner."""
        begins = Start(self._there(start.episode), self._there(start.new_task))
        return self._memory_here(self.learned.begin(begins, None if memory is None else self._memory_there(memory)))

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """The policy of its learner, if that is categorical; else `None`."""
        mask = None if mask is None else self._there(mask)
        found, after = self.learned.policy(self._there(obs), self._memory_there(memory), mask)
        if not isinstance(found, dist.Categorical):
            return None, self._memory_here(after)
        probabilities = found.probs.expand(-1, obs.shape[1] * self._times, -1)
        return dist.Categorical(probs=self._here(probabilities)), self._memory_here(after)

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """As its learner."""
        explore = explore if self.explore is None else self.explore
        mask = None if mask is None else self._there(mask)
        taken = self.learned.act(self._there(obs), self._memory_there(memory), explore, mask)
        log_prob = None if taken.log_prob is None else self._here(taken.log_prob)
        return Decision(self._here(taken.action), self._memory_here(taken.memory), log_prob)

    def remember(self, memory: Memory, step: Experience) -> Memory:
        """As its learner."""
        if type(self.learned).remember is Actor.remember:
            return memory
        there = replace(step.mapped(self._there), seat=self.learned.seat)
        return self._memory_here(self.learned.remember(self._memory_there(memory), there))

    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The beliefs of its learner."""
        found = self.learned.beliefs(self._there(obs), self._memory_there(memory), draws)
        return {name: self._here(value) for name, value in found.items() if is_belief(name)}


@lru_cache(maxsize=32)
def _experiment(spec: Path, content: bytes) -> Experiment:
    """The experiment of a `spec.yaml` with this content."""
    return load(spec)


def _job(experiment: Experiment, arm: str, folder: Path) -> Job:
    """The job whose checkpoint contains the arm: that of all arms that were played as one with it, or its own.

    Raises:
        ValueError: if there is no checkpoint.
    """
    alone = Job.of(experiment, arm, folder)
    for job in [alone, *jobs_of(experiment, folder)]:
        if arm in job.stands_for and job.checkpoint.exists():
            return job
    raise ValueError(f"run: got {folder}, where arm {arm} has no checkpoint, expected one: run or resume it first")


def _digest(*paths: Path) -> str:
    """The digest of the content of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _policies(job: Job, device: torch.device) -> list[Actor]:
    """The policies of all agents in a job's checkpoint.

    Raises:
        IncompatibleError: if the checkpoint is invalid or belongs to another job.
    """
    try:
        checksums.check(job.folder, [SPEC])
        sources.check(job.experiment, job.folder)
        saved = job.saved()
    except RunError as error:
        raise IncompatibleError(str(error)) from error
    assert saved is not None  # the job was found by its checkpoint
    actors = job.experiment.bind(job.arm, device=device)
    for actor, state in zip(actors, saved["actors"], strict=True):
        actor.load_state_dict(state)
    return [actor.snapshot() if isinstance(actor, Learner) else actor for actor in actors]
