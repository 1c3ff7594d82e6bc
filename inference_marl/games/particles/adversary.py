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
    """Physical deception: good agents have to reach a goal without revealing to an adversary which landmark it is.

    From Lowe et al. (2017), `simple_adversary` of MPE; see `ParticleWorld`. With the goal g::

        r = -|x - g|                                              each adversary at x
        r = sum_adversaries |x - g| - min_good |x - g|            every good agent

    The adversaries come first. Each agent observes, relative to its own position, all landmarks and then all other
    agents, in order; before these a good agent observes the goal. Agents do not observe their own position or velocity.

    Args:
        good: number of good agents.
        adversaries: number of adversaries.
        landmarks: number of landmarks; that of the good agents if `None`.
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
        """The landmarks, the other agents and, for a good agent, the goal."""
        position = seen["position"]
        here, others = position[agent], self.others(agent)
        secret = [] if agent < self.adversaries else [seen["target"] - here]
        return [*secret, seen["landmarks"] - here, position[others] - here]

    def pays(self, state: State) -> tuple[Tensor, State]:
        """Rewards for proximity to the goal; for good agents minus that of adversaries."""
        adversaries, good = self.gaps(state)
        common = adversaries.sum(0) - good.amin(0)
        return torch.cat([-adversaries, common.expand(self.good, -1, -1)]), {}
