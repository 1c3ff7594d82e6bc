"""What is measured of opponent models, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.quantities import (
    MEASURES,
    OF_BELIEFS,
    agreed,
    ahead,
    calibrated,
    changed,
    cross_entropy,
    declaration,
    distances,
    movement,
    sureness,
)
from inference_marl.types import UNBOUNDED
from tests import run_folder
from tests.run_folder import beliefs

NAN = math.nan


def at_once(kind: str, **values: Any) -> xr.Dataset:
    """A posterior of one record; each value is `replicate x agent x state x ...`."""
    return beliefs(kind, **{name: np.asarray(value, dtype=float)[:, None] for name, value in values.items()})


# ------------------------------------------------------------------------------------- entropies, divergences, scores


def test_cross_entropy_of_probabilities_is_that_of_scipy() -> None:
    p, q = np.random.default_rng(0).dirichlet([1, 1, 1, 1], size=(2, 5))
    one, other = (xr.DataArray(each, dims=("state", "opponent_action")) for each in (p, q))
    attrs = {"kind": "discrete"}
    assert cross_entropy(one, one, attrs).to_numpy() == pytest.approx(stats.entropy(p, axis=1))
    divergence = (cross_entropy(one, other, attrs) - cross_entropy(one, one, attrs)).to_numpy()
    assert divergence == pytest.approx(stats.entropy(p, q, axis=1))


def test_cross_entropy_of_draws_is_that_of_normals() -> None:
    """Of two dimensions, the second of which is padding for the second agent."""
    p, q = np.random.default_rng(0).normal(size=(2, 2, 200, 2)) * [1.0, 0.5] + [0.0, 1.0]
    p[1, :, 1] = q[1, :, 1] = NAN
    dims, attrs = ("agent", "draw", "opponent_dim"), {"kind": "continuous", "low": -9.0, "high": 9.0}
    found = cross_entropy(xr.DataArray(p, dims=dims), xr.DataArray(q, dims=dims), attrs).to_numpy()
    normal = [[stats.norm(each[0, :, i].mean(), each[0, :, i].std()) for each in (p, q)] for i in (0, 1)]
    expected = [-a.expect(b.logpdf) for a, b in normal]
    assert found[0] == pytest.approx(sum(expected))
    normal = [stats.norm(each[1, :, 0].mean(), each[1, :, 0].std()) for each in (p, q)]
    assert found[1] == pytest.approx(-normal[0].expect(normal[1].logpdf))


def test_distances_of_probabilities_by_hand() -> None:
    half, third, sure = [[[[0.5, 0.5]]]], [[[[0.25, 0.75]]]], [[[[1.0, 0.0]]]]
    found = distances(at_once("discrete", opponent_model=half, opponent_prior=third, opponent_policy=sure), "it")
    assert found["from_prior"] == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3)])
    assert found["from_truth"] == pytest.approx([math.log(2)])
    assert found["log_score"] == pytest.approx([-math.log(2)])
    assert found["best_log_score"] == pytest.approx([0.0])


def test_belief_of_zero_is_floored() -> None:
    found = distances(at_once("discrete", opponent_model=[[[[1.0, 0.0]]]], opponent_policy=[[[[0.0, 1.0]]]]), "it")
    assert found["log_score"] == pytest.approx([math.log(1e-6)])
    assert np.isnan(found["from_prior"]).all()


def test_padding_does_not_count() -> None:
    # Agent 1 has two actions and one state, agent 0 three and two.
    model = [[[[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], [[0.5, 0.5, NAN], [NAN, NAN, NAN]]]]
    truth = [[[[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]], [[1.0, 0.0, NAN], [NAN, NAN, NAN]]]]
    found = distances(at_once("discrete", opponent_model=model, opponent_policy=truth), "it")
    assert found["from_truth"] == pytest.approx([(0 + math.log(1e6) + math.log(2)) / 3], rel=1e-6)


def test_distances_are_those_of_the_agents_that_have_a_model() -> None:
    """The other agent's opponents are not held against anyone, neither in the score nor in the best one."""
    model, truth = [[[[0.5, 0.5]], [[NAN, NAN]]]], [[[[1.0, 0.0]], [[0.5, 0.5]]]]
    found = distances(at_once("discrete", opponent_model=model, opponent_policy=truth), "it")
    assert (found["log_score"], found["best_log_score"]) == (pytest.approx([-math.log(2)]), pytest.approx([0.0]))


def test_distances_of_draws_by_hand() -> None:
    # Draws -1, 1 have mean 0 and sd 1; 0, 4 have mean 2 and sd 2.
    narrow, wide = [[[[[-1.0], [1.0]]]]], [[[[[0.0], [4.0]]]]]
    found = distances(at_once("continuous", opponent_model=narrow, opponent_prior=wide, opponent_policy=wide), "it")
    assert found["from_prior"] == pytest.approx([math.log(2) + (1 + 4) / 8 - 0.5])
    assert found["from_truth"] == pytest.approx([-math.log(2) + (4 + 4) / 2 - 0.5])
    assert found["log_score"] == pytest.approx([-0.5 * math.log(2 * math.pi) - 4.0])


def test_entropy_and_favourite_by_hand() -> None:
    model = [[[[0.5, 0.5, NAN]], [[1.0, 0.0, 0.0]]], [[[0.25, 0.75, NAN]], [[1 / 3] * 3]]]
    posterior = at_once("discrete", opponent_model=model, opponent_policy=model[::-1])
    found = sureness(posterior, "it")
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    entropy, favourite = [math.log(2) / 2, (quarter + math.log(3)) / 2], [0.75, (0.75 + 1 / 3) / 2]
    assert found["entropy"] == pytest.approx(entropy)
    assert found["favourite"] == pytest.approx(favourite)
    assert found["entropy_of_truth"] == pytest.approx(entropy[::-1])
    assert found["favourite_of_truth"] == pytest.approx(favourite[::-1])
    assert list(sureness(posterior.drop_vars("opponent_policy"), "it")) == ["entropy", "favourite"]


def test_entropy_of_draws_is_that_of_a_normal() -> None:
    found = sureness(at_once("continuous", opponent_model=[[[[[-0.5], [0.5]]]]]), "it")  # standard deviation 0.5
    assert list(found) == ["entropy", "spread"]
    assert found["spread"] == pytest.approx([0.5])
    assert found["entropy"] == pytest.approx([math.log(0.5 * math.sqrt(2 * math.pi * math.e))])


# ------------------------------------------------------------------------------------------------- agreement of seeds


def test_agreement_by_hand() -> None:
    # Three seeds favour the first action, one the second, for agent 0; agent 1: all favour the second.
    first, second = [0.9, 0.1], [0.3, 0.7]
    model = [[[one], [second]] for one in (first, first, first, second)]
    assert of_all(model, "share") == pytest.approx((3 / 4 + 1) / 2)
    # The mean belief of agent 0 is 0.75: three seeds are 0.15 from it, one 0.45; agent 1 has no spread.
    found = agreed(at_once("discrete", opponent_model=model), "it")
    assert found["distance"] == pytest.approx([0.075, 0.075, 0.075, 0.225])


def of_all(model: Any, name: str) -> float:
    """What is one number of all seeds, without an interval."""
    found = agreed(at_once("discrete", opponent_model=model), "it")[name]
    assert isinstance(found, Interval)
    assert math.isnan(found.low + found.high)
    return found.mean


def test_a_uniform_belief_favours_nothing() -> None:
    noise = 1e-7 * np.random.default_rng(0).standard_normal((8, 2, 1, 3))
    assert of_all(1 / 3 + noise, "share") == pytest.approx(1 / 3)
    assert of_all([[[[0.5, 0.5, 0]]], [[[0, 1, 0]]]], "share") == pytest.approx(1.5 / 2)
    padded = [[[[0.5, 0.5, 0], [NAN] * 3]], [[[0, 1, 0], [NAN] * 3]]]  # a state less
    assert of_all(padded, "share") == pytest.approx(1.5 / 2)


def test_agreement_by_chance_is_that_of_the_most_common_of_random_favourites() -> None:
    # Two seeds agree with probability 1/2: (1 + 1/2) / 2. 10,000 draws with deviation 1/4, five standard errors.
    assert of_all(np.full((2, 1, 1, 2), 0.5), "chance") == pytest.approx(0.75, abs=5 * 0.25 / 100)


def test_agreement_of_draws_is_about_their_means() -> None:
    found = agreed(at_once("continuous", opponent_model=[[[[[0.0], [0.2]]]], [[[[0.4], [0.6]]]]]), "it")
    assert list(found) == ["distance"]
    assert found["distance"] == pytest.approx([0.2, 0.2])


# ----------------------------------------------------------------------------------------------------------- movement


def moved(posterior: xr.Dataset) -> xr.Dataset:
    found = movement(posterior, "it")
    assert found is not None
    return found


def test_planted_changes_are_found() -> None:
    # Seed 0 turns over at record 4, seed 1 at record 7, with a small wobble at record 2; seed 2 never moves.
    model = np.full((3, 10, 2, 1, 2), 0.5)
    model[:2, 1:, ..., 0], model[:2, 1:, ..., 1] = 0.55, 0.45
    model[0, 3:, ..., 0], model[0, 3:, ..., 1] = 0.95, 0.05
    model[1, 6:, ..., 0], model[1, 6:, ..., 1] = 0.15, 0.85
    posterior = beliefs("discrete", opponent_model=model).assign_coords(step=10 * np.arange(1, 11))
    found = moved(posterior)
    assert found["step"].to_numpy().tolist() == list(range(20, 101, 10))
    assert found["at"].to_numpy().tolist() == [40, 70, np.inf]
    assert found["size"].to_numpy() == pytest.approx([0.4, 0.4, 0.0])
    assert found["change"].dims == ("replicate", "step")
    assert found["change"][0].to_numpy() == pytest.approx([0.05, 0, 0.4, 0, 0, 0, 0, 0, 0])
    assert found["settled"].to_numpy().tolist() == [40, 70, 10]
    told = changed(posterior, "it")
    assert {name: np.asarray(told[name]).tolist() for name in told} == {
        name: found[name].to_numpy().tolist() for name in ("at", "size", "settled")
    }


def test_rounding_is_no_movement() -> None:
    noise = 1e-7 * np.random.default_rng(0).standard_normal((4, 6, 2, 1, 3))
    assert moved(beliefs("discrete", opponent_model=1 / 3 + noise))["at"].to_numpy().tolist() == [np.inf] * 4


def test_agents_and_states_are_averaged_and_padding_is_not() -> None:
    model = np.full((1, 2, 2, 2, 3), NAN)
    model[:, 0, 0] = [1, 0, 0]
    model[:, 1, 0, 0], model[:, 1, 0, 1] = [0, 1, 0], [1, 0, 0]
    model[:, :, 1, 0, :2] = 0.5  # one state and two actions only
    assert moved(beliefs("discrete", opponent_model=model))["change"].to_numpy() == pytest.approx(np.array([[1 / 3]]))


def test_draws_move_by_the_wasserstein_distance() -> None:
    model = np.array([[0.0, 0.4], [0.9, 0.5], [0.5, 0.9]]).reshape(1, 3, 1, 1, 2, 1)
    found = moved(beliefs("continuous", opponent_model=model))
    assert found["change"].to_numpy() == pytest.approx(np.array([[0.5, 0.0]]))  # the order of draws means nothing
    assert found["settled"].to_numpy().tolist() == [2]
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 50))
    drawn = np.stack([one, other]).reshape(1, 2, 1, 1, 50, 1)
    found = moved(beliefs("continuous", opponent_model=drawn))
    assert float(found["size"][0]) == pytest.approx(stats.wasserstein_distance(one, other))


def test_one_record_has_no_change() -> None:
    posterior = run_folder.discrete(3, 4)["posterior"].isel(step=[-1])
    assert movement(posterior, "rommeo_q") is None
    assert changed(posterior, "rommeo_q") == {}


def test_a_seed_that_diverged_has_no_change_to_tell() -> None:
    posterior = run_folder.discrete(3, 4)["posterior"]
    posterior["opponent_model"][0, 1] = NAN
    assert changed(posterior, "rommeo_q") == {}


# -------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("make", [run_folder.discrete, run_folder.continuous])
def test_everything_is_declared_and_lies_in_its_bounds(make: Any) -> None:
    posterior = make(5, 8)["posterior"]
    found = {name: each for measure in MEASURES for name, each in measure(posterior, "rommeo_q").items()}
    other = {"spread", "spread_of_truth"} if make is run_folder.discrete else {"favourite", "favourite_of_truth"}
    other |= set() if make is run_folder.discrete else {"share", "chance"}
    assert set(found) == set(OF_BELIEFS) - other
    for name, each in found.items():
        low, high = declaration(name, posterior).bounds
        values = np.array([each.mean]) if isinstance(each, Interval) else each
        assert ((low <= values) & (values <= high)).all(), name
        assert isinstance(each, Interval) or each.shape == (5,), name


def test_densities_have_no_bounds() -> None:
    """Of draws an entropy may be negative, and a log score positive."""
    discrete, continuous = (xr.Dataset(attrs={"kind": kind}) for kind in ("discrete", "continuous"))
    for name in ("entropy", "entropy_of_truth", "log_score", "best_log_score"):
        assert declaration(name, continuous).bounds == UNBOUNDED
        assert declaration(name, discrete) == OF_BELIEFS[name]
    assert declaration("from_prior", continuous) == OF_BELIEFS["from_prior"]


@pytest.mark.parametrize("measure", [agreed, ahead, calibrated, changed, distances])
def test_learners_without_a_model(measure: Any) -> None:
    posterior = run_folder.discrete(3, 4)["posterior"]
    assert measure(posterior, "wolf_phc") == {}
    assert measure(posterior.drop_vars("opponent_model"), "rommeo_q") == {}


def test_a_prior_that_is_not_recorded_is_no_number() -> None:
    found = distances(run_folder.discrete(3, 4)["posterior"].drop_vars("opponent_prior"), "rommeo_q")
    assert np.isnan(found["from_prior"]).all()
    assert np.isfinite(found["from_truth"]).all()
