from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr

from inference_marl.statistics.beliefs import about, modelling, optimum_probability
from tests import run_folder

DIMS = ("learner", "replicate", "step", "agent", "state")


def beliefs(kind: str, optimal: Any = None, **values: Any) -> xr.Dataset:
    """A posterior of one learner and record; each value is `replicate x agent x state x ...`."""
    last = ("opponent_action",) if kind == "discrete" else ("draw", "opponent_dim")
    arrays = {name: np.asarray(value, dtype=float)[None, :, None] for name, value in values.items()}
    dataset = xr.Dataset({name: ((*DIMS, *last), value) for name, value in arrays.items()})
    dataset.attrs = {"kind": kind} | ({"low": -1.0, "high": 1.0} if kind == "continuous" else {})
    if optimal is not None:
        dataset["optimal_opponent_action"] = (("agent", last[-1]), np.asarray(optimal))
    return dataset.assign_coords(learner=["it"], step=[1])


def test_discrete_optimum_probability_sums_optimal_actions() -> None:
    model = [[[[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], [[0.5, 0.5, math.nan], [0.9, 0.1, math.nan]]]]
    posterior = beliefs("discrete", [[1, 0, 1], [0, 1, 0]], opponent_model=model)
    found = optimum_probability(posterior, "opponent_model")
    assert found is not None
    assert found.dims == ("learner", "replicate", "step", "agent")
    # Agent 0: A or C, states .8 and .7. Agent 1 has two actions only, B, states .5 and .1.
    assert found.to_numpy().ravel() == pytest.approx([0.75, 0.3])


def test_continuous_beliefs_are_at_the_optimum_where_their_mean_is() -> None:
    near, far = [[0.0, 0.0], [0.6, 0.8]], [[0.0, 0.0], [0.62, 0.8]]  # means at distance 0.5, and a little more
    posterior = beliefs("continuous", [[0.0, 0.0]], opponent_model=[[[near]], [[far]]])
    assert optimum_probability(posterior, "opponent_model") is None  # nobody says how near is near
    posterior.attrs["optimum_radius"] = 0.5 + 1e-6
    found = optimum_probability(posterior, "opponent_model")
    assert found is not None
    assert found.to_numpy().ravel().tolist() == [1.0, 0.0]


def test_learners_without_a_model_are_nan() -> None:
    posterior = run_folder.discrete()["posterior"]
    found = optimum_probability(posterior, "opponent_model")
    assert found is not None
    assert found.sel(learner="wolf_phc").isnull().all()
    assert found.sel(learner="rommeo_q").notnull().all()
    assert modelling(posterior) == ["rommeo_q", "rommeo_q_emp", "jal"]
    assert modelling(posterior.drop_vars("opponent_model")) == []


def test_no_known_optimum() -> None:
    posterior = beliefs("discrete", opponent_model=[[[[0.5, 0.5]]]])
    assert optimum_probability(posterior, "opponent_model") is None
    assert optimum_probability(posterior, "opponent_prior") is None


def test_beliefs_about_one_of_two_opponents() -> None:
    # Agent 0 has two actions, agent 1 three, agent 2 two; the last opponent's action runs fastest.
    nan = math.nan
    joint = np.arange(1.0, 7.0) / 21
    model = np.full((1, 1, 3, 1, 6), nan)
    model[0, 0, 0, 0] = joint
    policy = np.array([[0.5, 0.5, nan], [0.2, 0.3, 0.5], [0.9, 0.1, nan]]).reshape(1, 1, 3, 1, 3)
    posterior = run_folder.beliefs("discrete", opponent_model=model, policy=policy)
    posterior["optimal_action"] = (("agent", "action"), [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    posterior["optimal_opponent_action"] = (("agent", "opponent_action"), np.eye(3, 6))
    posterior = posterior.assign_coords(action=list("ABC"))
    one, other = about(posterior, 0, 1), about(posterior, 0, 2)
    assert one["opponent_model"].to_numpy().ravel() == pytest.approx(joint.reshape(3, 2).sum(1))
    assert other["opponent_model"].to_numpy().ravel() == pytest.approx(joint.reshape(3, 2).sum(0))
    assert one["opponent_action"].to_numpy().tolist() == ["A", "B", "C"]
    assert one["optimal_opponent_action"].to_numpy().tolist() == [[0, 0, 1]]
    assert other["optimal_opponent_action"].to_numpy().tolist() == [[0, 1]]


def test_draws_about_one_of_two_opponents() -> None:
    draws = np.arange(12.0).reshape(1, 1, 1, 1, 4, 3)
    model = np.concatenate([draws, draws + 100, draws + 200], axis=2)
    policy = np.full((1, 1, 3, 1, 4, 2), math.nan)
    policy[..., 0] = 0.0
    policy[:, :, 1] = 0.0  # agent 1 has two dimensions, the others one
    posterior = run_folder.beliefs("continuous", opponent_model=model, policy=policy)
    assert about(posterior, 0, 1)["opponent_model"].to_numpy().ravel() == pytest.approx(draws[..., :2].ravel())
    assert about(posterior, 0, 2)["opponent_model"].to_numpy().ravel() == pytest.approx(draws[..., 2].ravel())
    assert about(posterior, 2, 1)["opponent_model"].to_numpy().ravel() == pytest.approx(200 + draws[..., 1:].ravel())
