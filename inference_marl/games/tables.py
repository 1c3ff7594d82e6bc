"""Tables of numbers: conversion from nested lists, and caching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inference_marl.described import LARGEST


class Kept(dict[Any, Any]):
    """A cache, for instance of tables per device and floating type. Copies and pickles of it are empty."""

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


def numbers(name: str, values: Any) -> Tensor:
    """Convert nested lists to a float64 tensor; raises `ValueError` with the entry if they are not a finite table."""
    try:
        tensor = torch.as_tensor(values, dtype=torch.float64).cpu().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}: got {_misfit(values)}, expected nested lists of numbers, equally long at every depth; correct "
            "the lists"
        ) from error
    if tensor.numel() == 0 or tensor.dim() == 0:
        raise ValueError(f"{name}: got {values!r}, expected nested lists of at least one number")
    wrong = (tensor.abs() <= LARGEST).logical_not().nonzero()  # including NaN
    if len(wrong):
        at = wrong[0].tolist()
        raise ValueError(f"{name}: got {tensor[tuple(at)]} at {index(at)}, expected finite numbers up to {LARGEST:g}")
    if (where := _boolean(values)) is not None:
        raise ValueError(f"{name}: got a boolean at {index(where)}, expected numbers")
    return tensor


def _boolean(values: Any, at: tuple[int, ...] = ()) -> tuple[int, ...] | None:
    """The position of the first boolean in nested lists; `None` if there is none."""
    if isinstance(values, list | tuple):
        return next((found for i, each in enumerate(values) if (found := _boolean(each, (*at, i))) is not None), None)
    return at if isinstance(values, bool) else None


def index(at: Sequence[int]) -> str:
    """Format the position of an entry of nested lists as in Python: `[0][2]`."""
    return "".join(f"[{i}]" for i in at)


def _misfit(values: Any) -> str:
    """Describe the first entry of irregular lists that differs from the first one at its depth."""
    level: list[tuple[tuple[int, ...], Any]] = [((), values)]
    while level and isinstance(level[0][1], list | tuple):
        first = level[0][1]
        for at, value in level:
            if not isinstance(value, list | tuple):
                return f"{value!r} at {index(at)}"
            if len(value) != len(first):
                return f"{len(value)} entries at {index(at)} and {len(first)} at {index(level[0][0])}"
        level = [((*at, i), entry) for at, value in level for i, entry in enumerate(value)]
    at, value = next(((at, value) for at, value in level if not isinstance(value, int | float)), ((), values))
    return f"{value!r} at {index(at)}" if at else repr(value)
