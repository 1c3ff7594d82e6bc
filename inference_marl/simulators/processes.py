"""Environments in this process or in one of their own, behind the same two calls: ask, and hear the answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Protocol

from inference_marl.described import first_line
from inference_marl.simulators.copies import Copies
from inference_marl.simulators.recipe import FaultError, Recipe

GRACE = 2.0
"""Seconds that a process has to close its environments before it is ended."""
START = 60.0
"""Seconds, beside the timeout, that a process has to start and make its environments."""
LOOK_EVERY = 0.5
"""Seconds between the looks of a process at whether who started it is still there."""


class Host(Protocol):
    """Where some environments are. A question is answered before the next one is asked; the first is to make them."""

    def ask(self, what: str, *arguments: Any, patience: float = 1.0) -> None:
        """Call a method of the `Copies` there, which may take so many times longer than usual."""

    def hear(self) -> Any:
        """What it returned.

        Raises:
            FaultError: in one line, if it could not be answered.
        """

    def close(self, grace: float) -> None:
        """Close the environments, within so many seconds if they are in a process, which ends in any case."""


class Here:
    """Environments in this process."""

    def __init__(self, recipe: Recipe, names: Sequence[str], masked: Sequence[bool] | None = None) -> None:
        self._copies = Copies(recipe, names, masked)
        self._answer: Any = None

    def ask(self, what: str, *arguments: Any, patience: float = 1.0) -> None:
        """See `Host.ask`."""
        self._answer = getattr(self._copies, what)(*arguments)

    def hear(self) -> Any:
        """See `Host.hear`."""
        return self._answer

    def close(self, grace: float) -> None:
        """See `Host.close`."""
        self._copies.close()


class Elsewhere:
    """Environments in a process of their own, which ends with this one, whatever becomes of it.

    It is started afresh by its command line, not by `multiprocessing`: that would import the program again, and lets no
    process that is to end with another have processes of its own. Ctrl-C does not reach it: who started it ends it.

    Args:
        recipe, names, masked: see `Copies`.
        timeout: seconds that an answer may take.
    """

    def __init__(
        self, recipe: Recipe, names: Sequence[str], masked: Sequence[bool] | None = None, timeout: float = 60.0
    ) -> None:
        self.recipe, self.timeout = recipe, timeout
        self._which = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        self._connection, there = Pipe()
        number = there.fileno()
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({number}, {os.getpid()})"
        )
        self._process = subprocess.Popen(
            [sys.executable, *_warnings(), "-c", program],
            pass_fds=[number],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        there.close()  # so that this end notices when the process is gone
        self._end = weakref.finalize(self, _end, self._process, self._connection)
        self._until = 0.0
        self._send(START + timeout, "make", recipe, list(names), masked)

    def ask(self, what: str, *arguments: Any, patience: float = 1.0) -> None:
        """See `Host.ask`."""
        self._send(patience * self.timeout, what, *arguments)

    def hear(self) -> Any:
        """See `Host.hear`."""
        try:
            while not self._connection.poll(max(0.0, min(1.0, self._until - time.monotonic()))):
                if time.monotonic() >= self._until:
                    self._end()
                    raise FaultError(
                        f"{self.recipe.path}, {self._which}: got no answer from its process within {self._allowed:g} "
                        "seconds, expected one; give it more time (timeout) if it is only slow"
                    )
            fine, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._gone() from None
        if not fine:
            raise FaultError(answer)
        return answer

    def close(self, grace: float) -> None:
        """See `Host.close`."""
        if grace and self._end.alive:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._connection.send(("close",))
                self._process.wait(grace)
        self._end()

    def _send(self, allowed: float, *message: Any) -> None:
        self._allowed, self._until = allowed, time.monotonic() + allowed
        try:
            self._connection.send(message)
        except (OSError, ValueError):
            raise self._gone() from None

    def _gone(self) -> FaultError:
        self._process.wait(GRACE)
        status = self._process.returncode
        self._end()
        hint = "; if memory is short, use fewer environments" if status is not None and status < 0 else ""
        return FaultError(
            f"{self.recipe.path}, {self._which}: got a process that ended by itself (exit status {status}), expected "
            f"one that plays on{hint}"
        )


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    """End a process at once, with those that its environments have started, and wait until it is gone."""
    connection.close()
    if process.poll() is None:  # else its environments are closed
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
    process.wait()


def _warnings() -> list[str]:
    return [f"-W{option}" for option in sys.warnoptions]


def serve(number: int, parent: int) -> None:
    """Play the environments that are asked for on a line, until that is closed.

    Args:
        number: the line's file descriptor.
        parent: the process that has started this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    connection = Connection(number)
    copies: Copies | None = None
    try:
        while True:
            message = connection.recv()
            try:
                what, *arguments = message
                if what == "close":
                    break
                if copies is None:
                    copies, answer = Copies(*arguments), None
                else:
                    answer = getattr(copies, what)(*arguments)
                connection.send((True, answer))
            except FaultError as fault:
                connection.send((False, str(fault)))
            except Exception as error:
                connection.send((False, f"got {type(error).__name__}: {first_line(error)}"))
    except (EOFError, OSError):
        pass
    if copies is not None:
        copies.close()


def _end_with(parent: int) -> None:
    """End this process as soon as the one that started it is gone, also while an environment is busy."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os.killpg(os.getpid(), signal.SIGKILL)  # also what environments have started
