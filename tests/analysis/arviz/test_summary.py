from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from inference_marl.analysis.arviz import summary
from inference_marl.analysis.recorded import read
from tests import run_folder


def shortest(draws: np.ndarray) -> tuple[float, float]:
    """The narrowest interval that spans 95 % of the distances between sorted draws."""
    ordered = np.sort(draws.astype(np.float64))
    span = int(0.95 * len(ordered))
    at = np.argmin(ordered[span:] - ordered[: len(ordered) - span])
    return ordered[at], ordered[at + span]


def test_discrete_summary_is_over_replicates(discrete: Path) -> None:
    table, stored = summary(discrete), read(discrete).beliefs
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
        low, high = shortest(beliefs["opponent_model"].to_numpy())
        assert (row["hdi95_lb"], row["hdi95_ub"]) == (pytest.approx(low), pytest.approx(high))


def test_continuous_summary_says_whether_seeds_agree(tmp_path: Path) -> None:
    run = run_folder.continuous(8, 10, 40)
    rng = np.random.default_rng(0)
    draws = rng.normal(size=run["posterior"]["opponent_model"].shape)
    draws[:, :, :, 1] += np.where(np.arange(8) < 4, -3, 3)[None, :, None, None, None, None]
    run["posterior"]["opponent_model"] = (run["posterior"]["opponent_model"].dims, draws)
    table = summary(run_folder.write(tmp_path / "run", **run), "rommeo_q")
    assert table.index.names == ["learner", "agent", "opponent_dim"]
    assert table.columns.tolist() == ["mean", "sd", "hdi95_lb", "hdi95_ub", "sd_seeds", "prior", "truth"]
    for agent in (0, 1):
        here, row = draws[0, :, -1, agent, 0, :, 0], table.iloc[agent]
        assert row["mean"] == pytest.approx(here.mean())
        assert row["sd"] == pytest.approx(here.std(ddof=1))
        assert row["sd_seeds"] == pytest.approx(here.mean(1).std(ddof=1))
        assert (row["hdi95_lb"], row["hdi95_ub"]) == pytest.approx(shortest(here.ravel()))
    assert table["sd_seeds"].iloc[0] < 0.3 < 3 < table["sd_seeds"].iloc[1]


def test_summary_of_one_replicate_and_of_beliefs_that_do_not_vary(tmp_path: Path) -> None:
    run = run_folder.continuous(1, 5, 8)
    assert summary(run_folder.write(tmp_path / "one", **run))["sd_seeds"].isna().all()
    run = run_folder.continuous(3, 5, 8)
    run["posterior"]["opponent_model"] = run["posterior"]["opponent_model"] * 0 + 1
    table = summary(run_folder.write(tmp_path / "constant", **run), "rommeo_q")
    assert table["sd"].tolist() == table["sd_seeds"].tolist() == [0.0, 0.0]


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


def test_states_are_called_as_they_were_recorded(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)
    posterior = run["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    for names in (None, ["start", "after AA", "after AB"]):
        states = xr.concat([posterior] * 3, dim="state")
        run["posterior"] = states if names is None else states.assign_coords(state=names)
        folder = run_folder.write(tmp_path / str(names), **run)
        assert summary(folder).index.unique("state").tolist() == (names or [0, 1, 2])
