"""Cooperative communication."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from inference_marl.described import Horizon, Several
from inference_marl.games.particles import metrics
from inference_marl.games.particles.metrics import is_near
from inference_marl.games.particles.physics import Body, Rules, distance, squared
from inference_marl.games.particles.world import Actions, Agent, ParticleWorld, pick
from inference_marl.types import State


class SpeakerListener(ParticleWorld):
    """Cooperative communication: a speaker knows which landmark is the goal, and a listener has to reach it.

    From Lowe et al. (2017), `simple_speaker_listener` of MPE; see `ParticleWorld`. Both get `-|x - l|^2`, with the
    listener at x and the goal at l; under OpenAI's rules twice that, the sum over agents.

    The speaker, agent 0, does not move and sends one word per landmark. It observes the goal's colour, one number per
    landmark: 0.65 for the goal and 0.15 for the others. The listener observes its velocity, the landmarks relative to
    its position, and the words.

    Args:
        landmarks: number of landmarks, and of words.
        actions, rules, horizon: see `ParticleWorld`.
    """

    episode_metrics = (metrics.DISTANCE, metrics.REACHED)

    def __init__(
        self,
        landmarks: Several = 3,
        *,
        actions: Actions = "discrete",
        rules: Rules = "mpe2",
        horizon: Horizon = 25,
    ) -> None:
        agents, goal = [Agent(None, words=landmarks), Agent(Body(0.075))], {"goal": (landmarks,)}
        super().__init__(agents, [Body(0.04)] * landmarks, actions, rules, horizon, draws=goal)

    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """The goal's colour for the speaker, and everything except the goal for the listener."""
        goal = seen["goal"]
        if agent == 0:
            return [0.5 * goal + 0.15 * goal.sum(0)]
        return [seen["velocity"][0], seen["landmarks"] - seen["position"][0], seen["message"][0]]

    def pays(self, state: State) -> tuple[Tensor, State]:
        """A common reward for proximity to the goal."""
        away = pick(state["goal"], state["landmarks"]) - state["position"][0]
        reward = -squared(away)
        return (2 * reward if self.rules == "openai" else reward).expand(2, -1, -1), {}

    def results(self, state: State) -> State:
        """The listener's distance from the goal."""
        gap = distance(pick(state["goal"], state["landmarks"]) - state["position"][0])
        return {"distance": gap, "reached": is_near(gap)}
