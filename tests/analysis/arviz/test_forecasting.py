"""Forecasts given to ArviZ, from runs: who predicts the opponents better."""

from __future__ import annotations

import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from inference_marl.analysis.arviz import compare_forecasts, forecasts
from inference_marl.analysis.recorded import read
from inference_marl.analysis.report.findings import predicted
from inference_marl.described import InspectError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import Empirical, OpponentFirst, Optimal
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import EmpiricalFrequency, TabularCritic, Uniform
from inference_marl.runs import checksums
from inference_marl.runs.run import run


def learner(prior: EmpiricalFrequency | Uniform) -> Rommeo:
    guide = OpponentFirst(opponent_model=Empirical(), policy=Optimal())
    return Rommeo(opponent_prior=prior, guide=guide, critic=TabularCritic())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two opponent models, rho := P, against the same opponent, who mostly plays its first action; and self-play."""
    mostly = Stationary(probabilities=[0.8, 0.2])
    counting, ignorant = learner(EmpiricalFrequency(smoothing=1.0)), learner(Uniform())
    arms = {"counting": [counting, mostly], "ignorant": [ignorant, mostly], "self_play": counting}
    experiment = Experiment(MatrixGame("stag_hunt"), arms, replicates=20, steps=60, seed=1)
    return run(experiment, tmp_path_factory.mktemp("forecasts"), progress=False)


@pytest.mark.slow
def test_a_counting_model_predicts_better_than_chance_and_its_prior_as_well(folder: Path) -> None:
    found = forecasts(folder, "counting")
    assert set(found) == {"rho", "P", "uniform"}
    elpd = {name: each["elpd_loo"] if "elpd_loo" in dir(each) else each.elpd for name, each in found.items()}
    records = read(folder).beliefs.sizes["step"] - 1
    assert elpd["uniform"] == pytest.approx(-20 * records * math.log(2), rel=1e-5)
    assert elpd["rho"] == pytest.approx(elpd["P"], rel=1e-4)
    # An observer who knows the policy would earn its negative entropy, 0.5 nats per step; 0.69 is chance.
    assert -0.6 * 20 * records < elpd["rho"] < -0.45 * 20 * records
    pointwise = np.asarray(found["rho"]["loo_i"] if "loo_i" in dir(found["rho"]) else found["rho"].elpd_i)
    assert pointwise.shape == (20,), "replicates are the units"
    error = found["rho"]["se"] if "loo_i" in dir(found["rho"]) else found["rho"].se
    assert error == pytest.approx(math.sqrt(20) * pointwise.std(), rel=1e-5)


@pytest.mark.slow
def test_arviz_ranks_them(folder: Path) -> None:
    import arviz as az

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert az.compare(forecasts(folder, "counting")).index[-1] == "uniform"
        ranked = az.compare(compare_forecasts(folder, ["ignorant", "counting"]))
    assert ranked.index.tolist() == ["counting", "ignorant"]


def test_arms_whose_opponents_differ_are_not_compared(folder: Path) -> None:
    with pytest.raises(InspectError, match=r"^learners: got counting and self_play, whose opponents played different"):
        compare_forecasts(folder, ["counting", "self_play"])
    with pytest.raises(InspectError, match=r"^learner: got 'nobody', which was not recorded"):
        compare_forecasts(folder, ["counting", "nobody"])
    with pytest.raises(InspectError, match=r"^agent: got 2, which was not recorded, expected one of 0, 1"):
        compare_forecasts(folder, ["counting", "ignorant"], agent=2)


def test_a_belief_that_is_no_number_is_no_good_forecast(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "diverged"
    shutil.copytree(folder, copied)
    with xr.open_dataset(folder / "posterior.nc", engine="h5netcdf") as posterior:
        broken = posterior.load()
    broken["opponent_model"].loc[{"learner": "counting", "replicate": 3, "step": 40}] = np.nan
    with checksums.listing(copied, ["posterior.nc"]):
        broken.to_netcdf(copied / "posterior.nc", engine="h5netcdf")
    found = forecasts(copied, "counting")
    for name, missing in {"rho": True, "P": False, "uniform": False}.items():
        total = found[name]["elpd_loo"] if "elpd_loo" in dir(found[name]) else found[name].elpd
        assert math.isnan(total) == missing
    section = predicted(read(copied))
    assert section is not None
    assert section.table is not None
    assert section.table.loc["counting", ["rho", "rho minus P"]].tolist() == ["-", "-"]


def test_inspect_says_who_predicts_better(folder: Path) -> None:
    section = predicted(read(folder))
    assert section is not None
    assert section.table is not None
    assert section.table.columns.tolist() == ["rho", "P", "uniform", "rho minus P"]
    assert section.table.loc["counting", "uniform"] == "-0.693"
    assert section.table.loc["counting", "rho minus P"] == "0.000"


def test_runs_without_actions_or_beliefs_have_no_forecasts(tmp_path: Path) -> None:
    game, arms = MatrixGame("stag_hunt"), {"a": learner(Uniform())}
    silent = Experiment(game, arms, replicates=2, steps=3, record_actions=False)
    recorded = read(run(silent, tmp_path, "silent", progress=False))
    assert predicted(recorded) is None
    with pytest.raises(InspectError, match="got no recorded belief of a about its opponents that is followed by"):
        forecasts(recorded)
