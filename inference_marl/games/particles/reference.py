"""Cooperative communication in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import Horizon, Probability, Several
from inference_marl.games.particles import metrics
from inference_marl.games.particles.metrics import is_near
from inference_marl.games.particles.physics import Body, Rules, distance, squared
from inference_marl.games.particles.world import Actions, Agent, ParticleWorld, pick
from inference_marl.types import State


class Reference(ParticleWorld):
    """Two agents that move and communicate, each of which knows only the other's goal.

    `simple_reference` of MPE; see `ParticleWorld`. Agent i, at x^i, has to reach the landmark l^i, which only the other
    agent, j, knows::

        r^j = -local_ratio |x^i - l^i| - (1 - local_ratio) (|x^0 - l^0| + |x^1 - l^1|) / 2

    Under OpenAI's rules both get `-|x^0 - l^0|^2 - |x^1 - l^1|^2`.

    Agent j observes its velocity, the landmarks relative to its position, the colour of l^i, one number per landmark
    (0.75 for l^i and 0.25 for the others), and the other's message. A discrete action is a move and a word. The state's
    `goal` has l^0 first.

    Args:
        landmarks: number of landmarks.
        words: number of words.
        actions: see `ParticleWorld`.
        local_ratio: weight of the distance of the agent whose goal one knows, as in mpe2; OpenAI's rules have none.
        rules, horizon: see `ParticleWorld`.

    Raises:
        ValueError: if a `local_ratio` is given for OpenAI's rules.
    """

    symmetric = True
    episode_metrics = (metrics.DISTANCE, metrics.REACHED)

    def __init__(
        self,
        landmarks: Several = 3,
        words: Several = 10,
        *,
        actions: Actions = "discrete",
        local_ratio: Probability = 0.5,
        rules: Rules = "mpe2",
        horizon: Horizon = 25,
    ) -> None:
        if rules == "openai" and local_ratio != 0.5:
            raise ValueError(f"local_ratio: got {local_ratio} for rules without one, expected 0.5, or rules mpe2")
        self.local_ratio = local_ratio
        agents, goals = [Agent(Body(), words)] * 2, {"goal": (2, landmarks)}
        super().__init__(agents, [Body()] * landmarks, actions, rules, horizon, draws=goals)

    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """Own velocity, landmarks, the other's goal and its message."""
        other = 1 - agent
        goal = seen["goal"][other]
        colour = 0.5 * goal + 0.25 * goal.sum(0)
        return [seen["velocity"][agent], seen["landmarks"] - seen["position"][agent], colour, seen["message"][other]]

    def pays(self, state: State) -> tuple[Tensor, State]:
        """Rewards for the other's distance, and for the mean distance."""
        away = self._away(state)
        if self.rules == "openai":
            return -squared(away).sum(0).expand(2, -1, -1), {}
        first, second = distance(away).unbind()
        common = (1 - self.local_ratio) / 2 * (first + second)
        known = torch.stack([second, first])
        return torch.sub(-common, known, alpha=self.local_ratio), {}

    def results(self, state: State) -> State:
        """The agents' distances from their landmarks."""
        gaps = distance(self._away(state))
        return {"distance": gaps.mean(0), "reached": is_near(gaps).mean(0)}

    def _away(self, state: State) -> Tensor:
        """From each agent to its landmark, `agents x 2 x ...`."""
        return pick(state["goal"], state["landmarks"]) - state["position"]
