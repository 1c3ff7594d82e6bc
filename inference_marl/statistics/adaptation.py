"""Metrics of adaptation and calibration, by the number of earlier episodes against the same opponents.

`TrialEvaluation` (`play/trials.py`) measures them. In a run's results, a metric of an evaluation named `held_out` is
called `return_after_2_held_out`, and that of the only, unnamed evaluation `return_after_2`.
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
"""Prefixes of names: of returns, scores of forecasts, their coverage, and widths of beliefs."""

WHAT = (RETURN, SCORE, COVERAGE, WIDTH)

DRAWS, TAIL = 39, 2
"""Number of samples of a forecast, and the rank of the samples that are the ends of its central interval."""

NOMINAL = (DRAWS + 1 - 2 * TAIL) / (DRAWS + 1)
"""Coverage of that interval for a calibrated belief: 0.9 (see `calibration`)."""


def return_after(number: int) -> Metric:
    """The metric of an episode's return after `number` episodes against the same opponent."""
    return Metric(
        f"{RETURN}_after_{number}",
        f"return after {episodes(number)}",
        dims=(),
        over="last",
        higher_is_better=True,
        meaning=f"Undiscounted return of an episode after {episodes(number)} against the same opponent, in the newest "
        "evaluation; mean over environments.",
    )


def forecasts_after(number: int, discrete: bool) -> tuple[Metric, ...]:
    """The metrics of forecasts of discrete or continuous opponents' actions in that episode; see `crps`."""
    found = [_score_after(number, discrete)]
    if not discrete:
        found.append(
            Metric(
                f"{COVERAGE}_after_{number}",
                f"coverage of forecasts after {episodes(number)}",
                bounds=PROBABILITY,
                dims=(),
                over="last",
                meaning=f"{_when(number)} share of the coordinates of their actions that lie in central "
                f"{100 * NOMINAL:g} % intervals of the opponent model's samples; less than that is overconfident.",
            )
        )
    width = Metric(
        f"{WIDTH}_after_{number}",
        f"width of the belief after {episodes(number)}",
        bounds=POSITIVE,
        dims=(),
        over="last",
        meaning=f"{_when(number)} mean standard deviation of the coordinates of the belief about them.",
    )
    return (*found, width)


def _score_after(number: int, discrete: bool) -> Metric:
    what = (
        "log-probability of their actions under the opponent model, summed over opponents."
        if discrete
        else "continuous ranked probability score of the opponent model's samples, in units of actions, mean over the "
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
        "In the newest evaluation, mean over environments and the steps of an episode, after "
        f"{episodes(number)} against the same opponents:"
    )


def episodes(number: int) -> str:
    """A number of episodes in words."""
    return "an episode" if number == 1 else f"{number} episodes"


def of_trials(name: str) -> bool:
    """Whether this is the name of such a metric."""
    return any(_parts(what, name) for what in WHAT)


def _parts(what: str, name: str) -> re.Match[str] | None:
    """Match the number and the evaluation in the name of a metric."""
    return re.fullmatch(rf"{what}_after_(\d+)(?:_(\w+))?", name)


def by_evaluation(metrics: xr.Dataset, what: str) -> dict[str, dict[int, str]]:
    """Names of the metrics `<what>_after_<number>` that were measured at the last record.

    Args:
        metrics: the dataset of `metrics.nc`.
        what: the prefix of their names, such as `return`.

    Returns:
        The names by evaluation (empty for the unnamed one) and by number, in ascending order.
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
