"""Numbers with intervals from independent replicates: means, rates, spreads, first steps, and who thinks ahead.

A replicate is one independent seed, and replicates are the only unit of replication here: agents of one replicate
learn from each other, so they are averaged within the replicate before anything is said about uncertainty.
All intervals are two-sided confidence intervals; where the data cannot support one its ends are NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

from inference_marl.statistics.beliefs import optimum_probability
from inference_marl.statistics.bounds import UNBOUNDED, bounds_of, difference_bounds

FloatArray = npt.NDArray[np.floating[Any]]

ROUNDING = 1e-6
"""Numbers that differ by no more than this share of their size are the same, up to the rounding of float32. What has
bounds (probabilities, nats) comes from numbers of order 1, so there it is no share but the difference itself."""

RESAMPLES = 1000
"""Of the replicates, for bootstrap intervals."""


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its confidence interval, in the units of what was measured.

    Attributes:
        mean: the estimate (for `median_interval` the median).
        low, high: ends of the interval; NaN where the sample is too small, or too much alike, to have one.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """`Interval` for every entry of an array; the fields share one shape."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray

    def intervals(self) -> list[Interval]:
        """The entries one by one, in C order."""
        ends = (np.ravel(each).tolist() for each in (self.mean, self.low, self.high))
        return [Interval(*numbers) for numbers in zip(*ends, strict=True)]


def mean_band(values: npt.ArrayLike, level: float = 0.95, bounds: tuple[float, float] = UNBOUNDED) -> Band:
    """Student-t interval of the mean over the first dimension.

    The interval is NaN, not zero wide, where the sample does not show its spread: for one replicate, and for any number
    of them that are all the same, which is no evidence that the next one would be. A NaN among the replicates
    makes the entry NaN: a diverged seed is never dropped in silence.

    Args:
        values: `replicates x ...`.
        level: coverage, in (0, 1); exact for normal replicates, approximate for others, and too high a claim for few
            replicates that are nearly all the same.
        bounds: of what is measured, (0, 1) for probabilities; the interval is cut to them.

    Returns:
        Fields of shape `...`; all NaN for no replicates.
    """
    data = np.asarray(values, dtype=np.float64)
    size = np.abs(data).max(0) if len(data) else np.zeros(data.shape[1:])
    return _student(data, size, level, bounds)


def _student(data: FloatArray, size: FloatArray, level: float, bounds: tuple[float, float]) -> Band:
    """`mean_band` of numbers that are rounded in proportion to `size`."""
    _check_level(level)
    replicates = len(data)
    nothing = np.full(data.shape[1:], np.nan)
    mean = data.mean(0) if replicates else nothing
    if replicates < 2:
        return Band(mean, nothing, nothing)
    rounding = ROUNDING * np.maximum(size, float(bounds != UNBOUNDED))
    deviation = np.where(np.ptp(data, axis=0) > rounding, data.std(0, ddof=1), np.nan)
    half = stats.t.ppf((1 + level) / 2, replicates - 1) * deviation / math.sqrt(replicates)
    return Band(mean, np.maximum(mean - half, bounds[0]), np.minimum(mean + half, bounds[1]))


def mean_interval(values: npt.ArrayLike, level: float = 0.95, bounds: tuple[float, float] = UNBOUNDED) -> Interval:
    """`mean_band` of one number per replicate, `replicates`."""
    return mean_band(np.ravel(np.asarray(values, dtype=np.float64)), level, bounds).intervals()[0]


def proportion_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a rate (Wilson 1927); it stays inside [0, 1] and is honest at 0 and at 1.

    Args:
        successes: how many of the trials succeeded.
        trials: how many independent trials; with 0 the rate and its interval are NaN.
        level: coverage, in (0, 1).

    Raises:
        ValueError: unless `0 <= successes <= trials`.
    """
    _check_level(level)
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: got {successes} of {trials} trials, expected from 0 to {trials}")
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan)
    ends = stats.binomtest(int(successes), int(trials)).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(ends.low), float(ends.high))


def proportion_band(successes: npt.ArrayLike, level: float = 0.95) -> Band:
    """Wilson interval of the rate over the first dimension.

    Args:
        successes: 0 or 1, `replicates x steps`.
        level: coverage, in (0, 1).

    Returns:
        Fields of shape `steps`.
    """
    data = np.asarray(successes, dtype=np.float64)
    counts, where = np.unique(data.sum(0).astype(np.int64), return_inverse=True)
    intervals = [proportion_interval(int(count), len(data), level) for count in counts]
    table = np.array([[each.mean, each.low, each.high] for each in intervals])
    return Band(*table[where].T)


def difference_interval(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    paired: bool,
    level: float = 0.95,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Interval:
    """Interval of the mean of the second sample minus that of the first, by Student's t.

    Of pairs it is that of `mean_band` for their differences: the narrower, the more the pairs are alike. Of
    independent samples it is Welch's (1947, Biometrika 34). Both are exact (Welch's nearly) for normal numbers and
    approximate for others. Where a sample does not show its spread, see `mean_band`, there is no interval: of pairs
    the sample of differences, of independent samples both of them.

    Args:
        first: one number per replicate.
        second: the same; if `paired`, of the same replicates in the same order.
        paired: whether replicate `r` of both samples had the same random numbers.
        level: coverage, in (0, 1).
        bounds: of the difference; the interval is cut to them.

    Raises:
        ValueError: if paired samples differ in their number.
    """
    _check_level(level)
    one, other = _samples(first, second, paired)
    size = np.abs(np.concatenate([one, other])).max(initial=0.0)
    if paired:
        return _student((other - one)[:, None], np.array([size]), level, bounds).intervals()[0]
    gap = float(other.mean() - one.mean()) if len(one) and len(other) else math.nan
    squared = [float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan for values in (one, other)]
    if not math.sqrt(sum(squared)) > ROUNDING * max(size, float(bounds != UNBOUNDED)):
        return Interval(gap, math.nan, math.nan)
    counts = len(one), len(other)
    freedom = sum(squared) ** 2 / sum(each**2 / (count - 1) for each, count in zip(squared, counts, strict=True))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(sum(squared))
    return Interval(gap, max(gap - half, bounds[0]), min(gap + half, bounds[1]))


def proportion_difference(first: npt.ArrayLike, second: npt.ArrayLike, paired: bool, level: float = 0.95) -> Interval:
    """Interval of the second rate minus the first, put together from the Wilson intervals of both.

    It stays inside [-1, 1] and has a width even where all replicates agree.

    Args:
        first: 0 or 1, one per replicate.
        second: the same; if `paired`, of the same replicates in the same order.
        paired: whether replicate `r` of both samples had the same random numbers.
        level: coverage, in (0, 1), on average over rates.

    Returns:
        All NaN for no replicates, or if one of them is NaN.

    Source: method 10 of Newcombe (1998), Statistics in Medicine 17, pages 873-890 for independent samples and
    2635-2650 for pairs, with its continuity correction of their correlation.

    Raises:
        ValueError: if paired samples differ in their number.
    """
    one, other = _samples(first, second, paired)
    if not len(one) or not len(other) or np.isnan(one).any() or np.isnan(other).any():
        return Interval(math.nan, math.nan, math.nan)
    p, q = (proportion_interval(int(values.sum()), len(values), level) for values in (one, other))
    correlation = _correlation(one, other) if paired else 0.0

    def reach(ours: float, theirs: float) -> float:
        return math.sqrt(max(0.0, ours**2 - 2 * correlation * ours * theirs + theirs**2))

    gap = q.mean - p.mean
    return Interval(gap, gap - reach(q.mean - q.low, p.high - p.mean), gap + reach(q.high - q.mean, p.mean - p.low))


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """Phi of pairs of zeros and ones; a positive one is corrected for continuity. 0 if a sample does not vary."""
    pairs = len(one)
    crossed = float(pairs * (one * other).sum() - one.sum() * other.sum())  # the fourfold table's determinant
    spread = math.prod(float(values.sum() * (pairs - values.sum())) for values in (one, other))
    if crossed > 0:
        crossed = max(crossed - pairs / 2, 0.0)
    return crossed / math.sqrt(spread) if spread else 0.0


def _samples(first: npt.ArrayLike, second: npt.ArrayLike, paired: bool) -> tuple[FloatArray, FloatArray]:
    one, other = (np.ravel(np.asarray(values, dtype=np.float64)) for values in (first, second))
    if paired and len(one) != len(other):
        raise ValueError(f"second: got {len(other)} replicates, expected {len(one)} as in first, since they are paired")
    return one, other


def median_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Median and its distribution-free interval from order statistics; `inf` stands for censored.

    The ends are order statistics, with coverage of at least `level` whatever the distribution; `high` is `inf` when
    too many replicates are censored to bound the median. Up to 5 replicates allow no 95 % interval: NaN.

    Args:
        values: one number per replicate, `inf` where the event had not come by the end.
        level: coverage, in (0, 1).

    Raises:
        ValueError: for NaN, which has no rank.
    """
    _check_level(level)
    ordered = np.sort(np.ravel(np.asarray(values, dtype=np.float64)))
    if np.isnan(ordered).any():
        raise ValueError("values: got NaN, expected numbers, with inf where the event did not happen")
    n = len(ordered)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    median = float(ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2)
    # Ranks from 1: the k-th smallest is above the median with probability P(Bin(n, 1/2) <= k - 1).
    counts = np.arange(n // 2)
    ranks = int((stats.binom.cdf(counts, n, 0.5) <= (1 - level) / 2).sum())
    low, high = (ordered[ranks - 1], ordered[n - ranks]) if ranks else (math.nan, math.nan)
    return Interval(median, float(low), float(high))


def first_lasting_step(condition: npt.ArrayLike, steps: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """First recorded step from which a condition holds up to and including the last record.

    Args:
        condition: bool, `... x steps`.
        steps: environment steps of the records, rising, `steps`.

    Returns:
        Steps, `...`; `inf` where the condition does not hold at the last record.

    Raises:
        ValueError: if the number of records differs or is zero.
    """
    held, at = np.asarray(condition, dtype=np.bool_), np.asarray(steps, dtype=np.float64)
    if at.ndim != 1 or held.shape[-1:] != at.shape or not len(at):
        raise ValueError(f"condition: got shape {held.shape} for {at.shape} steps, expected one column per step")
    to_the_end = np.logical_and.accumulate(held[..., ::-1], axis=-1)[..., ::-1]
    first: npt.NDArray[np.float64] = np.where(to_the_end[..., -1], at[to_the_end.argmax(-1)], np.inf)
    return first


def deviation_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Standard deviation over replicates of what every agent has, pooled over agents as root mean square.

    Nothing is assumed of the distribution, nor of how agents of one replicate go together: each replicate has one mean
    squared deviation, whose mean has Student's interval, taken over to the logarithm (the delta method), since a
    variance is positive and skewed. Like every interval for a variance it claims too much for few replicates of heavy
    tails; the percentile bootstrap does so more, and the chi-square interval of normal numbers for any number of them.

    Args:
        values: `replicates x agents`.
        level: coverage, in (0, 1), approximate.

    Returns:
        NaN throughout for fewer than two replicates; without ends where all deviate alike, as two always do.
    """
    data = np.asarray(values, dtype=np.float64)
    replicates = len(data)
    if replicates < 2:
        _check_level(level)
        return Interval(math.nan, math.nan, math.nan)
    squared = ((data - data.mean(0)) ** 2).mean(1) * replicates / (replicates - 1)
    variance = mean_interval(squared, level)
    deviation = math.sqrt(variance.mean)
    if not deviation > ROUNDING * np.abs(data).max():
        return Interval(deviation, math.nan, math.nan)
    factor = math.exp((variance.high / variance.mean - 1) / 2)
    return Interval(deviation, deviation / factor, deviation * factor)


def lasting_step_of_mean(
    values: npt.ArrayLike, threshold: float, steps: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """First recorded step from which the mean over replicates stays at a threshold or above, to the last record.

    The interval is that of the percentile bootstrap over `RESAMPLES` draws of the replicates with replacement, from a
    generator of its own that always starts alike, so the same numbers have the same interval.

    Args:
        values: `replicates x steps`.
        threshold: what the mean has to reach.
        steps: environment steps of the records, rising, `steps`.
        level: coverage, in (0, 1), approximate.

    Returns:
        `inf` where the mean is below at the last record; without ends for fewer than two replicates, or if all are the
        same.
    """
    _check_level(level)
    data = np.asarray(values, dtype=np.float64)
    replicates = len(data)
    first = float(first_lasting_step(data.mean(0) >= threshold, steps)) if replicates else math.nan
    if replicates < 2 or not np.ptp(data, axis=0).max() > 0:
        return Interval(first, math.nan, math.nan)
    generator = np.random.default_rng(0)
    drawn = np.empty(RESAMPLES)
    for chosen in np.array_split(np.arange(RESAMPLES), RESAMPLES // 50):  # bounded memory
        # How often each replicate is drawn: the replicates of resample i count from i * replicates on.
        cells = generator.integers(replicates, size=(len(chosen), replicates))
        cells += replicates * np.arange(len(chosen))[:, None]
        times = np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape).astype(np.float64)
        drawn[chosen] = first_lasting_step(times @ data / replicates >= threshold, steps)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")  # knows infinity
    return Interval(first, float(low), float(high))


@dataclass(frozen=True)
class Lead:
    """How far opponent models think ahead of the opponents, see `lead`.

    Attributes:
        steps: environment steps, `replicates`; positive where the model is first, NaN where excluded.
        interval: mean of the replicates that are not excluded.
        excluded: replicates in which the model or the truth never passes the threshold for good.
        gap: probability of the model minus that of the truth, over all replicates, at every record.
        mean_gap: the same averaged over the records as well.
    """

    steps: npt.NDArray[np.float64]
    interval: Interval
    excluded: int
    gap: Band
    mean_gap: Interval


def lead(
    model: npt.ArrayLike, truth: npt.ArrayLike, steps: npt.ArrayLike, threshold: float = 0.5, level: float = 0.95
) -> Lead:
    """By how many steps the opponent model finds the optimum before the opponents' policy does.

    A replicate's lead is the truth's `first_lasting_step` above the threshold minus the model's, averaged over
    its agents. Where any of them never passes for good the lead is censored: such replicates are excluded and
    counted. Excluding selects the seeds in which both arrive, so look at `gap`, which uses all seeds, as well.

    Args:
        model: opponent model's probability of the optimum, `replicates x [agents x] steps`.
        truth: probability under the opponents' actual policy, same shape.
        steps: environment steps of the records, `steps`.
        threshold: probability to pass, in (0, 1).
        level: coverage of the intervals.

    Source: "thinks ahead", Tian et al. 2019, section 5.1 and Fig. 1c, which show one trial; the measures are ours.

    Raises:
        ValueError: if shapes differ.
    """
    believed, actual = np.asarray(model, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if believed.shape != actual.shape or believed.ndim not in (2, 3):
        raise ValueError(
            f"model, truth: got shapes {believed.shape} and {actual.shape}, "
            "expected the same, replicates x steps or replicates x agents x steps"
        )
    if believed.ndim == 2:
        believed, actual = believed[:, None], actual[:, None]
    early, late = (first_lasting_step(value > threshold, steps) for value in (believed, actual))
    both = np.isfinite(early + late).all(1)
    leads = np.full(len(believed), np.nan)
    leads[both] = (late[both] - early[both]).mean(1)
    gap = (believed - actual).mean(1)
    return Lead(
        steps=leads,
        interval=mean_interval(leads[both], level),
        excluded=int((~both).sum()),
        gap=mean_band(gap, level),
        mean_gap=mean_interval(gap.mean(1), level),
    )


def learner_lead(posterior: xr.Dataset, learner: str, threshold: float = 0.5) -> Lead | None:
    """`lead` of one learner, over its agents that have an opponent model; `None` where there is none to measure."""
    here = posterior.sel(learner=[learner])
    model, truth = (optimum_probability(here, name) for name in ("opponent_model", "opponent_policy"))
    if model is None or truth is None:
        return None
    modelling = model[0].notnull().all(["replicate", "step"]).to_numpy()
    if not modelling.any():
        return None
    dims = ("replicate", "agent", "step")
    believed, actual = (each[0].transpose(*dims).to_numpy()[:, modelling] for each in (model, truth))
    return lead(believed, actual, posterior["step"].to_numpy(), threshold)


def metric_band(name: str, values: npt.ArrayLike) -> Band:
    """The 95 % interval that suits a metric: Wilson's for `success`, Student's within its bounds for the others.

    `values` are `replicates x steps`, `name` is as in `metrics.nc`.
    """
    return proportion_band(values) if name == "success" else mean_band(values, bounds=bounds_of(name))


def metric_difference(
    name: str, first: npt.ArrayLike, second: npt.ArrayLike, paired: bool, discrete: bool = True
) -> Interval:
    """The 95 % interval that suits the difference of two samples of a metric, or of another reading.

    Args:
        name: as in `metrics.nc`, or as in `inference_marl.statistics.bounds`.
        first: one number per replicate.
        second: the same.
        paired: whether replicate `r` of both samples had the same random numbers.
        discrete: of readings of beliefs, whether these are probabilities.
    """
    if name == "success":
        return proportion_difference(first, second, paired)
    return difference_interval(first, second, paired, bounds=difference_bounds(name, discrete))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, expected a probability between 0 and 1, such as 0.95")
