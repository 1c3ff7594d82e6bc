"""Metrics by how many episodes the opponents were met before: do learners adapt, and do they know what they know?

`TrialEvaluation` (`play/trials.py`) measures them. That of an evaluation called `held_out` is `return_after_2_held_out`
in a run's results, `return_after_2` if it is the only one and has no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import xarray as xr

from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.metrics import per_replicate
from inference_marl.types import Metric

RETURN = "return"
"""First part of the names of returns."""

WHAT = (RETURN,)
"""First parts of the names of all these metrics."""


def return_after(number: int) -> Metric:
    """The return of an episode after so many with the same opponent."""
    return Metric(
        f"{RETURN}_after_{number}",
        f"return after {episodes(number)}",
        dims=(),
        over="last",
        higher_is_better=True,
        meaning="In the newest evaluation, mean over environments of the sum of rewards in an episode, not discounted, "
        f"with an opponent that was met for {episodes(number)} before.",
    )


def episodes(number: int) -> str:
    """So many episodes, in words."""
    return "an episode" if number == 1 else f"{number} episodes"


def of_trials(name: str) -> bool:
    """Whether this is the name of such a metric."""
    return any(_parts(what, name) for what in WHAT)


def _parts(what: str, name: str) -> re.Match[str] | None:
    """The number and the evaluation in the name of a metric."""
    return re.fullmatch(rf"{what}_after_(\d+)(?:_(\w+))?", name)


def by_evaluation(metrics: xr.Dataset, what: str) -> dict[str, dict[int, str]]:
    """Names of the metrics `<what>_after_<number>` that were measured at the last record.

    Args:
        metrics: as in `metrics.nc`.
        what: the first part of their names, such as `return`.

    Returns:
        By the evaluation's name, which is empty of one without, and by number, in ascending order.
    """
    found: dict[str, dict[int, str]] = {}
    for name in map(str, metrics):
        parts = _parts(what, name)
        if parts and bool(metrics[name].isel(step=-1).notnull().any()):
            found.setdefault(parts[2] or "", {})[int(parts[1])] = name
    return {evaluation: dict(sorted(names.items())) for evaluation, names in found.items()}


def at_the_end(metrics: xr.Dataset, names: Iterable[str], learner: str) -> Numbers | None:
    """Some metrics of one learner at the last record, `replicates x metrics`; `None` if it lacks one of them."""
    found = [per_replicate(metrics, name, learner) for name in names]
    known = [values[:, -1] for values in found if values is not None]
    return np.stack(known, -1) if known and len(known) == len(found) else None
