"""Tournaments: every learner against every learner.

A tournament is an experiment whose arms are pairs: the `row`'s learner sits in seat 0, the `column`'s in seat 1. Where
the game is symmetric one seating of each pair is played, and the other one is read from the second seat.
"""

from __future__ import annotations

from collections.abc import Mapping

from inference_marl.runs.run import Experiment

Levels = Mapping[str, Mapping[str, str]]


def pairs(experiment: Experiment) -> Experiment:
    """See `Experiment.tournament`."""
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
    return Experiment(**{**experiment.__dict__["_given"], "arms": arms, "levels": levels})


def is_tournament(levels: Levels | None) -> bool:
    """Whether the levels of a run's arms, if it has any, say that these are pairs."""
    return bool(levels and all(list(at) == ["row", "column"] for at in levels.values()))


def entrants(experiment: Experiment) -> list[str]:
    """What is compared: the arms or, of a tournament, the learners that are paired in them."""
    return learners(experiment.levels) if is_tournament(experiment.levels) else list(experiment.arms)


def learners(levels: Levels) -> list[str]:
    """Names of the learners that are paired, in their order."""
    return list(dict.fromkeys(at["row"] for at in levels.values()))
