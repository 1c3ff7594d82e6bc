"""Experiment files: YAML to an `Experiment` and back.

A file and its Python twin build the same objects; jsonargparse checks every key and type against the constructors'
signatures. What is added here: arms that start from another arm (`like`), dotted overrides, which the command line
uses too, and error messages that begin with the key's full path.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

import inference_marl.games
import inference_marl.guides
import inference_marl.learners
import inference_marl.models
from inference_marl.run import Experiment
from inference_marl.schedules import Schedule
from inference_marl.types import Conditional, Described, Game, Learner, within


class SpecError(ValueError):
    """An experiment file, or an override, that cannot be built; the message begins with the key."""


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
        config = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise SpecError(f"{path}: got no readable file ({error.strerror}), expected an experiment file") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: got malformed YAML, {error}") from error
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
    config = dict(config)
    accepted = list(inspect.signature(Experiment).parameters)
    for key in config:
        if key not in accepted:
            raise SpecError(f"{key}: got an unknown key, expected one of {', '.join(accepted)}{_closest(key, accepted)}")
    for key in ("game", "arms"):
        if key not in config:
            raise SpecError(f"{key}: got nothing, expected {'a game' if key == 'game' else 'at least one arm'}")
    game = _object(Game, config.pop("game"), "game")
    arms = {name: _arm(arm, f"arms.{name}") for name, arm in _resolve_likes(config.pop("arms")).items()}
    try:
        experiment = Experiment(game=game, arms=arms, **_settings(config))
        experiment.check()
    except ValueError as error:
        raise SpecError(str(error)) from error
    return experiment


def dump(experiment: Experiment) -> str:
    """The experiment as a file, with every default written out; `load` makes an equal one of it."""
    return yaml.safe_dump(experiment.describe()["init_args"], sort_keys=False)


def override(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one key of a file's content, in place.

    `init_args` may be left out of the path (`arms.a.guide.policy` reaches into `init_args` of `arms.a` and of its
    guide), and list items are numbers.

    Raises:
        SpecError: if the path leads through something that has no keys.
    """
    *path, last = dotted.split(".")
    node: Any = config
    walked: list[str] = []
    for key in [*path, last]:
        node = _inside(node, key)
        if not isinstance(node, dict | list) or (isinstance(node, list) and not key.isdigit()):
            raise SpecError(f"{dotted}: got a path through {'.'.join(walked) or 'nothing'}, which has no keys")
        if key is last and len(walked) == len(path):
            break
        if isinstance(node, list):
            node = node[int(key)]
        else:
            if isinstance(node.get(key), str):
                node[key] = {"class_path": node[key]}
            node = node.setdefault(key, {})
        walked.append(key)
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value


def _inside(node: Any, key: str) -> Any:
    if isinstance(node, dict) and "class_path" in node and key not in ("class_path", "init_args"):
        return node.setdefault("init_args", {})
    return node


def _resolve_likes(arms: Any) -> dict[str, Any]:
    if not isinstance(arms, dict) or not arms:
        raise SpecError(f"arms: got {arms!r}, expected a mapping from names to learners")
    resolved: dict[str, Any] = {}

    def resolve(name: str, asking: tuple[str, ...]) -> Any:
        if name in resolved:
            return resolved[name]
        arm = arms[name]
        if not (isinstance(arm, dict) and "like" in arm):
            return arm
        base = arm["like"]
        if base not in arms:
            raise SpecError(f"arms.{name}.like: got {base!r}, expected another arm: {', '.join(arms)}")
        if base in asking:
            raise SpecError(f"arms.{name}.like: got a circle, {' -> '.join([*asking, base])}")
        merged = {"arm": copy.deepcopy(resolve(base, (*asking, base)))}
        for key, value in arm.items():
            if key != "like":
                override(merged, f"arm.{key}", value)
        return merged["arm"]

    for name in arms:
        resolved[name] = resolve(name, (name,))
    return resolved


def _arm(config: Any, key: str) -> Learner | list[Learner]:
    if isinstance(config, list):
        return [_object(Learner, seat, f"{key}[{i}]") for i, seat in enumerate(config)]
    return _object(Learner, config, key)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, skip={"game", "arms"})
    try:
        return dict(parser.parse_object(dict(config)).as_dict())
    except Exception as error:
        raise SpecError(_explain(error, "", None, None)) from error


def _object(base: type, config: Any, key: str) -> Any:
    """Check `config` with jsonargparse against the declared base type, then build it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=base, required=True)
    try:
        checked = parser.parse_object({"it": config}).as_dict()["it"]
    except Exception as error:
        raise SpecError(_explain(error, key, base, config)) from error
    try:
        return _instantiate(checked, key)
    except ValueError as error:
        raise SpecError(str(error)) from error


def _instantiate(value: Any, key: str) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_instantiate(item, f"{key}[{i}]") for i, item in enumerate(value))
    if not (isinstance(value, Mapping) and "class_path" in value):
        return value
    module, _, name = value["class_path"].rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, Described) and _is_concrete(cls)):
        raise SpecError(f"{key}: got {value['class_path']}, expected a game, learner, model or guide that can be made")
    arguments = value.get("init_args") or {}
    built = {name: _instantiate(argument, f"{key}.{name}") for name, argument in arguments.items()}
    with within(key):
        return cls(**built)


def _explain(error: Exception, key: str, base: type | None, config: Any) -> str:
    """jsonargparse's nested message as one line: full key, what it got, what it expected."""
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    nested = [match.group(1) for line in lines if (match := re.search(r'Parser key "([^"]+)"', line))]
    path = [part for part in [key, *nested] if part and part != "it"]
    where = ".".join(path) or "experiment"
    for line in lines:
        if match := re.search(r"Option '([^']+)' is not accepted", line):
            option = match.group(1).removeprefix("it.").removeprefix("init_args.")
            accepted = _accepted(base, config, path[1:])
            known = f", expected one of {', '.join(accepted)}{_closest(option, accepted)}" if accepted else ""
            return f"{where}.{option}: got an unknown key{known}".lstrip(".")
        if match := re.search(r"(?:Expected a dot import path string|Import path) ?:? ?(\S+)", line):
            named = match.group(1)
            hint = _hint(base, config, path[1:])
            choices = sorted({cls.__name__ for cls in _subclasses(hint)})
            plain = [cls.__name__ for cls in typing.get_args(hint) if cls in (int, float, str)]
            reason = "that is of another kind" if "does not correspond" in line else "which is no known class"
            offer = f"; expected {' or '.join([*plain, 'one of '])}{', '.join(choices)}, or an import path"
            return f"{where}: got {named}, {reason}{offer}{_closest(named, choices)}"
        if match := re.search(r'following arguments are required: (.+)|Key "([^"]+)" is required', line):
            missing = (match.group(1) or match.group(2)).removeprefix("it.").removeprefix("init_args.")
            return f"{where}.{missing}: got nothing, expected a value"
    expected = [
        re.sub(r"<class '([^']+)'>", r"\1", match.group(1)).replace("NoneType", "null")
        for line in lines
        if (match := re.match(r"Expected (?:a |an )?(.+)", line))
    ]
    got = next((m.group(1) for line in lines if (m := re.match(r"Given value: (.+)", line))), None)
    if expected:
        leaf = [re.split(r"\. Got value: ", item) for item in expected]
        got = next((item[1] for item in leaf if len(item) > 1), got)
        return f"{where}: got {got}, expected {' or '.join(dict.fromkeys(item[0].rstrip('.') for item in leaf))}"
    return f"{where}: {' '.join(lines)}"


def _closest(word: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _subclasses(hint: Any) -> list[type]:
    found: list[type] = []
    for cls in typing.get_args(hint) or [hint]:
        if isinstance(cls, type) and issubclass(cls, Described):
            below = cls.__subclasses__()
            found += [leaf for leaf in below if _is_concrete(leaf)]
            found += [deeper for leaf in below for deeper in _subclasses(leaf)]
    return [cls for cls in found if not cls.__name__.startswith("_")]


def _is_concrete(cls: type) -> bool:
    """Whether a class can do its work: nothing abstract, and no base's `forward` that only raises."""
    bases = (Conditional, inference_marl.models.Critic, inference_marl.models.Optimality)
    return not inspect.isabstract(cls) and getattr(cls, "forward", None) not in [base.forward for base in bases]


def _class_at(hint: Any, config: Any) -> type | None:
    name = config.get("class_path") if isinstance(config, Mapping) else config
    return next((cls for cls in _subclasses(hint) if name in (cls.__name__, f"{cls.__module__}.{cls.__qualname__}")), None)


def _hint(base: Any, config: Any, path: Sequence[str]) -> Any:
    """The declared type at a path inside a described object, or `None` if it cannot be followed."""
    for key in path:
        cls = _class_at(base, config)
        if cls is None:
            return None
        base = typing.get_type_hints(cls.__init__).get(key)
        arguments = config.get("init_args") if isinstance(config, Mapping) else None
        config = (arguments or {}).get(key)
    return base


def _accepted(base: Any, config: Any, path: Sequence[str]) -> list[str]:
    cls = None
    for depth in range(len(path) + 1):
        cls = _class_at(_hint(base, config, path[:depth]), _value(config, path[:depth]))
    return list(inspect.signature(cls).parameters) if cls else []


def _value(config: Any, path: Sequence[str]) -> Any:
    for key in path:
        config = ((config.get("init_args") or {}) if isinstance(config, Mapping) else {}).get(key)
    return config


def available() -> dict[str, dict[str, str]]:
    """What experiment files can name, by kind: short name to the first line of its docstring."""
    kinds: dict[str, type] = {
        "games": Game,
        "learners": Learner,
        "opponent priors": inference_marl.models.OpponentPrior,
        "critics": inference_marl.models.Critic,
        "optimality": inference_marl.models.Optimality,
        "guides": inference_marl.guides.Guide,
        "conditionals": Conditional,
        "schedules": Schedule,
    }
    listed: dict[str, dict[str, str]] = {}
    for kind, base in kinds.items():
        exclude = inference_marl.models.OpponentPrior if base is Conditional else ()
        classes = {
            cls.__name__: (inspect.getdoc(cls) or "").partition("\n")[0]
            for cls in _subclasses(base)
            if not issubclass(cls, exclude or ())
        }
        listed[kind] = dict(sorted(classes.items()))
    return listed
