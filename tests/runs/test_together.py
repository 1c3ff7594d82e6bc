"""Arms that differ in numbers only: played as one job, and taken apart in what was recorded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from inference_marl.config.factors import ablation
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.inference.schedules import ByReplicate, ExponentialDecay
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


def test_each_level_has_what_its_replicates_recorded(tmp_path: Path) -> None:
    experiment = swept()
    first, *_ = arms = list(experiment.arms)
    folder = run(experiment, tmp_path)
    # The same by hand: one arm with the replicates of all three.
    numbers = ByReplicate([1.0, ANNEALED, 0.3])
    by_hand = climbing(arms={"all": [rommeo_q(temperature=numbers), Stationary(probabilities=[1, 2, 3])]}, replicates=9)
    other = run(by_hand, tmp_path, "by_hand")
    for name in RESULTS:
        mine, theirs = (dataset(each, name).drop_attrs() for each in (folder, other))
        for number, arm in enumerate(arms):
            here = theirs.isel(replicate=slice(3 * number, 3 * number + 3), learner=0, drop=True)
            found = mine.sel(learner=arm, drop=True).drop_vars("replicate", errors="ignore")
            xr.testing.assert_identical(found, here.drop_vars("replicate", errors="ignore"))
    policies = dataset(folder, "posterior.nc")["policy"].isel(agent=0, step=-1)
    assert not np.allclose(policies.sel(learner=first), policies.sel(learner=arms[2]))


def test_tables_and_files_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the numbers drawn: names, shapes, attributes and rows are those of arms that were played alone."""
    experiment = swept()
    folder = run(experiment, tmp_path, "together")
    played = {path.stem for path in (folder / "checkpoints").iterdir()}
    assert played == {f"{next(iter(experiment.arms))}+2"}
    monkeypatch.setattr("inference_marl.runs.completion.together", _apart)
    alone = run(experiment, tmp_path, "alone")
    assert {path.stem for path in (alone / "checkpoints").iterdir()} == set(experiment.arms)
    for name in RESULTS:
        mine, theirs = (dataset(each, name) for each in (folder, alone))
        assert mine.sizes == theirs.sizes
        assert {key: value.dtype for key, value in mine.variables.items()} == {
            key: value.dtype for key, value in theirs.variables.items()
        }
        assert mine.attrs.keys() == theirs.attrs.keys()
        for coordinate in mine.coords:
            xr.testing.assert_identical(mine[coordinate], theirs[coordinate])
    mine, theirs = (json.loads((each / "summary.json").read_text()) for each in (folder, alone))
    assert mine.keys() == theirs.keys()
    for table in ("results", "agents", "differences"):
        rows = [
            [{key: value for key, value in row.items() if key not in ("mean", "low", "high")} for row in each[table]]
            for each in (mine, theirs)
        ]
        assert rows[0] == rows[1]


def _apart(experiment: Experiment) -> Any:
    from inference_marl.config.together import Together

    return [Together((arm,), experiment) for arm in experiment.arms]


def test_continuous_actions_and_draws_are_taken_apart_too(tmp_path: Path) -> None:
    game = MaxOfTwoQuadratics(horizon=4)
    plain = Experiment(game, {"a": rommeo_ac()}, replicates=2, steps=6, draws=2, record_every=2)
    folder = run(ablation(plain, {"kl_weight": [1.0, 0.1]}), tmp_path)
    by_hand = plain.replace(arms={"a": rommeo_ac(kl_weight=ByReplicate([1.0, 0.1]))}, replicates=4)
    other = run(by_hand, tmp_path, "by_hand")
    for name in RESULTS:
        mine, theirs = (dataset(each, name) for each in (folder, other))
        for key, values in mine.data_vars.items():
            if "replicate" in values.dims:
                expected = theirs[key].isel(learner=0)
                levels = [values.isel(learner=0), values.isel(learner=1)]
                stacked = np.concatenate(levels, levels[0].dims.index("replicate"))
                np.testing.assert_array_equal(stacked, expected)


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
        assert dataset(tmp_path / "test", "metrics.nc")["learner"].values.tolist() == ["low"]
    assert ("low", 2) not in played, "what was done is not played again"
    monkeypatch.setattr(Arm, "advance", advance)
    assert run_or_resume(experiment, tmp_path, "test", progress=False) == (tmp_path / "test", False)
    assert dataset(tmp_path / "test", "metrics.nc")["learner"].values.tolist() == ["low", "high"]


def test_other_experiments_play_each_arm_by_itself(tmp_path: Path) -> None:
    """Arms that somebody has written one by one have the same random numbers, as the documentation says."""
    plain = Experiment(MatrixGame("climbing"), {"a": rommeo_q(), "b": rommeo_q(temperature=0.5)}, 2, 3)
    folder = run(plain, tmp_path)
    assert {path.stem for path in (folder / "checkpoints").iterdir()} == {"a", "b"}
