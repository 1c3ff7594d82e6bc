"""Builds objects from plain data, with one-line errors that locate what is wrong.

jsonargparse checks every value against the type declared in the constructor's signature. This module adds the names
that classes may have, the arguments that they accept, and the full path of the key at the start of every message.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Context
from inspect import Parameter
from types import NoneType, UnionType
from typing import Any

import torch
from jsonargparse import ArgumentParser

from inference_marl.config.catalogue import lacking, subclasses
from inference_marl.config.moved import present
from inference_marl.described import Described, first_line, plain, public_path, within
from inference_marl.types import Actor

ABOVE = {"Frozen": "inference_marl.Frozen"}
"""Short names of classes in rooms above this one, which are imported when a file names them."""


class SpecError(ValueError):
    """An experiment file or an override is invalid; the message is one line and begins with the key."""


@contextlib.contextmanager
def as_spec_errors() -> Iterator[None]:
    """Convert errors that parts raise for invalid values to a one-line `SpecError`."""
    try:
        yield
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(first_line(error)) from error


def actors_of(config: Any, key: str) -> Actor | list[Actor]:
    """Build an arm: one actor for every seat, or a list with one per seat."""
    if isinstance(config, list):
        return [construct(Actor, seat, f"{key}[{i}]") for i, seat in enumerate(config)]
    actor: Actor = construct(Actor, config, key)
    return actor


def construct(base: Any, config: Any, key: str) -> Any:
    """Check `config` against the declared base type, or `... | None`, and build it."""
    given = named(base, config, key)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=base, required=given is not None)
    try:
        # Constructors know their defaults, and finding them again at every level takes most of the time.
        # In a separate context, since the state that other parsers leave in theirs would have an effect.
        parsed = Context().run(parser.parse_object, {"it": given}, defaults=False)
        checked = parsed.as_dict()["it"]
    except Exception as error:
        raise SpecError(explain(error, key)) from error
    return _instantiate(base, checked, key)


def named(hint: Any, config: Any, key: str) -> Any:
    """A copy of a file's content at `key`, with classes checked against the declared type and named by full path."""
    kinds = _kinds(hint)
    bases = _bases(hint)
    if config is None and not any(kind in (NoneType, Any, object) for kind in kinds):
        raise SpecError(f"{key}: got nothing, expected {_expected(hint)}")
    a_value = len(bases) < len([kind for kind in kinds if kind is not NoneType]) and not (
        isinstance(config, Mapping) or (isinstance(config, str) and not is_number(config))
    )
    if config is None or not bases or a_value:
        return _each(lambda item, where: named(_elements(hint), item, where), config, key)
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
    hints = check_names(cls, given, f"{key}.")
    arguments = {name: named(hints.get(name, Any), value, f"{key}.{name}") for name, value in given.items()}
    return {"class_path": public_path(cls), "init_args": arguments}


def check_names(cls: type, given: Mapping[str, Any], prefix: str, also: Sequence[str] = ()) -> dict[str, Any]:
    """Check for unknown and missing arguments, and return the declared types of the arguments of `cls`.

    `also` has further keys that a file may have there, for the error message.
    """
    accepted, free = _accepted(cls)
    known_too = [*accepted, *also]
    for name in given:
        if name not in accepted and not free:
            known = f"one of {', '.join(known_too)}" if known_too else "none"
            raise SpecError(f"{prefix}{name}: got an unknown key, expected {known}{_closest(name, known_too)}")
    hints = _hints(cls)
    missing = [name for name, default in accepted.items() if default is Parameter.empty and name not in given]
    if missing:
        also = f" ({', '.join(missing[1:])} missing too)" if missing[1:] else ""
        raise SpecError(f"{prefix}{missing[0]}: got nothing, expected {_expected(hints.get(missing[0]))}{also}")
    return hints


def _accepted(cls: type) -> tuple[dict[str, Any], bool]:
    """The arguments of a constructor, and whether it accepts others.

    Returns:
        Defaults by name, `Parameter.empty` if there is none, including arguments that it passes to a base by keyword;
        and whether it may accept other arguments.
    """
    (accepted, free), *inherited = _keywords(cls)
    if not free:
        return accepted, False
    # jsonargparse reads from the code of a constructor what it does with further keywords.
    parser = ArgumentParser()
    handed_on = [name for name in parser.add_class_arguments(cls, fail_untyped=False) if name not in accepted]
    for name in handed_on:
        found = parser.get_default(name)  # required arguments have `None`, and descriptions have been converted
        default = next((its[name] for its, _ in inherited if name in its), found)
        accepted[name] = default if default is Parameter.empty or isinstance(default, Described) else found
    return accepted, not handed_on


def _keywords(cls: type) -> list[tuple[dict[str, Any], bool]]:
    """Declared arguments, and whether any keyword is accepted, of the class's constructor, then of its bases'."""
    found: list[tuple[dict[str, Any], bool]] = []
    for init in (vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)):
        none = init in (object.__init__, torch.nn.Module.__init__)
        parameters = [] if none else list(inspect.signature(init).parameters.values())[1:]
        declared = {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        found.append((declared, any(p.kind is p.VAR_KEYWORD for p in parameters)))
    return found


def _hints(cls: type) -> dict[str, Any]:
    """Declared types of a constructor's arguments, including those that it passes to a base."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        # Names that exist for type checkers only: jsonargparse has its own ways to find them.
        with contextlib.suppress(Exception):
            hints |= typing.get_type_hints(vars(base)["__init__"])
    return hints


def _class(path: Any, hint: Any, key: str) -> type:
    """The class that a file names, if it has the declared type and can be instantiated.

    Raises:
        SpecError: if not. Its module has then been imported, but nothing in it has been called.
    """
    known = [cls for base in _bases(hint) for cls in subclasses(base, called=path)]
    if known and path is not None:
        return known[-1]
    path = ABOVE.get(path, path) if isinstance(path, str) else path
    if not isinstance(path, str) or "." not in path:
        choices = [cls.__name__ for base in _bases(hint) for cls in subclasses(base)]
        raise SpecError(f"{key}: got {path!r}, expected {_expected(hint)}{_closest(path, choices)}")
    return _imported(path, hint, key)


def _imported(path: str, hint: Any, key: str) -> type:
    module, _, name = present(path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        reason = f"which cannot be imported ({type(error).__name__}: {first_line(error)})"
        raise SpecError(f"{key}: got {path}, {reason}, expected {_expected(hint)}") from error
    if not (isinstance(found, type) and issubclass(found, _bases(hint))):
        raise SpecError(f"{key}: got {path}, which is something else, expected {_expected(hint)}")
    if (missing := lacking(found)) is not None:
        reason = f"which does not define {missing}" if missing else "which is only a base of others"
        raise SpecError(f"{key}: got {path}, {reason}, expected {_expected(hint)}")
    return found


def _instantiate(hint: Any, value: Any, key: str) -> Any:
    """Instantiate the classes in a value that was checked as `hint`; only where a class is declared."""
    if not (_bases(hint) and isinstance(value, Mapping)):
        return _each(lambda item, where: _instantiate(_elements(hint), item, where), value, key)
    cls = _imported(value["class_path"], hint, key)
    hints = _hints(cls)
    arguments = value.get("init_args") or {}
    built = {name: _instantiate(hints.get(name, Any), given, f"{key}.{name}") for name, given in arguments.items()}
    try:
        with within(key):
            return cls(**_with_handed_on(cls, built))
    except TypeError as error:
        raise SpecError(f"{key}: got arguments that {cls.__name__} cannot use: {first_line(error)}") from error


def _with_handed_on(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a constructor, with defaults of those that it passes to a base, so that `describe` has them."""
    declared, any_keyword = _keywords(cls)[0]
    if not any_keyword:
        return dict(given)
    known = (Described, NoneType, bool, int, float, str, list, tuple, dict)  # other defaults depend on the code
    defaults = {name: value for name, value in _accepted(cls)[0].items() if isinstance(value, known)}
    return {name: value for name, value in defaults.items() if name not in (*declared, *given)} | dict(given)


def default_of(hint: Any, said: Any, path: Sequence[str]) -> Any:
    """The default of an argument that a file omits, as plain data; `None` if it has none, or its class is unknown.

    Args:
        hint: the declared type of `said`.
        said: plain data, which lacks the last key of the path.
        path: keys that lead to the argument, with or without `init_args`.
    """
    cls: type | None = None
    for depth, key in enumerate(path):
        if isinstance(said, Mapping) and "class_path" in said:
            if key == "class_path":
                return None
            try:
                cls = _class(said["class_path"], hint, "")
            except SpecError:  # reported with its own message, once the whole file is read
                return None
            said = said.get("init_args") or {}
            if key == "init_args":
                continue
        hint = _elements(hint) if cls is None else _hints(cls).get(key, Any)
        if depth == len(path) - 1:
            return None if cls is None else _plain_default(cls, key)
        cls, said = None, said[int(key) if isinstance(said, list) else key]
    return None


def _plain_default(cls: type, name: str) -> Any:
    default = _accepted(cls)[0].get(name)
    return None if default is Parameter.empty else plain(default)


def explain(error: Exception, key: str) -> str:
    """Convert an error of jsonargparse's about a plain value to one line: full key, what it got, what it expected."""
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    nested = [match.group(1) for line in lines if (match := re.search(r'Parser key "([^"]+)"', line))]
    where = ".".join(part for part in [key, *nested] if part and part != "it")
    expected: list[str] = []
    got = next((match.group(1) for line in lines if (match := re.match(r"Given value: (.+)", line))), "")
    for line in lines:
        if match := re.match(r"Expected (?:an? )?(.+?)(?:\. Got value: (.+))?$", line):
            expected.append(_plainly(match.group(1)))
            got = match.group(2) or got
    if unknown := re.search(r"class_path '[^']*?(\w+)': Option '([^']+)' is not accepted", " ".join(lines)):
        return f"{where}.{unknown[2]}: got an unknown key, expected one that {unknown[1]} declares"
    if expected:
        return f"{where}: got {got}, expected {' or '.join(dict.fromkeys(expected))}"
    return f"{where}: {' '.join(lines)}"


def _plainly(kind: str) -> str:
    """A type as written by jsonargparse, in terms of YAML."""
    kind = re.sub(r"(?:\w+\.)+", "", re.sub(r"<class '([^']+)'>", r"\1", kind)).rstrip(".")
    kind = re.sub(r"Literal\[(.+)\]", r"one of \1", kind)
    return re.sub(r"Sequence|tuple", "list", kind).replace("NoneType", "null")


def _expected(hint: Any) -> str:
    """A description of the values of a declared type, for a message."""
    plain = [_plainly(str(kind)) for kind in _kinds(hint) if kind not in _bases(hint)]
    names = sorted({cls.__name__ for base in _bases(hint) for cls in subclasses(base)})
    if names:
        plain.append(f"one of {', '.join(names)}, or an import path")
    elif bases := _bases(hint):
        plain.append(f"the import path of a subclass of {' or '.join(base.__name__ for base in bases)}")
    return " or ".join(plain) if hint not in (None, Any) else "a value"


def is_number(text: str) -> bool:
    """Whether text is a number in YAML or on a command line."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _closest(word: Any, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(word), choices, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The members of a union or a tuple of types, or the type itself."""
    if isinstance(hint, tuple):
        return tuple(kind for each in hint for kind in _kinds(each))
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def _elements(hint: Any) -> tuple[Any, ...]:
    """The declared types of the elements of a declared list or mapping."""
    found: list[Any] = []
    for kind in _kinds(hint):
        of_mapping = isinstance(origin := typing.get_origin(kind), type) and issubclass(origin, Mapping)
        found += typing.get_args(kind)[-1:] if of_mapping else typing.get_args(kind)
    return tuple(found) or (Any,)


def _each(change: Callable[[Any, str], Any], value: Any, key: str) -> Any:
    """A copy of a list or mapping with `change(item, key)` in place of every item."""
    if isinstance(value, list | tuple):
        return type(value)(change(item, f"{key}[{i}]") for i, item in enumerate(value))
    if isinstance(value, Mapping):
        return {name: change(item, f"{key}.{name}") for name, item in value.items()}
    return copy.deepcopy(value)


def _bases(hint: Any) -> tuple[type, ...]:
    """The classes in a declared type of which a file may name a subclass."""
    return tuple(kind for kind in _kinds(hint) if isinstance(kind, type) and issubclass(kind, Described))
