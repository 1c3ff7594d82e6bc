from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from inference_marl.analysis import arviz
from inference_marl.analysis.arviz import SEEDS_AGREE, load, summary, to_arviz
from inference_marl.analysis.recorded import read
from inference_marl.described import InspectError
from tests import run_folder


@pytest.fixture(scope="module")
def discrete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder.write(tmp_path_factory.mktemp("runs") / "discrete", **run_folder.discrete())


@pytest.fixture(scope="module")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder.write(tmp_path_factory.mktemp("runs") / "continuous", **run_folder.continuous())


def test_heavy_packages_are_imported_only_when_needed() -> None:
    program = "import inference_marl.analysis.report.text, sys; print({'arviz', 'matplotlib'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_groups_keep_the_stored_dims(discrete: Path, continuous: Path) -> None:
    for run, name in [(discrete, "opponent_action_probability"), (continuous, "opponent_action")]:
        tree, stored = load(run), read(run).posterior
        assert stored is not None
        groups = {"posterior": "opponent_model", "prior": "opponent_prior", "observed_data": "opponent_policy"}
        assert set(tree.children) == {*groups, "sample_stats", "constant_data"}
        for group, variable in groups.items():
            xr.testing.assert_equal(tree[group][name].variable, stored[variable].variable)
        assert "replicate" in tree["posterior"].dims
        assert {"elbo", "elbo_reward", "elbo_entropy", "elbo_kl"} <= set(tree["sample_stats"].data_vars)
        assert tree.attrs["kind"] == stored.attrs["kind"]
        assert tree.attrs["game"]


def group(data: Any, name: str) -> xr.Dataset:
    """A group of an InferenceData (ArviZ 0.23) or a DataTree (1.x)."""
    found = data[name]
    return found if isinstance(found, xr.Dataset) else found.to_dataset()


def test_discrete_for_arviz(discrete: Path) -> None:
    data, stored = to_arviz(discrete, "rommeo_q", step=7), read(discrete).posterior
    assert stored is not None
    found = group(data, "posterior")["opponent_action_probability"]
    assert found.dims == ("chain", "draw", "agent", "opponent_action")
    assert found.sizes["chain"] == 1
    expected = stored["opponent_model"].sel(learner="rommeo_q", step=7).isel(state=0)
    assert (found[0].to_numpy() == expected.to_numpy()).all()
    assert group(data, "observed_data")["opponent_action_probability"].dims[0] == "replicate"
    assert group(data, "sample_stats")["elbo"].dims == ("chain", "draw", "agent")


def test_continuous_for_arviz(continuous: Path) -> None:
    data = to_arviz(continuous)
    found = group(data, "posterior")
    assert found["opponent_action"].dims == ("chain", "draw", "agent", "opponent_dim")
    assert found["opponent_action"].notnull().all()  # the learner that has an opponent model
    assert (found.sizes["chain"], found.sizes["draw"]) == (6, 8)
    assert group(data, "prior")["opponent_action"].dims == found["opponent_action"].dims


def test_discrete_summary_is_over_replicates(discrete: Path) -> None:
    table, stored = summary(discrete), read(discrete).posterior
    assert stored is not None
    assert table.columns.tolist() == ["mean", "sd", "hdi95_lb", "hdi95_ub", "prior", "truth"]
    assert table.index.names == ["learner", "agent", "opponent_action"]
    assert table.index.unique("learner").tolist() == ["rommeo_q", "rommeo_q_emp", "jal"]
    final = stored.isel(step=-1, state=0)
    for (learner, agent, action), row in table.iterrows():
        beliefs = final.sel(learner=learner, opponent_action=action).isel(agent=agent)
        assert row["mean"] == pytest.approx(float(beliefs["opponent_model"].mean()), rel=1e-5)
        assert row["sd"] == pytest.approx(float(beliefs["opponent_model"].std(ddof=1)), rel=1e-4)
        assert row["prior"] == pytest.approx(float(beliefs["opponent_prior"].mean()), rel=1e-5)
        assert row["truth"] == pytest.approx(float(beliefs["opponent_policy"].mean()), rel=1e-5)
        assert row["hdi95_lb"] <= row["hdi95_ub"]


def test_continuous_summary_says_whether_seeds_agree(tmp_path: Path) -> None:
    run = run_folder.continuous(8, 10, 40)
    rng = np.random.default_rng(0)
    draws = rng.normal(size=run["posterior"]["opponent_model"].shape)
    draws[:, :, :, 1] += np.where(np.arange(8) < 4, -3, 3)[None, :, None, None, None, None]
    run["posterior"]["opponent_model"] = (run["posterior"]["opponent_model"].dims, draws)
    table = summary(run_folder.write(tmp_path / "run", **run), "rommeo_q")
    assert table.index.names == ["learner", "agent", "opponent_dim"]
    assert table.columns.tolist() == ["mean", "sd", "hdi95_lb", "hdi95_ub", SEEDS_AGREE, "prior", "truth"]
    assert table[SEEDS_AGREE].iloc[0] < 1.05
    assert table[SEEDS_AGREE].iloc[1] > 1.5
    assert table["mean"].iloc[0] == pytest.approx(float(draws[0, :, -1, 0].mean()))


def test_summary_of_one_replicate_and_of_beliefs_that_do_not_vary(tmp_path: Path) -> None:
    run = run_folder.continuous(1, 5, 8)
    assert summary(run_folder.write(tmp_path / "one", **run))[SEEDS_AGREE].isna().all()
    run = run_folder.continuous(3, 5, 8)
    run["posterior"]["opponent_model"] = run["posterior"]["opponent_model"] * 0 + 1
    table = summary(run_folder.write(tmp_path / "constant", **run), "rommeo_q")
    assert table["sd"].tolist() == [0.0, 0.0]


def test_summary_of_several_states_and_padded_actions(tmp_path: Path) -> None:
    run = run_folder.discrete(4, 6)
    beliefs = run["posterior"]
    # Agent 1's opponents have two actions, and there are two states.
    padded = beliefs.where((beliefs["agent"] == 0) | (beliefs["opponent_action"] != "C"))
    padded = padded.drop_vars(["optimal_action", "optimal_opponent_action"])
    run["posterior"] = xr.concat([padded, padded], dim="state")
    table = summary(run_folder.write(tmp_path / "run", **run), "rommeo_q")
    assert table.index.names == ["learner", "agent", "state", "opponent_action"]
    assert [key[1:] for key in table.index] == [
        *[(0, state, action) for state in (0, 1) for action in "ABC"],
        *[(1, state, action) for state in (0, 1) for action in "AB"],
    ]
    assert table.xs(0, level="agent")["mean"].sum() == pytest.approx(2.0, rel=1e-5)


def test_run_without_beliefs(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 4)
    folder = run_folder.write(tmp_path / "run", metrics=run["metrics"])
    assert read(folder).posterior is None
    for look in (load, to_arviz, summary):
        with pytest.raises(InspectError, match=r"got a run without posterior\.nc"):
            look(folder)


def test_run_without_opponent_models(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 4)
    run["posterior"] = run["posterior"].drop_vars(["opponent_model", "opponent_prior"])
    folder = run_folder.write(tmp_path / "run", **run)
    assert set(load(folder)["posterior"].data_vars) == {"action_probability"}
    with pytest.raises(InspectError, match="none in this run has one"):
        summary(folder)


def test_unknown_learner_and_step(discrete: Path) -> None:
    with pytest.raises(InspectError, match="learner: got 'nobody', which was not recorded, expected one of rommeo_q"):
        summary(discrete, "nobody")
    with pytest.raises(InspectError, match=r"step: got 41, .* expected one of 1, 2, 3, \.\.\., 38, 39, 40"):
        to_arviz(discrete, step=41)
    with pytest.raises(InspectError, match="got wolf_phc without an opponent model, expected one of: rommeo_q"):
        summary(discrete, "wolf_phc")


@pytest.mark.parametrize(("version", "old"), [("0.23.4", True), ("1.0.0", False), ("1.3.0rc1", False)])
def test_arviz_version_is_read_not_guessed(version: str, old: bool) -> None:
    assert arviz._before_1(SimpleNamespace(__version__=version)) is old


def test_predictive_draws_follow_the_beliefs(discrete: Path) -> None:
    data, stored = to_arviz(discrete, "rommeo_q", step=7), read(discrete).posterior
    assert stored is not None
    for name, belief in {"posterior_predictive": "opponent_model", "prior_predictive": "opponent_prior"}.items():
        drawn = group(data, name)["opponent_action_drawn"]
        assert drawn.dims == ("chain", "draw", "agent")
        assert (drawn.sizes["chain"], drawn.sizes["draw"]) == (8, 100)
        expected = stored[belief].sel(learner="rommeo_q", step=7).isel(state=0).mean("replicate")
        for action in range(3):
            share, probability = float((drawn == action).mean()), float(expected.isel(opponent_action=action).mean())
            # 1600 draws: 5 standard errors, so this fails with probability below 1e-6 if the law holds.
            assert abs(share - probability) < 5 * np.sqrt(0.25 / 1600)
    again = group(to_arviz(discrete, "rommeo_q", step=7), "posterior_predictive")
    xr.testing.assert_equal(again, group(data, "posterior_predictive"))
    observed = group(data, "observed_data")["opponent_action_drawn"]
    assert observed.dims == ("replicate", "agent")
    assert set(np.unique(observed)) <= {0, 1, 2}


def test_predictive_draws_of_continuous_beliefs_are_those_recorded(continuous: Path) -> None:
    data = to_arviz(continuous)
    for predicted, belief in {"posterior_predictive": "posterior", "prior_predictive": "prior"}.items():
        xr.testing.assert_equal(group(data, predicted)["opponent_action"], group(data, belief)["opponent_action"])


def test_agents_without_beliefs_predict_nothing(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    run["posterior"]["opponent_model"][:, :, :, 1] = np.nan
    data = to_arviz(run_folder.write(tmp_path / "run", **run), "rommeo_q")
    drawn = group(data, "posterior_predictive")["opponent_action_drawn"]
    assert (drawn.isel(agent=1) == -1).all()
    assert (drawn.isel(agent=0) >= 0).all()


def test_states_are_called_as_they_were_recorded(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    posterior = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    for names in (None, ["start", "after AA", "after AB"]):
        states = xr.concat([posterior] * 3, dim="state")
        run["posterior"] = states if names is None else states.assign_coords(state=names)
        folder = run_folder.write(tmp_path / str(names), **run)
        assert summary(folder).index.unique("state").tolist() == (names or [0, 1, 2])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_round_trip_through_arviz(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    az = pytest.importorskip("arviz")
    if int(az.__version__.split(".")[0]) >= 1:
        pytest.skip("ArviZ 1.x has other plots")
    import matplotlib.pyplot as plt

    data = to_arviz(request.getfixturevalue(kind))
    data.to_netcdf(tmp_path / "data.nc")
    back = az.from_netcdf(tmp_path / "data.nc")
    assert set(back.groups()) == set(data.groups())
    assert len(az.summary(back)) > 0
    name = "opponent_action_probability" if kind == "discrete" else "opponent_action"
    az.plot_forest(back, var_names=[name])
    az.plot_posterior(back, var_names=[name])
    if kind == "discrete":
        az.plot_ppc(back, var_names=["opponent_action_drawn"])
        assert set(group(back, "observed_data").data_vars) == {name, "opponent_action_drawn"}
    plt.close("all")
