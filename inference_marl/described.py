"""Descriptions that can be written as data, and errors that locate what does not fit."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Self, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

Made = TypeVar("Made")


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def hyperparameters(cls: type[Made]) -> type[Made]:
    """Turn the annotated fields of a described class into keyword-only arguments, which subclasses inherit.

    A subclass adds fields without repeating those of its base; `__post_init__` validates them. Fields that `setup`
    creates are declared with `field(init=False)`. The types of the others must be defined when the class is created,
    since the contents of files are checked against them.
    """
    made = dataclass(kw_only=True, eq=False, repr=False)(cls)
    init: Any = vars(made)["__init__"]
    # Names are resolved in the module of their class, so a subclass elsewhere need not import them.
    init.__annotations__ = hints = get_type_hints(init)
    for each in fields(made):  # type: ignore[arg-type]
        each.type = hints.get(each.name, each.type)
        # A default left on the class would hide the submodule that torch registers under its name.
        if each.init and each.name in vars(made):
            delattr(made, each.name)
    return made


def _check_fields(cls: type, given: dict[str, Any]) -> None:
    """Check constructor arguments that are fields against their declared classes.

    Raises:
        TypeError: if a subclass hides a field and is not decorated, so that its value would be ignored.
        ValueError: if an argument is of another class.
    """
    every = fields(cls) if is_dataclass(cls) else ()
    declared = {each.name: each for each in every if each.init and each.name in given}
    for base in cls.__mro__:
        hidden = [name for name in declared if name in vars(base)]
        if hidden:
            raise TypeError(f"{base.__name__}.{hidden[0]}: got a field of its base, expected @hyperparameters above it")
    for name, each in declared.items():
        kinds = get_args(each.type) if get_origin(each.type) in (Union, UnionType) else (each.type,)
        if not all(isinstance(kind, type) for kind in kinds):
            continue  # containers, and one of several words: their class checks them
        accepted = tuple(Real if kind is float else kind for kind in kinds)
        if not isinstance(given[name], accepted):
            names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{name}: got {given[name]!r}, expected {names}")


class Described:
    """Remembers its constructor arguments, so that experiments built in Python can be written as data.

    `describe` returns `{"class_path": ..., "init_args": {...}}`, the format of experiment files. Only subclasses of
    this class are ever instantiated from one.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments that `__init__` is about to receive."""
        made = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(made, *args, **kwargs)
        except TypeError:  # copies are made without arguments; a wrong call is reported by __init__ itself
            return made
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        _check_fields(cls, given)
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name)
            elif parameter.kind is parameter.VAR_POSITIONAL and not given[name]:
                del given[name]
        object.__setattr__(made, "_given", given)
        return made

    def describe(self) -> dict[str, Any]:
        """Import path and constructor arguments, as plain data."""
        cls = type(self)
        given = {name: plain(value) for name, value in self.__dict__["_given"].items()}
        return {"class_path": public_path(cls), "init_args": given}


def public_path(cls: type) -> str:
    """The import path of a class: the outermost package above its module that exports it, or its module."""
    parts = cls.__module__.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if getattr(sys.modules.get(package), cls.__qualname__, None) is cls:
            return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def plain(value: Any) -> Any:
    """Convert described objects, tensors and containers of them to plain data."""
    if isinstance(value, Described):
        return value.describe()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value  # numpy and torch


class IncompatibleError(ValueError):
    """Two parts of an experiment do not fit together; `key` locates the mismatch as a dotted path."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class InspectError(ValueError):
    """A folder cannot be inspected: it is not a run, is unfinished, or lacks what was requested."""


@contextmanager
def within(key: str) -> Iterator[None]:
    """Prefix the key of any `IncompatibleError` raised inside, so that the user sees the full path.

    A plain `ValueError` from a constructor or a `bind` becomes an `IncompatibleError` at this key, or at the argument
    that the message begins with (`window: got -3, expected ...`).
    """
    try:
        yield
    except ValueError as error:
        message, inner = (error.message, error.key) if isinstance(error, IncompatibleError) else (str(error), "")
        argument, separator, rest = message.partition(": got ")
        if not inner and separator and argument.isidentifier():
            message, inner = f"got {rest}", argument
        raise IncompatibleError(message, f"{key}.{inner}" if inner else key) from error


def first_line(error: Exception) -> str:
    """The message without the details that Pyro and torch append (shapes, values)."""
    return (str(error).splitlines() or [""])[0]
