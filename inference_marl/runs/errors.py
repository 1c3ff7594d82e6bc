"""Errors that stop a run, or one of its arms."""

from __future__ import annotations

from pathlib import Path


class RunError(RuntimeError):
    """A run cannot continue, or a folder is not a run; the message says what to do."""


class UnsupportedSystemError(ImportError):
    """Runs cannot be played on this system."""


class ArmError(RunError):
    """An arm cannot continue; the other arms of the run can.

    Attributes:
        folder: the folder of the run, if it has the results of the other arms.
        traceback: the traceback of the original error, as text, in whichever process it was raised; empty if unknown.
    """

    folder: Path | None = None
    traceback: str = ""
