from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inference_marl.statistics.time_to_threshold import (
    first_lasting_step,
    lasting_step_of_mean,
    lead,
    learner_lead,
    relapses,
)
from tests import run_folder


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


def test_lasting_step_of_a_mean_by_hand() -> None:
    # Means .5, 1, .75, 1: at .9 or above from the last record on only.
    values = [[0.0, 1.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]]
    found = lasting_step_of_mean(values, 0.9, [5, 10, 15, 20])
    assert found.mean == 20
    # Both draws are the second replicate in a quarter of the resamples, then it is reached at 5; else it is at 20.
    assert (found.low, found.high) == (5, 20)
    for level, ends in [(0.6, (5, 20)), (0.4, (20, 20))]:  # quantiles at .2 and .8, at .3 and .7
        other = lasting_step_of_mean(values, 0.9, [5, 10, 15, 20], level)
        assert (other.low, other.high) == ends
    assert lasting_step_of_mean(values, 0.75, [5, 10, 15, 20]).mean == 10
    never = lasting_step_of_mean([[0.9, 0.9], [1.0, 0.9]], 0.98, [1, 2])
    assert (never.mean, never.low, never.high) == (math.inf, math.inf, math.inf)


def test_lasting_step_of_a_mean_is_the_bootstrap_of_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    steps = np.arange(1, 41)
    values = (rng.normal(20, 8, (200, 1)) < steps).astype(float)
    found = lasting_step_of_mean(values, 0.8, steps)
    drawn = []
    for _ in range(2000):
        mean = values[rng.integers(200, size=200)].mean(0)
        drawn.append(next((steps[i] for i in range(40) if (mean[i:] >= 0.8).all()), math.inf))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=1)
    assert found.high == pytest.approx(high, abs=1)
    assert lasting_step_of_mean(values, 0.8, steps) == found  # drawn from the same random numbers each time
    assert found.low < found.mean < found.high


def test_lasting_step_of_few_or_equal_replicates_has_no_interval() -> None:
    for values in ([[0.0, 1.0]], [[0.0, 1.0]] * 9):
        found = lasting_step_of_mean(values, 0.98, [1, 2])
        assert found.mean == 2
        assert math.isnan(found.low + found.high)
    assert lasting_step_of_mean([[1.0, math.nan], [1.0, 1.0]], 0.98, [1, 2]).mean == math.inf  # diverged
    assert math.isnan(lasting_step_of_mean(np.empty((0, 2)), 0.98, [1, 2]).mean)


@pytest.mark.parametrize(
    ("held", "expected"),
    [("0011001", True), ("0011010", False), ("1010100", None), ("0000111", False), ("1100000", True), ("1", None)],
)
def test_a_relapse_is_two_failures_after_two_successes(held: str, expected: bool | None) -> None:
    """Of who has never succeeded twice in a row, it is not asked."""
    found = relapses([[each == "1" for each in held]]).tolist()
    assert found == ([] if expected is None else [expected])
