"""Calibration of beliefs: do events with believed probability 0.7 happen 7 times in 10?

Outcomes are not sampled: runs record the opponents' actual policy beside every belief about them, so forecasts are
compared with the true probabilities of events, without sampling noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from inference_marl.statistics.beliefs import ROUNDING, Numbers, as_array, favourites, modelling
from inference_marl.statistics.intervals import RESAMPLES, Band, Interval

BINS = 10
"""Number of equal bins of forecast probabilities."""


@dataclass(frozen=True)
class Calibration:
    """Forecasts against outcomes, pooled over replicates, agents, states and records; see `calibration`.

    Attributes:
        forecast: mean forecast probability of each bin, `bins`; NaN for an empty bin.
        outcome: frequency of the events, `bins`.
        share: fraction of the forecasts in the bin, `bins`; sums to 1.
        error: expected calibration error, the `share`-weighted mean of `|forecast - outcome|`; 0 is perfect.
        overconfidence: `replicates`; positive for overconfident beliefs, negative for underconfident ones.
    """

    forecast: Numbers
    outcome: Band
    share: Numbers
    error: Interval
    overconfidence: Numbers


def calibration(posterior: xr.Dataset, learner: str, record: int | None = None) -> Calibration | None:
    """How well one learner's opponent model is calibrated.

    Discrete: every action's probability is a forecast; forecasts are binned (Guo et al. 2017, "On calibration of modern
    neural networks", Eq. 3, with all classes instead of the top one, as Kull et al. 2019). Overconfidence is the
    probability of the favourite action minus the frequency with which the opponents play it, averaged over tied
    favourites: a uniform belief is never overconfident.

    Continuous: the forecasts are central intervals of rho, from the k-th lowest to the k-th highest sample for every k.
    A calibrated belief of n samples has coverage `(n + 1 - 2 k) / (n + 1)` exactly, since the opponents' action is then
    equally likely to have any rank among the samples (probability integral transform). Each dimension of the action
    counts separately. Overconfidence is nominal minus actual coverage, averaged over k.

    Intervals are from the percentile bootstrap over replicates (widened to contain the estimate, since the error is
    nonnegative and resampling increases it); there is none for a single replicate.

    Args:
        posterior: the dataset of `posterior.nc`.
        learner: name of the learner.
        record: index of the record; all records if `None`.

    Returns:
        `None` if the learner has no opponent model, or the opponents' policy is not known.
    """
    if learner not in modelling(posterior) or "opponent_policy" not in posterior:
        return None
    records = slice(None) if record is None else [record]
    here = posterior[["opponent_model", "opponent_policy"]].sel(learner=learner).isel(step=records)
    replicates = here.sizes["replicate"]
    event = ("opponent_action",) if posterior.attrs["kind"] == "discrete" else ("opponent_dim", "draw")
    model, truth = (
        as_array(here[name], "replicate", "step", "agent", ..., *event)
        for name in ("opponent_model", "opponent_policy")
    )
    model, truth = (each.reshape(replicates, -1, each.shape[-1]) for each in (model, truth))
    if not (np.isfinite(model).any(-1) & np.isfinite(truth).any(-1)).any():
        return None
    if posterior.attrs["kind"] == "discrete":
        sums, overconfidence = _discrete(model, truth)
    else:
        sums, overconfidence = _continuous(model, truth)
    return _pooled(*sums, overconfidence)


def ranks(posterior: xr.Dataset, learner: str, record: int = -1) -> Numbers | None:
    """Probability integral transform: ranks of the opponents' actions among the samples of rho, scaled to [0, 1].

    One number per sample of the opponents' actual policy and dimension, with replicates, agents and states pooled;
    uniform if the belief is calibrated. `None` without samples.
    """
    if posterior.attrs["kind"] == "discrete" or learner not in modelling(posterior):
        return None
    here = posterior.sel(learner=learner).isel(step=record)
    model, truth = (
        as_array(here[name], "replicate", "agent", ..., "opponent_dim", "draw")
        for name in ("opponent_model", "opponent_policy")
    )
    rank = _rank(model, truth)
    shares: Numbers = rank[np.isfinite(rank)] / (model.shape[-1] + 1)
    return shares


def in_central_interval(draws: Numbers, actual: Numbers, level: int) -> Numbers:
    """Whether the interval from the `level`-th lowest to the `level`-th highest sample contains the outcome.

    Args:
        draws: samples of the forecast, `... x draws`.
        actual: the outcomes, `...`.
        level: from 1 to half the number of samples; the smaller, the wider the interval.

    Returns:
        1 or 0, in the shape of `actual`; NaN where a number is missing. For a calibrated belief the expected value is
        `(draws + 1 - 2 level) / (draws + 1)`.
    """
    rank = _rank(draws, actual[..., None])[..., 0]
    depth = np.minimum(rank, draws.shape[-1] + 1 - rank)
    found: Numbers = np.where(np.isnan(rank), np.nan, depth > level)
    return found


def _rank(model: Numbers, truth: Numbers) -> Numbers:
    """Rank of each true sample among the model's, from 0.5 to `draws + 0.5`; ties count half. NaN if either is NaN."""
    below = (model[..., None, :] < truth[..., :, None]).sum(-1) + (model[..., None, :] == truth[..., :, None]).sum(
        -1
    ) / 2
    missing = np.isnan(truth) | np.isnan(model).any(-1, keepdims=True)
    rank: Numbers = np.where(missing, np.nan, below + 0.5)
    return rank


def _discrete(model: Numbers, truth: Numbers) -> tuple[tuple[Numbers, Numbers, Numbers], Numbers]:
    """Number of forecasts, sums of forecasts and of outcomes, `replicates x bins`, and overconfidence."""
    real = ~np.isnan(model) & ~np.isnan(truth)
    replicates = len(model)
    bins = np.clip(np.floor((np.nan_to_num(model) + ROUNDING) * BINS), 0, BINS - 1).astype(np.int64)
    place = (bins + BINS * np.arange(replicates)[:, None, None])[real]

    def total(values: Numbers) -> Numbers:
        binned: Numbers = np.reshape(np.bincount(place, values, replicates * BINS), (replicates, BINS))
        return binned

    sums = (total(np.ones(len(place))), total(model[real]), total(truth[real]))
    liked = favourites(np.where(real, model, np.nan))
    number = liked.sum(-1)
    excess = np.where(liked, model - truth, 0.0).sum(-1)
    known = number > 0
    means = np.divide(excess, number, where=known, out=np.zeros(number.shape)).sum(1)
    count = known.sum(1)
    return sums, np.divide(means, count, where=count > 0, out=np.full(count.shape, np.nan))  # NaN if nothing is known


def _continuous(model: Numbers, truth: Numbers) -> tuple[tuple[Numbers, Numbers, Numbers], Numbers]:
    """As `_discrete`, with one bin per nominal coverage."""
    draws = model.shape[-1]
    levels = np.arange(draws // 2, 0, -1)
    nominal = (draws + 1 - 2 * levels) / (draws + 1)
    covered = np.empty((len(model), len(levels)))
    for row, (believed, actual) in enumerate(zip(model, truth, strict=True)):  # one at a time, to save memory
        rank = _rank(believed, actual)
        depth = np.minimum(rank, draws + 1 - rank)[np.isfinite(rank)]
        covered[row] = (depth[:, None] > levels).mean(0) if len(depth) else np.nan
    known = ~np.isnan(covered)  # excludes failed replicates
    sums = (known.astype(np.float64), known * nominal, np.nan_to_num(covered))
    return sums, (nominal - covered).mean(1)


def _pooled(weight: Numbers, forecast: Numbers, outcome: Numbers, overconfidence: Numbers) -> Calibration:
    """Calibration of all replicates pooled; arguments are sums, `replicates x bins`."""

    def curve(times: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """The curve of resampled replicates, each drawn `times` times, `resamples x replicates`."""
        count = times @ weight
        every = count.sum(-1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            believed, happened, share = times @ forecast / count, times @ outcome / count, count / every
        error = np.where(every[..., 0] > 0, np.nansum(share * np.abs(believed - happened), -1), np.nan)
        return believed, happened, share, error

    replicates = len(weight)
    believed, happened, share, error = (each[0] for each in curve(np.ones((1, replicates))))
    low, high = np.full_like(happened, np.nan), np.full_like(happened, np.nan)
    bounds = (np.nan, np.nan)
    if replicates > 1 and not np.isnan(error):
        rng = np.random.default_rng(0)
        times = rng.multinomial(replicates, np.full(replicates, 1 / replicates), RESAMPLES).astype(np.float64)
        _, drawn, _, errors = curve(times)
        full = share > 0
        low[full], high[full] = np.nanquantile(drawn[:, full], (0.025, 0.975), axis=0)
        bounds = np.nanquantile(errors, 0.025), np.nanquantile(errors, 0.975)
        bounds = (float(min(bounds[0], error)), float(max(bounds[1], error)))
    return Calibration(believed, Band(happened, low, high), share, Interval(float(error), *bounds), overconfidence)
