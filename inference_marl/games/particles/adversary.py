"""Physical deception."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import Count, Horizon
from inference_marl.games.particles.physics import Body, Rules
from inference_marl.games.particles.rivals import Rivals
from inference_marl.games.particles.world import Actions
from inference_marl.types import State


class Adversary(Rivals):
    """Good agents who have to be at a goal and hide from an adversary which of the landmarks it is.

    Physical deception of Lowe et al. (2017), `simple_adversary` of MPE; see `ParticleWorld`. With the goal g::

        r = -|x - g|                                              each adversary at x
        r = sum_adversaries |x - g| - min_good |x - g|            every good agent

    The adversaries come first. Each agent observes, relative to its own position, all landmarks and then all other
    agents, in order; a good agent the goal before that. Nobody observes its own position or velocity.

    Args:
        good: good agents.
        adversaries: their number.
        landmarks: their number, if not that of the good agents.
        actions, rules, horizon: see `ParticleWorld`.
    """

    def __init__(
        self,
        good: Count = 2,
        adversaries: Count = 1,
        landmarks: Count | None = None,
        *,
        actions: Actions = "discrete",
        rules: Rules = "mpe2",
        horizon: Horizon = 25,
    ) -> None:
        places = [Body(0.08)] * (landmarks or good)
        super().__init__(Body(0.15), good, adversaries, places, actions, rules, horizon)

    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """Landmarks, others and, unless one is an adversary, the goal."""
        position = seen["position"]
        here, others = position[agent], self.others(agent)
        secret = [] if agent < self.adversaries else [seen["target"] - here]
        return [*secret, seen["landmarks"] - here, position[others] - here]

    def pays(self, state: State) -> tuple[Tensor, State]:
        """Adversaries for being near the goal; good agents for that they are, and adversaries are not."""
        adversaries, good = self.gaps(state)
        common = adversaries.sum(0) - good.amin(0)
        return torch.cat([-adversaries, common.expand(self.good, -1, -1)]), {}
