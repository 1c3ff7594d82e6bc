"""Groups of arms that differ in numbers only, and the experiments in which each group is played as one arm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from inference_marl.config.build import actors_of
from inference_marl.described import Described, arguments, differing, parts, plain, public_path
from inference_marl.experiment import Experiment, is_tournament
from inference_marl.inference.schedules import ByReplicate, Schedule


@dataclass(frozen=True)
class Together:
    """Arms that are played as one.

    Attributes:
        arms: their names; the replicates of the experiment are divided among them equally, in this order.
        experiment: an experiment with one arm, named after the first of them, that stands for all; for a single arm the
            original experiment.
    """

    arms: tuple[str, ...]
    experiment: Experiment


def together(experiment: Experiment) -> list[Together]:
    """The arms of an experiment in groups, in order of first appearance.

    Arms of an ablation form one group if they differ only in numbers or schedules that their classes list in
    `by_replicate`: they become one arm with a multiple of the replicates, in which these numbers are `ByReplicate`.
    Arms remain single in other experiments, if something differs by replicate already or has to be `alone`, or if there
    would be as many replicates as `draws` or `particles`, since the two dimensions could not be distinguished.
    """
    groups: list[tuple[Any, list[str]]] = []
    played = [experiment.game, experiment.evaluation]
    one_by_one = not experiment.levels or is_tournament(experiment.levels) or _alone(played)
    for name, arm in experiment.arms.items():
        pattern = _without_numbers(arm)
        alone = one_by_one or _alone(arm) or any(differing(arm))
        same = [names for other, names in groups if other == pattern and not alone]
        if same:
            same[0].append(name)
        else:
            groups.append((None if alone else pattern, [name]))
    draws = {experiment.draws, *_particles([plain(arm) for arm in experiment.arms.values()])}
    found = []
    for _, names in groups:
        several = len(names) * experiment.replicates not in draws
        found += [names] if several else [[name] for name in names]
    return [Together(tuple(names), _played_as_one(experiment, names)) for names in found]


def _alone(value: Any) -> bool:
    """Whether a part of a description has to be played `alone`."""
    return any(part.alone for _, part in parts(value))


def _played_as_one(experiment: Experiment, names: Sequence[str]) -> Experiment:
    if len(names) == 1:
        return experiment
    arm = actors_of(_merged([experiment.arms[name] for name in names]), f"arms.{names[0]}")
    replicates = len(names) * experiment.replicates
    return experiment.replace(arms={names[0]: arm}, replicates=replicates, levels=None, published=None)


def _particles(value: Any) -> Iterator[Any]:
    """Iterate over all values named `particles` in plain data."""
    if isinstance(value, dict):
        yield from (value[key] for key in value if key == "particles")
        yield from _particles(list(value.values()))
    elif isinstance(value, list):
        for each in value:
            yield from _particles(each)


def _without_numbers(value: Any, may_differ: bool = False) -> Any:
    """A description as plain data, with a placeholder for every number and schedule that may differ."""
    if may_differ and _is_number(value):
        return Real
    if isinstance(value, Described):
        may = type(value).by_replicate
        return public_path(type(value)), {
            name: _without_numbers(each, name in may) for name, each in arguments(value).items()
        }
    if isinstance(value, list | tuple):
        return [_without_numbers(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_numbers(each) for key, each in value.items()}
    return plain(value)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real | Schedule)


def _merged(values: Sequence[Any], may_differ: bool = False) -> Any:
    """Merge several descriptions that differ in numbers only into one, as plain data."""
    first, *others = values
    if all(plain(other) == plain(first) for other in others):
        return plain(first)
    if may_differ and all(_is_number(value) for value in values):
        return ByReplicate(list(values)).describe()
    if isinstance(first, Described):
        may, given = type(first).by_replicate, [arguments(value) for value in values]
        merged = {name: _merged([each[name] for each in given], name in may) for name in given[0]}
        return {"class_path": public_path(type(first)), "init_args": merged}
    if isinstance(first, dict):
        return {key: _merged([value[key] for value in values]) for key in first}
    return [_merged(each) for each in zip(*values, strict=True)]
