"""Leases, which let one process at a time work on a run's folder, on any host that can access it.

A lease is a file that names host and process and is renewed by its holder. On the holder's host it expires with the
process, on other hosts after `SILENCE` seconds without renewal, by the file system's clock.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_marl.runs.errors import RunError, UnsupportedSystemError

try:
    import fcntl
except ImportError:
    raise UnsupportedSystemError(
        f"system: got {sys.platform}, without fcntl, expected Linux or macOS; on Windows use WSL"
    ) from None

RENEWAL = 30.0
"""Seconds between renewals."""

SILENCE = 300.0
"""Seconds without renewal after which a lease may be taken over."""

_HELD: set[str] = set()
"""Tokens of the leases that this process holds."""


@dataclass(frozen=True)
class Lease:
    """The right to work on a folder.

    Attributes:
        path: the file.
        token: unique identifier of the lease.
    """

    path: Path
    token: str

    def renew(self) -> None:
        """Renew the lease."""
        with suppress(OSError):  # it is renewed again later
            if self.is_held():
                os.utime(self.path)

    def is_held(self) -> bool:
        """Whether no other process has taken it over."""
        return _read(self.path).get("token") == self.token

    def check(self) -> None:
        """Check that the lease is still held.

        Raises:
            RunError: if another process has taken it over.
        """
        if not self.is_held():
            raise RunError(
                f"{self.path.parent}: got a run that another process has taken over since this one last renewed its "
                "lease, expected to be the only one working on it; leave it to the other"
            )


@contextmanager
def leased(folder: Path) -> Iterator[Lease]:
    """Hold the lease of a run's folder inside the context.

    Raises:
        RunError: if another process is working on the run.
    """
    lease = Lease(folder / ".lock", uuid.uuid4().hex)
    _claim(lease)
    _HELD.add(lease.token)
    try:
        for left in (*folder.glob(".*.partial"), *folder.glob("*/.*.partial")):  # by a process that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        yield lease
    finally:
        _HELD.discard(lease.token)
        if lease.is_held():
            lease.path.unlink(missing_ok=True)


def _claim(lease: Lease) -> None:
    content = {"host": socket.gethostname(), "process": os.getpid(), "token": lease.token}
    with _one_at_a_time(lease.path.parent):
        holder = _holder(lease.path)
        if holder is not None:
            raise RunError(
                f"{lease.path.parent}: got a run that another process is at work on ({holder}), expected one that no "
                f"other process plays; wait until it is done, or delete {lease.path} if there is no such process"
            )
        lease.path.unlink(missing_ok=True)
        with lease.path.open("x") as file:
            json.dump(content, file)


def _holder(path: Path) -> str | None:
    """A description of the holder of a lease; `None` if there is no lease or it has expired."""
    try:
        silence = _now(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return None
    content = _read(path)
    host, process, here = content.get("host"), content.get("process"), content.get("host") == socket.gethostname()
    if silence > SILENCE or (here and not _is_alive(process, content.get("token"))):
        return None
    who = f"process {process} on this host" if here else f"process {process} on {host}" if content else "not yet named"
    return f"{who}, last heard of {max(silence, 0):.0f} s ago; silent for {SILENCE:.0f} s it may be taken over"


def _is_alive(process: Any, token: Any) -> bool:
    """Whether a process of this host may still hold the lease."""
    if process == os.getpid():  # process IDs are reused, immediately in containers
        return token in _HELD
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (PermissionError, TypeError):  # somebody else's; no number
        return True
    return True


def _read(path: Path) -> dict[str, Any]:
    """The content of a lease; empty while it is being written."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _now(folder: Path) -> float:
    """The time by the file system's clock, which all hosts share."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"1")
        file.flush()
        return os.fstat(file.fileno()).st_mtime


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Lock the folder inside the context, if the file system can, so that only one process takes an expired lease."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # where folders cannot be locked
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
