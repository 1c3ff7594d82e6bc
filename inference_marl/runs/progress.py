"""The progress bar of runs, which reads what their jobs say, wherever these are played."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from inference_marl.runs.execution import LOG_EVERY
from inference_marl.runs.job import Job
from inference_marl.runs.meanwhile import meanwhile


@contextmanager
def progress_bar(jobs: Sequence[Job], ended: Sequence[Job], shown: bool) -> Iterator[None]:
    """Show one bar for all jobs while they are played.

    Args:
        jobs: all that are played or were; may grow.
        ended: those that have ended, which grows.
        shown: whether there is a bar at all.
    """
    if not shown or sys.stderr is None or sys.stderr.closed:  # of a daemon, or a program without a console
        yield
        return
    with tqdm(unit="step", dynamic_ncols=True, delay=1e-3) as bar:
        watch = _Watch(bar, jobs, ended)
        watch.show()
        try:
            with meanwhile(watch.show, _refresh()):
                yield
        finally:
            watch.show()


class _Watch:
    """A bar and the jobs that it shows; steps count once for each arm that a job stands for."""

    def __init__(self, bar: tqdm[Any], jobs: Sequence[Job], ended: Sequence[Job]) -> None:
        self.bar, self.jobs, self.ended, self.before = bar, jobs, ended, list(ended)
        self.said: dict[Job, dict[str, Any]] = {}

    def show(self) -> None:
        """The time left is that of the steps to come: those that were found made are not among them."""
        jobs, ended = list(self.jobs), list(self.ended)  # as they are now
        done, total = 0, 0
        for job in jobs:
            if job in self.before:
                continue
            said = self.said[job] = job.said() or self.said.get(job, {})
            steps = job.experiment.steps - said.get("found", 0)
            made = steps if job in ended else said.get("made", 0)
            total, done = total + len(job.stands_for) * steps, done + len(job.stands_for) * made
        arms, over = (sum(len(job.stands_for) for job in each) for each in (jobs, ended))
        at = next((job.folder for job in jobs if job not in ended), jobs[-1].folder)
        which = f"{at.name}, " if len({job.folder for job in jobs}) > 1 else ""
        self.bar.set_description(f"{which}{over} of {arms} arms done", refresh=False)
        self.bar.total, self.bar.n = total, done
        self.bar.refresh()
        self.bar.last_print_t = time.time()  # without which it would not end its line when it is closed


def _refresh() -> float:
    """Seconds between updates of the progress bar: rare where they pile up, as in a log file."""
    return LOG_EVERY if sys.stderr.isatty() else 10.0
