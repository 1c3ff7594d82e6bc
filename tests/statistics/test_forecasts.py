from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr

from inference_marl.statistics.beliefs import PROBABILITY_FLOOR
from inference_marl.statistics.forecasts import crps, forecast_scores, log_score, total_scores
from tests import run_folder


def played(values: Any, **more: Any) -> xr.Dataset:
    """`actions.nc` of the learner `it`; `values` are `replicate x environment x step x agent [x action_dim]`."""
    array = np.asarray(values)[None]
    dims = ("learner", "replicate", "environment", "step", "agent", "action_dim")
    dataset = xr.Dataset({"actions": (dims[: array.ndim], array)})
    for name, value in more.items():
        dataset[name] = (dims[:4], np.asarray(value)[None])
    ended = xr.zeros_like(dataset["actions"].isel(agent=0, drop=True), dtype=bool)
    dataset["ended"] = dataset.get("ended", ended if array.ndim == 5 else ended.isel(action_dim=0, drop=True))
    return dataset.assign_coords(learner=["it"], step=np.arange(1, array.shape[3] + 1))


def believed(**beliefs: Any) -> xr.Dataset:
    """One replicate and state, two agents with two actions; each belief is `step x agent x action`."""
    values = {name: np.asarray(value)[None, :, :, None] for name, value in beliefs.items()}
    shape = next(iter(values.values())).shape
    return run_folder.beliefs("discrete", policy=np.full(shape, 0.5), **values)


def test_a_belief_is_scored_by_the_next_action() -> None:
    rho = [[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.5, 0.5]]]
    prior = [[[0.6, 0.4], [0.5, 0.5]], [[0.3, 0.7], [0.5, 0.5]]]
    # Agent 1 plays 1, then 0, then 1: the belief of step 1 meets 0, that of step 2 meets 1.
    actions = played(np.stack([np.zeros(3, int), [1, 0, 1]], -1)[None, None])
    found = forecast_scores(believed(opponent_model=rho, opponent_prior=prior), actions)
    assert found is not None
    assert found.dims == ("forecaster", "learner", "replicate", "agent", "step")
    assert found.sel(forecaster="rho", agent=0).values.ravel() == pytest.approx(np.log([0.9, 0.8]))
    assert found.sel(forecaster="P", agent=0).values.ravel() == pytest.approx(np.log([0.6, 0.7]))
    assert found.sel(forecaster="uniform").values == pytest.approx(-math.log(2))


def test_a_last_belief_that_nothing_follows_is_not_scored() -> None:
    posterior = believed(opponent_model=[[[0.9, 0.1]] * 2] * 2)
    scored = forecast_scores(posterior, played(np.zeros((1, 1, 2, 2), int)))
    assert scored is not None
    assert scored["step"].values.tolist() == [1]
    assert forecast_scores(posterior.isel(step=[-1]), played(np.zeros((1, 1, 2, 2), int))) is None
    assert forecast_scores(posterior.drop_vars("opponent_model"), played(np.zeros((1, 1, 3, 2), int))) is None


def test_environments_are_averaged_and_impossible_actions_are_floored() -> None:
    posterior = believed(opponent_model=[[[1.0, 0.0], [0.5, 0.5]]])
    actions = np.zeros((1, 2, 2, 2), int)
    actions[0, 1, 1, 1] = 1  # in the second environment agent 1 does what agent 0 holds impossible
    found = forecast_scores(posterior, played(actions))
    assert found is not None
    assert float(found.sel(forecaster="rho").isel(agent=0).squeeze()) == pytest.approx(math.log(1e-6) / 2)


def test_scores_of_several_opponents_add_up() -> None:
    nan = math.nan
    policy = np.full((1, 1, 3, 1, 3), 0.5)
    policy[:, :, [0, 2], :, 2] = nan  # agent 1 has three actions, the others two
    model = np.full((1, 1, 3, 3, 1, 3), nan)
    first, second, third = [0.9, 0.1, nan], [0.2, 0.3, 0.5], [0.6, 0.4, nan]
    model[:, :, 0, 1], model[:, :, 0, 2] = second, third
    model[:, :, 1, 0], model[:, :, 1, 2] = first, third
    model[:, :, 2, 0], model[:, :, 2, 1] = third, second
    posterior = run_folder.beliefs("discrete", policy=policy)
    dims = ("learner", "replicate", "step", "agent", "other", "state", "opponent_action")
    posterior["opponent_model"] = (dims, model[None])
    actions = np.zeros((1, 1, 2, 3), int)
    actions[..., 1, :] = [0, 2, 1]
    found = forecast_scores(posterior, played(actions))
    assert found is not None
    rho = found.sel(forecaster="rho").squeeze().values
    assert rho == pytest.approx([math.log(0.5 * 0.4), math.log(0.9 * 0.4), math.log(0.6 * 0.5)])
    assert found.sel(forecaster="uniform").squeeze().values == pytest.approx([-math.log(6), -math.log(4), -math.log(6)])


def test_in_several_states_the_belief_is_that_of_the_state_in_which_they_acted() -> None:
    model = np.zeros((1, 1, 2, 2, 2))
    model[..., 0, :], model[..., 1, :] = [0.9, 0.1], [0.2, 0.8]
    posterior = run_folder.beliefs("discrete", opponent_model=model, policy=np.full_like(model, 0.5))
    actions = np.zeros((1, 1, 2, 2), int)
    found = forecast_scores(posterior, played(actions, state=[[[0, 1]]]))
    assert found is not None
    assert found.sel(forecaster="rho").values == pytest.approx(math.log(0.2))


def test_where_agents_were_the_end_of_an_episode_breaks_the_thread() -> None:
    model = np.zeros((1, 2, 2, 2, 2))  # `state` counts two environments
    model[..., 0, :], model[..., 1, :] = [0.9, 0.1], [0.2, 0.8]
    posterior = run_folder.beliefs("discrete", opponent_model=model, policy=np.full_like(model, 0.5))
    ended = [[[False, False, False], [True, False, False]]]  # the second environment's first episode ends at step 1
    found = forecast_scores(posterior, played(np.zeros((1, 2, 3, 2), int), ended=ended))
    assert found is not None
    rho = found.sel(forecaster="rho").isel(agent=0).squeeze().values
    assert rho == pytest.approx([math.log(0.9), (math.log(0.9) + math.log(0.2)) / 2])


def test_draws_are_scored_as_normals() -> None:
    draws = np.array([-0.5, 0.5]).reshape(1, 1, 1, 1, 2, 1)
    model = np.concatenate([draws, draws], axis=2)
    posterior = run_folder.beliefs("continuous", opponent_model=model, policy=model)
    actions = np.zeros((1, 1, 2, 2, 1))
    actions[..., 1, 1, 0] = 0.25
    found = forecast_scores(posterior, played(actions))
    assert found is not None
    density = -math.log(0.5 * math.sqrt(2 * math.pi)) - 0.25**2 / (2 * 0.25)
    assert float(found.sel(forecaster="rho").isel(agent=0).squeeze()) == pytest.approx(density)
    assert found.sel(forecaster="uniform").values == pytest.approx(-math.log(2))


def test_learners_without_a_model_have_no_score() -> None:
    posterior = run_folder.discrete(3, 4)["posterior"]
    actions = xr.concat([played(np.zeros((3, 1, 4, 2), int))] * 4, "learner").assign_coords(
        learner=posterior["learner"]
    )
    found = forecast_scores(posterior, actions)
    assert found is not None
    assert found.sel(learner="wolf_phc").isnull().all()
    assert found.sel(learner="rommeo_q").notnull().all()


def test_a_forecaster_never_gains_by_falling_silent() -> None:
    posterior = run_folder.discrete(3, 4)["posterior"]
    actions = xr.concat([played(np.zeros((3, 1, 4, 2), int))] * 4, "learner").assign_coords(
        learner=posterior["learner"]
    )
    posterior["opponent_prior"].loc[{"learner": "jal"}] = np.nan  # has a model, but no prior
    posterior["opponent_model"].loc[{"learner": "rommeo_q", "replicate": 1, "step": 2}] = np.nan  # has diverged
    posterior["opponent_model"].loc[{"learner": "rommeo_q_emp", "agent": 1}] = np.nan  # of one agent only
    scores = forecast_scores(posterior, actions)
    assert scores is not None
    sums, count = total_scores(scores, "jal")
    assert sums["forecaster"].values.tolist() == ["rho", "uniform"]
    sums, count = total_scores(scores, "rommeo_q")
    assert np.isnan(sums.sel(forecaster="rho")).values.tolist() == [False, True, False]
    assert sums.sel(forecaster="uniform").values == pytest.approx(-6 * math.log(3))
    assert count.values.tolist() == [6, 6, 6]
    sums, count = total_scores(scores, "rommeo_q_emp")
    assert count.values.tolist() == [3, 3, 3]
    assert np.isfinite(sums.sel(forecaster=["rho", "uniform"])).all()


def test_crps_by_hand() -> None:
    draws = np.array([[1.0, 0.0], [3.0, 3.0]])
    # Mean distances from 2: 1.5 and 1; half the distance of the two draws, 0.5 and 0.
    assert crps(draws, np.array([2.0, 2.0])) == pytest.approx([1.5 - 0.5, 1.0])
    missing = crps(np.array([[np.nan, 1.0], [0.0, 1.0]]), np.array([0.0, np.nan]))
    assert np.isnan(missing).all()


@pytest.mark.parametrize("count", [2, 39])
def test_crps_is_that_of_the_distribution_whatever_the_number_of_draws(count: int) -> None:
    """Of a standard normal (Gneiting and Raftery 2007, p. 367); and it is proper: the truth scores best."""
    rng = np.random.default_rng(0)
    y = 0.7
    density, cdf = math.exp(-(y**2) / 2) / math.sqrt(2 * math.pi), (1 + math.erf(y / math.sqrt(2))) / 2
    expected = y * (2 * cdf - 1) + 2 * density - 1 / math.sqrt(math.pi)
    assert crps(rng.normal(size=(20000, count)), np.full(20000, y)).mean() == pytest.approx(expected, abs=0.02)
    actual = rng.normal(size=20000)
    scores = [crps(scale * rng.normal(size=(20000, count)) + shift, actual).mean() for scale, shift in ROUGH]
    assert min(scores) == scores[0]


ROUGH = [(1.0, 0.0), (0.5, 0.0), (2.0, 0.0), (1.0, 0.6)]


def test_log_score_by_hand() -> None:
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0], [np.nan, np.nan]])
    found = log_score(probabilities, np.array([1, 1, 0]))
    assert found[:2] == pytest.approx([math.log(0.75), math.log(PROBABILITY_FLOOR)])
    assert np.isnan(found[2])
