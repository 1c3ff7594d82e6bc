from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from inference_marl.statistics.intervals import (
    Interval,
    iqm_interval,
    median_interval,
    proportion_difference,
    proportion_interval,
)
from inference_marl.statistics.metrics import (
    SUCCESS_RATE,
    band,
    difference,
    estimate,
    in_dataset,
    is_zero_sum,
    measured,
    per_replicate,
)
from inference_marl.types import POSITIVE, PROBABILITY, Metric
from tests import run_folder

GAP, SHARE = Metric("gap", bounds=POSITIVE), Metric("share", bounds=PROBABILITY)
MIDDLE, INNER = Metric("middle", estimate="median"), Metric("inner", estimate="iqm")


def test_per_replicate() -> None:
    elbo = np.zeros((2, 2, 3, 2))
    elbo[0, ..., 1] = 4.0
    elbo[1, ..., 0] = math.nan  # an agent without an ELBO
    elbo[1, 0, 2, 1] = math.nan  # a value that is missing where it should be
    metrics = run_folder.metrics_dataset({"elbo": elbo}, np.array([1, 2, 3]))
    assert per_replicate(metrics, "reward", "rommeo_q") is None
    assert per_replicate(metrics, "elbo", "rommeo_q") == pytest.approx(np.full((2, 3), 2.0))
    expected = np.array([[0, 0, math.nan], [0, 0, 0]])
    assert per_replicate(metrics, "elbo", "rommeo_q_emp") == pytest.approx(expected, nan_ok=True)
    metrics["elbo"] = metrics["elbo"] * math.nan
    assert per_replicate(metrics, "elbo", "rommeo_q") is None


def test_where_something_was_measured() -> None:
    nan = math.nan
    every_second = [[nan, 1, nan, 2], [nan, 1, nan, 2]]
    assert measured(every_second).tolist() == [False, True, False, True]
    assert measured([[nan, 1, nan, nan], [nan, 1, nan, 2]]).tolist() == [False, True, False, True]
    assert measured([[1, 1, nan, nan], [1, 1, nan, nan]]).all(), "failed, and never came back"
    assert measured([[nan] * 3]).all()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({(0, 1, 1, 0): 2.0}, False),  # at one record of one replicate
        ({(1, 2, 0, 1): -0.5 + 1e-9}, True),  # rounding
    ],
)
def test_a_game_is_zero_sum_if_the_agents_together_never_get_anything(
    changed: dict[tuple[int, ...], float], expected: bool
) -> None:
    reward = np.broadcast_to(np.array([0.5, -0.5]), (2, 3, 4, 2)).copy()
    for where, number in changed.items():
        reward[where] = number
    assert is_zero_sum(run_folder.metrics_dataset({"reward": reward}, np.arange(4))) == expected


def test_where_nobody_ever_gets_anything_interests_are_not_opposed() -> None:
    assert not is_zero_sum(run_folder.metrics_dataset({"reward": np.zeros((1, 2, 3, 2))}, np.arange(3)))


def test_declarations_are_those_of_the_variables_and_play_comes_first() -> None:
    data = {name: np.zeros((1, 2, 3)) for name in ("odd_play", "success_rate", "elbo", "reward")}
    found = in_dataset(run_folder.metrics_dataset(data, np.arange(3)))
    assert list(found) == ["reward", "success_rate", "odd_play", "elbo"]
    assert (found["success_rate"], found["odd_play"]) == (SUCCESS_RATE, Metric("odd_play"))


def test_intervals_stay_within_what_a_reading_can_be() -> None:
    gap = np.array([[0.0], [0.1], [3.0]])
    assert band(GAP, gap).low[0] == estimate(GAP, gap).low == 0.0
    assert band(Metric("elbo"), gap).low[0] == estimate(Metric("elbo"), gap).low < 0.0
    assert difference(SHARE, [0, 0, 0.1], [1, 1, 0.8], True).high == 1.0
    assert difference(GAP, [0.0, 0.0, 9.0], [0.0, 9.0, 9.0], True).low < 0.0


def test_replicates_are_estimated_as_their_metric_says() -> None:
    values = np.array([0.0, 0, 1, 0, 1, 1, 1, 1])
    many = np.array([3.0, 1, 4, 1, 5, 9, 2, 6])
    assert estimate(SUCCESS_RATE, values) == proportion_interval(5, 8)
    assert estimate(MIDDLE, many) == median_interval(many)
    assert estimate(INNER, many) == iqm_interval(many)
    student = stats.ttest_1samp(many, 0).confidence_interval(0.95)
    found = estimate(Metric("it"), many)
    assert (found.mean, found.low, found.high) == pytest.approx((many.mean(), student.low, student.high))
    assert estimate(MIDDLE, Interval(1.0, 0.0, 2.0)) == Interval(1.0, 0.0, 2.0), "estimated already"


@pytest.mark.parametrize("metric", [Metric("it"), SUCCESS_RATE, MIDDLE, INNER], ids=lambda metric: metric.estimate)
def test_a_band_is_the_estimate_of_every_record_and_a_diverged_seed_is_never_dropped(metric: Metric) -> None:
    values = (np.random.default_rng(0).random((9, 4)) < 0.4).astype(float)
    assert band(metric, values).intervals() == [estimate(metric, column) for column in values.T]
    values[0, 1] = math.nan
    assert np.isnan(band(metric, values).mean).tolist() == [False, True, False, False]


def test_a_rate_that_is_measured_now_and_then_keeps_its_interval() -> None:
    """As evaluations are that are rarer than records: NaN in between, and Wilson's interval where there is a number."""
    found = band(SUCCESS_RATE, [[math.nan, 1.0], [math.nan, 1.0], [math.nan, 0.0], [math.nan, 1.0]]).intervals()
    assert all(math.isnan(number) for number in (found[0].mean, found[0].low, found[0].high))
    assert found[1] == proportion_interval(3, 4)


def test_a_rate_of_what_is_no_longer_0_or_1_is_a_mean() -> None:
    """An average over agents of which one succeeds: Wilson's interval counts successes."""
    halves = np.array([0.5, 0.0, 1.0, 1.0])
    assert estimate(SUCCESS_RATE, halves).mean == 0.625
    assert difference(SUCCESS_RATE, halves, np.ones(4), paired=True).mean == 0.375


def test_differences_are_newcombes_of_rates_and_otherwise_welchs() -> None:
    one, other = np.array([0.0, 0, 1, 0, 1]), np.array([1.0, 0, 1, 1, 1])
    for paired in (True, False):
        assert difference(SUCCESS_RATE, one, other, paired) == proportion_difference(one, other, paired)
    first, second = np.array([1.0, 2, 4, 8]), np.array([3.0, 3, 9, 1, 5, 6])
    # Welch: t with the degrees of freedom of Satterthwaite.
    a, b = first.var(ddof=1) / 4, second.var(ddof=1) / 6
    half = stats.t.ppf(0.975, (a + b) ** 2 / (a**2 / 3 + b**2 / 5)) * math.sqrt(a + b)
    found, gap = difference(GAP, first, second, paired=False), second.mean() - first.mean()
    assert (found.mean, found.low, found.high) == pytest.approx((gap, gap - half, gap + half))
