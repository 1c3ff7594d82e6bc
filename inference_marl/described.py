"""Descriptions that can be written as data, and errors that say where in one something does not fit."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self


class Described:
    """Remembers the arguments it was constructed with, so that any experiment built in Python can be written as data.

    `describe` gives `{"class_path": ..., "init_args": {...}}`, the form of the experiment files. It is also the mark
    of what an experiment file may build: nothing else is ever instantiated from one.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments that `__init__` is about to get."""
        made = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(made, *args, **kwargs)
        except TypeError:  # copies are made without arguments; a wrong call is reported by __init__ itself
            return made
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name)
        object.__setattr__(made, "_given", given)
        return made

    def describe(self) -> dict[str, Any]:
        """Import path and constructor arguments, as plain data."""
        cls = type(self)
        given = {name: plain(value) for name, value in self.__dict__["_given"].items()}
        return {"class_path": public_path(cls), "init_args": given}


def public_path(cls: type) -> str:
    """Where users import a class from: the outermost package above its module that exports it, or its module."""
    parts = cls.__module__.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if getattr(sys.modules.get(package), cls.__qualname__, None) is cls:
            return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def plain(value: Any) -> Any:
    """Described objects, tensors and containers of them as plain data."""
    if isinstance(value, Described):
        return value.describe()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value  # numpy and torch


class IncompatibleError(ValueError):
    """Two parts of an experiment do not fit together; `key` is where, as a dotted path."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


@contextmanager
def within(key: str) -> Iterator[None]:
    """Prefix the key of any `IncompatibleError` raised inside, so that the user reads the full path.

    A plain `ValueError` from a constructor or a `bind` becomes an `IncompatibleError` at this key, or at the argument
    of it that the message begins with (`window: got -3, expected ...`).
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
    """The message without what Pyro and torch add below it (shapes, values)."""
    return (str(error).splitlines() or [""])[0]
