"""Runs that were cut off, failed or are finished, and what going on with them does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from inference_marl.config.factors import ablation
from inference_marl.config.files import dump, load
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, Rendezvous, RiskyBridge
from inference_marl.guides import OpponentFirst, Tabular, TrajectoryGuide
from inference_marl.learners import Planner, Stationary
from inference_marl.learners.lola import Lola, NaiveGradient
from inference_marl.learners.tabular import WoLFPHC
from inference_marl.models import (
    BayesianCritic,
    DirichletTransition,
    EmpiricalFrequency,
    HierarchicalDirichlet,
    TabularCritic,
)
from inference_marl.runs.arm import Arm
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.run import resume, run_or_resume
from tests.runs.small_runs import (
    REFUSING,
    Alternating,
    assert_same,
    climbing,
    complete,
    cut_after,
    results,
    rommeo_ac,
    rommeo_q,
    run,
    without_partial_files,
)

BEGUN = {"SHA256SUMS", "spec.yaml"}
"""What a run's folder has before anything is played."""

RESUMABLE: dict[str, Callable[[], Experiment]] = {
    "rommeo_q": lambda: climbing(checkpoint_every=2),
    "svi": lambda: climbing(
        arms={"a": rommeo_q(opponent_prior=EmpiricalFrequency(3, 0.1), guide=OpponentFirst(Tabular(), Tabular()))},
        steps=12,
        checkpoint_every=3,
    ),
    "memory": lambda: Experiment(
        MatrixGame("stag_hunt", horizon=5, memory=1),
        {"a": rommeo_q(critic=TabularCritic(target_rate=0.3)), "b": Stationary()},
        replicates=2,
        environments=3,
        steps=8,
        record_every=2,
        checkpoint_every=3,
    ),
    "rommeo_ac": lambda: Experiment(
        MaxOfTwoQuadratics(horizon=4),
        {"a": rommeo_ac()},
        replicates=2,
        steps=12,
        record_every=2,
        draws=2,
        checkpoint_every=5,
    ),
    "cut between episodes": lambda: Experiment(  # which begin at random places
        Rendezvous(horizon=3),
        {"a": rommeo_ac()},
        replicates=2,
        environments=2,
        steps=12,
        record_every=2,
        draws=2,
        checkpoint_every=3,
    ),
    "planner": lambda: Experiment(
        RiskyBridge(),
        {
            "a": Planner(
                opponent_prior=HierarchicalDirichlet(window=4, steps=1, particles=2),
                reward=TabularCritic(initial=0.0, rate=1.0),
                transition=DirichletTransition(0.1),
                guide=TrajectoryGuide(Tabular(), Tabular()),
                horizon=2,
                replay=9,
                batch_size=4,
            )
        },
        replicates=2,
        steps=12,
        record_every=4,
        checkpoint_every=3,
    ),
    "peers": lambda: Experiment(
        MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.9),
        {"a": [Lola(), NaiveGradient()], "b": [Lola(gradients="autograd"), WoLFPHC()]},
        replicates=2,
        steps=12,
        record_every=4,
        checkpoint_every=3,
    ),
    "remembering": lambda: Experiment(
        MatrixGame("chicken", horizon=5),
        {"a": [Alternating(), rommeo_q(critic=BayesianCritic([4]), replay=9, batch_size=4)]},
        replicates=2,
        environments=3,
        steps=12,
        checkpoint_every=3,
    ),
}


@pytest.mark.parametrize("steps", [4, pytest.param(11, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name in ("svi", "peers", "rommeo_ac", "planner", "memory", "cut between episodes")
        else name
        for name in RESUMABLE
    ],
)
def test_a_run_cut_anywhere_and_resumed_is_the_unbroken_run(
    name: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(RESUMABLE[name](), tmp_path, "run")
    folder = tmp_path / "cut" / "run"
    cut_after(steps, monkeypatch, RESUMABLE[name](), folder)
    assert not (folder / "summary.json").exists()
    assert resume(folder, progress=False) == folder
    assert_same(folder, whole)


def test_a_run_may_be_cut_again_and_again(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cut"
    for _ in range(4):
        cut_after(2, monkeypatch, climbing(checkpoint_every=1), folder)
    resume(folder, progress=False)
    assert_same(folder, whole)


def test_resuming_a_finished_run_changes_nothing(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert resume(finished, progress=False) == finished
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_results_missing_though_every_arm_is_done_are_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump(climbing()))

    def no_room(*args: object, **options: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "dump_to_store", no_room)
        with pytest.raises(OSError, match="no space left"):
            complete(climbing(), folder)
    assert {path.name for path in folder.iterdir()} == {"spec.yaml", "checkpoints", "records"}
    resume(folder, progress=False)
    assert_same(folder, whole)


def test_a_failed_arm_does_not_lose_the_others_and_is_tried_again(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"replicates": 20, "checkpoint_every": 2}
    arms = {"bad": rommeo_q(optimality=REFUSING), "good": rommeo_q(), "worse": rommeo_q(optimality=REFUSING)}
    tries = [
        lambda: run(climbing(arms=arms, **settings), tmp_path),
        lambda: resume(tmp_path / "test", progress=False),
    ]
    for attempt in tries:
        with pytest.raises(ArmError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith("arms.bad, step ")
        assert message.endswith("; 1 more failed: worse")
        assert "\n" not in message
        assert caught.value.folder == tmp_path / "test"
        metrics, _, summary = results(tmp_path / "test")
        assert metrics["learner"].values.tolist() == ["good"]
        assert set(summary["failed"]) == {"bad", "worse"}
        assert summary["failed"]["bad"].startswith("arms.bad, step ")
        assert {row["learner"] for row in summary["results"]} == {"good"}
        assert (tmp_path / "test" / "records" / "good").is_dir(), "what a later table needs is not thrown away"
    # What made them fail is mended, and the arm that was done is not played again.
    mended = [(f"arms.{name}.optimality.upper", 50.0) for name in ("bad", "worse")]
    for name in ("bad", "worse"):
        (tmp_path / "test" / "checkpoints" / f"{name}.pt").unlink(missing_ok=True)
    resume(tmp_path / "test", progress=False, overrides=mended)
    assert_same(tmp_path / "test", run(load(tmp_path / "test" / "spec.yaml"), tmp_path, "whole"))
    assert json.loads((tmp_path / "test" / "summary.json").read_text())["failed"] == {}


def test_if_every_arm_fails_there_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(ArmError) as caught:
        run(climbing(arms={"bad": rommeo_q(optimality=REFUSING)}, replicates=20), tmp_path)
    assert caught.value.folder is None
    assert {path.name for path in (tmp_path / "test").iterdir()} <= {*BEGUN, "checkpoints", "records"}


@pytest.mark.slow
def test_starting_again_after_a_cut_plays_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = {"opponent_prior.window": [5, 4, 3]}
    experiment = ablation(climbing(arms={"a": rommeo_q()}, checkpoint_every=2), factors)
    whole = run(experiment, tmp_path, "whole")
    cut_after(9, monkeypatch, experiment, tmp_path / "test")  # in the middle of the second of three arms of 6 steps
    advance, played = Arm.advance, []

    def counting(arm: Arm) -> None:
        played.append((arm.name, arm.step + 1))
        advance(arm)

    monkeypatch.setattr(Arm, "advance", counting)
    assert run_or_resume(experiment, tmp_path, "test", progress=False) == (tmp_path / "test", False)
    assert played == [("window_4", step) for step in range(3, 7)] + [("window_3", step) for step in range(1, 7)]
    assert_same(tmp_path / "test", whole)


def test_a_finished_run_without_its_summary_is_not_played_again(finished: Path) -> None:
    (finished / "summary.json").unlink()
    with pytest.raises(RunError, match=r"summary.json: got no file, where one was written \(SHA256SUMS has"):
        resume(finished, progress=False)


def test_what_a_kill_left_beside_a_checkpoint_does_not_matter(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    (folder / "checkpoints" / ".a.pt.partial").write_bytes(b"half a che")
    (folder / ".metrics.nc.partial").write_bytes(b"half")
    resume(folder, progress=False)
    assert_same(folder, whole)
    assert without_partial_files(folder)
