"""CPU time of what benchmarks compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def seconds(works: Sequence[Callable[[], object]], rounds: int, at_least: float) -> list[float]:
    """CPU seconds of one call of each: the best of some rounds, in turns, of at least so many seconds each."""
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
