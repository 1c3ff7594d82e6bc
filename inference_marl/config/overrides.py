"""Overrides by dotted key: on the command line, and in arms that are `like` another."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_type_hints

from inference_marl.config.build import SpecError, default_of
from inference_marl.experiment import Experiment

LONGEST = 50
"""Maximum length of a chain of arms, each `like` the next."""


def as_pairs(overrides: Any) -> list[tuple[str, Any]]:
    """Overrides as `(dotted key, value)` pairs, from pairs or a mapping.

    Raises:
        SpecError: if they are neither.
    """
    pairs = list(overrides.items()) if isinstance(overrides, Mapping) else list(overrides)
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise SpecError(f"overrides: got {pair!r}, expected pairs of a dotted key and a value, or a mapping")
    return [(key, value) for key, value in pairs]


def override(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one key of a file's content, in place.

    `init_args` may be omitted from the path (`arms.a.guide.policy` means `init_args` of `arms.a` and of its guide), and
    list items are numbers. Parts of the path that the file omits have the defaults of their class.

    Raises:
        SpecError: if the path leads through a value without keys.
    """
    *path, last = dotted.split(".")
    node: Any = config
    for depth, key in enumerate(path):
        node = _inside(node, path[:depth], key, dotted)
        if isinstance(node, dict) and ("like" in node or (depth == 3 and path[0] == "factors")):
            # The base arm is not known yet, so this is kept as one more difference, applied after the others.
            last = ".".join([*path[depth:], last])
            node.pop(last, None)
            node[last] = copy.deepcopy(value)
            return
        index: Any = key
        if isinstance(node, list):
            index = int(key)
        elif key not in node:
            # An override applies to the default object, unless it replaces its class.
            default = None if last == "class_path" and depth == len(path) - 1 else _default(config, path[: depth + 1])
            node[key] = {} if default is None else default
        if isinstance(node[index], str):
            node[index] = {"class_path": node[index]}
        node = node[index]
    node = _inside(node, path, last, dotted)
    node[int(last) if isinstance(node, list) else last] = copy.deepcopy(value)


def _default(config: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The default at a path that a file omits, as plain data; `None` if there is none, or it is not known."""
    first, *rest = path
    return default_of(get_type_hints(Experiment.__init__)[first], config[first], rest) if first in config else None


def _inside(node: Any, walked: Sequence[str], key: str, dotted: str) -> Any:
    """The container of `key` in `node`: `node` itself, or its `init_args`."""
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
    """The override that an error message is about: the longest key that is a prefix of `where`; `None` if none is."""
    about = [key for key in keys if re.match(rf"{re.escape(key)}([.\[]|$)", where) or key.startswith(f"{where}.")]
    return max(about, key=len, default=None)


def resolve_likes(arms: Any) -> dict[str, Any]:
    """The arms in a file's content, with every arm that is `like` another written out.

    Raises:
        SpecError: if there are no arms, a name is invalid, or an arm is based on itself or on an unknown arm.
    """
    if not isinstance(arms, Mapping) or not arms:
        raise SpecError(f"arms: got {arms!r}, expected a mapping from names to learners")
    Experiment.check_names(arms)
    resolved: dict[str, Any] = {}
    for name in arms:
        for link in reversed(_chain(name, arms)):
            if link not in resolved:
                resolved[link] = _differing(link, arms[link], resolved)
    return {name: resolved[name] for name in arms}


def _chain(name: str, arms: Mapping[str, Any]) -> list[str]:
    """The chain of an arm, the arm that it is `like`, and so on."""
    chain = [name]
    while isinstance(arm := arms[chain[-1]], Mapping) and "like" in arm:
        key, base = f"arms.{chain[-1]}.like", arm["like"]
        if not isinstance(base, str) or base not in arms:
            raise SpecError(f"{key}: got {base!r}, expected another arm: {', '.join(arms)}")
        if base in chain:
            raise SpecError(
                f"{key}: got a circle, {' -> '.join([*chain, base])}, expected an arm that starts from none"
            )
        if len(chain) > LONGEST:
            raise SpecError(f"{key}: got more than {LONGEST} arms, each like the next, expected fewer")
        chain.append(base)
    return chain


def _differing(name: str, arm: Any, resolved: Mapping[str, Any]) -> Any:
    """An arm written out, given the resolved arm that it is `like`."""
    if not (isinstance(arm, Mapping) and "like" in arm):
        return arm
    merged = {"arms": {name: copy.deepcopy(resolved[arm["like"]])}}
    for key, value in arm.items():
        if key != "like":
            override(merged, f"arms.{name}.{key}", value)
    return merged["arms"][name]
