"""Arms that differ from another arm: dotted overrides, and the arms of an ablation's design."""

from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from inference_marl.config.build import SpecError, is_number, learners_of
from inference_marl.described import first_line
from inference_marl.runs.run import Experiment
from inference_marl.types import Learner


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


def blamed(where: str, keys: Iterable[str]) -> str | None:
    """Which of some overrides the key of an error message is about: the one leading farthest, `None` if none does."""
    about = [key for key in keys if re.match(rf"{re.escape(key)}([.\[]|$)", where) or key.startswith(f"{where}.")]
    return max(about, key=len, default=None)


@dataclass(frozen=True)
class Cell:
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
            return learners_of(merged["arms"][self.base], arm)
        except ValueError as error:
            where, separator, rest = first_line(error).partition(": ")
            about = blamed(where, stands)
            if where == arm or about is None:
                raise
            raise SpecError(f"{stands[about]}{where.removeprefix(arm)}{separator}{rest}") from error


def cells(arms: Mapping[str, Any], factors: Any, design: Any) -> dict[str, Cell]:
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
    cells: dict[str, Cell] = {}
    for arm, config in arms.items():
        for at in chosen:
            different = [factor for factor in at if design == "grid" or at[factor] != first[factor]]
            parts = [levels[factor][at[factor]].name for factor in different] or ["reference"]
            name = "-".join([*([arm] if len(arms) > 1 else []), *parts])
            if name in cells:
                raise SpecError(f"factors: got two arms called {name}, expected names of levels that tell them apart")
            kept = {"arm": arm} if len(arms) > 1 else {}
            cells[name] = Cell(arm, config, kept | at, [levels[factor][level] for factor, level in at.items()])
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
        return value if is_number(value) else value.rpartition(".")[2]
    return f"{value:g}" if isinstance(value, float) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def _part(factor: str, value: Any) -> str:
    """What a value of a factor is called in the name of an arm, so of a file: `kl_weight_0p1`, `memory_null`."""
    label = _label(value)
    if isinstance(value, str | Mapping) and not is_number(label):
        return label
    words = re.findall(r"\w+", label.replace(".", "p").replace("-", "m"))
    return "_".join([factor.rpartition(".")[2], *words])
