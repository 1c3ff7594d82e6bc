"""Evaluation of learned policies, apart from training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import field, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from inference_marl.described import Count, Described, In, IncompatibleError, Whole, hyperparameters, within
from inference_marl.play.collector import Collector
from inference_marl.play.simulator import simulate
from inference_marl.play.stranger import Stranger
from inference_marl.play.tasks import Tasks
from inference_marl.statistics.metrics import (
    EVALUATION_RETURN,
    EVALUATION_REWARD,
    EVALUATION_SUCCESS,
    PREFIX,
    evaluated,
)
from inference_marl.types import Actor, ForeignGame, Game, Learner, Metric, Trajectory, kept_streams, seed_streams


@hyperparameters
class Evaluation(Described):
    """Evaluates the current policies in fresh environments, without any effect on training.

    It has a random stream of its own, the same every time, so that two evaluations differ only in what was learned. It
    measures the reward, the return of the first episode if that is longer than a step and ends everywhere, and the
    game's `episode_metrics` of completed episodes; a subclass that measures something else declares it in `metrics` and
    defines `measure`.

    Args:
        every: environment steps of training between two evaluations.
        steps: joint actions per environment, from the start of an episode; the game's horizon if `None`.
        environments: copies of the game per replicate.
        explore: whether all actors act as in training; otherwise learners act greedily, and scripts as always.
        seed: random seed.
        game: the game to evaluate in, if not that of training; it must have the same spaces.
        seats: guests that do not learn, by seat, in place of the learners there; a `Stranger` is the same learner from
            another replicate.
        success_reward: mean reward per step and agent from which a replicate's evaluation is a success, such as the
            game's own; if `None`, success is not measured.
        tasks: the distribution over tasks; if `None`, there are none, or the game draws them itself. The tasks of
            training are not used.

    Attributes:
        metrics: the metrics that `measure` returns, besides the game's.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (EVALUATION_REWARD, EVALUATION_RETURN, EVALUATION_SUCCESS)

    every: Count
    steps: Annotated[int | None, In("a positive integer", ", or null for the game's horizon")] = None
    environments: Count = 32
    explore: bool = False
    seed: Whole = 0
    success_reward: float | None = None
    game: Game | None = None
    seats: Mapping[Whole, Actor] | None = None
    tasks: Tasks | None = None
    guests: Mapping[int, Actor] = field(init=False)

    def __post_init__(self) -> None:
        self.guests = dict(self.seats or {})

    def check(self, game: Game) -> None:
        """Check that learners of `game` can be evaluated in this way.

        Raises:
            ValueError: if its own game has other spaces, a guest learns or has no seat, the game does not know a task,
                or there is neither a number of steps nor a horizon. The message begins with the argument.
        """
        here = self.game or game
        if (here.observations, here.action_spaces) != (game.observations, game.action_spaces):
            raise ValueError(
                f"game: got {type(here).__name__} with other spaces, expected those of the game that is learned"
            )
        for seat, guest in self.guests.items():
            if isinstance(guest, Learner):
                raise ValueError(
                    f"seats.{seat}: got {type(guest).__name__}, which learns, expected an actor that does not, such as "
                    "Stationary, or Frozen for what it has learned in a run of its own"
                )
            if seat not in range(game.agents):
                raise ValueError(f"seats: got {seat}, expected a seat from 0 to {game.agents - 1}")
        if self.steps is None and here.horizon is None:
            raise ValueError("steps: got null for a game without horizon, expected a positive integer")
        if self.tasks is not None:
            self.tasks.of(here)

    def declared(self, game: Game) -> tuple[Metric, ...]:
        """The metrics that `measure` may return for learners of `game`."""
        return (*self.metrics, *map(evaluated, (self.game or game).episode_metrics))

    def seated(self, actors: Sequence[Actor]) -> list[Actor]:
        """The bound actors with guests in their seats, which are bound here without advancing torch's random stream.

        Raises:
            IncompatibleError: if a guest does not fit.
        """
        if self.game is not None and (
            told := [type(each).__name__ for each in actors if isinstance(each, Learner) and each.reads_task]
        ):
            raise IncompatibleError(
                f"game: got another game than {told[0]} learns in, which is told the tasks of that one, expected null"
            )
        guests: dict[int, Actor] = {}
        device = actors[0].seat.device
        with kept_streams(device):
            seed_streams(self.seed, device)
            for number, guest in self.guests.items():
                with within(f"seats.{number}"):
                    seat = actors[number].seat
                    if isinstance(guest, Stranger):
                        guests[number] = Stranger.of(actors[number])
                        continue
                    other = None if isinstance(self.game, ForeignGame) else self.game
                    game = seat.game if self.game is None else other
                    guests[number] = guest.bind(replace(seat, environments=self.environments, game=game))
        return [guests.get(number, actor) for number, actor in enumerate(actors)]

    def play(self, game: Game, actors: Sequence[Actor], steps: int | None = None) -> Trajectory:
        """Let actors play in `replicates x environments` copies of the game.

        Args:
            game: the game of training.
            actors: as `seated` returns them.
            steps: joint actions per environment, if not `self.steps`.
        """
        seat, here = actors[0].seat, self.game or game
        with kept_streams(seat.device):
            seed_streams(self.seed, seat.device)
            with closing(
                simulate(here, seat.replicates, self.environments, seat.device, seat.dtype, _apart(self.seed))
            ) as simulator:
                tasks = None if self.tasks is None else self.tasks.of(here)
                collector = Collector(simulator, actors, self.explore, tasks, self.seed)
                return self.watch(collector, steps or self.steps or here.horizon or 1)

    def watch(self, collector: Collector, steps: int) -> Trajectory:
        """Play `steps` steps; a subclass may record the actors' beliefs meanwhile."""
        return collector.collect(steps)

    def measure(self, played: Trajectory) -> Mapping[str, Tensor]:
        """Metrics of a trajectory, by name: `replicates`, or `replicates x agents` for metrics of agents."""
        rewards = played.stacked.rewards.mean((0, 2))
        found = {EVALUATION_REWARD.name: rewards, **_returns(played)}
        judged = [step.judged for step in played.steps if step.judged]
        for name in judged[0] if judged else ():
            found[PREFIX + name] = torch.stack([each[name] for each in judged]).mean((0, 2))
        if self.success_reward is None:
            return found
        return found | {EVALUATION_SUCCESS.name: (rewards.mean(-1) >= self.success_reward).to(rewards.dtype)}

    def kept(self, game: Game, played: Trajectory) -> Mapping[str, Tensor]:
        """Tensors of a trajectory to record unaggregated, beside metrics, by name: `replicates x ...`.

        None by default. Names and dimensions are those of `statistics.latents.DIMS`; others are rejected before a run.
        """
        return {}


def _returns(played: Trajectory) -> Mapping[str, Tensor]:
    """Mean returns of the first episodes, `replicates x agents`, if these are longer than a step and end everywhere."""
    every = played.stacked  # steps x replicates x environments
    ended = every.ended
    if bool(ended[0].all()) or not bool(ended.any(0).all()):
        return {}
    first = ended.long().cumsum(0) - ended.long() == 0
    return {EVALUATION_RETURN.name: (every.rewards * first.unsqueeze(-1)).sum(0).mean(1)}


def _apart(seed: int) -> int:
    """A seed that differs from that of training, whose episodes would be repeated otherwise."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1)
