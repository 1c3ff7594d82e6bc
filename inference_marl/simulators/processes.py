"""Hosts of environments, in this process or in a worker process, with the same two calls: `ask` and `hear`."""

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
"""Seconds that a worker process has to close its environments before it is killed."""
START = 60.0
"""Seconds, in addition to the timeout, that a worker process has to start and make its environments."""
LOOK_EVERY = 0.5
"""Seconds between a worker process's checks that its parent is alive."""


class Host(Protocol):
    """A host of environments. Each call must be answered before the next; the first answer is to their creation."""

    def ask(self, what: str, *arguments: Any, patience: float = 1.0) -> None:
        """Call the method `what` of the `Copies` there; `patience` is a factor of the timeout."""

    def hear(self) -> Any:
        """Wait for the result of the call.

        Raises:
            FaultError: if the call failed; the message is one line.
        """

    def close(self, grace: float) -> None:
        """Close the environments; a worker process has `grace` seconds for that, and is then killed."""


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
    """Environments in a worker process, which ends with this process in any case.

    It is started by a command line rather than by `multiprocessing`, which would import the main program again, and
    does not let daemonic processes have children. Ctrl-C does not reach it; its parent ends it.

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
        there.close()  # so that this end notices when the process has exited
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
    """Kill a process, with all processes that its environments have started, and wait until it has exited."""
    connection.close()
    if process.poll() is None:  # otherwise its environments are closed
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
    process.wait()


def _warnings() -> list[str]:
    return [f"-W{option}" for option in sys.warnoptions]


def serve(number: int, parent: int) -> None:
    """Play environments as requested on a connection, until it is closed.

    Args:
        number: file descriptor of the connection.
        parent: ID of the parent process.
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
    """End this process as soon as its parent has exited, even while an environment is busy."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os.killpg(os.getpid(), signal.SIGKILL)  # includes processes started by environments
