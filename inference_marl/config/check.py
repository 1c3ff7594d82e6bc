"""Checks before a run, by playing one step, that the parts of an experiment fit its game and each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from weakref import WeakSet

import torch

from inference_marl.config.limits import check_sizes, within_memory
from inference_marl.config.saved import check_saved, unsaved
from inference_marl.described import IncompatibleError, differing, first_line, within
from inference_marl.experiment import Experiment
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.failures import NonFiniteError
from inference_marl.play import Collector, simulate, update
from inference_marl.statistics.latents import check_kept
from inference_marl.types import Actor, check_belief_names, check_declared, is_belief, kept_streams, seed_streams

_PASSED: WeakSet[Experiment] = WeakSet()


def check(experiment: Experiment) -> None:
    """Check that all parts fit together, by binding every arm on the CPU, with few replicates, and playing a step.

    An experiment that has passed is not checked again. The random state is restored.

    Raises:
        IncompatibleError: if a part does not fit the game or another part, or fails in `setup`, at the first step or in
            an evaluation; the message names its key.
        ValueError: if there are no arms.
    """
    if not experiment.arms:
        raise ValueError("arms: got none, expected at least one")
    if experiment in _PASSED:
        return
    cpu = torch.device("cpu")
    check_sizes(experiment)
    with kept_streams(cpu), local_parameters():
        for name, arm in experiment.arms.items():
            replicates = math.lcm(*(number.groups for _, number in differing(arm)))  # 1 if they are all alike
            seed_streams(experiment.seed, cpu)
            with within_memory(experiment, name, replicates), _said_when("while it is set up", f"arms.{name}"):
                actors = experiment.bind(name, replicates)
            with within(f"arms.{name}"), _said_when("at the first step"):
                play_one_step(experiment, actors)
    _PASSED.add(experiment)


@contextmanager
def _said_when(when: str, key: str = "") -> Iterator[None]:
    """Convert errors of a part to `IncompatibleError`, except for errors that already say what does not fit."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise IncompatibleError(f"{type(error).__name__} {when}: {first_line(error)}", key) from error


def play_one_step(experiment: Experiment, actors: Sequence[Actor]) -> None:
    """Collect one trajectory, learn from it, compute beliefs, and play a step of every evaluation.

    Raises:
        ValueError: if a loss is not finite, an actor or an evaluation returns a metric that it does not declare, or an
            evaluation keeps an unknown variable.
    """
    shape = (actors[0].seat.replicates, experiment.environments)
    with closing(simulate(experiment.game, *shape, dtype=experiment.dtype, seed=experiment.seed)) as simulator:
        collector = Collector(simulator, actors, tasks=experiment.tasks, seed=experiment.seed)
        before = [unsaved(actor) for actor in actors]
        try:
            said = update(actors, collector.collect(experiment.collect))
        except NonFiniteError as error:
            raise ValueError(f"agent {error.agent}: {error} at the first step, expected finite numbers") from error
        for agent, (actor, obs) in enumerate(zip(actors, collector.observe().obs, strict=True)):
            believed = actor.beliefs(obs, collector.memories[agent], experiment.draws)
            check_belief_names(believed, len(actor.seat.opponents))
            reported = [*said[agent], *(name for name in believed if not is_belief(name))]
            check_declared(reported, [metric.name for metric in actor.metrics])
    check_saved(actors, before)
    for suffix, evaluation in experiment.evaluations.items():
        with within("evaluation" + suffix.replace("_", ".", 1)), _said_when("while it is evaluated"):
            played = evaluation.play(experiment.game, evaluation.seated(actors), steps=1)
            declared = evaluation.declared(experiment.game)
            check_declared(evaluation.measure(played), [metric.name for metric in declared])
            check_kept(evaluation.kept(experiment.game, played))
