"""Arms in processes of their own."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xarray as xr
from torch import Tensor

from inference_marl.experiment import Suite
from inference_marl.learners import Stationary
from inference_marl.models import (
    Uniform,
)
from inference_marl.runs import run as verbs
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.executors import Ended, _Worker
from inference_marl.runs.folder import begin
from inference_marl.runs.job import Job
from inference_marl.types import Actor, Learner, Trajectory
from tests.runs.small_runs import (
    REFUSING,
    ROOT,
    Breaking,
    assert_same,
    climbing,
    results,
    rommeo_q,
    run,
)


class _Leaving(Stationary, Learner):
    """Ends its process, unless that is the one the tests run in."""

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        if multiprocessing.parent_process() is not None:
            os._exit(3)
        return {}


@pytest.mark.slow
def test_arms_in_processes_end_as_they_do_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the other processes: one fails, one takes its process along, another run is sound."""
    monkeypatch.syspath_prepend(ROOT)  # where a process finds the classes of this file
    good = {"a": rommeo_q(), "b": rommeo_q(opponent_prior=Uniform())}
    arms = {"fails": rommeo_q(optimality=REFUSING), "leaves": _Leaving(), "breaks": Breaking(), **good}
    several = {"broken": climbing(arms=arms, replicates=20), "sound": climbing(steps=2)}
    with pytest.raises(ArmError) as caught:
        verbs.run(Suite(several), tmp_path, "processes", progress=False, jobs=2)
    assert str(caught.value).endswith("; 2 more failed: leaves, breaks")
    assert not multiprocessing.active_children()
    broken, sound = (tmp_path / "processes" / name for name in several)
    whole = run(climbing(arms=good, replicates=20), tmp_path, "turn")
    for mine, theirs in zip(results(broken)[:2], results(whole)[:2], strict=True):
        xr.testing.assert_identical(mine, theirs)
    assert_same(sound, run(climbing(steps=2), tmp_path, "sound"))
    failed = json.loads((broken / "summary.json").read_text())["failed"]
    assert failed["leaves"].startswith("arms.leaves: got a process that ended by itself (exit status 3), expected one")
    assert failed["breaks"] == "arms.breaks, step 1: RuntimeError: shapes cannot be multiplied"


@pytest.mark.parametrize(("status", "short"), [(-9, True), (1, False)])
def test_memory_is_suspected_only_where_a_process_was_ended_from_outside(
    status: int, short: bool, tmp_path: Path
) -> None:
    here, there = multiprocessing.Pipe()
    there.close()
    process: Any = SimpleNamespace(exitcode=status, join=lambda: None)
    heard = str(_Worker(process, here, Job.of(climbing(), "a", tmp_path)).hear())
    assert heard.startswith(f"arms.a: got a process that ended by itself (exit status {status}), expected one")
    assert ("memory" in heard) == short
    here.close()


def test_an_interrupt_ends_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inference_marl.runs.executors.wait", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"test$"):
        verbs.run(climbing(), tmp_path, "test", progress=False, jobs=2)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_interrupt_of_the_group_is_left_to_whoever_started_the_processes(tmp_path: Path) -> None:
    experiment = climbing()
    folder = begin(experiment, tmp_path, "test")
    worker = _Worker.start()
    try:
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGINT)  # while it still imports
        worker.give(Job.of(experiment, "a", folder))
        while not worker.connection.poll(0.02):
            os.kill(worker.process.pid, signal.SIGINT)
        assert worker.hear() is None
    finally:
        worker.end()


class _Elsewhere:
    """Plays jobs in processes that know nothing but the pickled job, as on another machine."""

    def submit(self, jobs: Sequence[Job]) -> Ended:
        for job in jobs:
            code = (
                "import pickle, sys; from inference_marl.runs.execution import execute; "
                "print(execute(pickle.load(sys.stdin.buffer)))"
            )
            done = subprocess.run(
                [sys.executable, "-c", code],
                input=pickle.dumps(job),
                capture_output=True,
                check=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
            said = done.stdout.decode().strip()
            yield job, None if said == "None" else said


@pytest.mark.slow
def test_jobs_are_played_by_whoever_is_given(tmp_path: Path) -> None:
    experiment = climbing(arms={"a": rommeo_q()}, steps=3)
    folder = verbs.run(experiment, tmp_path / "elsewhere", "test", progress=False, jobs=_Elsewhere())
    assert_same(folder, run(experiment, tmp_path))


def test_jobs_are_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^jobs: got 0, expected a positive integer"):
        verbs.run(climbing(), tmp_path, jobs=0)
    assert not list(tmp_path.iterdir())
