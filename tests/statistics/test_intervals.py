from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from inference_marl.statistics.intervals import (
    deviation_interval,
    difference_interval,
    iqm_interval,
    mean_band,
    mean_interval,
    median_interval,
    proportion_band,
    proportion_difference,
    proportion_interval,
)


def test_mean_interval_by_hand() -> None:
    # sd = sqrt(5/3), t_{3, .975} = 3.182446
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-6)


def test_mean_band_is_the_interval_of_every_column() -> None:
    values = np.random.default_rng(0).normal(size=(7, 3, 2))
    band = mean_band(values, level=0.9)
    assert band.mean.shape == (3, 2)
    columns = [mean_interval(values[:, i, j], level=0.9) for i in range(3) for j in range(2)]
    assert band.intervals() == pytest.approx(columns)


def test_interval_is_cut_to_what_is_possible() -> None:
    free, bounded = mean_band([[0.9], [1.0], [1.0]]), mean_band([[0.9], [1.0], [1.0]], bounds=(0, 1))
    assert free.high[0] > 1
    assert (bounded.mean, bounded.low, bounded.high) == (free.mean, free.low, 1.0)


def test_one_replicate_has_no_interval() -> None:
    found = mean_interval([3.0])
    assert found.mean == 3.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("values", [[0.0] * 4, [1.0] * 50, [11.0, 11.000001, 11.0]])
def test_replicates_that_are_all_the_same_have_no_interval(values: list[float]) -> None:
    """They are no evidence that the next one would be, and the rounding of float32 is no spread."""
    found = mean_interval(values)
    assert found.mean == pytest.approx(values[0])
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_small_spread_of_small_numbers_is_a_spread() -> None:
    large, small = mean_interval([1.0, 2.0, 4.0]), mean_interval([1e-9, 2e-9, 4e-9])
    assert small.high == pytest.approx(1e-9 * large.high)
    assert math.isnan(mean_interval([0.0, 1e-9, 0.0], bounds=(0, 1)).low)  # of probabilities it is rounding


def test_no_replicates_and_nan_are_nan() -> None:
    assert math.isnan(mean_interval([]).mean)
    assert math.isnan(proportion_interval(0, 0).mean)
    assert math.isnan(mean_interval([1.0, math.nan]).mean)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    found = proportion_interval(successes, trials)
    assert (found.mean, found.low, found.high) == pytest.approx((successes / trials, low, high), abs=5e-5)


def test_proportion_band_is_the_interval_of_every_column() -> None:
    successes = np.random.default_rng(0).random((9, 5)) < 0.4
    found = proportion_band(successes.astype(np.float32)).intervals()
    assert found == [proportion_interval(int(column.sum()), 9) for column in successes.T]


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3)])
def test_impossible_proportion(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of 3 trials, expected from 0 to 3"):
        proportion_interval(successes, trials)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_level_is_a_probability(level: float) -> None:
    for interval in (mean_interval, median_interval, iqm_interval):
        with pytest.raises(ValueError, match="expected a probability between 0 and 1"):
            interval([1.0, 2.0], level=level)


@pytest.mark.parametrize(
    ("n", "low", "high"), [(6, 1, 6), (10, 2, 9), (15, 4, 12), (20, 6, 15), (30, 10, 21)]
)  # ranks of the 95 % interval, Conover (1999), from the table of Bin(n, 1/2)
def test_median_interval_ranks(n: int, low: int, high: int) -> None:
    found = median_interval(np.random.default_rng(n).permutation(n) + 1)
    assert (found.mean, found.low, found.high) == ((n + 1) / 2, low, high)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_median_of_few_has_no_interval(n: int) -> None:
    found = median_interval(np.arange(n))
    assert found.mean == (n - 1) / 2
    assert math.isnan(found.low)
    assert math.isnan(found.high)


# Examples of Newcombe (1998), Statistics in Medicine 17, pages 2635-2650, and of Fagerland, Lydersen and Laake (2014),
# Statistics in Medicine 33 (hyperresponsiveness). Pairs: both, first only, second only, neither.
@pytest.mark.parametrize(
    ("table", "low", "high"), [((36, 12, 2, 0), 0.0569, 0.3404), ((1, 1, 7, 12), -0.5069, -0.0256)]
)
def test_paired_rates_are_the_published_ones(table: tuple[int, ...], low: float, high: float) -> None:
    first, second = (np.repeat(each, table) for each in ([1, 1, 0, 0], [1, 0, 1, 0]))
    found = proportion_difference(second, first, paired=True)
    assert found.mean == pytest.approx((table[1] - table[2]) / sum(table))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    mirrored = proportion_difference(first, second, paired=True)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_independent_rates_are_the_published_ones() -> None:
    # Newcombe (1998), Statistics in Medicine 17, page 873, Table II, method 10: 56/70 and 48/80.
    first, second = np.arange(80) < 48, np.arange(70) < 56
    found = proportion_difference(first, second, paired=False)
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("truth", [(0.95, 0.05, 0.0, 0.0), (0.6, 0.2, 0.1, 0.1), (0.25, 0.25, 0.25, 0.25)])
def test_paired_rates_cover(truth: tuple[float, ...]) -> None:
    """Exact: the probabilities of all tables of 20 pairs whose interval has the true difference, summed."""
    tables = [(a, b, c, 20 - a - b - c) for a in range(21) for b in range(21 - a) for c in range(21 - a - b)]
    weights = stats.multinomial.pmf(tables, 20, truth)
    covered = 0.0
    for table, weight in zip(tables, weights, strict=True):
        if weight > 1e-6:
            first, second = (np.repeat(each, table) for each in ([1, 1, 0, 0], [1, 0, 1, 0]))
            found = proportion_difference(second, first, paired=True)
            covered += weight * (found.low <= truth[1] - truth[2] <= found.high)
    assert covered > 0.93


def test_students_difference_of_nearly_binary_pairs_claims_nothing_where_it_would_be_wrong() -> None:
    """Rates .95 and 1, 20 pairs: a zero-width interval would miss whenever all agree, 36 % of the time."""
    wrong = 0.0
    for count, weight in enumerate(stats.binom.pmf(range(21), 20, 0.05)):
        found = difference_interval(np.ones(20), np.arange(20) >= count, paired=True)
        wrong += weight * (found.low > -0.05 or found.high < -0.05)
    assert wrong < 0.05


def test_difference_is_welchs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 12), rng.normal(1, 3, 20)
    found, expected = difference_interval(first, second, False), stats.ttest_ind(second, first, equal_var=False)
    ends = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(ends.low), pytest.approx(ends.high))
    assert found.mean == pytest.approx(second.mean() - first.mean())
    assert difference_interval(first, second, False, bounds=(0.0, 0.5)).high == 0.5
    assert math.isnan(difference_interval(first[:1], second, False).low)
    constant = difference_interval(np.ones(3), np.full(3, 4.0), False)
    assert constant.mean == 3.0
    assert math.isnan(constant.low)


def test_pairs_must_have_partners() -> None:
    for difference in (difference_interval, proportion_difference):
        with pytest.raises(ValueError, match="got 3 replicates, expected 2 as in first"):
            difference([0, 1], [0, 1, 1], True)


def test_median_is_censored_with_its_data() -> None:
    half = median_interval([*range(6), *[math.inf] * 4])
    assert (half.mean, half.low, half.high) == (4.5, 1.0, math.inf)
    most = median_interval([*range(3), *[math.inf] * 7])
    assert (most.mean, most.low, most.high) == (math.inf, 1.0, math.inf)
    never = median_interval([math.inf] * 10)
    assert (never.mean, never.low) == (math.inf, math.inf)


def test_median_refuses_nan() -> None:
    with pytest.raises(ValueError, match="got NaN"):
        median_interval([1.0, math.nan])


def test_intervals_cover() -> None:
    # 4000 samples of 8. The count that covers is Bin(4000, p) with p = .95 for t and, for the order statistics of
    # ranks 1 and 8, p = 1 - 2 / 2^8; five standard deviations are exceeded with probability below 1e-6 each.
    rng = np.random.default_rng(0)
    samples = rng.normal(1.0, 2.0, (8, 4000))
    band = mean_band(samples)
    covered = int(((band.low <= 1.0) & (band.high >= 1.0)).sum())
    assert abs(covered - 3800) < 5 * math.sqrt(4000 * 0.95 * 0.05)
    skewed = np.where((waits := rng.exponential(1.0, (500, 8))) > 2.0, math.inf, waits)
    found = [median_interval(sample) for sample in skewed]
    covered = sum(each.low <= math.log(2) <= each.high for each in found)
    p = 1 - 2 / 2**8
    assert abs(covered - 500 * p) < 5 * math.sqrt(500 * p * (1 - p)) + 1


def test_wilson_covers_on_average() -> None:
    # Exact: sums of binomial probabilities. Single rates oscillate around 95 %, their mean does not.
    n, rates = 40, np.linspace(0.05, 0.95, 91)
    intervals = [proportion_interval(k, n) for k in range(n + 1)]
    covered = [
        sum(stats.binom.pmf(k, n, p) for k, each in enumerate(intervals) if each.low <= p <= each.high) for p in rates
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.005)
    assert min(covered) > 0.9


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    found = iqm_interval([100.0, 1, 2, 3, 4, 5, 6, -50])
    assert found.mean == (2 + 3 + 4 + 5) / 4
    # SciPy's own bootstrap of the same estimate, with other random numbers, has nearly the same quantiles.
    values = np.random.default_rng(0).exponential(size=60)
    found = iqm_interval(values, level=0.9)
    expected = stats.bootstrap(
        (values,),
        lambda drawn, axis: np.sort(drawn, axis)[..., 15:45].mean(axis),
        n_resamples=9999,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.mean == pytest.approx(np.sort(values)[15:45].mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert iqm_interval(values, level=0.9) == found, "drawn from the same random numbers each time"


@pytest.mark.parametrize("values", [[3.0], [3.0] * 9, [3.0, 3.000001, 3.0]])
def test_the_interquartile_mean_of_one_or_of_equal_replicates_has_no_interval(values: list[float]) -> None:
    found = iqm_interval(values)
    assert found.mean == pytest.approx(3.0)
    assert math.isnan(found.low + found.high)
    assert math.isnan(iqm_interval([]).mean)
    assert math.isnan(iqm_interval([1.0, 2.0, math.nan, 3.0]).mean)  # diverged


def test_bootstrap_of_the_interquartile_mean_covers() -> None:
    # 200 samples of 40 exponential waits. Percentile intervals of so few cover about 93 %; five standard deviations
    # below that are reached with probability below 1e-6.
    rng = np.random.default_rng(0)
    truth = float(stats.expon.expect(lambda x: x, lb=stats.expon.ppf(0.25), ub=stats.expon.ppf(0.75), conditional=True))
    covered = sum(each.low <= truth <= each.high for each in map(iqm_interval, rng.exponential(size=(200, 40))))
    assert covered > 200 * 0.93 - 5 * math.sqrt(200 * 0.93 * 0.07)


def test_deviation_by_hand() -> None:
    # Agent 0 has 1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 3; agent 1 has 0, 0, 0, 4: mean 1, variance 12 / 3.
    found = deviation_interval([[1, 0], [2, 0], [3, 0], [6, 4]])
    variance = (14 / 3 + 12 / 3) / 2
    assert found.mean == pytest.approx(math.sqrt(variance))
    # Squared deviations per replicate, means over agents: 5/2, 1, 1/2, 9; their mean 13/4, variance 185/12.
    half = 3.182446 * math.sqrt(185 / 12) / 2 / (13 / 4)
    assert (found.low, found.high) == pytest.approx(
        (math.sqrt(variance * math.exp(-half)), math.sqrt(variance * math.exp(half))), rel=1e-5
    )


def test_deviation_has_no_interval_where_all_deviate_alike() -> None:
    assert math.isnan(deviation_interval([[1.0, 2.0]]).mean)
    two = deviation_interval([[1.0], [3.0]])
    assert two.mean == pytest.approx(math.sqrt(2))
    same = deviation_interval(np.full((20, 2), -1.3, dtype=np.float32))
    assert same.mean == pytest.approx(0, abs=1e-6)
    assert math.isnan(two.low + two.high)
    assert math.isnan(same.low + same.high)
    assert math.isnan(deviation_interval([[1.0], [math.nan], [2.0]]).mean)


def test_deviation_interval_covers_though_agents_mirror_each_other() -> None:
    """Of a zero-sum game, and of skewed numbers, whose standard deviations are 1 and 1."""
    # The count of 400 that covers is about Bin(400, .94), of skewed numbers Bin(400, .92); five standard deviations
    # are exceeded with probability below 1e-6. Chi-square intervals cover the second in less than 75 %.
    rng = np.random.default_rng(0)
    for drawn, coverage in ((rng.normal(size=(400, 100, 1)), 0.94), (rng.exponential(size=(400, 100, 1)), 0.92)):
        found = [deviation_interval(np.concatenate([sample, -sample], axis=1)) for sample in drawn]
        covered = sum(each.low <= 1 <= each.high for each in found)
        assert covered > 400 * coverage - 5 * math.sqrt(400 * coverage * (1 - coverage))
