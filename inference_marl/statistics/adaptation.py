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
from inference_marl.types import POSITIVE, PROBABILITY, Metric

RETURN, SCORE, COVERAGE, WIDTH = "return", "forecast_score", "forecast_coverage", "posterior_sd"
"""First parts of the names: of returns, of how good forecasts are, and of how wide beliefs are."""

WHAT = (RETURN, SCORE, COVERAGE, WIDTH)

DRAWS, TAIL = 39, 2
"""Draws of a forecast, and how many of them lie beyond either end of its central interval or are it."""

NOMINAL = (DRAWS + 1 - 2 * TAIL) / (DRAWS + 1)
"""How often that interval contains what a calibrated belief forecasts: 0.9 (see `calibration`)."""


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


def forecasts_after(number: int, discrete: bool) -> tuple[Metric, ...]:
    """How good a learner's forecasts are in that episode, of what opponents with such actions do; see `crps`."""
    found = [_score_after(number, discrete)]
    if not discrete:
        found.append(
            Metric(
                f"{COVERAGE}_after_{number}",
                f"coverage of forecasts after {episodes(number)}",
                bounds=PROBABILITY,
                dims=(),
                over="last",
                meaning=f"{_when(number)} share of the coordinates of their actions that lie in a central interval of "
                f"the opponent model's draws, which should contain {NOMINAL:g} of them; less is overconfident.",
            )
        )
    width = Metric(
        f"{WIDTH}_after_{number}",
        f"width of the belief after {episodes(number)}",
        bounds=POSITIVE,
        dims=(),
        over="last",
        meaning=f"{_when(number)} mean standard deviation of the coordinates of what is believed of them.",
    )
    return (*found, width)


def _score_after(number: int, discrete: bool) -> Metric:
    what = (
        "log-probability that the opponent model gave to what they did, sum over opponents."
        if discrete
        else "continuous ranked probability score of the opponent model's draws, in units of actions, mean over the "
        "coordinates of all opponents' actions; lower is better."
    )
    return Metric(
        f"{SCORE}_after_{number}",
        f"{'log score' if discrete else 'CRPS'} of forecasts after {episodes(number)}",
        "nats" if discrete else "",
        dims=(),
        over="last",
        higher_is_better=discrete,
        meaning=f"{_when(number)} {what}",
    )


def _when(number: int) -> str:
    return (
        "In the newest evaluation, mean over environments and the steps of an episode against opponents that were met "
        f"for {episodes(number)} before:"
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
