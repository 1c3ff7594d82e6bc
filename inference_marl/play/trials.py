"""Evaluation over trials: the return against an opponent, by the number of episodes played against it before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inference_marl.described import Whole, hyperparameters
from inference_marl.play.collector import Collector
from inference_marl.play.evaluation import Evaluation
from inference_marl.spaces import Discrete, Space
from inference_marl.statistics.adaptation import (
    COVERAGE,
    DRAWS,
    SCORE,
    TAIL,
    WIDTH,
    forecasts_after,
    return_after,
)
from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.calibration import in_central_interval
from inference_marl.statistics.forecasts import crps, log_score
from inference_marl.statistics.latents import MEAN, SD, TYPE
from inference_marl.types import (
    LATENT_MEAN,
    LATENT_SD,
    OF_LATENT,
    Actor,
    Experience,
    Game,
    Metric,
    Trajectory,
    Transition,
    kept_streams,
    numbered,
    seed_streams,
)


@hyperparameters
class TrialEvaluation(Evaluation):
    """Plays one trial in each environment: all episodes of a task.

    Returns are recorded by the number of earlier episodes against the same opponent, which shows whether a learner
    adapts: `return_after_0` is the return of the first episode, `return_after_5` that of the sixth; in an evaluation
    named `held_out` they are `return_after_0_held_out` and so on. They are means over environments, so intervals are
    over replicates. With `order: in_turn` in `tasks`, all environments have different opponents, if there are enough.

    With `forecasts`, the learner's forecasts of its opponents' actions are scored at every step:
    `forecast_coverage_after_0`, `forecast_score_after_0` and `posterior_sd_after_0`; see
    `statistics.adaptation.forecasts_after`. Learners without an opponent model have no coverage and no score, and
    forecasts of discrete actions have no coverage.

    With `posteriors`, its belief about the opponents is recorded at the start of episodes: mean and standard deviation
    of every coordinate of z, with the opponents' hidden types if the game gives them (`statistics.latents`).

    Neither option affects play.

    Args:
        after: numbers of earlier episodes at which to measure.
        seat: the seat whose returns, forecasts and beliefs are recorded.
        forecasts: whether to score forecasts.
        posteriors: whether to record beliefs.
    """

    after: Sequence[Whole] = (0, 1, 2, 5)
    seat: Whole = 0
    forecasts: bool = False
    posteriors: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.after or len(set(self.after)) < len(self.after):
            raise ValueError(f"after: got {self.after}, expected at least one number, and none twice")

    def check(self, game: Game) -> None:
        """Check that learners of `game` can be evaluated in this way, see `Evaluation.check`.

        Raises:
            ValueError: also if there are no tasks, they last for too few episodes, or steps are given, which follow
                from the tasks and the game's horizon.
        """
        if (self.game or game).horizon is None:
            raise ValueError("game: got one without horizon, expected one with a horizon: a trial has whole episodes")
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
        kinds = {type(space).__name__ for space in self._forecast(game)}
        if self.forecasts and len(kinds) != 1:
            raise ValueError(
                f"forecasts: got opponents with actions {' and '.join(sorted(kinds)) or 'of no kind'}, expected some "
                "whose actions are of one kind"
            )

    def declared(self, game: Game) -> tuple[Metric, ...]:
        """The metrics that `measure` may return for learners of `game`."""
        found = (*super().declared(game), *map(return_after, self.after))
        if not self.forecasts:
            return found
        discrete = isinstance(self._forecast(game)[0], Discrete)
        return (*found, *(metric for number in self.after for metric in forecasts_after(number, discrete)))

    def _forecast(self, game: Game) -> Sequence[Space]:
        """The spaces of the forecast actions."""
        return [space for agent, space in enumerate(game.action_spaces) if agent != self.seat]

    def play(self, game: Game, actors: Sequence[Actor], steps: int | None = None) -> Trajectory:
        """Play a trial in each of `replicates x environments` copies of the game, see `Evaluation.play`."""
        episodes = 1 if self.tasks is None else self.tasks.episodes
        return super().play(game, actors, steps or episodes * ((self.game or game).horizon or 1))

    def watch(self, collector: Collector, steps: int) -> Trajectory:
        """Play `steps` steps, and add beliefs and scores of forecasts to `infos`.

        Without `forecasts`, beliefs are updated only when an episode begins, in any environment.
        """
        if not (self.forecasts or self.posteriors):
            return super().watch(collector, steps)
        actor, begun = collector.actors[self.seat], None
        played: list[Transition] = []
        believed: Mapping[str, Tensor] = {}
        for number in range(steps):
            obs = collector.observe().obs[self.seat]
            if self.forecasts or not played or bool(played[-1].ended.any()):
                with torch.no_grad(), kept_streams(actor.seat.device):  # so that play is not affected
                    seed_streams(int(np.random.SeedSequence([self.seed, 2, number]).generate_state(1)[0]), obs.device)
                    believed = actor.beliefs(obs, collector.memories[self.seat], DRAWS)
            newest = collector.collect()
            begun = newest.memories if begun is None else begun
            step, infos = newest.steps[0], list(newest.steps[0].infos)
            scores = judged(believed, step.seen_by(actor.seat)) if self.forecasts else {}
            latent = {name: believed[name] for name in OF_LATENT if name in believed} if self.posteriors else {}
            infos[self.seat] = {**infos[self.seat], **scores, **latent}
            played.append(replace(step, infos=tuple(infos)))
        return Trajectory(played, begun or ())

    def measure(self, played: Trajectory) -> Mapping[str, Tensor]:
        """Also measure the episodes `after`, if they have ended in all environments, `replicates` each."""
        every = played.stacked  # steps x replicates x environments
        ended = every.ended.long()
        before = ended.cumsum(0) - ended  # episodes that ended before each step
        there = torch.ones_like(every.ended) if every.alive is None else every.alive.all(-1)
        said = every.infos[self.seat] if every.infos else {}
        found = dict(super().measure(played))
        for number in self.after:
            its = before == number
            if not bool((its & every.ended).any(0).all()):
                continue
            found[return_after(number).name] = (every.rewards[..., self.seat] * its).sum(0).mean(-1)
            counted = its & there
            for what in (COVERAGE, SCORE, WIDTH):
                if what in said:
                    total = said[what].where(counted, 0.0).sum((0, 2))
                    found[f"{what}_after_{number}"] = total / counted.sum((0, 2))
        return found

    def kept(self, game: Game, played: Trajectory) -> Mapping[str, Tensor]:
        """The beliefs at the start of episodes, and the opponents' types, with the dimensions of `DIMS`.

        NaN for episodes that did not begin. Empty without `posteriors`, or without a latent belief.
        """
        every = played.stacked  # steps x replicates x environments
        said = every.infos[self.seat] if every.infos else {}
        if LATENT_MEAN not in said:
            return {}
        ended = every.ended.long()
        before = ended.cumsum(0) - ended
        begins = torch.ones_like(every.ended)
        begins[1:] = every.ended[:-1]
        at = torch.stack([begins & (before == number) for number in self.after])  # after x steps x ...
        found = {}
        for name, short in {LATENT_MEAN: MEAN, LATENT_SD: SD}.items():
            if name in said:
                chosen = said[name].where(at.unsqueeze(-1), 0.0).sum(1)
                found[short] = chosen.where(at.any(1).unsqueeze(-1), math.nan).movedim(0, 2)
        types = None if every.task is None else (self.game or game).hidden_type(every.task[0])
        return found if types is None else found | {TYPE: types}


def judged(believed: Mapping[str, Tensor], step: Experience) -> dict[str, Tensor]:
    """Scores of a learner's forecasts of a step, by prefix of the metrics' names, `replicates x environments`.

    Args:
        believed: its beliefs before the step, see `Actor.beliefs`.
        step: the step as it observed it.

    Returns:
        Without an opponent model only the width of the latent belief, if it has one.
    """
    found = {WIDTH: believed[LATENT_SD].mean(-1)} if LATENT_SD in believed else {}
    spaces = step.seat.opponent_actions
    names = numbered("opponent_model", len(spaces))
    if any(name not in believed for name in names):
        return found
    of_each = [_scores(believed[name], done) for name, done in zip(names, step.opponent_actions, strict=True)]
    numbers = {what: np.concatenate([scores[what] for scores in of_each], -1) for what in of_each[0]}
    for what, values in numbers.items():
        over = values.sum(-1) if isinstance(spaces[0], Discrete) else values.mean(-1)
        found[what] = torch.as_tensor(over, dtype=step.reward.dtype, device=step.reward.device)
    return found


def _scores(belief: Tensor, done: Tensor) -> dict[str, Numbers]:
    """Scores of the forecasts of one opponent's actions, `replicates x environments x coordinates`."""
    forecast = belief.detach().double().cpu().numpy()
    if not done.is_floating_point():
        return {SCORE: log_score(forecast, done.cpu().numpy())[..., None]}
    draws, actual = np.moveaxis(forecast, 2, -1), done.flatten(2).double().cpu().numpy()
    return {COVERAGE: in_central_interval(draws, actual, TAIL), SCORE: crps(draws, actual)}
