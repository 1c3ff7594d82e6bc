"""Predator and prey."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import Count, Horizon, Whole
from inference_marl.games.particles import metrics
from inference_marl.games.particles.physics import Body, Rules, distance
from inference_marl.games.particles.world import Actions, Agent, ParticleWorld
from inference_marl.types import State

HUNTER = Body(0.075, solid=True, acceleration=3.0, top_speed=1.0)
PREY = Body(0.05, solid=True, acceleration=4.0, top_speed=1.3)
OBSTACLE = Body(0.2, solid=True, within=0.9)
CATCH = 10.0
"""Reward of a catch for every adversary, and its cost for the good agent."""


class Tag(ParticleWorld):
    """Predator and prey: slow adversaries hunt faster good agents among obstacles.

    From Lowe et al. (2017), `simple_tag` of MPE; see `ParticleWorld`. Every adversary gets 10 for each pair of an
    adversary and a good agent that touch after the step. A good agent loses 10 for each adversary that touches it and,
    for each of its coordinates x near the edge::

        0 if |x| < 0.9;  10 (|x| - 0.9) if |x| < 1;  min(exp(2 |x| - 2), 10) beyond

    The adversaries come first. Each agent observes its velocity and position, then the obstacles and all other agents
    relative to its position, and the velocities of the other good agents, all in order.

    Args:
        good: number of good agents.
        adversaries: number of adversaries.
        obstacles: number of obstacles.
        actions, rules, horizon: see `ParticleWorld`.
    """

    episode_metrics = (metrics.CATCHES,)

    def __init__(
        self,
        good: Count = 1,
        adversaries: Count = 3,
        obstacles: Whole = 2,
        *,
        actions: Actions = "discrete",
        rules: Rules = "mpe2",
        horizon: Horizon = 25,
    ) -> None:
        self.good, self.adversaries = good, adversaries
        agents = [Agent(HUNTER)] * adversaries + [Agent(PREY)] * good
        super().__init__(agents, [OBSTACLE] * obstacles, actions, rules, horizon, counts=["catches"])

    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """Own velocity and position, obstacles, other agents, and the velocities of the good ones."""
        position, velocity = seen["position"], seen["velocity"]
        here, others = position[agent], self.others(agent)
        around = [seen["landmarks"] - here] if self.places else []
        good = velocity[[other for other in others if other >= self.adversaries]]
        return [velocity[agent], here, *around, position[others] - here, good]

    def pays(self, state: State) -> tuple[Tensor, State]:
        """Rewards for catches, and the cost of the edge."""
        hunters, prey = state["position"].split([self.adversaries, self.good])
        caught = distance(prey.unsqueeze(1) - hunters) < HUNTER.size + PREY.size
        caught = caught.sum(1, dtype=prey.dtype)  # number of adversaries, `good x ...`
        catches, out = caught.sum(0), prey.abs()
        beyond = (2 * out - 2).clamp_max(math.log(10)).exp()
        edge = torch.where(out < 1, (10 * out - 9).clamp_min(0), beyond).sum(1)
        hunted = (CATCH * catches).expand(self.adversaries, -1, -1)
        return torch.cat([hunted, -CATCH * caught - edge]), {"catches": catches}

    def results(self, state: State) -> State:
        """The number of catches."""
        return {"catches": state["catches"]}
