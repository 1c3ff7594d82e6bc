from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from scipy import stats

from inference_marl.statistics import (
    difference_interval,
    first_lasting_step,
    lead,
    learner_lead,
    mean_band,
    mean_interval,
    median_interval,
    metric_band,
    metric_difference,
    paired_differences,
    proportion_band,
    proportion_difference,
    proportion_interval,
    summarise,
)
from tests import run_folder


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
    for interval in (mean_interval, median_interval):
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


def test_intervals_stay_within_what_a_reading_can_be() -> None:
    gap = np.array([[0.0], [0.1], [3.0]])
    assert metric_band("elbo_gap", gap).low[0] == 0.0
    assert metric_band("elbo", gap).low[0] < 0.0
    assert metric_difference("joint_optimum_probability", [0, 0, 0.1], [1, 1, 0.8], True).high == 1.0
    assert metric_difference("entropy", [0.0, 0.0, 9.0], [0.0, 9.0, 9.0], True).low < 0.0


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


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([1, 1, 1, 1], 5),
        ([0, 0, 0, 1], 20),
        ([0, 1, 1, 1], 10),
        ([1, 1, 0, 1], 20),
        ([1, 1, 1, 0], math.inf),
        ([0, 0, 0, 0], math.inf),
    ],
)
def test_first_lasting_step(held: list[int], expected: float) -> None:
    assert first_lasting_step(held, [5, 10, 15, 20]) == expected


def test_first_lasting_step_agrees_with_a_loop() -> None:
    held = np.random.default_rng(1).random((50, 3, 6)) < 0.7
    steps = np.array([1, 2, 4, 8, 16, 32])

    def slow(row: npt.NDArray[np.bool_]) -> float:
        return next((float(steps[i]) for i in range(len(row)) if row[i:].all()), math.inf)

    assert (first_lasting_step(held, steps) == np.apply_along_axis(slow, -1, held)).all()


def test_first_lasting_step_checks_shapes() -> None:
    with pytest.raises(ValueError, match="expected one column per step"):
        first_lasting_step([True, False], [1, 2, 3])
    with pytest.raises(ValueError, match="expected one column per step"):
        first_lasting_step(np.zeros((3, 0)), [])


def test_lead_by_hand() -> None:
    model = np.array([[0.2, 0.6, 0.9, 0.9], [0.9, 0.9, 0.9, 0.4], [0.8, 0.8, 0.8, 0.8], [0.1, 0.1, 0.6, 0.6]])
    truth = np.array([[0.2, 0.4, 0.7, 0.9], [0.9, 0.9, 0.9, 0.9], [0.8, 0.8, 0.8, 0.8], [0.6, 0.6, 0.6, 0.6]])
    found = lead(model, truth, [10, 20, 30, 40])
    # Passes at 20 before 30; never for good; both from the start; at 30 after 10.
    assert found.steps == pytest.approx([10, math.nan, 0, -20], nan_ok=True)
    assert found.excluded == 1
    assert found.interval.mean == pytest.approx(-10 / 3)
    assert found.gap.mean == pytest.approx([-0.125, -0.075, 0.05, -0.125])
    assert found.mean_gap.mean == pytest.approx(-0.06875)


def test_lead_is_the_mean_over_agents_and_excludes_whole_replicates() -> None:
    model = np.array([[[0, 1, 1], [1, 1, 1]], [[1, 1, 1], [0, 0, 0]]], dtype=float)
    truth = np.array([[[0, 0, 1], [0, 0, 1]], [[0, 1, 1], [0, 1, 1]]], dtype=float)
    found = lead(model, truth, [1, 2, 3])
    assert found.steps == pytest.approx([1.5, math.nan], nan_ok=True)
    assert found.excluded == 1


def test_lead_of_nobody() -> None:
    found = lead(np.zeros((3, 4)), np.ones((3, 4)), [1, 2, 3, 4])
    assert found.excluded == 3
    assert math.isnan(found.interval.mean)
    assert found.mean_gap.mean == -1.0


def test_lead_checks_shapes() -> None:
    with pytest.raises(ValueError, match="expected the same"):
        lead(np.zeros((3, 4)), np.zeros((3, 5)), [1, 2, 3, 4])


@pytest.mark.parametrize("make", [run_folder.discrete, run_folder.continuous])
def test_models_that_are_ahead_lead(make: Any) -> None:
    posterior = make(12, 60)["posterior"]
    found = learner_lead(posterior, "rommeo_q")
    assert found is not None
    assert found.interval.low > 0
    assert found.mean_gap.low > 0
    assert learner_lead(posterior, "wolf_phc") is None


def test_an_agent_without_a_model_does_not_count() -> None:
    posterior = run_folder.discrete(6, 30)["posterior"]
    both = learner_lead(posterior, "rommeo_q")
    posterior["opponent_model"] = posterior["opponent_model"].where(posterior["agent"] == 1)
    one = learner_lead(posterior, "rommeo_q")
    assert both is not None
    assert one is not None
    assert one.excluded == both.excluded
    assert one.steps == pytest.approx(both.steps, nan_ok=True)  # the agents of the synthetic run are alike


def metrics(**data: Any) -> xr.Dataset:
    arrays = {name: np.asarray(value, dtype=float) for name, value in data.items()}
    count = next(iter(arrays.values())).shape[2]
    return run_folder.metrics_dataset(arrays, np.arange(1, count + 1))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (300, list(range(25, 301, 25))),
        (5, [1, 2, 3, 4, 5]),
        (12, list(range(1, 13))),
        (13, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        (1, [1]),
    ],
)
def test_summarise_reports_evenly_spaced_steps(count: int, expected: list[int]) -> None:
    rows = summarise(metrics(reward=np.zeros((1, 2, count, 2))))
    assert [row["step"] for row in rows] == expected


def test_summarise_by_hand() -> None:
    reward = np.zeros((1, 4, 2, 2))
    reward[0, :, 1] = [[0, 2], [1, 3], [2, 4], [3, 5]]  # means over agents 1, 2, 3, 4
    success = [[[0, 1], [0, 1], [1, 1], [0, 0]]]
    rows = summarise(metrics(reward=reward, success=success, elbo=np.full((1, 4, 2, 2), math.nan)))
    assert [(row["metric"], row["step"]) for row in rows] == [
        ("reward", 1),
        ("reward", 2),
        ("success_rate", 1),
        ("success_rate", 2),
        ("steps_to_success", 2),
    ]
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert rows[1] == {
        "learner": "rommeo_q",
        "metric": "reward",
        "step": 2,
        "mean": 2.5,
        "low": pytest.approx(2.5 - half, rel=1e-6),
        "high": pytest.approx(2.5 + half, rel=1e-6),
        "replicates": 4,
    }
    assert rows[3]["mean"] == 0.75
    # First lasting steps 2, 2, 1, inf: the median is 2, and four replicates allow no interval.
    assert {key: rows[4][key] for key in ("mean", "low", "high")} == {"mean": 2.0, "low": None, "high": None}


def test_summarise_reports_the_gap_where_there_is_one() -> None:
    gap = np.full((2, 3, 2, 2), math.nan)
    gap[0] = [[[1, 3], [0, 0]], [[2, 2], [1, 1]], [[1, 1], [2, 2]]]
    rows = summarise(metrics(reward=np.zeros((2, 3, 2, 2)), elbo_gap=gap))
    found = [row for row in rows if row["metric"] == "elbo_gap"]
    assert [(row["learner"], row["step"]) for row in found] == [("rommeo_q", 1), ("rommeo_q", 2)]
    assert found[0]["mean"] == pytest.approx(5 / 3)
    half = 4.302653 / math.sqrt(3)  # t_{2, .975} = 4.302653, sd = 1; the gap is never below 0
    assert (found[1]["low"], found[1]["high"]) == pytest.approx((0.0, 1 + half), rel=1e-6)


def test_paired_differences_by_hand() -> None:
    reward = np.zeros((3, 3, 2, 2))
    reward[0, :, 1] = [[1, 3], [10, 10], [-5, -5]]  # means over agents 2, 10, -5
    reward[1, :, 1] = [[3, 3], [12, 12], [-4, -2]]  # 3, 12, -3: above by 1, 2, 2
    reward[2] = math.nan
    success = np.zeros((3, 3, 2))
    success[0, :, 1], success[1, :, 1] = [1, 1, 0], [1, 0, 0]
    success[2] = math.nan
    data = metrics(reward=reward, success=success)
    rows = paired_differences(data, "rommeo_q")
    assert [(row["learner"], row["reference"], row["metric"], row["step"]) for row in rows] == [
        ("rommeo_q_emp", "rommeo_q", "reward", 2),
        ("rommeo_q_emp", "rommeo_q", "success_rate", 2),
    ]
    half = 4.302653 * math.sqrt(1 / 3) / math.sqrt(3)  # differences 1, 2, 2: variance 1/3
    found = [rows[0][key] for key in ("mean", "low", "high")]
    assert found == pytest.approx([5 / 3, 5 / 3 - half, 5 / 3 + half], rel=1e-6)
    rate = proportion_difference([1, 1, 0], [1, 0, 0], paired=True)
    assert [rows[1][key] for key in ("mean", "low", "high")] == pytest.approx([-1 / 3, rate.low, rate.high])
    assert rows[0]["replicates"] == 3
    mirrored = paired_differences(data, "rommeo_q_emp")
    assert [row["mean"] for row in mirrored] == pytest.approx([-5 / 3, 1 / 3])
    assert paired_differences(data, "nobody") == []


def test_paired_differences_prefer_the_probability_and_are_valid_json() -> None:
    data = metrics(
        reward=np.zeros((2, 1, 1, 2)), joint_optimum_probability=np.full((2, 1, 1), 0.5), success=np.ones((2, 1, 1))
    )
    rows = paired_differences(data, "rommeo_q")
    assert [row["metric"] for row in rows] == ["reward", "joint_optimum_probability"]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0]["low"] is None, "one pair has no interval"


def test_pairs_that_are_alike_narrow_the_interval() -> None:
    """The interval is that of the differences, not of two independent means, and covers as it says."""
    # 300 runs of 8 pairs that share most of their noise. The count that covers is Bin(300, .95): it is more than
    # five standard deviations below its mean with probability below 1e-4.
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for _ in range(300):
        shared = rng.normal(0, 10, (1, 8, 1, 1))
        reward = np.concatenate([shared, shared + 1]) + rng.normal(0, 1, (2, 8, 1, 1))
        ((row, *_),) = [paired_differences(metrics(reward=np.repeat(reward, 2, -1)), "rommeo_q")]
        covered += row["low"] <= 1 <= row["high"]
        widths.append(row["high"] - row["low"])
    assert covered > 285 - 5 * math.sqrt(300 * 0.95 * 0.05)
    # Twice t_{7, .975} sqrt(2 / 8) for differences of standard deviation sqrt 2, not 10 sqrt 2; the mean of a sample's
    # standard deviation is c4(8) = .9650 of the true one, its spread .27 of it.
    expected = 2 * 2.364624 * 0.9650 * math.sqrt(2) / math.sqrt(8)
    assert np.mean(widths) == pytest.approx(expected, rel=5 * 0.27 / math.sqrt(300))


def test_summarise_is_valid_json_when_censored_and_alone() -> None:
    rows = summarise(metrics(reward=np.zeros((1, 1, 3, 2)), success=np.zeros((1, 1, 3))))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[-1]["metric"] == "steps_to_success"
    assert rows[-1]["mean"] is None
    assert rows[0]["low"] is None


def test_summarise_a_run() -> None:
    run = run_folder.discrete(10, 40)
    rows = summarise(**run)
    json.dumps(rows, allow_nan=False)
    final = {(row["learner"], row["metric"]): row for row in rows if row["step"] == 40}
    learners = ("rommeo_q", "rommeo_q_emp", "jal", "wolf_phc")
    assert {name for name, metric in final if metric == "elbo"} == {"rommeo_q", "rommeo_q_emp"}
    assert {name for name, metric in final if metric == "opponent_model_lead"} == set(learners[:3])
    for learner in learners:
        found = learner_lead(run["posterior"], learner)
        assert (found is None) == ((learner, "opponent_model_lead") not in final)
        if found is not None:
            assert final[learner, "opponent_model_lead"]["replicates"] == 10 - found.excluded
        expected = run["metrics"]["reward"].sel(learner=learner).isel(step=-1).mean()
        assert final[learner, "reward"]["mean"] == pytest.approx(float(expected), rel=1e-5)
