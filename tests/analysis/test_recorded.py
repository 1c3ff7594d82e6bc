"""Folders of finished runs, and folders that are none."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from inference_marl.analysis.recorded import read
from inference_marl.described import InspectError
from inference_marl.learners.variational import ELBO_PARTS
from inference_marl.statistics.metrics import SUCCESS_RATE
from inference_marl.types import Metric
from tests import run_folder


def test_what_has_been_read_is_not_read_again(tmp_path: Path) -> None:
    recorded = read(run_folder.write(tmp_path / "run", metrics=run_folder.discrete(2, 3)["metrics"]))
    assert read(recorded) is recorded
    assert recorded.title == "synthetic: MatrixGame(climbing), 2 replicates, at step 3"
    with pytest.raises(InspectError, match=r"run: got a run without posterior\.nc"):
        _ = recorded.beliefs


def test_older_files_are_given_declarations_and_todays_names(tmp_path: Path) -> None:
    run = run_folder.discrete(2, 3)["metrics"]
    bare = run.rename(success_rate="success").assign(tit_for_tat=run["joint_optimum_probability"])
    for values in bare.values():
        values.attrs = {}
    found = read(run_folder.write(tmp_path / "new", metrics=run))
    (tmp_path / "new" / "metrics.nc").unlink()
    bare.to_netcdf(tmp_path / "new" / "metrics.nc", engine="h5netcdf")
    older = read(tmp_path / "new")
    assert older.declared == found.declared | {"tit_for_tat": Metric("tit_for_tat", dims=())}
    assert (older.metric("success_rate"), older.metric("elbo")) == (SUCCESS_RATE, ELBO_PARTS[0])


def test_a_metric_is_found_by_its_name_or_that_of_a_single_agent(tmp_path: Path) -> None:
    own = Metric("score_2", "my score")
    data = {"reward": np.zeros((1, 2, 3, 2)), "score_2": np.zeros((1, 2, 3))}
    recorded = run_folder.recorded(tmp_path, metrics=run_folder.metrics_dataset(data, np.arange(3), declared=[own]))
    assert recorded.metric("reward_1") == recorded.metric("reward")
    assert recorded.metric("score_2") == own
    assert recorded.metric("nobody_knows") == Metric("nobody_knows")


def test_unfinished_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(InspectError, match="got no such folder"):
        read(tmp_path / "nothing")
    with pytest.raises(InspectError, match=r"without spec\.yaml, expected the folder of a run"):
        read(tmp_path)
    (tmp_path / "spec.yaml").write_text("steps: 1")
    with pytest.raises(InspectError, match=r"not finished.*inference-marl resume"):
        read(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "metrics.nc").write_text("rubbish")
    with pytest.raises(InspectError, match=r"metrics\.nc: got a file that cannot be read"):
        read(tmp_path)


def test_draws_of_several_opponents_side_by_side_are_taken_apart(tmp_path: Path) -> None:
    """As 0.1.0 recorded them."""
    draws = np.arange(12.0).reshape(1, 1, 1, 1, 4, 3)
    model = np.concatenate([draws, draws + 100, draws + 200], axis=2)
    policy = np.full((1, 1, 3, 1, 4, 2), math.nan)
    policy[..., 0] = 0.0
    policy[:, :, 1] = 0.0  # agent 1 has two dimensions, the others one
    posterior = run_folder.beliefs("continuous", opponent_model=model, policy=policy)
    posterior["optimal_action"] = (("agent", "action_dim"), [[1.0, math.nan], [2.0, 3.0], [4.0, math.nan]])
    posterior["optimal_opponent_action"] = (("agent", "opponent_dim"), np.zeros((3, 3)))
    posterior = posterior.assign_coords(learner=["rommeo_q"])
    metrics = run_folder.discrete(1, 1)["metrics"].isel(learner=[0])
    found = read(run_folder.write(tmp_path / "run", metrics=metrics, posterior=posterior)).beliefs
    believed = found["opponent_model"].squeeze()
    assert believed.dims == ("agent", "other", "draw", "opponent_dim")
    np.testing.assert_array_equal(believed[0, 1], draws[0, 0, 0, 0, :, :2])
    np.testing.assert_array_equal(believed[0, 2, :, 0], draws[0, 0, 0, 0, :, 2])
    np.testing.assert_array_equal(believed[2, 1], 200 + draws[0, 0, 0, 0, :, 1:])
    assert believed[0, 0].isnull().all()
    assert believed[0, 2, :, 1].isnull().all()
    np.testing.assert_array_equal(found["optimal_opponent_action"][0], posterior["optimal_action"])
