"""Evaluation over trials: what is won against an opponent, by how many episodes it has been met before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from inference_marl.described import Whole, hyperparameters
from inference_marl.play.evaluation import Evaluation
from inference_marl.statistics.adaptation import return_after
from inference_marl.types import Actor, Game, Metric, Trajectory


@hyperparameters
class TrialEvaluation(Evaluation):
    """Plays whole trials, all the episodes that a task is kept for, one in each environment.

    The return of an episode is recorded by how many episodes with the same opponent came before it, which shows whether
    a learner adapts: `return_after_0` is that of the first one, `return_after_5` of the sixth; of an evaluation that is
    called `held_out` they are `return_after_0_held_out` and so on. They are means over environments, so intervals are
    over replicates. With `order: in_turn` in the tasks every environment has another opponent, if there are enough.

    Args:
        after: numbers of episodes before those that are measured.
        seat: whose returns they are.
    """

    after: Sequence[Whole] = (0, 1, 2, 5)
    seat: Whole = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.after or len(set(self.after)) < len(self.after):
            raise ValueError(f"after: got {self.after}, expected at least one number, and none twice")

    def check(self, game: Game) -> None:
        """Refuse what learners of `game` cannot be watched in, see `Evaluation.check`.

        Raises:
            ValueError: also if there are no tasks, or they are not kept for as many episodes, or if steps are given,
                which follow from these and the game's horizon.
        """
        super().check(game)
        if self.steps is not None:
            raise ValueError(f"steps: got {self.steps}, expected null: a trial has all the episodes of a task")
        if self.tasks is None:
            raise ValueError("tasks: got null, expected the opponents, and how many episodes each is met for")
        if max(self.after) >= self.tasks.episodes:
            raise ValueError(
                f"after: got {max(self.after)}, expected at most {self.tasks.episodes - 1}: tasks.episodes is "
                f"{self.tasks.episodes}"
            )
        if self.seat not in range(game.agents):
            raise ValueError(f"seat: got {self.seat}, expected a seat from 0 to {game.agents - 1}")

    def declared(self, game: Game) -> tuple[Metric, ...]:
        """What `measure` may return for learners of `game`."""
        return (*super().declared(game), *map(return_after, self.after))

    def play(self, game: Game, actors: Sequence[Actor], steps: int | None = None) -> Trajectory:
        """A trial in each of `replicates x environments` copies of the game, see `Evaluation.play`."""
        episodes = 1 if self.tasks is None else self.tasks.episodes
        return super().play(game, actors, steps or episodes * ((self.game or game).horizon or 1))

    def measure(self, played: Trajectory) -> Mapping[str, Tensor]:
        """Also the returns of those of these episodes that are over everywhere, `replicates` each."""
        every = played.stacked  # steps x replicates x environments
        ended = every.ended.long()
        before = ended.cumsum(0) - ended  # episodes that were over before each step
        found = dict(super().measure(played))
        for number in self.after:
            its = before == number
            if bool((its & every.ended).any(0).all()):
                found[return_after(number).name] = (every.rewards[..., self.seat] * its).sum(0).mean(-1)
        return found
