"""Arms that differ in numbers only: played as one job, which the results do not show."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from inference_marl.config.factors import ablation
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.inference.schedules import ExponentialDecay
from inference_marl.learners import Stationary
from inference_marl.runs.arm import Arm
from inference_marl.runs.errors import ArmError
from inference_marl.runs.run import resume, run_or_resume
from tests.runs.small_runs import RESULTS, assert_same, climbing, cut_after, dataset, rommeo_ac, rommeo_q, run

ANNEALED = ExponentialDecay(5.0, 0.1, 0.1)


def swept(**settings: Any) -> Experiment:
    """Three levels that are played as one, of the learner in the first seat."""
    arms = {"a": [rommeo_q(), Stationary(probabilities=[1, 2, 3])]}
    return ablation(climbing(arms=arms, **settings), {"0.temperature": [1.0, ANNEALED, 0.3]})


def test_what_was_played_as_one_job_is_what_is_played_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte, but for the last bits of what is computed with a number in double precision alone, as the ELBO."""
    experiment = swept()
    folder = run(experiment, tmp_path / "together")
    assert {path.stem for path in (folder / "checkpoints").iterdir()} == {f"{next(iter(experiment.arms))}+2"}
    monkeypatch.setattr("inference_marl.runs.job.together", _apart)
    alone = run(experiment, tmp_path / "alone")
    assert {path.stem for path in (alone / "checkpoints").iterdir()} == set(experiment.arms)
    for name in ("posterior.nc", "actions.nc"):
        assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
    mine, theirs = (dataset(each, "metrics.nc") for each in (folder, alone))
    xr.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    xr.testing.assert_identical(mine.drop_vars("elbo_gap"), theirs.drop_vars("elbo_gap"))
    tables = [json.loads((each / "summary.json").read_text()) for each in (folder, alone)]
    for table in ("results", "agents", "differences"):
        mine, theirs = ([row for row in each[table] if row["metric"] != "elbo_gap"] for each in tables)
        assert mine == theirs
    policies = dataset(folder, "posterior.nc")["policy"].isel(agent=0, step=-1)
    assert len(np.unique(policies.values.reshape(3, -1), axis=0)) == 3, "levels that were exchanged would be noticed"


def _apart(experiment: Experiment) -> Any:
    from inference_marl.config.together import Together

    return [Together((arm,), experiment) for arm in experiment.arms]


@pytest.mark.slow
def test_continuous_actions_and_draws_are_taken_apart_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the last bits of single precision: what is vectorised rounds otherwise at the end of a tensor."""
    plain = Experiment(
        MaxOfTwoQuadratics(horizon=4), {"a": rommeo_ac()}, replicates=2, steps=6, draws=3, record_every=2
    )
    experiment = ablation(plain, {"kl_weight": [1.0, 0.1]})
    folder = run(experiment, tmp_path / "together")
    assert [path.stem for path in (folder / "checkpoints").iterdir()] == ["kl_weight_1+1"]
    monkeypatch.setattr("inference_marl.runs.job.together", _apart)
    alone = run(experiment, tmp_path / "alone")
    for name in RESULTS:
        xr.testing.assert_allclose(*(dataset(each, name) for each in (folder, alone)), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_job_of_several_arms_goes_on_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = swept(checkpoint_every=2)
    whole = run(experiment, tmp_path / "whole")
    cut_after(3, monkeypatch, experiment, tmp_path / "test")
    advance, played = Arm.advance, []

    def counting(arm: Arm) -> None:
        played.append(arm.step + 1)
        advance(arm)

    monkeypatch.setattr(Arm, "advance", counting)
    resume(tmp_path / "test", progress=False)
    assert played == [3, 4, 5, 6]
    assert_same(tmp_path / "test", whole)


@pytest.mark.slow
def test_one_level_that_fails_does_not_lose_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arms are played again one by one, and end as if they had never been together."""
    arms = {"a": [rommeo_q(), Stationary(probabilities=[1, 0, 0])]}
    factors = {"heat": {"low": {}, "high": {"0.temperature": 0.3}}}
    experiment = ablation(climbing(arms=arms, replicates=2, steps=6), factors)
    advance, played = Arm.advance, []

    def failing(arm: Arm) -> None:
        played.append((arm.name, arm.experiment.replicates))
        temperature = arm.actors[0].temperature
        if arm.step == 2 and temperature != 1.0:
            raise RuntimeError("broken")
        advance(arm)

    monkeypatch.setattr(Arm, "advance", failing)
    for attempt in (lambda: run(experiment, tmp_path), lambda: resume(tmp_path / "test", progress=False)):
        played.clear()
        with pytest.raises(ArmError, match=r"^arms\.high, step 3: RuntimeError: broken$") as caught:
            attempt()
        assert caught.value.folder == tmp_path / "test"
        reward = dataset(tmp_path / "test", "metrics.nc")["reward"]
        assert reward.sel(learner="low").notnull().all()
        assert (
            reward.sel(learner="high").notnull().all(["replicate", "agent"]).values.tolist() == [True] * 2 + [False] * 4
        )
    assert ("low", 2) not in played, "what was done is not played again"
    monkeypatch.setattr(Arm, "advance", advance)
    assert run_or_resume(experiment, tmp_path, "test", progress=False) == (tmp_path / "test", False)
    assert dataset(tmp_path / "test", "metrics.nc")["learner"].values.tolist() == ["low", "high"]


def test_other_experiments_play_each_arm_by_itself(tmp_path: Path) -> None:
    """Arms that somebody has written one by one have the same random numbers, as the documentation says."""
    plain = Experiment(MatrixGame("climbing"), {"a": rommeo_q(), "b": rommeo_q(temperature=0.5)}, 2, 3)
    folder = run(plain, tmp_path)
    assert {path.stem for path in (folder / "checkpoints").iterdir()} == {"a", "b"}
