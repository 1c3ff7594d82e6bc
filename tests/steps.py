"""What tests of learners have in common: playing and learning by hand, a step at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from inference_marl.play.learning import snapshots
from inference_marl.types import Actor, Learner, Trajectory, Transition


def teach(learner: Actor, step: Transition, peers: Sequence[Actor] = ()) -> Mapping[str, Tensor]:
    """Let a learner take in a single step, with its peers as they are now; others do not learn."""
    if not isinstance(learner, Learner):
        return {}
    newest = Trajectory([step])
    learner.store(newest)
    return learner.learn(newest, snapshots(peers) if learner.reads_peers else [])
