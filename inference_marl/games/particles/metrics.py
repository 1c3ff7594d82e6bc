"""Metrics of episodes of the particle worlds, as in the tables of Lowe et al. (2017)."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from inference_marl.types import POSITIVE, PROBABILITY, Metric

_Share = partial(Metric, bounds=PROBABILITY, dims=())
_Length = partial(Metric, unit="units of position", bounds=POSITIVE, dims=())
_Count = partial(Metric, bounds=POSITIVE, dims=())

DISTANCE = _Length(
    "distance",
    "distance between agents and landmarks",
    higher_is_better=False,
    meaning="Mean distance at the end of an episode of agents to their landmarks, or of landmarks that have to be "
    "covered to the nearest agents.",
)
REACHED = _Share(
    "reached",
    "goal reached",
    higher_is_better=True,
    meaning="Share of the agents that are nearer than 0.1 to their landmarks at the end of an episode.",
)
COVERED = _Share(
    "covered",
    "landmarks covered",
    higher_is_better=True,
    meaning="Share of the landmarks with an agent nearer than 0.1 at the end of an episode.",
)
COLLISIONS = _Count(
    "collisions",
    "collisions per episode",
    higher_is_better=False,
    meaning="Number of pairs of agents that touch, summed over the steps of an episode.",
)
CATCHES = _Count(
    "catches",
    "catches per episode",
    meaning="Number of pairs of an adversary and a good agent that touch, summed over the steps of an episode.",
)
GOOD_REACHED = _Share(
    "good_reached",
    "goal reached, good",
    higher_is_better=True,
    meaning="Share of the episodes that end with a good agent nearer to the goal than a landmark's diameter.",
)
ADVERSARY_REACHED = _Share(
    "adversary_reached",
    "goal reached, adversary",
    meaning="Share of the episodes that end with an adversary nearer to the goal than a landmark's diameter.",
)
GOOD_DISTANCE = _Length(
    "good_distance",
    "distance to the goal, good",
    higher_is_better=False,
    meaning="Distance of the nearest good agent to the goal at the end of an episode.",
)
ADVERSARY_DISTANCE = _Length(
    "adversary_distance",
    "distance to the goal, adversary",
    meaning="Distance of the nearest adversary to the goal at the end of an episode.",
)
BOB_CORRECT = _Share(
    "bob_correct",
    "Bob recovers the secret",
    higher_is_better=True,
    meaning="Share of the episodes that end with the secret as the largest number of Bob's message.",
)
EVE_CORRECT = _Share(
    "eve_correct",
    "Eve recovers the secret",
    meaning="Share of the episodes that end with the secret as the largest number of Eve's message.",
)

NEAR = 0.1
"""Distance, in units of position, below which an agent is at a landmark of the usual size."""


def is_near(distances: Tensor, within: float = NEAR) -> Tensor:
    """1 where distances are below `within`, else 0, in the dtype of the distances."""
    return (distances < within).to(distances.dtype)
