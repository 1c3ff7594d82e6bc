from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from inference_marl.statistics.calibration import calibration, in_central_interval, ranks
from tests import run_folder
from tests.run_folder import beliefs


def test_error_and_overconfidence_by_hand() -> None:
    # Two replicates, one state: rho says 0.95 / 0.05 and 0.65 / 0.35, the truth is 0.75 / 0.25 in both.
    model = [[[[[0.95, 0.05]]]], [[[[0.65, 0.35]]]]]
    truth = [[[[[0.75, 0.25]]]], [[[[0.75, 0.25]]]]]
    found = calibration(beliefs("discrete", opponent_model=model, opponent_policy=truth), "it")
    assert found is not None
    full = np.array([0, 3, 6, 9])
    assert found.forecast[full] == pytest.approx([0.05, 0.35, 0.65, 0.95])
    assert np.asarray(found.outcome.mean)[full] == pytest.approx([0.25, 0.25, 0.75, 0.75])
    assert found.share[full] == pytest.approx([0.25] * 4)
    assert np.isnan(np.delete(found.forecast, full)).all()
    assert found.error.mean == pytest.approx((0.2 + 0.1 + 0.1 + 0.2) / 4)
    assert found.overconfidence == pytest.approx([0.2, -0.1])


def test_a_uniform_belief_is_not_overconfident() -> None:
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([1, 1, 1], size=(5, 4, 2, 1))
    uniform = 1 / 3 + 1e-7 * rng.standard_normal(truth.shape)
    found = calibration(beliefs("discrete", opponent_model=uniform, opponent_policy=truth), "it")
    assert found is not None
    assert found.overconfidence == pytest.approx(np.zeros(5), abs=1e-6)


def test_rounding_does_not_split_a_bin() -> None:
    model = 0.5 + np.array([-1e-7, 1e-7]).reshape(2, 1, 1, 1, 1) * np.array([1, -1])
    truth = np.array([0.2, 0.8]).reshape(2, 1, 1, 1, 1) * np.array([1, 0]) + np.array([0.8, 0.2]).reshape(
        2, 1, 1, 1, 1
    ) * np.array([0, 1])
    found = calibration(beliefs("discrete", opponent_model=model, opponent_policy=truth), "it")
    assert found is not None
    assert found.share.max() == 1.0
    assert found.error.mean == pytest.approx(0.0, abs=1e-6)


def test_forecasts_in_one_bin_are_averaged() -> None:
    # 0.52 comes true with 0.72, 0.58 with 0.38: on average both 0.55, so there is no error.
    model = [[[[[0.52, 0.48], [0.58, 0.42]]]]]
    truth = [[[[[0.72, 0.28], [0.38, 0.62]]]]]
    found = calibration(beliefs("discrete", opponent_model=model, opponent_policy=truth), "it")
    assert found is not None
    assert found.error.mean == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(found.error.low)  # one replicate has no interval


def test_calibrated_and_overconfident_beliefs() -> None:
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([1, 1, 1], size=(20, 10, 2, 1))
    exact = calibration(beliefs("discrete", opponent_model=truth, opponent_policy=truth), "it")
    sharp = truth**3 / (truth**3).sum(-1, keepdims=True)
    excess = calibration(beliefs("discrete", opponent_model=sharp, opponent_policy=truth), "it")
    assert exact is not None
    assert excess is not None
    assert exact.error.mean == pytest.approx(0.0, abs=1e-12)
    assert exact.overconfidence == pytest.approx(np.zeros(20), abs=1e-12)
    assert excess.error.low > 0.05
    assert (excess.overconfidence > 0).all()
    assert np.asarray(excess.outcome.mean)[-1] < excess.forecast[-1]


def test_records_are_pooled_or_picked() -> None:
    model = [[[[[1.0, 0.0]]], [[[0.5, 0.5]]]]]
    truth = [[[[[0.0, 1.0]]], [[[0.5, 0.5]]]]]
    posterior = beliefs("discrete", opponent_model=model, opponent_policy=truth)
    whole, last = calibration(posterior, "it"), calibration(posterior, "it", record=-1)
    assert whole is not None
    assert last is not None
    assert (whole.error.mean, last.error.mean) == (pytest.approx(0.5), pytest.approx(0.0))


def test_padding_is_no_forecast() -> None:
    nan = math.nan
    model = [[[[[0.2, 0.3, 0.5], [0.1, 0.9, nan]], [[nan] * 3, [0.6, 0.4, nan]]]]]
    posterior = beliefs("discrete", opponent_model=model, opponent_policy=model)
    found = calibration(posterior, "it")
    assert found is not None
    assert (found.error.mean, found.overconfidence[0]) == (pytest.approx(0.0), pytest.approx(0.0))
    assert found.share == pytest.approx(np.array([0, 1, 1, 1, 1, 1, 1, 0, 0, 1]) / 7)


def test_coverage_of_draws_by_hand() -> None:
    # Draws 1, 2, 3, 4: between 1 and 4 (nominal 3/5) lie three of four actions, between 2 and 3 (1/5) one.
    model = np.array([1.0, 2, 3, 4]).reshape(1, 1, 1, 1, 4, 1)
    truth = np.array([2.5, 1.5, 3.5, 9.0]).reshape(1, 1, 1, 1, 4, 1)
    posterior = beliefs("continuous", opponent_model=model, opponent_policy=truth)
    found = calibration(posterior, "it")
    assert found is not None
    assert found.forecast == pytest.approx([1 / 5, 3 / 5])
    assert found.outcome.mean == pytest.approx([1 / 4, 3 / 4])
    assert found.error.mean == pytest.approx((0.05 + 0.15) / 2)
    assert found.overconfidence == pytest.approx([-0.1])
    assert np.sort(ranks(posterior, "it")) == pytest.approx(np.array([1.5, 2.5, 3.5, 4.5]) / 5)


@pytest.mark.parametrize(("spread", "sign"), [(1.0, 0), (0.4, 1), (2.5, -1)])
def test_coverage_of_wide_narrow_and_calibrated_draws(spread: float, sign: int) -> None:
    rng = np.random.default_rng(0)
    shape = (400, 1, 1, 1, 15, 1)
    posterior = beliefs(
        "continuous",
        opponent_model=spread * rng.standard_normal(shape),
        opponent_policy=rng.standard_normal(shape),
    )
    found = calibration(posterior, "it")
    assert found is not None
    mean, error = found.overconfidence.mean(), found.overconfidence.std() / 20
    # 5 standard errors of the mean of 400 replicates: fails with probability 6e-7 if the law holds.
    assert abs(mean) < 5 * error if sign == 0 else sign * mean > 5 * error


@pytest.mark.parametrize("make", [run_folder.discrete, run_folder.continuous])
def test_no_truth_no_calibration(make: Any) -> None:
    """Of an agent whose opponents cannot say what their policy is, while it is known of those without a model."""
    posterior = make(3, 4)["posterior"]
    posterior["opponent_model"][:, :, :, 1] = math.nan
    posterior["opponent_policy"][:, :, :, 0] = math.nan
    assert calibration(posterior, "rommeo_q") is None


def test_no_model_no_calibration() -> None:
    posterior = run_folder.discrete(3, 4)["posterior"]
    assert calibration(posterior, "wolf_phc") is None
    assert calibration(posterior.drop_vars("opponent_policy"), "rommeo_q") is None
    assert ranks(posterior, "rommeo_q") is None


def test_central_intervals_by_hand() -> None:
    draws = np.array([5.0, 1.0, 2.0, 4.0, 3.0])
    actual = np.array([0.5, 1.5, 2.5, 4.5, 5.5, np.nan])
    wide, narrow = (in_central_interval(np.tile(draws, (6, 1)), actual, level) for level in (1, 2))
    assert wide[:5].tolist() == [0, 1, 1, 1, 0]
    assert narrow[:5].tolist() == [0, 0, 1, 0, 0]
    assert np.isnan([wide[5], narrow[5]]).all()
    assert np.isnan(in_central_interval(np.array([np.nan, 1.0]), np.array(0.5), 1))


@pytest.mark.parametrize(("count", "level"), [(39, 2), (19, 1), (10, 3)])
def test_central_intervals_of_calibrated_beliefs_hold_what_they_promise(count: int, level: int) -> None:
    rng = np.random.default_rng(1)
    held = in_central_interval(rng.normal(size=(40000, count)), rng.normal(size=40000), level)
    assert held.mean() == pytest.approx((count + 1 - 2 * level) / (count + 1), abs=0.01)
