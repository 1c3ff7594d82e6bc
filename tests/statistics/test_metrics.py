from __future__ import annotations

import math

import numpy as np
import pytest

from inference_marl.statistics.metrics import is_zero_sum, metric_band, metric_difference, per_replicate
from tests import run_folder


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


def test_intervals_stay_within_what_a_reading_can_be() -> None:
    gap = np.array([[0.0], [0.1], [3.0]])
    assert metric_band("elbo_gap", gap).low[0] == 0.0
    assert metric_band("elbo", gap).low[0] < 0.0
    assert metric_difference("joint_optimum_probability", [0, 0, 0.1], [1, 1, 0.8], True).high == 1.0
    assert metric_difference("entropy", [0.0, 0.0, 9.0], [0.0, 9.0, 9.0], True).low < 0.0
