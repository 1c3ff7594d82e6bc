"""One process at a time works on a run, whichever host it is on."""

import json
import os
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from inference_marl.runs import execution
from inference_marl.runs import lease as leases
from inference_marl.runs.arm import Arm
from inference_marl.runs.errors import RunError
from inference_marl.runs.execution import execute
from inference_marl.runs.job import Job
from inference_marl.runs.lease import SILENCE, Lease, leased
from inference_marl.runs.run import resume
from tests.runs.small_runs import assert_same, climbing, cut_after, run


def left(folder: Path, content: Any, silent: float = 0.0) -> Path:
    """A lease that somebody else holds, last renewed `silent` seconds ago."""
    lock = folder / ".lock"
    lock.write_text(json.dumps(content))
    before = time.time() - silent
    os.utime(lock, (before, before))
    return lock


@pytest.mark.slow
def test_two_processes_do_not_work_on_one_run(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cut"
    cut_after(3, monkeypatch, climbing(), folder)
    assert not (folder / ".lock").exists()
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            mine = {"host": socket.gethostname(), "process": other.pid, "token": "theirs"}
            for content in (mine, ""):  # empty for a moment
                lock = left(folder, content)
                before = lock.read_text()
                with pytest.raises(RunError, match=r"cut: got a run that another process is at work on") as caught:
                    resume(folder, progress=False)
                assert str(lock) in str(caught.value)
                assert lock.read_text() == before
            assert f"process {other.pid} on this host" not in str(caught.value)
        finally:
            other.kill()
    left(folder, mine)  # whose process is gone now
    resume(folder, progress=False)
    assert_same(folder, whole)
    assert not (folder / ".lock").exists()


def test_another_host_is_believed_until_it_has_been_silent_for_long(tmp_path: Path) -> None:
    theirs = {"host": "elsewhere", "process": 1, "token": "theirs"}  # a number that is somebody's here as well
    left(tmp_path, theirs, SILENCE - 20)
    with (
        pytest.raises(RunError, match=r"process 1 on elsewhere, last heard of 28\d s ago; silent for 300 s it may be"),
        leased(tmp_path),
    ):
        pass
    left(tmp_path, theirs, SILENCE + 20)
    with leased(tmp_path) as lease:
        said = json.loads(lease.path.read_text())
        assert (said["host"], said["process"]) == (socket.gethostname(), os.getpid())
    assert not lease.path.exists()


def test_a_lease_of_this_process_counts_only_while_it_is_held(tmp_path: Path) -> None:
    """Numbers of processes come again: a container's first one is always 1."""
    left(tmp_path, {"host": socket.gethostname(), "process": os.getpid(), "token": "before"})
    with leased(tmp_path), pytest.raises(RunError, match="is at work on"), leased(tmp_path):
        pass
    with leased(tmp_path):
        pass


def test_who_was_taken_for_dead_notices_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a computer that slept: another host goes on meanwhile, and then nothing of its work is touched."""
    experiment, folder, advance = climbing(checkpoint_every=2, steps=6), tmp_path / "test", Arm.advance
    theirs = {"host": "elsewhere", "process": 1, "token": "theirs"}
    before: dict[Path, bytes] = {}

    def slept(arm: Arm) -> None:
        advance(arm)
        if arm.step == 3:
            left(folder, theirs)
            before.update({path: path.read_bytes() for path in folder.rglob("*") if path.is_file()})

    with monkeypatch.context() as patch:
        patch.setattr(Arm, "advance", slept)
        with pytest.raises(RunError, match=r"test: got a run that another process has taken over since"):
            run(experiment, tmp_path)
    assert before
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert json.loads((folder / ".lock").read_text()) == theirs, "what is another's is not taken away"


def test_whatever_a_job_writes_it_looks_at_its_lease_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noted(owner: Any, name: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **more: (done.append(name), original(*given, **more))[1])

    for owner, name in ((Lease, "check"), (execution.checkpoint, "write"), (Job, "say")):
        noted(owner, name)
    monkeypatch.setattr(execution, "LOG_EVERY", 0.0)
    with leased(tmp_path) as lease:
        rare = climbing(steps=4, checkpoint_every=2, record_every=4, beliefs_every=0, record_actions=False)
        assert execute(Job.of(rare, "a", tmp_path, lease)) is None
    written = [(before, now) for before, now in pairwise(done) if now != "check"]
    assert written.count(("check", "write")) == 2
    assert written.count(("check", "say")) >= 4
    assert {before for before, _ in written} == {"check"}


def test_a_lease_is_renewed_while_a_run_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_marl.runs.completion.RENEWAL", 0.01)
    times, advance, lock = [], Arm.advance, tmp_path / "test" / ".lock"

    def slow(arm: Arm) -> None:
        if lock.exists():
            os.utime(lock, (0, 0))
            deadline = time.monotonic() + 10
            while lock.stat().st_mtime == 0 and time.monotonic() < deadline:
                time.sleep(0.005)
            times.append(lock.stat().st_mtime)
        advance(arm)

    monkeypatch.setattr(Arm, "advance", slow)
    run(climbing(steps=2), tmp_path)
    assert len(times) == 4
    assert min(times) > time.time() - 60
    assert not lock.exists()


RACE = """
import sys, time
from pathlib import Path
from inference_marl.runs.errors import RunError
from inference_marl.runs.lease import leased

folder, number = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready-{number}").touch()
while not (folder / "go").exists():
    pass
try:
    with leased(folder):
        print("mine", flush=True)
        time.sleep(1)
except RunError:
    print("taken", flush=True)
"""


def test_of_many_that_find_an_abandoned_run_one_takes_it(tmp_path: Path) -> None:
    left(tmp_path, {"host": "elsewhere", "process": 1, "token": "theirs"}, SILENCE + 20)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    while len(list(tmp_path.glob("ready-*"))) < 4:
        assert all(racer.poll() is None for racer in racers)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    said = sorted(racer.communicate()[0].strip() for racer in racers)
    assert said == ["mine", "taken", "taken", "taken"]


def test_folders_that_cannot_be_locked_are_leased_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(leases.fcntl, "flock", refused)
    with leased(tmp_path) as lease:
        assert lease.is_held()
