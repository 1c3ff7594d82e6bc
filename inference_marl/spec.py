"""Experiment files: YAML to an `Experiment` and back.

A file and its Python twin build the same objects; jsonargparse checks every value against the type that the
constructor's signature declares. What is added here: arms that start from another arm (`like`), arms for every
combination of the levels of some factors (`factors`), dotted overrides, which the command line uses too, what a class
may be named and given, and errors of one line that begin with the key's full path.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import inspect
import itertools
import re
import typing
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

import inference_marl.games
import inference_marl.guides
import inference_marl.learners
import inference_marl.models
from inference_marl.playing import first_line
from inference_marl.run import Experiment
from inference_marl.schedules import Schedule
from inference_marl.types import Conditional, Described, Game, Learner, plain, within


class SpecError(ValueError):
    """An experiment file, or an override, that cannot be built; the message is one line and begins with the key."""


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
        hints = _check_names(Experiment, settings, "", also=("factors", "design"))
        game = _object(Game, settings.pop("game"), "game")
        described = _resolve_likes(settings.pop("arms"))
        if factors is None:
            arms = {name: _arm(arm, f"arms.{name}") for name, arm in described.items()}
        else:
            if "levels" in settings:
                raise SpecError("levels: got levels beside factors, expected one of them: levels follow from factors")
            cells = _cells(described, factors, design)
            arms = {name: cell.build() for name, cell in cells.items()}
            settings["levels"] = {name: cell.levels for name, cell in cells.items()}
        settings = _settings({name: _named(hints[name], value, name) for name, value in settings.items()})
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


def override(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one key of a file's content, in place.

    `init_args` may be left out of the path (`arms.a.guide.policy` reaches into `init_args` of `arms.a` and of its
    guide), and list items are numbers.

    Raises:
        SpecError: if the path leads through something that has no keys.
    """
    *path, last = dotted.split(".")
    node: Any = config
    for depth, key in enumerate(path):
        node = _inside(node, path[:depth], key, dotted)
        if isinstance(node, dict) and ("like" in node or (depth == 3 and path[0] == "factors")):
            # What it differs from is not known yet: kept as one more difference, applied after the others.
            last = ".".join([*path[depth:], last])
            node.pop(last, None)
            node[last] = copy.deepcopy(value)
            return
        index: Any = key
        if isinstance(node, list):
            index = int(key)
        elif key not in node:
            node[key] = {}
        if isinstance(node[index], str):
            node[index] = {"class_path": node[index]}
        node = node[index]
    node = _inside(node, path, last, dotted)
    node[int(last) if isinstance(node, list) else last] = copy.deepcopy(value)


def _inside(node: Any, walked: Sequence[str], key: str, dotted: str) -> Any:
    """Where `key` of `node` is kept: `node` itself, or its `init_args`."""
    where = ".".join(walked)
    if isinstance(node, dict) and "class_path" in node and key not in ("class_path", "init_args"):
        if node.get("init_args") is None:
            node["init_args"] = {}
        node = node["init_args"]
    if isinstance(node, list) and not (key.isdecimal() and int(key) < len(node)):
        raise SpecError(f"{dotted}: got item {key} of {where}, expected a number below {len(node)}")
    if not isinstance(node, dict | list):
        raise SpecError(f"{dotted}: got a path through {where}, which has no keys, expected one that ends there")
    return node


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


@dataclass(frozen=True)
class _Cell:
    """An arm of a design: where it starts from, and what differs at its level of each factor."""

    base: str
    config: Any
    levels: dict[str, str]
    differences: Sequence[_Level]

    def build(self) -> Learner | list[Learner]:
        """The arm.

        Raises:
            SpecError: as for `_arm`, with the key in the file where the value that is refused stands.
        """
        arm = f"arms.{self.base}"
        merged = {"arms": {self.base: copy.deepcopy(self.config)}}
        stands = {}
        try:
            for level in self.differences:
                for key, value in level.differences.items():
                    stands[f"{arm}.{key}"] = level.key
                    override(merged, f"{arm}.{key}", value)
            return _arm(merged["arms"][self.base], arm)
        except ValueError as error:
            where, separator, rest = first_line(error).partition(": ")
            about = [
                key for key in stands if re.match(rf"{re.escape(key)}([.\[]|$)", where) or key.startswith(f"{where}.")
            ]
            if where == arm or not about:
                raise
            raise SpecError(f"{stands[max(about, key=len)]}{where.removeprefix(arm)}{separator}{rest}") from error


def _cells(arms: Mapping[str, Any], factors: Any, design: Any) -> dict[str, _Cell]:
    """The arms of a design by name, the one that the others are compared with first.

    Raises:
        SpecError: if a factor or the design is malformed, or two arms would have one name.
    """
    if design not in ("grid", "one_at_a_time"):
        raise SpecError(f"design: got {design!r}, expected grid or one_at_a_time")
    if not isinstance(factors, Mapping) or not factors:
        raise SpecError(f"factors: got {factors!r}, expected a mapping from names to levels")
    levels = {str(factor): _levels(str(factor), given) for factor, given in factors.items()}
    if design == "grid":
        chosen = [dict(zip(levels, names, strict=True)) for names in itertools.product(*levels.values())]
    else:
        first = {factor: next(iter(given)) for factor, given in levels.items()}
        others = [first | {factor: name} for factor, given in levels.items() for name in list(given)[1:]]
        chosen = [first, *others]
    cells: dict[str, _Cell] = {}
    for arm, config in arms.items():
        for at in chosen:
            different = [factor for factor in at if design == "grid" or at[factor] != first[factor]]
            parts = [levels[factor][at[factor]].name for factor in different] or ["reference"]
            name = "-".join([*([arm] if len(arms) > 1 else []), *parts])
            if name in cells:
                raise SpecError(f"factors: got two arms called {name}, expected names of levels that tell them apart")
            kept = {"arm": arm} if len(arms) > 1 else {}
            cells[name] = _Cell(arm, config, kept | at, [levels[factor][level] for factor, level in at.items()])
    Experiment.check_names(cells)
    return cells


@dataclass(frozen=True)
class _Level:
    """A level of a factor: its part of an arm's name, the key where it stands, and values by dotted key."""

    name: str
    key: str
    differences: dict[str, Any]


def _levels(factor: str, given: Any) -> dict[str, _Level]:
    """A factor's levels by the label that tables give them."""
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
    """What a value of a factor is called in tables: a class by its name, the rest as YAML would write it."""
    if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        value = value["class_path"]
    if isinstance(value, str):
        return value if _is_number(value) else value.rpartition(".")[2]
    return f"{value:g}" if isinstance(value, float) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def _part(factor: str, value: Any) -> str:
    """What a value of a factor is called in the name of an arm, so of a file: `kl_weight_0p1`, `memory_null`."""
    label = _label(value)
    if isinstance(value, str | Mapping) and not _is_number(label):
        return label
    words = re.findall(r"\w+", label.replace(".", "p").replace("-", "m"))
    return "_".join([factor.rpartition(".")[2], *words])


def _arm(config: Any, key: str) -> Learner | list[Learner]:
    if isinstance(config, list):
        return [_object(Learner, seat, f"{key}[{i}]") for i, seat in enumerate(config)]
    learner: Learner = _object(Learner, config, key)
    return learner


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, skip={"game", "arms"})
    try:
        return dict(parser.parse_object(dict(given)).as_dict())
    except Exception as error:
        raise SpecError(_explain(error, "")) from error


def _object(base: type, config: Any, key: str) -> Any:
    """Check `config` against the declared base type, then build it."""
    named = _named(base, config, key)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=base, required=True)
    try:
        checked = parser.parse_object({"it": named}).as_dict()["it"]
    except Exception as error:
        raise SpecError(_explain(error, key)) from error
    return _instantiate(base, checked, key)


def _named(hint: Any, config: Any, key: str) -> Any:
    """A copy of what a file says at `key`, in which every class is there, of the declared type, and named in full."""
    kinds = _kinds(hint)
    bases = _bases(hint)
    if config is None and not any(kind in (NoneType, Any, object) for kind in kinds):
        raise SpecError(f"{key}: got nothing, expected {_expected(hint)}")
    a_value = len(bases) < len([kind for kind in kinds if kind is not NoneType]) and not (
        isinstance(config, Mapping) or (isinstance(config, str) and not _is_number(config))
    )
    if config is None or not bases or a_value:
        return _each(lambda item, where: _named(_elements(hint), item, where), config, key)
    if isinstance(config, str):
        config = {"class_path": config}
    if not isinstance(config, Mapping):
        raise SpecError(f"{key}: got {config!r}, expected {_expected(hint)}")
    for entry in config:
        if entry not in ("class_path", "init_args"):
            raise SpecError(f"{key}.{entry}: got an unknown key, expected class_path or init_args")
    if "class_path" not in config:
        raise SpecError(f"{key}.class_path: got nothing, expected {_expected(hint)}")
    cls = _class(config["class_path"], hint, key)
    given = config.get("init_args") or {}
    if not isinstance(given, Mapping):
        raise SpecError(f"{key}.init_args: got {given!r}, expected a mapping from arguments to values")
    hints = _check_names(cls, given, f"{key}.")
    arguments = {name: _named(hints.get(name, Any), value, f"{key}.{name}") for name, value in given.items()}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def _check_names(cls: type, given: Mapping[str, Any], prefix: str, also: Sequence[str] = ()) -> dict[str, Any]:
    """Refuse arguments that are unknown or missing; returns the types of those that `cls` declares.

    What else a file may say there, `also`, is told to those who write what it may not.
    """
    init: Any = next(vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    parameters = [] if init is object.__init__ else list(inspect.signature(init).parameters.values())[1:]
    accepted = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known_too = [*accepted, *also]
    # Of a class that takes any keyword, jsonargparse finds out what it hands to its base.
    any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in given:
        if name not in accepted and not any_keyword:
            known = f"one of {', '.join(known_too)}" if known_too else "none"
            raise SpecError(f"{prefix}{name}: got an unknown key, expected {known}{_closest(name, known_too)}")
    hints = _hints(cls)
    missing = [p.name for p in parameters if p.name in accepted and p.default is p.empty and p.name not in given]
    if missing:
        also = f" ({', '.join(missing[1:])} missing too)" if missing[1:] else ""
        raise SpecError(f"{prefix}{missing[0]}: got nothing, expected {_expected(hints.get(missing[0]))}{also}")
    return hints


def _hints(cls: type) -> dict[str, Any]:
    """Declared types of a constructor's arguments, those that it hands to a base's included."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        # Names that exist for type checkers only: jsonargparse has its own ways to find them.
        with contextlib.suppress(Exception):
            hints |= typing.get_type_hints(vars(base)["__init__"])
    return hints


def _class(path: Any, hint: Any, key: str) -> type:
    """The class that a file names, if it is of the declared type and can be made.

    Raises:
        SpecError: if not. Its module has been imported then, but nothing of it was called.
    """
    known = {known.__name__: known for base in _bases(hint) for known in _subclasses(base)}
    if isinstance(path, str) and path in known:
        return known[path]
    if not isinstance(path, str) or "." not in path:
        raise SpecError(f"{key}: got {path!r}, expected {_expected(hint)}{_closest(path, list(known))}")
    return _imported(path, _bases(hint), key, _expected(hint))


def _imported(path: str, bases: tuple[type, ...], key: str, expected: str) -> type:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise SpecError(f"{key}: got {path}, which cannot be imported ({reason}), expected {expected}") from error
    if not (isinstance(found, type) and issubclass(found, bases)):
        raise SpecError(f"{key}: got {path}, which is something else, expected {expected}")
    if not _is_concrete(found):
        raise SpecError(f"{key}: got {path}, which is only a base of others, expected {expected}")
    return found


def _instantiate(hint: Any, value: Any, key: str) -> Any:
    """What was checked as `hint`, with every class made; where no class is declared, nothing is made."""
    if not (_bases(hint) and isinstance(value, Mapping)):
        return _each(lambda item, where: _instantiate(_elements(hint), item, where), value, key)
    cls = _imported(value["class_path"], _bases(hint), key, _expected(hint))
    hints = _hints(cls)
    arguments = value.get("init_args") or {}
    built = {name: _instantiate(hints.get(name, Any), given, f"{key}.{name}") for name, given in arguments.items()}
    with within(key):
        try:
            return cls(**built)
        except TypeError as error:
            raise SpecError(f"{key}: got arguments that {cls.__name__} cannot use: {first_line(error)}") from error


def _explain(error: Exception, key: str) -> str:
    """One line of what jsonargparse says of a plain value: full key, what it got, what it expected."""
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    nested = [match.group(1) for line in lines if (match := re.search(r'Parser key "([^"]+)"', line))]
    where = ".".join(part for part in [key, *nested] if part and part != "it")
    expected: list[str] = []
    got = next((match.group(1) for line in lines if (match := re.match(r"Given value: (.+)", line))), "")
    for line in lines:
        if match := re.match(r"Expected (?:an? )?(.+?)(?:\. Got value: (.+))?$", line):
            expected.append(_plainly(match.group(1)))
            got = match.group(2) or got
    if expected:
        return f"{where}: got {got}, expected {' or '.join(dict.fromkeys(expected))}"
    return f"{where}: {' '.join(lines)}"


def _plainly(kind: str) -> str:
    """A type as jsonargparse writes it, in the words of YAML."""
    kind = re.sub(r"(?:\w+\.)+", "", re.sub(r"<class '([^']+)'>", r"\1", kind)).rstrip(".")
    kind = re.sub(r"Literal\[(.+)\]", r"one of \1", kind)
    return re.sub(r"Sequence|tuple", "list", kind).replace("NoneType", "null")


def _expected(hint: Any) -> str:
    """What may stand where `hint` is declared, for a message."""
    plain = [_plainly(str(kind)) for kind in _kinds(hint) if kind not in _bases(hint)]
    names = sorted({cls.__name__ for base in _bases(hint) for cls in _subclasses(base)})
    if names:
        plain.append(f"one of {', '.join(names)}, or an import path")
    return " or ".join(plain) if hint not in (None, Any) else "a value"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _closest(word: Any, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(word), choices, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The members of a union or of several types, or the one type that is not one."""
    if isinstance(hint, tuple):
        return tuple(kind for each in hint for kind in _kinds(each))
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def _elements(hint: Any) -> tuple[Any, ...]:
    """The declared types of what the declared list or mapping holds."""
    found: list[Any] = []
    for kind in _kinds(hint):
        of_mapping = isinstance(origin := typing.get_origin(kind), type) and issubclass(origin, Mapping)
        found += typing.get_args(kind)[-1:] if of_mapping else typing.get_args(kind)
    return tuple(found) or (Any,)


def _each(change: Callable[[Any, str], Any], value: Any, key: str) -> Any:
    """A copy of `value`, with every item of a list or mapping changed; `change` takes it and its key."""
    if isinstance(value, list | tuple):
        return type(value)(change(item, f"{key}[{i}]") for i, item in enumerate(value))
    if isinstance(value, Mapping):
        return {name: change(item, f"{key}.{name}") for name, item in value.items()}
    return copy.deepcopy(value)


def _bases(hint: Any) -> tuple[type, ...]:
    """The classes among a declared type's members of which a file may name a subclass."""
    return tuple(kind for kind in _kinds(hint) if isinstance(kind, type) and issubclass(kind, Described))


def _subclasses(base: type) -> list[type]:
    """Every class below `base`, and `base`, that can be made; those of this package last."""
    found = [base] if _is_concrete(base) and not base.__name__.startswith("_") else []
    below: type
    for below in base.__subclasses__():
        found += _subclasses(below)
    return sorted(found, key=lambda cls: cls.__module__.startswith("inference_marl."))


def _is_concrete(cls: type) -> bool:
    """Whether a class can do its work: nothing abstract, and no base's `forward` that only raises."""
    bases = (torch.nn.Module, inference_marl.models.Critic, inference_marl.models.Optimality)
    undefined = [base.forward for base in bases]
    orderless = issubclass(cls, inference_marl.guides.Guide) and not hasattr(cls, "order")
    silent = not issubclass(cls, Learner) and getattr(cls, "forward", None) in undefined
    return not (inspect.isabstract(cls) or orderless or silent)


def available() -> dict[str, dict[str, str]]:
    """What experiment files can name by a short name, by kind: the name to the first line of its docstring."""
    models, guides = inference_marl.models, inference_marl.guides
    kinds: dict[str, tuple[type, ...]] = {
        "games": (Game,),
        "learners": (Learner,),
        "opponent priors": (models.OpponentPrior,),
        "transitions": (models.TransitionModel,),
        "critics": (models.Critic,),
        "optimality": (models.Optimality,),
        "guides": (guides.Guide, guides.TrajectoryGuide),
        "conditionals": (Conditional,),
        "schedules": (Schedule,),
    }
    # Conditionals all, but listed with what they are for.
    elsewhere = (models.OpponentPrior, models.TransitionModel, models.InitialState)
    listed: dict[str, dict[str, str]] = {}
    for kind, bases in kinds.items():
        classes = {
            cls.__name__: (inspect.getdoc(cls) or "").partition("\n")[0].removesuffix("::")
            for base in bases
            for cls in _subclasses(base)
            if cls.__module__.startswith("inference_marl.")
            and not (kind == "conditionals" and issubclass(cls, elsewhere))
        }
        listed[kind] = dict(sorted(classes.items()))
    return listed
