"""Probes: against least squares by hand, fitted to nobody that they are scored on, and honest about width."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from inference_marl.statistics.latents import at_the_end, believing
from inference_marl.statistics.probes import NOMINAL, PENALTIES, fit, fit_draws, known, probed, probed_everywhere
from tests.run_folder import latents


def test_a_probe_is_least_squares_where_there_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    mean, weights = rng.standard_normal((30, 4)), np.array([[1.0, 0.0], [-2.0, 0.5], [0.0, 3.0], [0.25, 0.0]])
    probe = fit(mean, mean @ weights + [3.0, -1.0])
    np.testing.assert_allclose(probe.weights, weights, atol=1e-3)
    np.testing.assert_allclose(probe.intercept, [3.0, -1.0], atol=1e-3)


def test_the_penalty_is_the_one_with_the_least_error_on_those_left_out() -> None:
    """More coordinates than opponents, as of a recurrent state, fit anything, but not those that are left out."""
    rng = np.random.default_rng(1)
    mean, noise = rng.standard_normal((20, 64)), rng.standard_normal((20, 1))
    assert np.abs(fit(mean, noise)(mean) - noise.mean()).max() < 0.5
    few, truth = mean[:, :3], mean[:, :1] + 0.5 * noise
    size = np.linalg.svd(few - few.mean(0))[1][0] ** 2

    def solved(kept: np.ndarray, penalty: float) -> np.ndarray:
        """Intercept and weights of ridge regression; the centre is that of all, which matters to neither."""
        design = np.column_stack([np.ones(len(kept)), few[kept] - few.mean(0)])
        return np.linalg.solve(design.T @ design + penalty * size * np.diag([0, 1, 1, 1]), design.T @ truth[kept])

    def left_out(penalty: float) -> float:
        each, rows = np.arange(20), np.column_stack([np.ones(20), few - few.mean(0)])
        return float(np.mean([(truth[out] - rows[out] @ solved(np.delete(each, out), penalty)) ** 2 for out in each]))

    best = min(PENALTIES, key=left_out)
    np.testing.assert_allclose(fit(few, truth).weights, solved(np.arange(20), best)[1:], atol=1e-9)


def test_what_is_there_is_found_and_what_is_not_is_not() -> None:
    here = at_the_end(latents(), "it")
    found = probed(here, here)
    assert found is not None
    assert (found["r2"].sel(episodes=5, ability="fire") > 0.98).all()
    assert (found["r2"].sel(episodes=5, ability="water") < 0.1).all()
    assert (found["r2"].sel(episodes=0) < 0.01).all()
    error = (found["predicted"].sel(episodes=5) - found["type"]).sel(ability="fire")
    assert float(abs(error).max()) < 0.3


def test_no_probe_is_fitted_to_whom_it_is_scored_on() -> None:
    """With as many coordinates as opponents, each with one of its own, all else would be perfect."""
    own = latents(opponents=20, latent=20)
    own["mean"][..., 1, :] = np.eye(20, dtype=np.float32)
    here = at_the_end(own, "it")
    found = probed(here, here)
    assert found is not None
    assert (found["r2"] < 0.05).all()


def test_nor_to_the_same_opponents_in_another_environment_or_evaluation() -> None:
    """Each is met twice; if one of a pair told of the other, numbers that are noise would be known."""
    own = latents(opponents=11, latent=11)
    own["mean"][..., 1, :] = np.eye(11, dtype=np.float32)
    twice = at_the_end(xr.concat([own, own], "opponent"), "it")
    once = at_the_end(own.isel(opponent=slice(None, None, -1)), "it")
    for tested in (twice, once):
        found = probed(twice, tested)
        assert found is not None
        assert (found["r2"] < 0.05).all()


def test_others_are_scored_by_probes_of_all_of_the_first() -> None:
    """By hand, with least squares; and another order of opponents or coordinates changes nothing."""
    first, other = (at_the_end(latents(seed, error=0.0), "it") for seed in (0, 1))
    found = probed(first, other)
    assert found is not None
    shuffled = probed(first.isel(latent=[2, 0, 1]), other.isel(latent=[2, 0, 1], opponent=slice(None, None, -1)))
    assert shuffled is not None
    np.testing.assert_allclose(shuffled["r2"], found["r2"], atol=1e-6)
    np.testing.assert_allclose(found["predicted"].sel(episodes=5, ability="fire"), other["type"][..., 0], atol=1e-3)
    swapped = probed(first, other.isel(latent=[1, 0, 2]))
    assert swapped is not None
    assert (swapped["r2"].sel(episodes=5, ability="fire") < 0.1).all()
    assert (probed(first, other.assign(mean=other["mean"].roll(opponent=1)))["r2"].sel(ability="fire") < 0.1).all()  # type: ignore[index]


@pytest.mark.parametrize(("error", "low", "high"), [(0.1, 0.84, 0.96), (0.4, 0.1, 0.45), (0.02, 0.99, 1.0)])
def test_intervals_cover_as_often_as_they_are_wide(error: float, low: float, high: float) -> None:
    """The belief has a standard deviation of 0.1, and an error as a rule of as much, of more, and of less."""
    first, other = (at_the_end(latents(seed, error=error, opponents=300), "it") for seed in (0, 1))
    found = probed(first, other)
    assert found is not None
    assert low <= float(found["coverage"].sel(episodes=5, ability="fire").mean()) <= high
    np.testing.assert_allclose(found["interval_sd"].sel(episodes=5, ability="fire"), 0.05, rtol=0.2)
    np.testing.assert_allclose(found["interval_sd"].sel(episodes=0, ability="fire"), 0.5, rtol=0.2)
    assert pytest.approx(0.9) == NOMINAL


def test_intervals_after_few_episodes_are_those_of_the_last_probe() -> None:
    """A mean that goes half of the way says half, though a probe of its own finds all that is in it."""
    first, other = (at_the_end(latents(seed, error=0.0), "it") for seed in (0, 1))
    for each in (first, other):
        each["mean"][{"episodes": 0}] = each["mean"].isel(episodes=1) / 2
    found = probed(first, other)
    assert found is not None
    said, truth = found.sel(episodes=0, ability="fire"), found["type"].sel(ability="fire")
    np.testing.assert_allclose(said["predicted"], truth, atol=1e-3)
    np.testing.assert_allclose(said["interval_mean"], truth / 2, atol=0.01)


def test_what_is_read_off_draws_is_least_squares_over_many_of_them() -> None:
    """Where a coordinate is open and its mean hardly moves, that is no reason to weigh it."""
    rng = np.random.default_rng(0)
    truth, sd = rng.uniform(-1, 1, (40, 1)), np.tile([0.3, 0.9], (40, 1))
    mean = np.column_stack([2 * truth[:, 0] + 0.3 * rng.standard_normal(40), 0.02 * rng.standard_normal(40)])
    drawn = (mean + sd * rng.standard_normal((20_000, 40, 2))).reshape(-1, 2)
    design = np.column_stack([np.ones(len(drawn)), drawn])
    by_hand = np.linalg.lstsq(design, np.tile(truth, (20_000, 1)), rcond=None)[0]
    probe = fit_draws(mean, sd, truth)
    np.testing.assert_allclose(probe.weights, by_hand[1:], atol=2e-3)
    np.testing.assert_allclose(probe.intercept, by_hand[0], atol=2e-3)
    assert abs(probe.weights[1]) < 0.01


@pytest.mark.parametrize(("wide", "share"), [(0.05, 0.9), (0.4, 0.8), (0.85, 0.3)])
def test_of_whom_a_calibrated_belief_is_sure_enough(wide: float, share: float) -> None:
    """Its mean varies as much less than the prior as it is narrower; it counts as known while its share is right."""
    rng = np.random.default_rng(2)
    own = at_the_end(latents(opponents=2000, latent=1), "it")
    z = rng.standard_normal((2, 2000))
    mean = (1 - wide**2) * z + wide * (1 - wide**2) ** 0.5 * rng.standard_normal(z.shape)
    own["mean"][{"episodes": 1}], own["sd"][{"episodes": 1}] = mean[..., None], wide
    own["type"][{"ability": 0}] = 3 * z
    found = probed(own, own)
    assert found is not None
    assert float(found["coverage"].sel(episodes=5, ability="fire").mean()) == pytest.approx(share, abs=0.03)
    assert known({"": found}) == (["fire"] if share > 0.7 else [])


def test_points_have_no_intervals_and_unknown_types_no_probes() -> None:
    own = latents()
    point = at_the_end(own.assign(sd=own["sd"] * np.nan), "it")
    found = probed(point, point)
    assert found is not None
    assert {"interval_mean", "interval_sd", "interval_r2", "coverage"}.isdisjoint(found)
    assert probed(point.drop_vars("type"), point) is probed(point, point.drop_vars("type")) is None
    assert probed(point, point.assign_coords(episodes=[1, 2])) is None
    failed = at_the_end(own.where(xr.DataArray([True, False], dims="replicate")), "it")
    lost = probed(failed, failed)
    assert lost is not None
    assert lost["r2"].notnull().all(["episodes", "ability"]).values.tolist() == [True, False]


def test_who_has_another_kind_of_type_is_not_probed() -> None:
    """One with fewer numbers, or with others, as in an evaluation that has a game of its own."""
    own = latents()
    fewer, other = own.isel(ability=[0]), own.assign_coords(ability=["fire", "earth"])
    for each in (fewer, other, own.drop_vars("ability").isel(ability=[0])):
        assert list(probed_everywhere({"new": own, "other": each, "far": own}, "it")) == ["new", "far"]
    later = own.assign_coords(step=[16])
    assert list(probed_everywhere({"new": own, "later": later}, "it")) == ["new", "later"]


def test_everywhere_is_the_first_evaluation_and_its_others() -> None:
    both = {"new": latents(0), "far": latents(1)}
    found = probed_everywhere(both, "it")
    first, other = (at_the_end(each, "it") for each in both.values())
    xr.testing.assert_identical(found["new"], probed(first, first))
    xr.testing.assert_identical(found["far"], probed(first, other))
    assert known(found) == ["fire"]
    silent = latents().reindex(learner=["it", "nobody"])
    assert believing(silent) == ["it"]
    assert probed_everywhere({"new": silent}, "nobody") == {}
