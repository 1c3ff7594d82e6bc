"""Play apart from learning, to see what has been learned."""

from __future__ import annotations

from collections.abc import Sequence

from inference_marl.described import Described, expect
from inference_marl.play.collector import Collector
from inference_marl.play.simulator import GameSimulator
from inference_marl.types import Actor, Game, Trajectory, kept_streams, seed_streams


class Evaluation(Described):
    """Fresh environments in which learners are watched now and then; nothing of it reaches their training.

    It has random numbers of its own, the same every time, so that two evaluations differ by what was learned.

    Args:
        every: environment steps of training between two evaluations.
        steps: joint actions per environment, from the beginning of an episode.
        environments: copies of the game for each replicate.
        explore: whether everybody acts as during learning; else greedily.
        seed: random seed.
    """

    def __init__(
        self, every: int, steps: int = 25, environments: int = 32, explore: bool = False, seed: int = 0
    ) -> None:
        expect("a positive integer", every=every, steps=steps, environments=environments)
        expect("an integer that is not negative", seed=seed)
        self.every, self.steps, self.environments, self.explore, self.seed = every, steps, environments, explore, seed

    def play(self, game: Game, actors: Sequence[Actor]) -> Trajectory:
        """What these actors, bound, do in `game`."""
        seat = actors[0].seat
        with kept_streams(seat.device):
            seed_streams(self.seed, seat.device)
            simulator = GameSimulator(game, seat.replicates, self.environments, seat.device, seat.dtype)
            return Collector(simulator, actors, self.explore).collect(self.steps)
