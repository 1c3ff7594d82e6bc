"""Measures the CPU time of functions that benchmarks compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def seconds(works: Sequence[Callable[[], object]], rounds: int, at_least: float) -> list[float]:
    """CPU seconds per call of each function: the best of several interleaved rounds of at least `at_least` seconds."""
    best = [float("inf") for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for number, work in enumerate(works):
            calls, start = 0, time.process_time()
            while (passed := time.process_time() - start) < at_least:
                work()
                calls += 1
            best[number] = min(best[number], passed / calls)
    return best
