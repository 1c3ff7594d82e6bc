"""By what the particle worlds are judged at the end of an episode, as in the tables of Lowe et al. (2017)."""

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
    meaning="At the end of an episode, the mean distance of agents to their landmarks, or of landmarks that are to be "
    "covered to the nearest agents.",
)
REACHED = _Share(
    "reached",
    "goal reached",
    higher_is_better=True,
    meaning="Share of the agents that are at their landmarks at the end of an episode, nearer than 0.1.",
)
COVERED = _Share(
    "covered",
    "landmarks covered",
    higher_is_better=True,
    meaning="Share of the landmarks that have an agent nearer than 0.1 at the end of an episode.",
)
COLLISIONS = _Count(
    "collisions",
    "collisions per episode",
    higher_is_better=False,
    meaning="Pairs of agents that touch, summed over the steps of an episode.",
)
CATCHES = _Count(
    "catches",
    "catches per episode",
    meaning="Pairs of an adversary and a good agent that touch, summed over the steps of an episode.",
)
GOOD_REACHED = _Share(
    "good_reached",
    "goal reached, good",
    higher_is_better=True,
    meaning="Share of the episodes at whose end a good agent is at the goal: nearer than a landmark's diameter.",
)
ADVERSARY_REACHED = _Share(
    "adversary_reached",
    "goal reached, adversary",
    meaning="Share of the episodes at whose end an adversary is at the goal: nearer than a landmark's diameter.",
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
    meaning="Share of the episodes at whose end the largest number that Bob says is the secret's.",
)
EVE_CORRECT = _Share(
    "eve_correct",
    "Eve recovers the secret",
    meaning="Share of the episodes at whose end the largest number that Eve says is the secret's.",
)

NEAR = 0.1
"""Who is nearer than this, in units of position, to a landmark of the usual size, is there."""


def is_near(distances: Tensor, within: float = NEAR) -> Tensor:
    """1 where somebody is there, else 0, in the type of the distances."""
    return (distances < within).to(distances.dtype)
