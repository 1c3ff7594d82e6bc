"""Factors of ablations, and the designs that combine their levels into arms."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from inference_marl.config.build import SpecError, actors_of, as_spec_errors, is_number
from inference_marl.config.check import check
from inference_marl.config.overrides import blamed, override
from inference_marl.described import first_line, plain
from inference_marl.experiment import Experiment
from inference_marl.types import Actor

MOST_CELLS = 10_000
"""Maximum number of cells of a design."""


def ablation(
    experiment: Experiment, factors: Mapping[str, Any], design: Literal["grid", "one_at_a_time"] = "grid"
) -> Experiment:
    """An experiment whose arms are replaced by their variants at the levels of some factors.

    It is the Python equivalent of a file's keys `factors` and `design`::

        factors = {
            "prior": {"empirical": {}, "uniform": {"opponent_prior": Uniform()}},
            "kl_weight": [1.0, 0.1],  # short for levels that set this one key
        }

    Args:
        experiment: the experiment whose arms are varied.
        factors: changes by name of the factor and of the level: values by dotted key, as in arms that are `like`
            another. A list is short for levels that assign its items to the key that is the factor's name.
        design: `grid` makes an arm of every combination of levels, the last factor's varying fastest; `one_at_a_time`
            one arm with all factors at their first level, and one for every other level of each factor. In both designs
            the first arm is the reference for comparisons.

    Returns:
        A new experiment, whose `levels` have the levels of each arm.

    Raises:
        SpecError: if a factor is malformed, or an arm cannot be built; the message begins with the key.
    """
    described = experiment.describe()["init_args"]["arms"]
    with as_spec_errors():
        designed = cells(described, plain(factors), design)
        arms = {name: cell.build() for name, cell in designed.items()}
        crossed = experiment.replace(arms=arms, levels={name: cell.levels for name, cell in designed.items()})
        check(crossed)
    return crossed


@dataclass(frozen=True)
class Cell:
    """An arm of a design: its base arm, and the changes at its level of each factor."""

    base: str
    config: Any
    levels: dict[str, str]
    differences: Sequence[_Level]

    def build(self) -> Actor | list[Actor]:
        """Build the arm.

        Raises:
            SpecError: if it cannot be built; the message begins with the key of the invalid value in the file.
        """
        arm = f"arms.{self.base}"
        merged = {"arms": {self.base: copy.deepcopy(self.config)}}
        stands = {}
        try:
            for level in self.differences:
                for key, value in level.differences.items():
                    stands[f"{arm}.{key}"] = level.key
                    override(merged, f"{arm}.{key}", value)
            return actors_of(merged["arms"][self.base], arm)
        except ValueError as error:
            where, separator, rest = first_line(error).partition(": ")
            about = blamed(where, stands)
            if where == arm or about is None:
                raise
            raise SpecError(f"{stands[about]}{where.removeprefix(arm)}{separator}{rest}") from error


def cells(arms: Mapping[str, Any], factors: Any, design: Any) -> dict[str, Cell]:
    """The arms of a design by name; the reference for comparisons comes first.

    Raises:
        SpecError: if a factor or the design is malformed, or two arms would have the same name.
    """
    if design not in ("grid", "one_at_a_time"):
        raise SpecError(f"design: got {design!r}, expected grid or one_at_a_time")
    if not isinstance(factors, Mapping) or not factors:
        raise SpecError(f"factors: got {factors!r}, expected a mapping from names to levels")
    levels = {str(factor): _levels(str(factor), given) for factor, given in factors.items()}
    number = len(arms) * math.prod(len(each) for each in levels.values())
    if design == "grid" and number > MOST_CELLS:
        raise SpecError(f"factors: got {number:,} cells, expected at most {MOST_CELLS:,}; vary less, or one_at_a_time")
    several = len(arms) > 1
    found: dict[str, Cell] = {}
    for arm, config in arms.items():
        for parts, at in _combined(levels, design):
            name = "-".join([arm, *parts] if several else parts)
            if name in found:
                raise SpecError(f"factors: got two arms called {name}, expected names of levels that tell them apart")
            kept = {"arm": arm} if several else {}
            found[name] = Cell(arm, config, kept | at, [levels[factor][level] for factor, level in at.items()])
    Experiment.check_names(found)
    return found


def _combined(levels: Mapping[str, Mapping[str, _Level]], design: str) -> list[tuple[list[str], dict[str, str]]]:
    """The combinations of levels in a design: the parts of an arm's name, and the label of each factor's level."""
    if design == "grid":
        grid = [dict(zip(levels, labels, strict=True)) for labels in itertools.product(*levels.values())]
        return [([levels[factor][label].name for factor, label in at.items()], at) for at in grid]
    first = {factor: next(iter(given)) for factor, given in levels.items()}
    others = [
        ([level.name], first | {factor: label})
        for factor, given in levels.items()
        for label, level in list(given.items())[1:]
    ]
    return [(["reference"], first), *others]


@dataclass(frozen=True)
class _Level:
    """A level of a factor: its part of an arm's name, its key in the file, and values by dotted key."""

    name: str
    key: str
    differences: dict[str, Any]


def _levels(factor: str, given: Any) -> dict[str, _Level]:
    """A factor's levels by their labels in tables."""
    key = f"factors.{factor}"
    if isinstance(given, list) and given:
        levels = [(_label(value), _Level(_part(factor, value), "factors", {factor: value})) for value in given]
        for label, count in Counter(label for label, _ in levels).items():
            if count > 1:
                raise SpecError(
                    f"{key}: got {count} values called {label}, expected names: give the factor a mapping from names "
                    "of levels to what differs there"
                )
        return dict(levels)
    if not isinstance(given, Mapping) or not given:
        raise SpecError(f"{key}: got {given!r}, expected a mapping from levels to differences, or a list of values")
    for level, differences in given.items():
        if not (isinstance(level, str) and re.fullmatch(r"\w[\w-]*", level)):
            raise SpecError(f"{key}: got a level called {level!r}, expected letters, digits, _ and - only")
        if not isinstance(differences, Mapping):
            raise SpecError(f"{key}.{level}: got {differences!r}, expected a mapping from dotted keys to values")
    return {level: _Level(level, f"{key}.{level}", dict(differences)) for level, differences in given.items()}


def _label(value: Any) -> str:
    """The label of a factor's value in tables: a class by its name, other values as in YAML."""
    if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        value = value["class_path"]
    if isinstance(value, str):
        return value if is_number(value) else value.rpartition(".")[2]
    return f"{value:g}" if isinstance(value, float) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def _part(factor: str, value: Any) -> str:
    """The part of an arm's name, and so of file names, for a factor's value: `kl_weight_0p1`, `memory_null`."""
    label = _label(value)
    if isinstance(value, str | Mapping) and not is_number(label):
        return label
    words = re.findall(r"\w+", label.replace(".", "p").replace("-", "m"))
    return "_".join([factor.rpartition(".")[2], *words])
