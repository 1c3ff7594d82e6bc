"""Tournaments: every learner against every learner.

A tournament is an experiment whose arms are pairs: the learner of the `row` plays in seat 0, that of the `column` in
seat 1. In symmetric games only one seating of each pair is played, and the other is read from seat 1.
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
    """An experiment whose arms are replaced by pairs: every learner against every learner, itself included.

    Args:
        experiment: an experiment, or a suite, in which every experiment is converted.

    Returns:
        A new experiment, with an arm for each pair: the learner of the `row` in seat 0, that of the `column` in seat 1,
        according to its `levels`. In symmetric games there is one seating of each pair.

    Raises:
        ValueError: if a game does not have two agents, or an arm is a list of learners; for a suite, the message names
            the run.
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
