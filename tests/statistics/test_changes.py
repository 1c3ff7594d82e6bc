from __future__ import annotations

import numpy as np
import pytest

from inference_marl.statistics.changes import belief_change
from tests import run_folder
from tests.run_folder import beliefs


def test_planted_changes_are_found() -> None:
    # Seed 0 turns over at record 4, seed 1 at record 7, with a small wobble at record 2; seed 2 never moves.
    model = np.full((3, 10, 2, 1, 2), 0.5)
    model[:2, 1:, ..., 0], model[:2, 1:, ..., 1] = 0.55, 0.45
    model[0, 3:, ..., 0], model[0, 3:, ..., 1] = 0.95, 0.05
    model[1, 6:, ..., 0], model[1, 6:, ..., 1] = 0.15, 0.85
    posterior = beliefs("discrete", opponent_model=model).assign_coords(step=10 * np.arange(1, 11))
    found = belief_change(posterior, "it")
    assert found is not None
    assert found.steps.tolist() == list(range(20, 101, 10))
    assert found.at.tolist() == [40, 70, np.inf]
    assert found.size == pytest.approx([0.4, 0.4, 0.0])
    assert found.curve[0] == pytest.approx([0.05, 0, 0.4, 0, 0, 0, 0, 0, 0])
    assert found.settled.tolist() == [40, 70, 10]


def test_rounding_is_no_movement() -> None:
    noise = 1e-7 * np.random.default_rng(0).standard_normal((4, 6, 2, 1, 3))
    found = belief_change(beliefs("discrete", opponent_model=1 / 3 + noise), "it")
    assert found is not None
    assert found.at.tolist() == [np.inf] * 4


def test_agents_and_states_are_averaged_and_padding_is_not() -> None:
    model = np.full((1, 2, 2, 2, 3), np.nan)
    model[:, 0, 0] = [1, 0, 0]
    model[:, 1, 0, 0], model[:, 1, 0, 1] = [0, 1, 0], [1, 0, 0]
    model[:, :, 1, 0, :2] = 0.5  # one state and two actions only
    found = belief_change(beliefs("discrete", opponent_model=model), "it")
    assert found is not None
    assert found.curve == pytest.approx(np.array([[1 / 3]]))


def test_draws_move_by_the_wasserstein_distance() -> None:
    model = np.array([[0.0, 0.4], [0.9, 0.5], [0.5, 0.9]]).reshape(1, 3, 1, 1, 2, 1)
    found = belief_change(beliefs("continuous", opponent_model=model), "it")
    assert found is not None
    assert found.curve == pytest.approx(np.array([[0.5, 0.0]]))  # the order of draws means nothing
    assert found.settled.tolist() == [2]


def test_one_record_or_no_model_has_no_change() -> None:
    posterior = run_folder.discrete(3, 4)["posterior"]
    assert belief_change(posterior, "wolf_phc") is None
    assert belief_change(posterior.isel(step=[-1]), "rommeo_q") is None
