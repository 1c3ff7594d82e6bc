from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from inference_marl.analysis.arviz import summary, to_arviz
from inference_marl.analysis.plots.writing import write_comparison
from inference_marl.analysis.recorded import read
from inference_marl.described import InspectError
from tests import run_folder

OLD = version("arviz").startswith("0.")
"""Whether this is ArviZ 0.23, whose functions insist on `chain` and `draw`."""

STORED = {
    "posterior": {"opponent_model", "policy"},
    "prior": {"opponent_prior"},
    "constant_data": {"opponent_policy", "optimal_action", "optimal_opponent_action"},
}
PREDICTIONS = {"posterior_predictive": "opponent_model", "prior_predictive": "opponent_prior"}
SAMPLED = {"discrete": ["replicate"], "continuous": ["replicate", "draw"]}


@pytest.fixture
def az() -> Iterator[Any]:
    """ArviZ itself, whose warnings are its own, and no figure left behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
        import matplotlib.pyplot as plt

        yield arviz
        plt.close("all")


def group(data: Any, name: str) -> xr.Dataset:
    """A group of an InferenceData (ArviZ 0.23) or a DataTree (1.x)."""
    return data[name] if OLD else data[name].to_dataset()


def samples(values: xr.DataArray, *dims: str) -> np.ndarray:
    """`samples x ...`, the sample dims together."""
    return values.stack(sample=dims).transpose("sample", ...).to_numpy()


@pytest.mark.slow
def test_heavy_packages_are_imported_only_when_needed() -> None:
    program = "import inference_marl.analysis.report.text, sys; print({'arviz', 'matplotlib'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_groups_have_the_names_and_the_numbers_of_the_run(kind: str, runs: dict[str, Path]) -> None:
    recorded = read(runs[kind])
    data = to_arviz(recorded, "rommeo_q", step=25)
    here = recorded.beliefs.sel(learner="rommeo_q", step=25).isel(state=0)
    assert set(data.groups() if OLD else data.children) == {*STORED, *PREDICTIONS, "observed_data", "sample_stats"}
    for name, expected in STORED.items():
        found = group(data, name)
        assert set(found.data_vars) == expected
        assert set(found["agent"].to_numpy()) == {0, 1}
        for variable in expected:
            if name == "constant_data":
                assert (found[variable].to_numpy() == here[variable].to_numpy()).all()
                continue
            assert not OLD or found.sizes["chain"] == 1
            dims = ["chain", "draw"] if OLD else SAMPLED[kind]
            assert found.attrs["sample_dims"] == dims
            assert found[variable].dims[: len(dims)] == tuple(dims)
            assert (samples(found[variable], *dims) == samples(here[variable], *SAMPLED[kind])).all()
    stats = group(data, "sample_stats")
    elbo = recorded.metrics["elbo"].sel(learner="rommeo_q", step=25)
    assert stats.attrs["sample_dims"] == (["chain", "draw"] if OLD else ["replicate"])
    assert (stats["elbo"].squeeze().to_numpy() == elbo.to_numpy()).all()
    assert {"elbo_reward", "elbo_entropy", "elbo_kl", "reward", "success_rate"} <= set(stats.data_vars)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_seeds_are_not_chains(kind: str, runs: dict[str, Path]) -> None:
    data = to_arviz(runs[kind])
    for name in (*STORED, *PREDICTIONS, "observed_data", "sample_stats"):
        found = group(data, name)
        assert found.sizes.get("chain", 1) == 1
        assert OLD or "chain" not in found.dims
        assert "replicate" in found.coords
        count = 8 if kind == "discrete" else 6
        assert sorted(set(found["replicate"].to_numpy().tolist())) == list(range(count))


def test_attributes_say_where_it_comes_from(tmp_path: Path) -> None:
    run = run_folder.discrete(3, 4)
    run["metrics"].attrs["seed"] = 7
    folder = run_folder.write(tmp_path / "run", **run)
    spec = {"arms": {"jal": {}}, "levels": {"jal": {"opponent_prior": "uniform", "kl_weight": "0.1"}}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    written = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text(written.replace("{", '{"versions": {"inference_marl": "0.2.0"}, ', 1))
    data = to_arviz(folder, "jal", step=3)
    assert data.attrs["seed"] == 7
    assert data.attrs["experiment"] == "synthetic"
    assert data.attrs["game"] == "MatrixGame(climbing)"
    assert yaml.safe_load(data.attrs["spec"]) == spec
    for name in (*STORED, *PREDICTIONS, "observed_data", "sample_stats"):
        found = group(data, name)
        assert found.attrs["inference_library"] == "inference_marl"
        assert found.attrs["inference_library_version"] == "0.2.0"
        coordinates = {"learner": "jal", "step": 3, "factor_opponent_prior": "uniform", "factor_kl_weight": "0.1"}
        assert {label: found[label].item() for label in coordinates} == coordinates
        for variable, values in found.items():
            assert values.attrs["long_name"], variable
            assert "units" in values.attrs, variable
    assert group(data, "prior")["opponent_prior"].attrs == {"long_name": "opponent prior", "units": "1"}


def test_actions_have_their_units(continuous: Path) -> None:
    data = to_arviz(continuous)
    for name, variable in [("posterior", "policy"), ("prior", "opponent_prior"), ("observed_data", "opponent_action")]:
        assert group(data, name)[variable].attrs["units"] == "units of actions"


def test_an_arm_has_only_what_it_knows(discrete: Path) -> None:
    data = to_arviz(discrete, "wolf_phc")
    assert set(group(data, "posterior").data_vars) == {"policy"}
    assert not {"prior", *PREDICTIONS} & set(data.groups() if OLD else data.children)
    assert "elbo" not in group(data, "sample_stats")
    assert to_arviz(discrete).posterior["learner"].item() == "rommeo_q"


def test_an_arm_of_which_nothing_is_known_has_no_beliefs(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    posterior = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    run["posterior"] = posterior.where(posterior["learner"] != "wolf_phc")
    data = to_arviz(run_folder.write(tmp_path / "run", **run), "wolf_phc")
    assert set(data.groups() if OLD else data.children) == {"sample_stats"}


def test_what_was_read_stays_as_it_was(discrete: Path) -> None:
    recorded = read(discrete)
    metrics, beliefs = recorded.metrics.copy(deep=True), recorded.beliefs.copy(deep=True)
    to_arviz(recorded)
    xr.testing.assert_identical(recorded.metrics, metrics)
    xr.testing.assert_identical(recorded.beliefs, beliefs)


def test_agents_without_opponent_models_are_left_out_where_others_have_one(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    run["posterior"]["opponent_model"][0, :, :, 0] = np.nan
    folder = run_folder.write(tmp_path / "run", **run)
    data = to_arviz(folder, "rommeo_q")
    for name in (*STORED, *PREDICTIONS, "observed_data"):
        assert group(data, name)["agent"].to_numpy().tolist() == [1]
    assert group(to_arviz(folder, "wolf_phc"), "posterior")["agent"].to_numpy().tolist() == [0, 1]


def test_states_that_pad_an_arm_are_left_out_and_an_agents_own_are_unknown(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    posterior = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    states = xr.concat([posterior] * 3, dim="state").assign_coords(state=["start", "AA", "AB"])
    for name in states:
        states[name] = states[name].transpose(*posterior[name].dims)
        states[name][0, :, :, :, 2] = np.nan
        states[name][0, :, :, 1, 1] = np.nan
    run["posterior"] = states
    data = to_arviz(run_folder.write(tmp_path / "run", **run), "rommeo_q")
    for name in (*STORED, *PREDICTIONS, "observed_data"):
        assert group(data, name)["state"].to_numpy().tolist() == ["start", "AA"]
    drawn = group(data, "posterior_predictive")["opponent_action"]
    assert drawn.sel(agent=1, state="AA").isnull().all()
    assert drawn.sel(agent=1, state="start").notnull().all()
    assert drawn.sel(agent=0).notnull().all()


def test_types_of_opponents_are_part_of_the_posterior(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    run["posterior"]["opponent_type"] = run["posterior"]["opponent_model"].rename(opponent_action="type")
    found = group(to_arviz(run_folder.write(tmp_path / "run", **run)), "posterior")
    assert (found["opponent_type"].to_numpy() == found["opponent_model"].to_numpy()).all()


def test_predictive_draws_follow_the_beliefs(discrete: Path) -> None:
    data, stored = to_arviz(discrete, "rommeo_q", step=7), read(discrete).beliefs
    for name, belief in PREDICTIONS.items():
        drawn = group(data, name)["opponent_action"].squeeze()
        assert drawn.dims == ("draw", "replicate", "agent")
        assert drawn.shape == (100, 8, 2)
        assert drawn.dtype.kind == "i"
        expected = stored[belief].sel(learner="rommeo_q", step=7).isel(state=0)
        for action in range(3):
            share, probability = (drawn == action).mean("draw"), expected.isel(opponent_action=action)
            # 100 draws in each of 16 places: within 5 standard errors, at most 0.25, with probability above 1 - 1e-4.
            assert (abs(share - probability) < 5 * np.sqrt(0.25 / 100)).all()
            assert abs(float(share.mean() - probability.mean())) < 5 * np.sqrt(0.25 / 1600)
    again = to_arviz(discrete, "rommeo_q", step=7)
    xr.testing.assert_equal(group(again, "prior_predictive"), group(data, "prior_predictive"))
    observed = group(data, "observed_data")["opponent_action"]
    assert observed.dims == ("replicate", "agent")
    truth = group(data, "constant_data")["opponent_policy"]
    assert (truth.isel(opponent_action=observed) > 0).all()


def test_what_is_observed_is_drawn_from_what_the_opponents_do(tmp_path: Path) -> None:
    run = run_folder.discrete(3, 4)
    does = np.array([[0, 1], [2, 2], [1, 0]])
    run["posterior"]["opponent_policy"][0, :, -1, :, 0] = np.eye(3)[does]
    run["posterior"]["opponent_model"][0, :, -1, :, 0] = np.eye(3)[does.T[0]][:, None]
    data = to_arviz(run_folder.write(tmp_path / "run", **run), "rommeo_q")
    assert (group(data, "observed_data")["opponent_action"].to_numpy() == does).all()
    predicted = group(data, "posterior_predictive")["opponent_action"].squeeze()
    assert (predicted.to_numpy() == does[:, :1]).all()


def test_predictive_draws_of_continuous_beliefs_are_those_recorded(continuous: Path) -> None:
    data, stored = to_arviz(continuous), read(continuous).beliefs
    here = stored.sel(learner="rommeo_q").isel(step=-1, state=0)
    for name, belief in PREDICTIONS.items():
        drawn = group(data, name)["opponent_action"]
        drawn = drawn.isel(chain=0) if OLD else drawn
        assert (drawn.to_numpy() == here[belief].transpose("draw", "replicate", ...).to_numpy()).all()
    observed = group(data, "observed_data")["opponent_action"]
    assert (observed.to_numpy() == here["opponent_policy"].isel(draw=0).to_numpy()).all()


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_arviz_summary(kind: str, runs: dict[str, Path], az: Any) -> None:
    data, stored = to_arviz(runs[kind]), read(runs[kind]).beliefs
    if OLD:
        table = az.summary(data, round_to="none")
        assert table["r_hat"].isna().all()
    else:
        table = az.summary(data, sample_dims=data.posterior.sample_dims, kind="stats", round_to="none")
    here = stored.sel(learner="rommeo_q").isel(step=-1, state=0)[["opponent_model", "policy"]].astype(np.float64)
    means = [values.to_numpy().ravel() for values in here.mean(SAMPLED[kind]).values()]
    np.testing.assert_allclose(table["mean"].to_numpy(dtype=float), np.concatenate(means), rtol=1e-5)
    assert table.index[0] == f"opponent_model[0, {'A' if kind == 'discrete' else 0}]"


@pytest.mark.skipif(OLD, reason="in 0.23 dims have to be chain and draw")
def test_arviz_has_no_r_hat_of_seeds(discrete: Path, az: Any) -> None:
    with pytest.raises(ValueError, match="dims must be of length 2 for rhat"):
        az.summary(to_arviz(discrete), sample_dims=["replicate"])


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_default_calls_of_plots(kind: str, runs: dict[str, Path], az: Any) -> None:
    data = to_arviz(runs[kind])
    az.plot_forest(data)
    if OLD:
        az.plot_posterior(data)
        az.plot_ppc(data)
        az.plot_ppc(data, group="prior")
        az.plot_dist(data.posterior["opponent_model"])
        return
    drawn = az.plot_dist(data)
    assert {"opponent_model", "policy"} <= set(drawn.viz["dist"].data_vars)
    assert not {"replicate", "draw"} & set(drawn.viz["dist"].dims)
    for name in PREDICTIONS:
        drawn = az.plot_ppc_dist(data, group=name)
        assert set(drawn.viz["predictive_dist"].data_vars) == {"opponent_action"}
        assert ("observed_dist" in drawn.viz.children) == (name == "posterior_predictive")


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_arms_and_beliefs_are_compared(kind: str, runs: dict[str, Path], az: Any) -> None:
    if kind == "discrete":
        arms = {name: to_arviz(runs[kind], name) for name in ("rommeo_q", "jal")}
        if OLD:
            az.plot_forest(list(arms.values()), model_names=list(arms))
        else:
            assert az.plot_forest(arms).viz["trunk"]["opponent_model"].sizes["model"] == 2
    data = to_arviz(runs[kind])
    if OLD:
        az.plot_dist_comparison(data, var_names=[["opponent_prior"], ["opponent_model"]])
    else:
        drawn = az.plot_dist({"rho": data.posterior_predictive.to_dataset(), "P": data.prior_predictive.to_dataset()})
        assert drawn.viz["dist"]["opponent_action"].sizes["model"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_a_tree_is_a_file(kind: str, runs: dict[str, Path], tmp_path: Path, az: Any) -> None:
    data = to_arviz(runs[kind])
    data.to_netcdf(tmp_path / "arm.nc")
    back = az.from_netcdf(tmp_path / "arm.nc")
    for name in (*STORED, *PREDICTIONS, "observed_data", "sample_stats"):
        xr.testing.assert_equal(group(back, name), group(data, name))
    assert back.attrs["spec"] == data.attrs["spec"]
    if OLD:
        az.plot_forest(back)
        az.plot_ppc(back)
    else:
        az.plot_forest(back, sample_dims=SAMPLED[kind])
        az.plot_dist(back, sample_dims=SAMPLED[kind])
        az.plot_ppc_dist(back, sample_dims=["draw"])
    back.close()


def test_run_without_beliefs(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 4)
    folder = run_folder.write(tmp_path / "run", metrics=run["metrics"])
    assert read(folder).posterior is None
    for look in (to_arviz, summary):
        with pytest.raises(InspectError, match=r"got a run without posterior\.nc"):
            look(folder)


def test_run_without_opponent_models(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 4)
    run["posterior"] = run["posterior"].drop_vars(["opponent_model", "opponent_prior"])
    folder = run_folder.write(tmp_path / "run", **run)
    assert set(group(to_arviz(folder), "posterior").data_vars) == {"policy"}
    with pytest.raises(InspectError, match="expected a run in which some learner has one"):
        summary(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_beliefs_about_several_opponents_say_whom_they_are_about(kind: str, tmp_path: Path) -> None:
    run = getattr(run_folder, kind)(2, 4)
    run["posterior"] = run_folder.of_three(run["posterior"])
    run["metrics"] = run["metrics"].isel(agent=[0, 1, 1]).assign_coords(agent=[0, 1, 2])
    folder = run_folder.write(tmp_path / "run", **run)
    data = to_arviz(folder, "rommeo_q")
    for name, variable in {**PREDICTIONS, "posterior": "opponent_model", "prior": "opponent_prior"}.items():
        found = group(data, name)[variable if name in ("posterior", "prior") else "opponent_action"]
        assert {"agent", "other"} <= set(found.dims)
        own = found.isel(agent=1, other=1)
        assert own.isnull().all()
        assert found.isel(agent=1, other=2).notnull().all()
    table = summary(folder, "rommeo_q")
    pairs = table.index.droplevel([-1]).unique().tolist()
    assert pairs == [("rommeo_q", agent, other) for agent in range(3) for other in range(3) if agent != other]
    assert table.loc[("rommeo_q", 0, 1)].equals(table.loc[("rommeo_q", 0, 2)])
    assert write_comparison(read(folder), read(folder)) is not None


def test_unknown_learner_and_step(discrete: Path) -> None:
    with pytest.raises(InspectError, match="learner: got 'nobody', which was not recorded, expected one of rommeo_q"):
        summary(discrete, "nobody")
    with pytest.raises(InspectError, match=r"step: got 41, .* expected one of 1, 2, 3, \.\.\., 38, 39, 40"):
        to_arviz(discrete, step=41)
    with pytest.raises(InspectError, match="got wolf_phc without an opponent model, expected one of rommeo_q"):
        summary(discrete, "wolf_phc")
