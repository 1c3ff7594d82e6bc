"""Atomic writing of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it, so that `path` is never a partial file.

    The temporary file is this process's own, so of two processes that write at the same time the later one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda beside: beside.write_bytes(content))


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically, and return its path."""
    write_atomically(path, lambda beside: beside.write_text(text))
    return path
