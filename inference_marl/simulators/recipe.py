"""How a parallel environment is made, by somebody else's code: what may be called, and what that may be."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from pettingzoo import ParallelEnv  # type: ignore[import-untyped, unused-ignore]

from inference_marl.described import first_line

RAISED = (Exception, SystemExit)
"""What somebody else's code may raise: leaving the program is none of its business."""


class FaultError(ValueError):
    """Something that an environment does or says and that cannot be used; one line."""


class Recipe(NamedTuple):
    """How an environment is made and understood; plain data.

    Attributes:
        path: import path of what makes it.
        arguments: what that is called with.
        agents_leave: whether agents may leave before the others.
        horizon: steps after which an episode is cut off, beside the environment's own limits.
    """

    path: str
    arguments: Mapping[str, Any]
    agents_leave: bool = False
    horizon: int | None = None

    def make(self) -> ParallelEnv[Any, Any, Any]:
        """Import and call what makes it.

        Raises:
            FaultError: if that cannot be done, or gives anything but a parallel environment; begins with the argument.
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
        """What makes it, imported, which has to do with PettingZoo."""
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
    """Whether a module has something of PettingZoo's, or below it, among its names, or a module that has.

    What has not, such as `os.system`, is never called: a file would need no code of anybody's to do whatever it likes.
    """
    for value in list(vars(module).values()):
        kind = type(value)  # not `isinstance`, which asks the value
        if issubclass(kind, ModuleType):
            if value.__name__.partition(".")[0] == "pettingzoo" or (deep and _uses_pettingzoo(value, deep=False)):
                return True
        elif issubclass(kind, type | FunctionType):
            home = str(value.__module__).partition(".")[0]
            if home == "pettingzoo" or (issubclass(kind, type) and issubclass(value, ParallelEnv)):
                return True
    return False
