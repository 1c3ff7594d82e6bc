"""Recipes for making a parallel environment, with checks of what may be called."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from pettingzoo import ParallelEnv  # type: ignore[import-untyped, unused-ignore]

from inference_marl.described import first_line

RAISED = (Exception, SystemExit)
"""Errors of third-party code that are caught, including attempts to exit the program."""


class FaultError(ValueError):
    """An environment fails or returns something invalid; the message is one line."""


class Recipe(NamedTuple):
    """How to make an environment; plain data.

    Attributes:
        path: import path of the class or function that makes it.
        arguments: keyword arguments of that.
        agents_leave: whether agents may leave before the others.
        horizon: steps after which episodes are truncated, in addition to the environment's own limits.
    """

    path: str
    arguments: Mapping[str, Any]
    agents_leave: bool = False
    horizon: int | None = None

    def make(self) -> ParallelEnv[Any, Any, Any]:
        """Import the class or function, and call it.

        Raises:
            FaultError: if that fails, or does not return a parallel environment; the message begins with the argument.
        """
        factory = self._factory()
        try:
            made = factory(**self.arguments)
        except RAISED as error:
            raise FaultError(
                f"arguments: got {dict(self.arguments)}, with which {self.path} raises {type(error).__name__} "
                f"({first_line(error)}), expected arguments that it takes"
            ) from error
        if not isinstance(made, ParallelEnv):
            module, _, name = self.path.rpartition(".")
            hint = f"; its module may have {module}.parallel_env" if name == "env" else ""
            raise FaultError(f"env: got {self.path}, which makes a {type(made).__name__}, expected a ParallelEnv{hint}")
        return made

    def _factory(self) -> Callable[..., Any]:
        """Import the class or function, and check that it uses PettingZoo."""
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on standard output
        module, _, name = self.path.rpartition(".")
        try:
            home = importlib.import_module(module)
            factory = getattr(home, name)
        except RAISED as error:
            raise FaultError(
                f"env: got {self.path}, which cannot be imported ({type(error).__name__}: {first_line(error)}), "
                "expected the import path of what makes a parallel environment; install its package, or put its file "
                "beside the experiment's"
            ) from error
        if not callable(factory):
            raise FaultError(
                f"env: got {self.path}, a {type(factory).__name__}, expected what makes a parallel environment"
            )
        if not ((isinstance(factory, type) and issubclass(factory, ParallelEnv)) or _uses_pettingzoo(home)):
            raise FaultError(
                f"env: got {self.path}, which has nothing to do with PettingZoo and was not called, expected a class "
                "below ParallelEnv, or a function of a module that imports PettingZoo, or such a class, at its top"
            )
        return factory  # type: ignore[no-any-return]


def _uses_pettingzoo(module: ModuleType, deep: bool = True) -> bool:
    """Whether a module has PettingZoo, one of its classes or a subclass among its names, or a module that has.

    Functions of other modules, such as `os.system`, are never called, so that a file cannot run arbitrary commands.
    """
    for value in list(vars(module).values()):
        kind = type(value)  # not `isinstance`, which may call code of the value
        if issubclass(kind, ModuleType):
            if value.__name__.partition(".")[0] == "pettingzoo" or (deep and _uses_pettingzoo(value, deep=False)):
                return True
        elif issubclass(kind, type | FunctionType):
            home = str(value.__module__).partition(".")[0]
            if home == "pettingzoo" or (issubclass(kind, type) and issubclass(value, ParallelEnv)):
                return True
    return False
