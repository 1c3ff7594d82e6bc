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
    """A good agent who has to be at a goal, and an adversary who pushes it away without knowing where that is.

    Keep-away of Lowe et al. (2017), `simple_push` of MPE; see `ParticleWorld`. With the goal g::

        r = -|x - g|                              each good agent at x
        r = min_good |x' - g| - |x - g|           each adversary at x

    The adversaries come first. Colours have one more number than there are landmarks: landmark k is 0.1 throughout but
    0.9 at k + 1, and a good agent 0.25 throughout but 0.75 there, if k is the goal. An adversary observes its velocity,
    then the landmarks and the other agents relative to its position. A good agent observes its velocity, the goal
    relative to its position, its colour, the landmarks relative to its position, their colours, and the other agents.

    Args:
        good: good agents.
        adversaries: their number.
        landmarks: their number.
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
        """See the class; a constant is a multiple of 1, the sum of the one-hot goal."""
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
        """Good agents for being near the goal; adversaries for being nearer than they are."""
        adversaries, good = self.gaps(state)
        return torch.cat([good.amin(0) - adversaries, -good]), {}
