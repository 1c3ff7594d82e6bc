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
        steps: joint actions per environment, from the beginning of an episode; if `None` as many as the game's horizon.
        environments: copies of the game for each replicate.
        explore: whether everybody acts as during learning; else greedily.
        seed: random seed.
    """

    def __init__(
        self, every: int, steps: int | None = None, environments: int = 32, explore: bool = False, seed: int = 0
    ) -> None:
        expect("a positive integer", every=every, environments=environments)
        expect("a positive integer", ", or null for the game's horizon", steps=steps)
        expect("an integer that is not negative", seed=seed)
        self.every, self.steps, self.environments, self.explore, self.seed = every, steps, environments, explore, seed

    def length(self, game: Game) -> int:
        """Joint actions per environment.

        Raises:
            ValueError: if that is the horizon of a game that has none.
        """
        if self.steps is None and game.horizon is None:
            raise ValueError("evaluation.steps: got null for a game without horizon, expected a positive integer")
        return self.steps or game.horizon or 1

    def play(self, game: Game, actors: Sequence[Actor]) -> Trajectory:
        """What these actors, bound, do in `game`, in `replicates x environments` copies of it."""
        seat, steps = actors[0].seat, self.length(game)
        with kept_streams(seat.device):
            seed_streams(self.seed, seat.device)
            simulator = GameSimulator(game, seat.replicates, self.environments, seat.device, seat.dtype)
            return Collector(simulator, actors, self.explore).collect(steps)
