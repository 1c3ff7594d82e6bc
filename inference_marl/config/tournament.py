"""Tournaments: every learner against every learner.

A tournament is an experiment whose arms are pairs: the `row`'s learner sits in seat 0, the `column`'s in seat 1. Where
the game is symmetric one seating of each pair is played, and the other one is read from the second seat.
"""

from __future__ import annotations

from typing import overload

from inference_marl.described import within
from inference_marl.experiment import Experiment, Suite


@overload
def tournament(experiment: Experiment) -> Experiment: ...
@overload
def tournament(experiment: Suite) -> Suite: ...
@overload
def tournament(experiment: Experiment | Suite) -> Experiment | Suite: ...
def tournament(experiment: Experiment | Suite) -> Experiment | Suite:
    """An experiment with, in the place of its arms, every learner against every learner, itself included.

    Args:
        experiment: of a suite every experiment is treated so.

    Returns:
        A new experiment, with an arm for each pair: the `row`'s learner in seat 0, the `column`'s in seat 1, as its
        `levels` say. Where the game is symmetric, one seating of each pair will do.

    Raises:
        ValueError: if a game is not one of two agents, or an arm is a list of learners; of a suite, naming the run.
    """
    if isinstance(experiment, Experiment):
        return _paired(experiment)
    runs = {}
    for name, run in experiment.runs.items():
        with within(f"runs.{name}"):
            runs[name] = _paired(run)
    return Suite(runs, experiment.show)


def _paired(experiment: Experiment) -> Experiment:
    if experiment.game.agents != 2:
        raise ValueError(
            f"game: got {experiment.game.agents} agents, expected 2: a tournament plays one learner against another"
        )
    for name, arm in experiment.arms.items():
        if isinstance(arm, list):
            raise ValueError(f"arms.{name}: got a list of learners, expected one: a tournament seats it against each")
    names = list(experiment.arms)
    arms, levels = {}, {}
    for i, row in enumerate(names):
        for column in names[i:] if experiment.game.symmetric else names:
            pair = f"{row}-vs-{column}"
            if pair in arms:
                raise ValueError(f"arms: got two pairs called {pair}, expected names without -vs-")
            arms[pair] = [experiment.arms[row], experiment.arms[column]]
            levels[pair] = {"row": row, "column": column}
    return experiment.replace(arms=arms, levels=levels)
