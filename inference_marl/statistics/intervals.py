"""Confidence intervals over independent replicates: of means, rates, medians, standard deviations and differences.

Replicates, i.e. independent seeds, are the only unit of replication: agents of one replicate learn from each other, so
they are averaged within the replicate first. All intervals are two-sided with coverage `level`, in (0, 1) (`ValueError`
otherwise); where the data do not support one, its ends are NaN.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped, unused-ignore]

from inference_marl.types import UNBOUNDED

FloatArray = npt.NDArray[np.floating[Any]]

RESAMPLES = 1000
"""Bootstrap resamples of the replicates."""

ROUNDING = 1e-6
"""Relative tolerance of equality; absolute for bounded quantities, computed from numbers of order 1."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, in the units of the measured quantity.

    Attributes:
        mean: the estimate (the median for `median_interval`).
        low, high: ends of the interval; NaN where the sample is too small, or varies too little, to have one.
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

    The interval is NaN, rather than of zero width, where the sample has no spread: for one replicate, and for any
    number of identical ones, which are no evidence that the next would be identical. A NaN among the replicates makes
    the entry NaN: a diverged seed is never dropped silently.

    Args:
        values: `replicates x ...`.
        level: coverage; exact for normal replicates, approximate for others, and too high for few replicates that are
            nearly all equal.
        bounds: range of the quantity, (0, 1) for probabilities; the interval is clipped to it.

    Returns:
        Fields of shape `...`; all NaN without replicates.
    """
    data = np.asarray(values, dtype=np.float64)
    size = np.abs(data).max(0) if len(data) else np.zeros(data.shape[1:])
    return _student(data, size, level, bounds)


def _student(data: FloatArray, size: FloatArray, level: float, bounds: tuple[float, float]) -> Band:
    """`mean_band` of numbers whose rounding error is proportional to `size`."""
    check_level(level)
    replicates = len(data)
    nothing = np.full(data.shape[1:], np.nan)
    mean = data.mean(0) if replicates else nothing
    if replicates < 2:
        return Band(mean, nothing, nothing)
    rounding = ROUNDING * np.maximum(size, float(bounds != UNBOUNDED))
    deviation = np.where(np.ptp(data, axis=0) > rounding, data.std(0, ddof=1), np.nan)
    half = special.stdtrit(replicates - 1, (1 + level) / 2) * deviation / math.sqrt(replicates)
    return Band(mean, np.maximum(mean - half, bounds[0]), np.minimum(mean + half, bounds[1]))


def mean_interval(values: npt.ArrayLike, level: float = 0.95, bounds: tuple[float, float] = UNBOUNDED) -> Interval:
    """`mean_band` of one number per replicate, `replicates`."""
    return mean_band(np.ravel(np.asarray(values, dtype=np.float64)), level, bounds).intervals()[0]


def proportion_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a rate (Wilson 1927); it stays inside [0, 1] and has positive width at 0 and at 1.

    Args:
        successes: number of successful trials.
        trials: number of independent trials; with 0 the rate and its interval are NaN.
        level: coverage.

    Raises:
        ValueError: unless `0 <= successes <= trials`.
    """
    check_level(level)
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: got {successes} of {trials} trials, expected from 0 to {trials}")
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan)
    rate, z = successes / trials, float(special.ndtri(0.5 + 0.5 * level))
    scale = 2 * (trials + z**2)
    centre = (2 * trials * rate + z**2) / scale
    half = z / scale * math.sqrt(4 * trials * rate * (1 - rate) + z**2)
    return Interval(rate, 0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)


def proportion_band(successes: npt.ArrayLike, level: float = 0.95) -> Band:
    """Wilson interval of the rate over the first dimension of `successes`, 0 or 1, `replicates x steps`.

    A NaN among the replicates makes it NaN.
    """
    data = np.asarray(successes, dtype=np.float64)
    counts, where = np.unique(data.sum(0), return_inverse=True)
    missing = Interval(np.nan, np.nan, np.nan)
    intervals = [missing if np.isnan(count) else proportion_interval(int(count), len(data), level) for count in counts]
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

    For pairs it is `mean_band` of their differences: the more correlated the pairs, the narrower. For independent
    samples it is Welch's (1947, Biometrika 34). Both are exact (Welch's nearly) for normal data and approximate for
    other data. There is no interval where the differences of pairs, or both independent samples, have no spread (see
    `mean_band`).

    Args:
        first: one number per replicate.
        second: likewise; if `paired`, for the same replicates in the same order.
        paired: whether replicate `r` of both samples used the same random numbers.
        level: coverage.
        bounds: range of the difference; the interval is clipped to it.

    Raises:
        ValueError: if paired samples differ in size.
    """
    check_level(level)
    one, other = _samples(first, second, paired)
    size = np.abs(np.concatenate([one, other])).max(initial=0.0)
    if paired:
        return _student((other - one)[:, None], np.array([size]), level, bounds).intervals()[0]
    gap = float(other.mean() - one.mean()) if len(one) and len(other) else math.nan
    from scipy import stats  # slow to import, and not needed for pairs

    errors = [stats.sem(values) if len(values) > 1 else math.nan for values in (one, other)]
    if not math.hypot(*errors) > ROUNDING * max(size, float(bounds != UNBOUNDED)):
        return Interval(gap, math.nan, math.nan)
    with warnings.catch_warnings():  # for samples that hardly vary
        warnings.simplefilter("ignore", RuntimeWarning)
        ends = stats.ttest_ind(other, one, equal_var=False).confidence_interval(level)
    return Interval(gap, max(float(ends.low), bounds[0]), min(float(ends.high), bounds[1]))


def proportion_difference(first: npt.ArrayLike, second: npt.ArrayLike, paired: bool, level: float = 0.95) -> Interval:
    """Interval of the second rate minus the first, combined from the Wilson intervals of both.

    It stays inside [-1, 1] and has positive width even where all replicates agree. All NaN without replicates, or if
    one of them is NaN. Samples (0 or 1 per replicate), `paired` and errors are as for `difference_interval`; `level`
    holds on average over rates.

    Source: method 10 of Newcombe (1998), Statistics in Medicine 17, pages 873-890 for independent samples and 2635-2650
    for pairs, with its continuity correction of their correlation.
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
    """Phi coefficient of binary pairs, with continuity correction if positive; 0 if a sample does not vary."""
    pairs = len(one)
    crossed = float(pairs * (one * other).sum() - one.sum() * other.sum())  # determinant of the 2 x 2 table
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
    """Median with its distribution-free interval from order statistics; `inf` means censored.

    Coverage is at least `level` for any distribution; `high` is `inf` if too many replicates are censored to bound the
    median. With up to 5 replicates there is no 95 % interval, and its ends are NaN.

    Args:
        values: one number per replicate, `inf` where the event had not happened by the end.
        level: coverage.

    Raises:
        ValueError: if a number is NaN, which has no rank.
    """
    check_level(level)
    ordered = np.sort(np.ravel(np.asarray(values, dtype=np.float64)))
    if np.isnan(ordered).any():
        raise ValueError("values: got NaN, expected numbers, with inf where the event did not happen")
    n = len(ordered)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    median = float(ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2)  # of infinities too
    # Order statistics such that each end misses the median with probability of at most (1 - level) / 2.
    fewest = int(np.searchsorted(special.bdtr(np.arange(n), n, 0.5), (1 - level) / 2))
    low, high = (ordered[fewest - 1], ordered[n - fewest]) if fewest else (math.nan, math.nan)
    return Interval(median, float(low), float(high))


def iqm_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Interquartile mean, the mean of the middle half of the replicates, with its percentile bootstrap interval.

    Source: Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice".

    Args:
        values: one number per replicate.
        level: coverage, approximate.
    """
    from scipy import stats  # slow to import, and most runs report no such mean

    check_level(level)
    data = np.ravel(np.asarray(values, dtype=np.float64))
    mean = float(stats.trim_mean(data, 0.25)) if len(data) else math.nan
    if len(data) < 2 or not np.ptp(data) > ROUNDING * np.abs(data).max():
        return Interval(mean, math.nan, math.nan)
    found = stats.bootstrap(
        (data,),
        lambda drawn, axis: stats.trim_mean(drawn, 0.25, axis),
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))


def deviation_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Standard deviation over replicates of each agent's value, pooled over agents as root mean square.

    It assumes neither a distribution nor independent agents: each replicate has one mean squared deviation, whose mean
    has Student's interval, on a logarithmic scale (delta method), since a variance is positive and skewed. Like every
    interval of a variance it undercovers for few replicates with heavy tails; the percentile bootstrap more so, and the
    chi-square interval, which assumes normal data, for any number of replicates.

    Args:
        values: `replicates x agents`.
        level: coverage, approximate.

    Returns:
        All NaN for fewer than two replicates; ends are NaN where all deviate equally, as two replicates always do.
    """
    data = np.asarray(values, dtype=np.float64)
    replicates = len(data)
    if replicates < 2:
        check_level(level)
        return Interval(math.nan, math.nan, math.nan)
    squared = ((data - data.mean(0)) ** 2).mean(1) * replicates / (replicates - 1)
    variance = mean_interval(squared, level)
    deviation = math.sqrt(variance.mean)
    if not deviation > ROUNDING * np.abs(data).max():
        return Interval(deviation, math.nan, math.nan)
    factor = math.exp((variance.high / variance.mean - 1) / 2)
    return Interval(deviation, deviation / factor, deviation * factor)


def check_level(level: float) -> None:
    """Raise `ValueError` unless the coverage is in (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, expected a probability between 0 and 1, such as 0.95")
