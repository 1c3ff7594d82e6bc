"""Experiment files: YAML to an `Experiment` or a `Suite` and back.

A file and the equivalent Python code build the same objects. An arm may be based on another arm (`like`), `factors`
define the arms of a design, and `runs` define several experiments in one file, a suite.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from inference_marl.config import shipped
from inference_marl.config.build import SpecError, actors_of, as_spec_errors, check_names, construct, explain, named
from inference_marl.config.check import check
from inference_marl.config.factors import cells
from inference_marl.config.limits import check_tree
from inference_marl.config.overrides import blamed, override, resolve_likes
from inference_marl.experiment import Experiment, Suite
from inference_marl.play import Evaluation, Tasks
from inference_marl.types import Actor, Game

Overrides = Sequence[tuple[str, Any]]
"""Values by dotted key, applied in order."""

Arms = dict[str, Actor | list[Actor]]
"""Arms by name."""

Made = dict[str, Actor | list[Actor]]
"""Cache of arms by their content in a file, since checking them takes time and descriptions can be shared."""


KEYS = (*inspect.signature(Experiment).parameters, "factors", "design", "runs", "show")
"""The top-level keys of a file."""


class _Loader(yaml.SafeLoader):
    """Loads plain data only, and rejects duplicate keys, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "found a key that is no word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"found the key {key.value} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def find_classes_in(folder: Path) -> None:
    """Add a folder to the end of the import path, so that files can name classes in it."""
    place = str(folder.resolve())
    if folder.is_dir() and place not in sys.path:
        sys.path.append(place)


def load(path: str | Path, overrides: Overrides = ()) -> Experiment:
    """Read the file of one experiment.

    A user's own classes are found beside the file, and wherever else Python finds modules.

    Args:
        path: a YAML file, or the name of a shipped experiment, such as `climbing`.
        overrides: `(dotted key, value)` pairs, applied as if the file had been edited, so arms that are `like` another
            follow it; an arm set to `None` is left out.

    Raises:
        SpecError: for a missing or malformed file, an unknown key, a wrong type or an impossible combination.
    """
    found = load_any(path, overrides)
    if isinstance(found, Suite):
        raise SpecError(f"{path}: got a suite of {len(found.runs)} runs, expected one experiment; take one of its runs")
    return found


def load_any(path: str | Path, overrides: Overrides = ()) -> Experiment | Suite:
    """Read the file of one experiment or, if it has the key `runs`, of a suite.

    Args:
        path: a YAML file, or the name of a shipped experiment, such as `climbing`.
        overrides: as for `load`. In a suite they apply to all runs, even if a run sets another value; those with the
            name of a run, such as `runs.penalty.steps`, to that run.

    Raises:
        SpecError: as for `load`.
    """
    path = shipped.located(path)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        also = f", or {path.stem}, which is shipped" if not path.exists() and path.stem in shipped.names() else ""
        raise SpecError(f"{path}: got no readable file ({reason}), expected an experiment file{also}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: got malformed YAML, {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise SpecError(f"{path}: got lists or mappings within each other too often, expected few levels") from error
    if not isinstance(config, dict):
        raise SpecError(f"{path}: got {type(config).__name__}, expected a mapping with the keys game and arms")
    if not shipped.is_shipped(path):  # users' classes are not beside shipped files
        find_classes_in(path.parent)
    check_tree(config)
    is_suite = "runs" in config or any(key.partition(".")[0] == "runs" for key, _ in overrides)
    return build_suite(config, overrides) if is_suite else _overridden(config, overrides)


def build(config: Mapping[str, Any]) -> Experiment:
    """Build the experiment described by a file's content, with all checks.

    Raises:
        SpecError: as for `load`.
    """
    return _build(config)


def _build(config: Mapping[str, Any], without: Collection[str] = (), made: Made | None = None) -> Experiment:
    """Build an experiment without some of its arms, which others may be `like`.

    Args:
        config: as for `build`.
        without: names of the arms to leave out.
        made: a cache of arms.
    """
    settings = dict(config)
    if "runs" in settings:
        raise SpecError("runs: got a suite of several runs, expected one experiment; build it with build_suite")
    factors, design = settings.pop("factors", None), settings.pop("design", "grid")
    if factors is None and "design" in config:
        raise SpecError(f"design: got {design} without factors, expected it beside them")
    with as_spec_errors():
        hints = check_names(Experiment, settings, "", also=("factors", "design", "runs"))
        game = construct(Game, settings.pop("game"), "game")
        described = {name: arm for name, arm in resolve_likes(settings.pop("arms")).items() if name not in without}
        if factors is None:
            arms = _arms(described, {} if made is None else made)
        else:
            if "levels" in settings:
                raise SpecError("levels: got levels beside factors, expected one of them: levels follow from factors")
            designed = cells(described, factors, design)
            arms = {name: cell.build() for name, cell in designed.items()}
            settings["levels"] = {name: cell.levels for name, cell in designed.items()}
        for name in {"published", "levels"} & set(settings):
            if isinstance(settings[name], Mapping):
                settings[name] = {arm: each for arm, each in settings[name].items() if arm not in without}
        evaluation = _evaluations(settings.pop("evaluation", None))
        tasks = construct(Tasks | None, settings.pop("tasks", None), "tasks")
        settings = _settings({name: named(hints[name], value, name) for name, value in settings.items()})
        experiment = Experiment(game=game, arms=arms, evaluation=evaluation, tasks=tasks, **settings)
        check(experiment)
    return experiment


def _evaluations(said: Any) -> Evaluation | dict[str, Evaluation] | None:
    """Build the evaluations: one, several by name, or none."""
    if isinstance(said, Mapping) and "class_path" not in said:
        return {name: construct(Evaluation, each, f"evaluation.{name}") for name, each in said.items()}
    found: Evaluation | None = construct(Evaluation | None, said, "evaluation")
    return found


def _arms(described: Mapping[str, Any], made: Made) -> Arms:
    arms = {}
    for name, arm in described.items():
        said = repr(arm)
        if said not in made:
            made[said] = actors_of(arm, f"arms.{name}")
        arms[name] = made[said]
    return arms


def _overridden(config: Mapping[str, Any], overrides: Overrides, made: Made | None = None) -> Experiment:
    """Build the experiment of a file's content after overrides; `made` as for `_build`."""
    changed = copy.deepcopy(dict(config))
    without = set()
    for key, value in overrides:
        room, _, arm = key.partition(".")
        if room == "arms" and value is None and arm and "." not in arm and isinstance(changed.get("arms"), Mapping):
            if arm not in (arms := changed["arms"]):
                raise SpecError(f"{key}: got an unknown arm to leave out, expected one of {', '.join(map(str, arms))}")
            without.add(arm)
            continue
        if room == "arms":
            without.discard(arm)
        override(changed, key, value)
    return _build(changed, without, made)


def build_suite(config: Mapping[str, Any], overrides: Overrides = ()) -> Suite:
    """Build the suite described by the content of a file with the key `runs`, with all checks.

    Args:
        config: `runs` maps names of runs to their changes of the rest of the file: values by dotted key, as in arms
            that are `like` another; `None` leaves an arm out. `show` names the metrics of the suite's tables.
        overrides: as for `load_any`; a run set to `None` is left out.

    Raises:
        SpecError: as for `load`; the message names the run, if it is about one.
    """
    rest = copy.deepcopy(dict(config))
    for_all, for_one, without = _shared_out(rest, overrides)
    runs, show = rest.pop("runs", None), rest.pop("show", ())
    if not isinstance(runs, Mapping) or not runs:
        raise SpecError(f"runs: got {runs!r}, expected a mapping from names to what differs there")
    for name in [*for_one, *without]:
        if name not in runs:
            raise SpecError(f"runs.{name}: got an unknown run, expected one of {', '.join(map(str, runs))}")
    made: Made = {}
    built = {
        name: _run(name, rest, differences, for_all, for_one.get(name, []), made)
        for name, differences in runs.items()
        if differences is not None and name not in without
    }
    if not (isinstance(show, Sequence) and not isinstance(show, str)):
        raise SpecError(f"show: got {show!r}, expected a list of metrics")
    with as_spec_errors():
        return Suite(built, show)


def _shared_out(
    config: dict[str, Any], overrides: Overrides
) -> tuple[list[tuple[str, Any]], dict[str, list[tuple[str, Any]]], set[str]]:
    """Split overrides into those of all runs, those of single runs, and omitted runs; apply the others in place."""
    for_all: list[tuple[str, Any]] = []
    for_one: dict[str, list[tuple[str, Any]]] = {}
    without: set[str] = set()
    for key, value in overrides:
        room, _, inner = key.partition(".")
        name, _, dotted = inner.partition(".")
        if room == "runs" and dotted:
            for_one.setdefault(name, []).append((dotted, value))
        elif room == "runs" and inner and value is None:
            without.add(name)
        elif room in ("runs", "show"):
            without.discard(name)
            override(config, key, value)
        else:
            for_all.append((key, value))
    return for_all, for_one, without


def _run(
    name: Any, rest: Mapping[str, Any], differences: Any, for_all: Overrides, its: Overrides, made: Made
) -> Experiment:
    """Build one run of a suite: the rest of the file, its changes, and overrides of all runs and of this one."""
    if not isinstance(differences, Mapping) or not all(isinstance(key, str) for key in differences):
        raise SpecError(f"runs.{name}: got {differences!r}, expected a mapping from dotted keys to values")
    own = list(differences.items())
    stands = {key: f"runs.{name}." for key, _ in own} | {key: "" for key, _ in for_all}
    stands |= {key: f"runs.{name}." for key, _ in its}
    try:
        return _overridden(rest, [*own, *for_all, *its], made)
    except SpecError as error:
        about = blamed(str(error).partition(": ")[0], stands)
        prefix = "" if about is None else stands[about]
        raise SpecError(f"{prefix}{error}" if prefix else f"{error} (in runs.{name})") from error


def dump(experiment: Experiment | Suite) -> str:
    """Write an experiment or a suite as YAML, with all defaults; `load_any` reads an equal one from it."""
    content = experiment.describe() if isinstance(experiment, Suite) else experiment.describe()["init_args"]
    return yaml.safe_dump(content, sort_keys=False)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(_parser_of_settings().parse_object(dict(given), defaults=False).as_dict())
    except Exception as error:
        raise SpecError(explain(error, "")) from error


@cache
def _parser_of_settings() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, skip={"game", "arms", "evaluation", "tasks"})
    return parser
