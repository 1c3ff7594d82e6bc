"""What keeps a run, or one arm of it, from going on."""

from __future__ import annotations

from pathlib import Path


class RunError(RuntimeError):
    """A run cannot go on, or a folder is not one; the message says what to do."""


class UnsupportedSystemError(ImportError):
    """Runs cannot be played on this system."""


class ArmError(RunError):
    """An arm cannot go on; the others can.

    Attributes:
        folder: of the run, if it has the results of the others.
        traceback: of what a part of it raised, as text, wherever it was played; empty if that is not known.
    """

    folder: Path | None = None
    traceback: str = ""
