"""Separate global random states for environments."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class Chances:
    """The global random states of Python, NumPy and torch for one environment.

    With them, an environment that uses global random numbers is reproducible, does not affect those of learners, and
    does not depend on the number of environments. The state of torch is that of the CPU, if torch has been imported.
    """

    def __init__(self) -> None:
        self._own: tuple[Any, ...] | None = None

    @contextmanager
    def used(self, seed: int | None = None) -> Iterator[None]:
        """Use the environment's random states inside the context, seeded first if a seed is given."""
        before = _chances()
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - the global stream is what this is about
            if (torch := sys.modules.get("torch")) is not None:
                torch.random.default_generator.manual_seed(seed)
        elif self._own is not None:
            _set_chances(self._own)
        try:
            yield
        finally:
            self._own = _chances()
            _set_chances(before)


def _chances() -> tuple[Any, ...]:
    torch = sys.modules.get("torch")
    return random.getstate(), np.random.get_state(), None if torch is None else torch.get_rng_state()  # noqa: NPY002


def _set_chances(states: tuple[Any, ...]) -> None:
    of_python, of_numpy, of_torch = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)  # noqa: NPY002
    if of_torch is not None:
        sys.modules["torch"].set_rng_state(of_torch)
