"""The progress bar of runs, which reads the logs of their jobs, wherever these are played."""

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
    """Show one progress bar for all jobs inside the context.

    Args:
        jobs: all jobs, ended or not; may grow.
        ended: the jobs that have ended; grows.
        shown: whether to show a bar at all.
    """
    if not shown or sys.stderr is None or sys.stderr.closed:  # in a daemon, or a program without a console
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
    """A progress bar and its jobs; a step of a job counts once for each of its arms."""

    def __init__(self, bar: tqdm[Any], jobs: Sequence[Job], ended: Sequence[Job]) -> None:
        self.bar, self.jobs, self.ended, self.before = bar, jobs, ended, list(ended)
        self.said: dict[Job, dict[str, Any]] = {}

    def show(self) -> None:
        """Update the bar; its rate, and so the time left, is that of steps made since the jobs were started."""
        jobs, ended = list(self.jobs), list(self.ended)  # copies, since both grow
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
        self.bar.last_print_t = time.time()  # otherwise closing the bar would not end its line


def _refresh() -> float:
    """Seconds between updates of the progress bar; more if standard error is not a terminal, such as a log file."""
    return LOG_EVERY if sys.stderr.isatty() else 10.0
