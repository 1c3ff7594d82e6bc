"""Keep-away."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import Count, Horizon, Several
from inference_marl.games.particles.physics import Body, Rules
from inference_marl.games.particles.rivals import Rivals
from inference_marl.games.particles.world import Actions
from inference_marl.types import State


class Push(Rivals):
    """Keep-away: an adversary pushes a good agent away from its goal, without knowing which landmark it is.

    From Lowe et al. (2017), `simple_push` of MPE; see `ParticleWorld`. With the goal g::

        r = -|x - g|                              each good agent at x
        r = min_good |x' - g| - |x - g|           each adversary at x

    The adversaries come first. Colours have one more number than there are landmarks: landmark k is 0.9 at k + 1 and
    0.1 elsewhere; a good agent is 0.75 there if k is the goal, and 0.25 elsewhere. An adversary observes its velocity,
    then the landmarks and the other agents relative to its position. A good agent observes its velocity, the goal
    relative to its position, its colour, the landmarks relative to its position, their colours, and the other agents.

    Args:
        good: number of good agents.
        adversaries: number of adversaries.
        landmarks: number of landmarks.
        actions, rules, horizon: see `ParticleWorld`.
    """

    def __init__(
        self,
        good: Count = 1,
        adversaries: Count = 1,
        landmarks: Several = 2,
        *,
        actions: Actions = "discrete",
        rules: Rules = "mpe2",
        horizon: Horizon = 25,
    ) -> None:
        body, places = Body(solid=True), [Body()] * landmarks
        super().__init__(body, good, adversaries, places, actions, rules, horizon)

    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """The observations of the class docstring; constants are multiples of the sum of the one-hot goal, 1."""
        position, goal = seen["position"], seen["goal"]
        here, others = position[agent], self.others(agent)
        velocity, landmarks = seen["velocity"][agent], seen["landmarks"] - here
        if agent < self.adversaries:
            return [velocity, landmarks, position[others] - here]
        one = goal.sum(0, keepdim=True)
        own = [0.25 * one, 0.25 * one + 0.5 * goal]
        numbers = range(len(goal) + 1)
        colours = [(0.9 if number == landmark else 0.1) * one for landmark in numbers[1:] for number in numbers]
        return [velocity, seen["target"] - here, *own, landmarks, *colours, position[others] - here]

    def pays(self, state: State) -> tuple[Tensor, State]:
        """Rewards for proximity to the goal; for adversaries minus that of good agents."""
        adversaries, good = self.gaps(state)
        return torch.cat([good.amin(0) - adversaries, -good]), {}
