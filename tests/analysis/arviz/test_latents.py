"""Beliefs about opponents for ArviZ: draws of what was recorded, with named dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_marl import latent_posterior
from inference_marl.described import InspectError
from inference_marl.statistics.latents import at_the_end
from inference_marl.statistics.probes import probed_everywhere
from tests.run_folder import latents, of_beliefs

EVALUATIONS = {"new": latents(0, opponents=6), "far": latents(1, sd=0.3, opponents=5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_beliefs(tmp_path_factory.mktemp("runs") / "run", **EVALUATIONS)


def test_draws_are_of_the_recorded_normals(folder: Path) -> None:
    found = latent_posterior(folder, evaluation="far", draws=4000)
    z, here = found["posterior"]["z"], at_the_end(EVALUATIONS["far"], "it")
    assert z.dims == ("chain", "draw", "replicate", "opponent", "episodes", "latent")
    assert z.shape == (1, 4000, 2, 5, 2, 3)
    np.testing.assert_allclose(z.mean(("chain", "draw")), here["mean"], atol=0.08)
    np.testing.assert_allclose(z.std(("chain", "draw")), here["sd"], rtol=0.08)
    again = latent_posterior(folder, "it", "far", draws=4000)["posterior"]["z"]
    np.testing.assert_array_equal(again, z)


def test_what_is_known_stands_beside_them(folder: Path) -> None:
    facts = latent_posterior(folder)["constant_data"]
    here, probed = at_the_end(EVALUATIONS["new"], "it"), probed_everywhere(EVALUATIONS, "it")["new"]
    for name in ("mean", "sd", "type"):
        np.testing.assert_array_equal(facts[name], here[name])
    for name in ("predicted", "r2", "interval_mean", "interval_sd", "interval_r2", "coverage"):
        np.testing.assert_array_equal(facts[f"probe_{name}"], probed[name])
    assert facts["probe_r2"].dims == ("replicate", "episodes", "ability")
    assert facts["ability"].to_numpy().tolist() == ["fire", "water"]


def test_a_point_is_its_only_draw(tmp_path: Path) -> None:
    point = latents(opponents=4).drop_vars("sd")
    found = latent_posterior(of_beliefs(tmp_path / "run", new=point))
    assert found["posterior"]["z"].shape == (1, 1, 2, 4, 2, 3)
    np.testing.assert_array_equal(found["posterior"]["z"][0, 0], point["mean"][0, :, 0].astype(np.float64))


def test_refuses_what_was_not_recorded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InspectError, match=r"^evaluation: got old, expected one of new, far$"):
        latent_posterior(folder, evaluation="old")
    with pytest.raises(InspectError, match=r"^learner: got us without a latent belief, expected one of it$"):
        latent_posterior(folder, "us")
    bare = of_beliefs(tmp_path / "run", new=latents())
    (bare / "latent_new.nc").unlink()
    with pytest.raises(InspectError, match=r"with posteriors: true, and a learner with a latent belief about its"):
        latent_posterior(bare)
