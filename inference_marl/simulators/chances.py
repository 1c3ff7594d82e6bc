"""Global random numbers that one environment has for itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class Chances:
    """Python's, numpy's and torch's global random numbers as one environment has them, apart from everybody else's.

    So an environment that draws from them repeats what it did, draws nothing from a learner's, and does not depend on
    how many others there are. Torch's are those of the CPU, once something has imported torch.
    """

    def __init__(self) -> None:
        self._own: tuple[Any, ...] | None = None

    @contextmanager
    def used(self, seed: int | None = None) -> Iterator[None]:
        """What is drawn inside is the environment's, from the seed on if there is one."""
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
