"""What benchmarks share: their one option, a check that two results are the same, and the CPU time of functions."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn


def quick(description: str | None) -> bool:
    """Read the command line: whether rounds are to be shorter, and fewer. From now on, one thread and one seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="shorter rounds, and fewer")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return bool(parser.parse_args().quick)


def expect_same(pairs: Iterable[tuple[Sequence[Tensor], nn.Module]], within: float) -> None:
    """Refuse to time things that are not the same.

    Raises:
        RuntimeError: if weights by hand and those of a network differ by more.
    """
    for by_hand, ours in pairs:
        for one, other in zip(by_hand, ours.parameters(), strict=True):
            if not torch.allclose(one, other, rtol=0, atol=within):
                raise RuntimeError(f"by hand and by the package differ by {float((one - other).abs().max()):.2g}")


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
