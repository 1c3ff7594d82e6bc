"""Reads and writes the checkpoints of arms. Reading a checkpoint executes no code."""

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
"""Version of the checkpoint format, including the state of learners; version 0.1.0 of the package had none."""


def checkpoint_of(folder: Path, name: str) -> Path:
    """The path of an arm's checkpoint in a run's folder."""
    return folder / "checkpoints" / f"{name}.pt"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: the file to write.
        content: tensors, numbers, strings and containers of them only.

    Raises:
        OSError: if the disk is full.
    """
    saved = io.BytesIO()  # so that a full disk raises OSError, rather than an error of torch's
    torch.save({"format": FORMAT, **content}, saved)
    write_bytes(path, saved.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, with tensors on the CPU.

    Raises:
        RunError: if it has another format, is damaged, or is not a checkpoint.
    """
    content = _load(path)
    if "step" not in content:
        raise no_checkpoint(path, KeyError("step"))
    if content.get("format") != FORMAT:
        number = content.get("format")
        what = "0.1.0" if number is None else f"another version (format {number}, here {FORMAT})"
        raise RunError(
            f"{path}: got a checkpoint written by inference-marl {what}, expected one of this version: resume with "
            "that version, or delete it to start the arm anew"
        )
    return content


def no_checkpoint(path: Path, error: Exception) -> RunError:
    """The error to raise if the file is not a checkpoint."""
    return RunError(
        f"{path}: got a file that is not a checkpoint of this experiment ({type(error).__name__}: "
        f"{first_line(error)}), expected one written by this run: delete it to start the arm anew"
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes the CRC-32 of every part, but does not check it
            if (part := archive.testzip()) is not None:
                raise ValueError(f"damaged in {part}")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise no_checkpoint(path, error) from error
