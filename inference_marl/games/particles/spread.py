"""Cooperative navigation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import Count, Horizon, NotNegative, Positive, Probability, Several
from inference_marl.games.particles import metrics
from inference_marl.games.particles.metrics import is_near
from inference_marl.games.particles.physics import Body, Rules, distance
from inference_marl.games.particles.world import Actions, Agent, ParticleWorld
from inference_marl.types import State


class Spread(ParticleWorld):
    """Cooperative navigation: N agents have to cover N landmarks and to coordinate who goes where.

    From Lowe et al. (2017), `simple_spread` of MPE; see `ParticleWorld`. With landmarks l^k::

        r^i = -(1 - local_ratio) sum_k min_j |x^j - l^k| - local_ratio collision #{j != i: |x^i - x^j| < 2 size}

    Under OpenAI's rules every agent gets the sum over agents of `-sum_k min_j |x^j - l^k| - collision #{j: ...}`, in
    which each agent collides with itself, too.

    Agent i observes v^i, x^i, then the positions of all landmarks and of all other agents, in order, relative to x^i,
    and two zeros for each other agent, in place of messages.

    Mean reward per step and agent over 25 steps, for N = 2 and 3: -0.78 and -0.97 if all stay, -0.85 and -1.06 with
    uniform moves.

    Args:
        agents: number of agents, N.
        landmarks: number of landmarks; N if `None`.
        actions: see `ParticleWorld`.
        local_ratio: weight of the agent's own collisions relative to the common distances, as in mpe2; OpenAI's rules
            have none.
        collision: cost of touching another agent per step, in units of reward.
        size: radius of an agent, in units of position.
        rules, horizon: see `ParticleWorld`.

    Raises:
        ValueError: if a `local_ratio` is given for OpenAI's rules.
    """

    episode_metrics = (metrics.DISTANCE, metrics.COVERED, metrics.COLLISIONS)

    def __init__(
        self,
        agents: Several = 3,
        landmarks: Count | None = None,
        *,
        actions: Actions = "discrete",
        local_ratio: Probability = 0.5,
        collision: NotNegative = 1.0,
        size: Positive = 0.15,
        rules: Rules = "mpe2",
        horizon: Horizon = 25,
    ) -> None:
        if rules == "openai" and local_ratio != 0.5:
            raise ValueError(f"local_ratio: got {local_ratio} for rules without one, expected 0.5, or rules mpe2")
        self.local_ratio, self.collision, self.size = local_ratio, collision, size
        self.symmetric = agents == 2  # exchanging seats changes the order of three agents' observations
        everybody, places = [Agent(Body(size, solid=True))] * agents, [Body()] * (landmarks or agents)
        super().__init__(everybody, places, actions, rules, horizon, counts=["collisions"])

    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """Own velocity and position, landmarks, other agents, and zeros for messages."""
        position, velocity = seen["position"], seen["velocity"]
        here, others = position[agent], self.others(agent)
        return [velocity[agent], here, seen["landmarks"] - here, position[others] - here, 0 * position[others]]

    def pays(self, state: State) -> tuple[Tensor, State]:
        """Rewards for the proximity of agents to landmarks, minus the cost of collisions."""
        position = state["position"]
        common = self._gaps(state).sum(0)
        touching = distance(position.unsqueeze(1) - position) < 2 * self.size  # including every agent itself
        touched = touching.sum(1, dtype=position.dtype)
        pairs = (touched.sum(0) - self.agents) / 2
        if self.rules == "openai":
            everybody = -self.agents * common - self.collision * touched.sum(0)
            return everybody.expand(self.agents, -1, -1), {"collisions": pairs}
        cost = self.local_ratio * self.collision
        return torch.sub(cost - (1 - self.local_ratio) * common, touched, alpha=cost), {"collisions": pairs}

    def results(self, state: State) -> State:
        """The landmarks' distances from the nearest agents, and the collisions."""
        gaps = self._gaps(state)
        return {"distance": gaps.mean(0), "covered": is_near(gaps).mean(0), "collisions": state["collisions"]}

    def _gaps(self, state: State) -> Tensor:
        """Distance of each landmark to the nearest agent, `landmarks x ...`."""
        return distance(state["landmarks"].unsqueeze(1) - state["position"]).amin(1)
