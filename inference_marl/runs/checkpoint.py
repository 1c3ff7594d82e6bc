"""Checkpoints of arms: where they are, and how they are written and read. Reading one executes no code."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inference_marl.described import first_line
from inference_marl.runs.errors import RunError
from inference_marl.runs.files import write_bytes

FORMAT = 5
"""Number of the layout that checkpoints are written and read in, the state of learners included; 0.1.0 had none."""


def checkpoint_of(folder: Path, name: str) -> Path:
    """Where a run's folder keeps an arm's checkpoint."""
    return folder / "checkpoints" / f"{name}.pt"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: where to.
        content: of tensors, numbers, strings and containers of them only.

    Raises:
        OSError: if there is no room.
    """
    saved = io.BytesIO()  # so that a full disk is the system's error, and not one of torch's
    torch.save({"format": FORMAT, **content}, saved)
    write_bytes(path, saved.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """What was written to a checkpoint, on the CPU.

    Raises:
        RunError: if it is the checkpoint of another version, or the file is no checkpoint, or a damaged one.
    """
    content = _load(path)
    if "step" not in content:
        raise no_checkpoint(path, KeyError("step"))
    if content.get("format") != FORMAT:
        number = content.get("format")
        what = "0.1.0" if number is None else f"another version (format {number}, here {FORMAT})"
        raise RunError(
            f"{path}: got a checkpoint written by inference-marl {what}, expected one of this version: go on with "
            "that version, or delete it to start the arm anew"
        )
    return content


def no_checkpoint(path: Path, error: Exception) -> RunError:
    """What to say of a file in the place of a checkpoint."""
    return RunError(
        f"{path}: got a file that is not a checkpoint of this experiment ({type(error).__name__}: "
        f"{first_line(error)}), expected one written by this run: delete it to start the arm anew"
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes the CRC-32 of every part, and does not look at it
            if (part := archive.testzip()) is not None:
                raise ValueError(f"damaged in {part}")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise no_checkpoint(path, error) from error
