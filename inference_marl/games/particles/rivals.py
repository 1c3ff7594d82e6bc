"""The base of worlds in which good agents and adversaries compete for a goal."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from inference_marl.games.particles import metrics
from inference_marl.games.particles.metrics import is_near
from inference_marl.games.particles.physics import Body, Rules, distance
from inference_marl.games.particles.world import Actions, Agent, ParticleWorld, pick
from inference_marl.types import State


class Rivals(ParticleWorld):
    """Base: a world with adversaries, who come first, and good agents; one of the landmarks is the goal.

    Args:
        body: body of every agent.
        good: number of good agents.
        adversaries: number of adversaries.
        landmarks: the landmarks, any of which may be the goal.
        actions, rules, horizon: see `ParticleWorld`.
    """

    episode_metrics = (
        metrics.GOOD_REACHED,
        metrics.ADVERSARY_REACHED,
        metrics.GOOD_DISTANCE,
        metrics.ADVERSARY_DISTANCE,
    )

    def __init__(
        self,
        body: Body,
        good: int,
        adversaries: int,
        landmarks: Sequence[Body],
        actions: Actions,
        rules: Rules,
        horizon: int | None,
    ) -> None:
        self.good, self.adversaries = good, adversaries
        agents, goal = [Agent(body)] * (adversaries + good), {"goal": (len(landmarks),)}
        super().__init__(agents, landmarks, actions, rules, horizon, draws=goal)

    def features(self, state: State) -> State:
        """The state and the position of the goal."""
        return super().features(state) | {"target": pick(state["goal"], state["landmarks"])}

    def gaps(self, state: State) -> tuple[Tensor, Tensor]:
        """The distances of adversaries and of good agents to the goal, `count x ...`."""
        adversaries, good = distance(state["position"] - pick(state["goal"], state["landmarks"])).split(
            [self.adversaries, self.good]
        )
        return adversaries, good

    def results(self, state: State) -> State:
        """The distances of the nearest of both kinds, and whether they are at the goal."""
        adversary, good = (gaps.amin(0) for gaps in self.gaps(state))
        near = 2 * self.places[0].size
        return {
            "good_reached": is_near(good, near),
            "adversary_reached": is_near(adversary, near),
            "good_distance": good,
            "adversary_distance": adversary,
        }
