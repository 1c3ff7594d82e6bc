from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr

from inference_marl.statistics.beliefs import about, jointly, modelling, optimum_probability
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


def several(kind: str, **values: Any) -> xr.Dataset:
    """As `beliefs`, of three agents; those about opponents are `replicate x agent x other x state x ...`."""
    last = ("opponent_action",) if kind == "discrete" else ("draw", "opponent_dim")
    arrays = {name: np.asarray(value, dtype=float)[None, :, None] for name, value in values.items()}
    dims = (*DIMS[:4], "other", "state", *last)
    dataset = xr.Dataset({name: (dims, value) for name, value in arrays.items()}, attrs={"kind": kind})
    return dataset.assign_coords(learner=["it"], step=[1], agent=[0, 1, 2], other=[0, 1, 2])


def test_beliefs_about_one_and_about_all_opponents() -> None:
    model = np.arange(18.0).reshape(1, 3, 3, 1, 2)
    posterior = several("discrete", opponent_model=model).assign_coords(opponent_action=["A", "B"])
    posterior["joint_opponent_model"] = ((*DIMS, "joint_opponent_action"), np.zeros((1, 1, 1, 3, 1, 4)))
    posterior["optimal_opponent_action"] = (("agent", "other", "opponent_action"), np.arange(18).reshape(3, 3, 2))
    one = about(posterior, 2, 1)
    assert one["opponent_model"].dims == (*DIMS, "opponent_action")
    assert one["opponent_model"].to_numpy().ravel().tolist() == [14, 15]
    assert one["optimal_opponent_action"].to_numpy().tolist() == [[14, 15]]
    every = jointly(posterior)
    assert every["opponent_model"].dims == (*DIMS, "opponent_action")
    assert every["opponent_model"].sizes["opponent_action"] == 4
    assert "opponent_action" not in every.coords
    assert "opponent_model" not in jointly(posterior.drop_vars("joint_opponent_model"))
    of_two = beliefs("discrete", opponent_model=[[[[0.5, 0.5]], [[0.5, 0.5]]]])
    assert about(of_two, 1, 0)["opponent_model"].sizes["agent"] == 1
    assert jointly(of_two) is of_two


def test_the_optimum_is_every_opponents_own() -> None:
    model = np.full((1, 3, 3, 1, 2), math.nan)
    for agent in range(3):
        for other in range(3):
            model[0, agent, other, 0] = (
                [0.1 * (agent + other), 1 - 0.1 * (agent + other)] if agent != other else math.nan
            )
    posterior = several("discrete", opponent_model=model)
    best = np.broadcast_to([[1, 0], [1, 0], [0, 1]], (3, 3, 2))
    posterior["optimal_opponent_action"] = (("agent", "other", "opponent_action"), best)
    found = optimum_probability(posterior, "opponent_model")
    assert found is not None
    expected = [[math.nan, 0.1, 0.8], [0.1, math.nan, 0.7], [0.2, 0.3, math.nan]]
    np.testing.assert_allclose(found.squeeze().to_numpy(), expected)
