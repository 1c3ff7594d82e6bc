"""Errors that locate invalid arguments and parts that do not fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


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
        if not inner and separator and re.fullmatch(r"\w+(\.\w+|\[\d+\])*", argument):
            message, inner = f"got {rest}", argument
        raise IncompatibleError(message, f"{key}.{inner}" if inner else key) from error


def first_line(error: BaseException) -> str:
    """The message without the details that Pyro and torch append (shapes, values)."""
    return (str(error).splitlines() or [""])[0]
