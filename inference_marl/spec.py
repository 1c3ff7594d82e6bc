"""Experiment files: YAML to an `Experiment` and back.

A file and its Python twin build the same objects. An arm may start from another arm (`like`), and `factors` stand for
the arms of a design; values are checked and objects built by `building`.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from inference_marl.building import SpecError, available, check_names, construct, explain, learners_of, named
from inference_marl.described import first_line, plain
from inference_marl.designs import cells, override
from inference_marl.run import Experiment
from inference_marl.types import Game

__all__ = ["SpecError", "available", "build", "dump", "expanded", "load", "override"]


class _Loader(yaml.SafeLoader):
    """Plain data only, and no key twice: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"found the key {key.value} twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def load(path: str | Path, overrides: Sequence[tuple[str, Any]] = ()) -> Experiment:
    """Read an experiment file.

    Args:
        path: a YAML file.
        overrides: `(dotted key, value)` pairs, applied as if the file had been edited, so arms that are `like`
            another follow it.

    Raises:
        SpecError: for a missing or malformed file, an unknown key, a wrong type or an impossible combination.
    """
    try:
        config = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SpecError(f"{path}: got no readable file ({reason}), expected an experiment file") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: got malformed YAML, {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise SpecError(f"{path}: got {type(config).__name__}, expected a mapping with the keys game and arms")
    for key, value in overrides:
        override(config, key, value)
    return build(config)


def build(config: Mapping[str, Any]) -> Experiment:
    """The experiment that a file's content describes, checked in full.

    Raises:
        SpecError: as for `load`.
    """
    settings = dict(config)
    factors, design = settings.pop("factors", None), settings.pop("design", "grid")
    try:
        hints = check_names(Experiment, settings, "", also=("factors", "design"))
        game = construct(Game, settings.pop("game"), "game")
        described = _resolve_likes(settings.pop("arms"))
        if factors is None:
            arms = {name: learners_of(arm, f"arms.{name}") for name, arm in described.items()}
        else:
            if "levels" in settings:
                raise SpecError("levels: got levels beside factors, expected one of them: levels follow from factors")
            designed = cells(described, factors, design)
            arms = {name: cell.build() for name, cell in designed.items()}
            settings["levels"] = {name: cell.levels for name, cell in designed.items()}
        settings = _settings({name: named(hints[name], value, name) for name, value in settings.items()})
        experiment = Experiment(game=game, arms=arms, **settings)
        experiment.check()
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(first_line(error)) from error
    return experiment


def dump(experiment: Experiment) -> str:
    """The experiment as a file, with every default written out; `load` makes an equal one of it."""
    return yaml.safe_dump(experiment.describe()["init_args"], sort_keys=False)


def expanded(experiment: Experiment, factors: Mapping[str, Any], design: str) -> Experiment:
    """See `Experiment.ablation`."""
    config = experiment.describe()["init_args"]
    del config["levels"]
    return build(config | {"factors": plain(factors), "design": design})


def _resolve_likes(arms: Any) -> dict[str, Any]:
    if not isinstance(arms, Mapping) or not arms:
        raise SpecError(f"arms: got {arms!r}, expected a mapping from names to learners")
    Experiment.check_names(arms)
    resolved: dict[str, Any] = {}

    def resolve(name: str, asking: tuple[str, ...]) -> Any:
        if name in resolved:
            return resolved[name]
        arm = arms[name]
        if not (isinstance(arm, Mapping) and "like" in arm):
            return arm
        base = arm["like"]
        if not isinstance(base, str) or base not in arms:
            raise SpecError(f"arms.{name}.like: got {base!r}, expected another arm: {', '.join(arms)}")
        if base in asking:
            raise SpecError(
                f"arms.{name}.like: got a circle, {' -> '.join([*asking, base])}, expected an arm that starts from none"
            )
        merged = {"arms": {name: copy.deepcopy(resolve(base, (*asking, base)))}}
        for key, value in arm.items():
            if key != "like":
                override(merged, f"arms.{name}.{key}", value)
        return merged["arms"][name]

    for name in arms:
        resolved[name] = resolve(name, (name,))
    return resolved


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, skip={"game", "arms"})
    try:
        return dict(parser.parse_object(dict(given)).as_dict())
    except Exception as error:
        raise SpecError(explain(error, "")) from error
