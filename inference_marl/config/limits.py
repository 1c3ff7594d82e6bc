"""Limits on the size of files and experiments, checked before anything large is created."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from inference_marl.config.build import SpecError
from inference_marl.described import IncompatibleError, arguments, parts
from inference_marl.experiment import Experiment

MOST_VALUES = 1_000_000
"""Maximum number of values in a file, with those repeated by aliases counted each time."""
DEEPEST = 100
"""Maximum depth of nested lists and mappings."""
LARGE = 2**26
"""Size in bytes above which tensors of zeros are allocated lazily while an arm is checked."""
LEAST = 8
"""Lower bound of the bytes that any game needs for an environment."""


def check_tree(content: Any) -> None:
    """Check that plain data has not too many values or levels, and does not contain itself.

    Raises:
        SpecError: if it does; the message names the key.
    """
    inside: set[int] = set()
    count = 0

    def walk(value: Any, key: str, depth: int) -> None:
        nonlocal count
        count += 1
        if count > MOST_VALUES:
            raise SpecError(f"{_short(key)}: got more than {MOST_VALUES:,} values up to here, expected fewer in a file")
        if not isinstance(value, Mapping | list):
            return
        if id(value) in inside:
            raise SpecError(f"{_short(key)}: got something that contains itself, expected plain data")
        if depth >= DEEPEST:
            raise SpecError(f"{_short(key)}: got more than {DEEPEST} levels of lists and mappings, expected fewer")
        inside.add(id(value))
        for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            walk(
                item, f"{key}[{name}]" if isinstance(value, list) else f"{key}.{name}" if key else str(name), depth + 1
            )
        inside.discard(id(value))

    walk(content, "", 0)


def _short(key: str) -> str:
    """A key, truncated if it is very long."""
    return key if len(key) <= 100 else f"{key[:97]}..."


@contextmanager
def within_memory(experiment: Experiment, arm: str, replicates: int) -> Iterator[None]:
    """Stop the creation of an arm inside the context before it uses more memory than the machine has.

    Raises:
        IncompatibleError: naming the largest number among the arguments of the arm and the experiment, as the cause.
    """
    with _Allocations(experiment.replicates / replicates, lambda needed: _check_memory(experiment, arm, needed)):
        yield


class _Allocations(TorchFunctionMode):
    """Reports the memory that tensors will take before they are created inside the context.

    Args:
        times: factor by which to multiply it.
        tell: called with the number of bytes so far.
    """

    def __init__(self, times: float, tell: Callable[[int], object]) -> None:
        super().__init__()
        self.times, self.tell, self.total = times, tell, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Report the memory of tensors that `func` creates, and call it."""
        given = kwargs or {}
        if func in _MADE:
            size = given.get("size", args)
            size = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
            whole = [int(each) for each in (size[0] if func is torch.full else size) if isinstance(each, int)]
            dtype = given.get("dtype") or torch.get_default_dtype()
            self.total += (needed := math.prod(whole) * dtype.itemsize)
            self.tell(int(self.total * self.times))
            if func is torch.zeros and needed > LARGE:
                return torch.from_numpy(np.zeros(whole, torch.zeros(1, dtype=dtype).numpy().dtype))
        return func(*args, **given)


_MADE = (torch.zeros, torch.ones, torch.empty, torch.full, torch.rand, torch.randn)


def check_sizes(experiment: Experiment) -> None:
    """Raise `IncompatibleError` if replicates and environments need more memory than there is, with any arm."""
    for arm in experiment.arms:
        _check_memory(experiment, arm, experiment.replicates * experiment.environments * LEAST)


def _check_memory(experiment: Experiment, arm: str, needed: int) -> None:
    """Check that this machine has enough memory for an arm.

    Args:
        experiment: the experiment with the arm.
        arm: name of the arm.
        needed: number of bytes.

    Raises:
        IncompatibleError: naming the largest number among the arguments of the arm and the experiment, as the cause.
    """
    if needed <= (there := memory()):
        return
    key, number = largest(experiment, arm)
    raise IncompatibleError(
        f"got {number}, for which arm {arm} needs {_size(needed)} of memory, expected at most {_size(there)}", key
    )


def largest(experiment: Experiment, arm: str) -> tuple[str, int]:
    """The largest integer that affects the size of an arm, and its key."""
    sizes = {name: getattr(experiment, name) for name in ("replicates", "environments")}
    return max([*sizes.items(), *_integers(experiment.arms[arm], f"arms.{arm}")], key=lambda pair: pair[1])


def _integers(value: Any, key: str) -> Iterator[tuple[str, int]]:
    for where, part in parts(value, key):
        for name, number in arguments(part).items():
            if isinstance(number, int) and not isinstance(number, bool):
                yield f"{where}.{name}", number


def memory() -> int:
    """Memory of this machine in bytes; a huge number if it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**63


def _size(number: int) -> str:
    """A number of bytes in words."""
    return f"{number / 2**30:,.1f} GiB"
