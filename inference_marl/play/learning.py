"""One round of learning: every learner stores the newest trajectory, then all learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from inference_marl.inference.failures import NonFiniteError, heeded
from inference_marl.types import Actor, Learner, Trajectory


def update(actors: Sequence[Actor], newest: Trajectory, updates: int = 1) -> list[Mapping[str, Tensor]]:
    """Let all learners among the actors store a trajectory, then make `updates` updates each.

    Returns:
        The metrics of each actor's last update; empty for actors that do not learn.

    Raises:
        NonFiniteError: if a loss is not finite; `agent` names the learner.
    """
    failures = heeded()
    learners = [(agent, actor) for agent, actor in enumerate(actors) if isinstance(actor, Learner)]
    for _, learner in learners:
        learner.store(newest)
    said: list[Mapping[str, Tensor]] = [{} for _ in actors]
    for _ in range(updates):
        peers = snapshots(actors) if any(learner.reads_peers for _, learner in learners) else []
        for agent, learner in learners:
            if failures is not None:
                failures.agent = agent
            try:
                said[agent] = learner.learn(newest, peers)
            except NonFiniteError as error:
                error.agent = agent
                raise
    return said


def snapshots(actors: Sequence[Actor]) -> list[Actor]:
    """Every actor's current policy; actors that do not learn are returned as they are."""
    return [actor.snapshot() if isinstance(actor, Learner) else actor for actor in actors]
