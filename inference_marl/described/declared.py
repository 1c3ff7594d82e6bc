"""Checks of constructor arguments against their declarations: classes, ranges of numbers, and allowed words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from inference_marl.described.ranges import In, Varying, expect

NUMBERS: Mapping[type, type] = {float: Real, int: Integral}
"""The classes accepted for numbers that are declared as `float` or `int`."""


def checked(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the arguments of a constructor against their declarations; convert values such as `torch.float32` to words.

    Raises:
        TypeError: if a subclass overrides a field and is not decorated, so that its value would be ignored.
        ValueError: if an argument has another class, is out of range, or is none of the allowed words.
    """
    _check_fields(cls, given)
    found = dict(given)
    for name, hint in _hints(cls).items():
        if name in given:
            _check_numbers(name, hint, given[name])
            found[name] = _word(name, hint, given[name])
    return found


def ranges_of(cls: type) -> dict[str, In]:
    """The range of every argument that is declared as a number, or as a union with one, by name."""
    return {name: allowed for name, hint in _hints(cls).items() if (allowed := _range(hint))}


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    """Declared types of arguments of a class and its bases that are numbers, containers of numbers, or words, by name.

    Types whose names are defined for type checkers only are left out.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        init: Any = vars(base).get("__init__")
        for name, said in getattr(init, "__annotations__", {}).items():
            with suppress(AttributeError, NameError, TypeError):
                one = SimpleNamespace(__annotations__={name: said})
                hint = get_type_hints(one, getattr(init, "__globals__", None), include_extras=True)[name]
                ranges = [allowed for _, allowed in _members(found.get(name)) if allowed]
                unsaid = not any(allowed for _, allowed in _members(hint))
                found[name] = Annotated[hint, ranges[-1]] if ranges and unsaid else hint
    return {name: hint for name, hint in found.items() if _has_numbers(hint) or get_origin(hint) is Literal}


def _range(hint: Any) -> In | None:
    """The range of a type that is a number, or a union with one; `None` for other types."""
    default = {int: In("an integer"), float: In("a finite number")}
    return next((allowed or default[kind] for kind, allowed in _members(hint) if kind in default), None)


def _members(hint: Any, allowed: In | None = None) -> Iterator[tuple[Any, In | None]]:
    """The members of a union, or the type itself, each with its declared range, if any."""
    if get_origin(hint) is Annotated:
        kind, *stated = get_args(hint)
        ranges = [each for each in stated if isinstance(each, In)]
        yield from _members(kind, ranges[-1] if ranges else allowed)
    elif get_origin(hint) in (Union, UnionType):
        for each in get_args(hint):
            yield from _members(each, allowed)
    else:
        yield hint, allowed


def _is_class(kind: Any) -> bool:
    """Whether values of a declared type can be told by their class; `Any` is a class that accepts no such question."""
    return isinstance(kind, type) and kind is not Any


def _has_numbers(hint: Any) -> bool:
    """Whether a declared type is a number, or a container of numbers."""
    return any(kind in (int, float) or any(map(_has_numbers, _elements(kind))) for kind, _ in _members(hint))


def _elements(kind: Any) -> tuple[Any, ...]:
    """The types of a container's elements, including keys; empty for other types."""
    origin = get_origin(kind)
    return get_args(kind) if isinstance(origin, type) and issubclass(origin, Sequence | Mapping) else ()


def _check_fields(cls: type, given: Mapping[str, Any]) -> None:
    """Check arguments that are fields against their declared classes."""
    for name in given.keys() & _hidden(cls).keys():
        raise TypeError(f"{_hidden(cls)[name]}.{name}: got a field of its base, expected @hyperparameters above it")
    for name, kinds in _field_classes(cls).items():
        if name in given and not isinstance(given[name], tuple(NUMBERS.get(kind, kind) for kind in kinds)):
            names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{name}: got {given[name]!r}, expected {names}")


@cache
def _declared_fields(cls: type) -> Mapping[str, Any]:
    """The declared type of every field that the constructor sets, by name."""
    return {each.name: each.type for each in fields(cls) if each.init} if is_dataclass(cls) else {}


@cache
def _hidden(cls: type) -> Mapping[str, str]:
    """Fields that a class or a base overrides without being decorated: the name of that one, by field."""
    return {
        name: base.__name__
        for base in cls.__mro__
        for name in _declared_fields(cls).keys() & getattr(base, "__dataclass_fields__", {}).keys() & vars(base).keys()
    }


@cache
def _field_classes(cls: type) -> Mapping[str, Sequence[type]]:
    """The accepted classes of every field, by name; without words and containers, which their class checks."""
    kinds = {name: [kind for kind, _ in _members(hint)] for name, hint in _declared_fields(cls).items()}
    return {name: each for name, each in kinds.items() if all(map(_is_class, each))}


def _check_numbers(name: str, hint: Any, value: Any) -> None:
    """Check the numbers in a value, and in what it contains, against a declared type.

    Raises:
        ValueError: `name: got value, expected ...`, where the name ends in the item's index or key.
    """
    kinds = [kind for kind, _ in _members(hint)]
    if not _has_numbers(hint) or (value is None and NoneType in kinds):
        return  # items of a mapping or a tuple that are not numbers
    allowed = _range(hint)
    others = [kind for kind in kinds if _is_class(kind) and kind not in (int, float)]
    declared = next((kind for kind in others if isinstance(value, kind)), None)
    if declared is not None:
        if allowed and isinstance(value, Varying):
            value.check(name, allowed, declared)
        return
    items = value.tolist() if hasattr(value, "tolist") and not isinstance(value, Real) else value
    for kind in kinds:
        if kind is Any or (get_origin(kind) is Literal and value in get_args(kind)):
            return
        if (held := _held(name, kind, items)) is not None:
            for each in held:
                _check_numbers(*each)
            return
    also = ", or null" if NoneType in kinds else ""
    if allowed is not None:
        expect(allowed.what, allowed.also or also, **{name: value})
    else:
        mapping = any(issubclass(get_origin(kind), Mapping) for kind in kinds if _elements(kind))
        raise ValueError(f"{name}: got {value!r}, expected {'a mapping' if mapping else 'a list'}{also}")


def _held(name: str, kind: Any, value: Any) -> list[tuple[str, Any, Any]] | None:
    """Name, declared type and value of all items of a list or mapping; `None` unless it has the declared kind."""
    inner, origin = _elements(kind), get_origin(kind)
    if inner and issubclass(origin, Mapping) and isinstance(value, Mapping):
        keys = [(name, inner[0], key) for key in value]
        return keys + [(f"{name}.{key}", inner[1], item) for key, item in value.items()]
    if inner and issubclass(origin, Sequence) and isinstance(value, Sequence) and not isinstance(value, str):
        fixed = issubclass(origin, tuple) and inner[-1] is not Ellipsis
        pairs = zip(inner if fixed else inner[:1] * len(value), value, strict=False)
        return [(f"{name}[{number}]", *pair) for number, pair in enumerate(pairs)]
    return None


def _word(name: str, hint: Any, value: Any) -> Any:
    """Check a value that is declared as one of several words, and convert values such as `torch.float32` to words.

    Raises:
        ValueError: if it is none of them.
    """
    if get_origin(hint) is not Literal:
        return value
    known = get_args(hint)
    word = str(value).removeprefix("torch.") if type(value).__module__ == "torch" else value
    if word not in known:
        raise ValueError(f"{name}: got {value!r}, expected {' or '.join(map(str, known))}")
    return word
