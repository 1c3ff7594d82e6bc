"""Files that are never seen half written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then move it there, so that `path` is never half a file.

    The file beside it is this process's own, so of two that write at once the later one wins, with a whole file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file, never half of it."""
    write_atomically(path, lambda beside: beside.write_bytes(content))


def write_text(path: Path, text: str) -> Path:
    """Write a file, never half of it, and return where it is."""
    write_atomically(path, lambda beside: beside.write_text(text))
    return path
