"""What goes wrong in somebody else's environment is said in one line, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
import yaml

from inference_marl.cli import main
from inference_marl.play import simulate
from inference_marl.simulators import PettingZoo
from inference_marl.simulators.processes import Elsewhere
from tests.simulators import small
from tests.simulators.test_pettingzoo import actions_of, game, play

WALK = f"{small.HERE}.Walk"
STEP = "step 2 of its episode, agent walker_1: got "
FAULTS = {
    "nan observation": STEP + "an observation with nan in it, expected finite numbers",
    "infinite reward": STEP + "a reward of inf, expected a finite number",
    "nan reward": STEP + "a reward of nan, expected a finite number",
    "wrong shape": STEP + r"an observation of shape \(3,\) and type float64, expected numbers of shape \(2,\)",
    "wrong type": STEP + r"an observation of shape \(2,\) and type <U1, expected numbers of shape \(2,\)",
    "reward of words": STEP + "'much' as its reward, expected a number",
    "huge observation": STEP + r"an observation with 1e\+300 in it, expected numbers that single precision can hold",
    "huge reward": STEP + r"a reward of 1e\+300, expected one that single precision can hold",
    "end in words": STEP + "'no' as its end, expected true or false",
    "no reward": STEP + "no reward, expected one for every agent that acted",
    "no observation": STEP + "no observation, expected one for every agent that goes on",
    "no end": STEP + "no end, expected one for every agent that acted",
    "leaves": STEP + "an agent that leaves before the others, expected all to stay until the end; or say agents_leave",
    "vanishes": STEP + "an agent that is gone, expected it to be terminated or truncated before it leaves",
    "stranger": "step 2 of its episode, agent nobody: got an agent that appears from nowhere, expected one of possible",
    "agents": r"step \d of its episode: got TypeError \('NoneType' object is not iterable\), expected agents",
    "exception": r"step \d of its episode: got RuntimeError \(half\), expected a step",
}


def late(fault: str) -> dict[str, Any]:
    """Goes wrong later than environments are tried before a run, and only where they start on the right."""
    return {"fault": fault, "at": 5, "starts_only": True, "length": 6}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_before_a_run(fault: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(WALK)}, tried before a run, {FAULTS[fault]}") as error:
        game("Walk", {"fault": fault})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", ["nan observation", "wrong shape", "no observation", "exception"])
def test_a_fault_at_the_start_of_an_episode(fault: str) -> None:
    with pytest.raises(ValueError, match="step 0 of its episode"):
        game("Walk", {"fault": fault, "at": 0})


@pytest.mark.parametrize(("fault", "processes"), [*((fault, 0) for fault in FAULTS), ("exception", 2)])
def test_a_fault_names_environment_copy_agent_and_step(fault: str, processes: int) -> None:
    played = game("Walk", late(fault), processes=processes)
    message = FAULTS[fault].replace("step 2", "step 5")
    copy = r"copy \d+ \(replicate \d, environment \d\)"
    with closing(simulate(played, 3, 2, seed=1)) as simulator:
        simulator.reset()
        with pytest.raises(ValueError, match=rf"^{re.escape(WALK)}, {copy}, {message}") as error:
            play(simulator, played, range(6))
    assert "\n" not in str(error.value)


def children() -> set[int]:
    """Processes that this one has started and not seen off."""
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for path in listed for pid in path.read_text().split()}


def gone(pid: int, within: float = 10.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # of somebody else's
        time.sleep(0.02)
    return False


def fatal(fault: str, timeout: float = 60.0) -> tuple[str, float]:
    """What is said of an environment that ends or occupies its process, and how long that takes."""
    before = children()
    played = game("Walk", late(fault), processes=2, timeout=timeout)
    with closing(simulate(played, 2, 2, seed=1)) as simulator:
        simulator.reset()
        for step in range(4):
            simulator.step(actions_of(played, step, (2, 2)))
        began = time.monotonic()
        with pytest.raises(ValueError, match=f"^{re.escape(WALK)}, copy .+: got ") as error:
            simulator.step(actions_of(played, 4, (2, 2)))
        took = time.monotonic() - began
    assert children() == before
    assert "\n" not in str(error.value)
    return str(error.value), took


def test_a_process_that_dies() -> None:
    said, _ = fatal("dies")
    assert (
        "copy 0 (replicate 0, environment 0) to copy 1 (" in said or "copy 2 (replicate 1, environment 0) to " in said
    )
    assert said.endswith("got a process that ended by itself (exit status 3), expected one that plays on")


@pytest.mark.parametrize("processes", [0, 1])
def test_nobody_leaves_the_program(processes: int) -> None:
    with pytest.raises(ValueError, match=r"step 2 of its episode: got SystemExit \(enough\), expected a step"):
        game("Walk", {"fault": "leaves the program"}, processes=processes)


def test_a_process_that_hangs() -> None:
    said, took = fatal("hangs", timeout=0.5)
    assert "got no answer from its process within 0.5 seconds, expected one; give it more time (timeout)" in said
    assert took < 5


def test_an_environment_that_hangs_when_it_is_tried() -> None:
    before = children()
    with pytest.raises(ValueError, match=r"tried before a run: got no answer from its process within 1 seconds"):
        game("Walk", {"fault": "hangs"}, processes=1, timeout=0.1)
    assert children() == before


@pytest.mark.parametrize("how", ["fault", "closed"])
def test_what_an_environment_has_started_ends_with_it(how: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    late_fault = {"fault": "hangs", "at": 5, "length": 6, "closes": False} if how == "fault" else {}
    played = game("Parent", {"pids": str(pids), **late_fault}, processes=2, timeout=0.5)
    pids.unlink()  # of what was tried before, and closed or not
    with closing(simulate(played, 1, 2)) as simulator:
        simulator.reset()
        if how == "fault":
            with pytest.raises(ValueError, match="got no answer"):
                play(simulator, played, range(6))
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    assert all(gone(pid) for pid in started)


def test_processes_are_gone_when_a_simulator_is_closed_or_forgotten() -> None:
    before = children()
    played = game(processes=3)
    assert children() == before
    simulator = simulate(played, 2, 2)
    assert len(children() - before) == 3
    simulator.close()
    assert children() == before
    simulator.close()
    forgotten = simulate(played, 2, 2)
    assert len(children() - before) == 3
    del forgotten
    assert children() == before


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_processes_end_with_who_started_them(how: signal.Signals, tmp_path: Path) -> None:
    """Also while an environment is busy."""
    program = (
        "import sys, torch\n"
        "from inference_marl.play import simulate\n"
        "from inference_marl.simulators import PettingZoo\n"
        f"game = PettingZoo({WALK!r}, {late('hangs')!r}, processes=2)\n"
        "simulator = simulate(game, 4, 4, seed=1)\n"
        "simulator.reset()\n"
        "print(*[host._process.pid for host in simulator._hosts], flush=True)\n"
        "while True:\n"
        "    simulator.step([space.uniform(torch.float32, torch.device('cpu')).sample((4, 4)) "
        "for space in game.action_spaces])\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": root}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.3)
    process.send_signal(how)
    process.communicate()
    assert all(gone(pid) for pid in pids)


RUN = {
    "game": {"class_path": "PettingZoo", "init_args": {"env": WALK, "arguments": late("nan reward")}},
    "replicates": 2,
    "environments": 2,
    "steps": 12,
    "checkpoint_every": 4,
    "arms": {"a": "Stationary"},
}


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(RUN | changes))
    return path


@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_keeps_what_was_recorded_until_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], processes: int
) -> None:
    path = written(tmp_path)
    before = children()
    words = ["run", str(path), "--out", str(tmp_path), "--quiet", "--game.processes", str(processes)]
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"inference-marl: arms.a, step 5: {re.escape(WALK)}, copy \d \(replicate \d, environment \d\), step 5 of its "
        r"episode, agent walker_1: got a reward of nan, expected a finite number", line
    ), line  # fmt: skip
    metrics = xr.load_dataset(tmp_path / "own" / "metrics.nc", engine="h5netcdf")
    assert metrics.sizes["step"] == 4
    assert bool(metrics["reward"].notnull().all())
    assert "nan" in json.loads((tmp_path / "own" / "summary.json").read_text())["failed"]["a"]
    assert (tmp_path / "own" / "checkpoints").is_dir()
    assert children() == before


@pytest.mark.slow
def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    path = written(tmp_path, steps=100_000, game={
        "class_path": "PettingZoo", "init_args": {"env": f"{small.HERE}.Slow", "processes": 2}
    })  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "inference_marl", "run", str(path), "--out", str(tmp_path), "--quiet"],
        env=os.environ | {"PYTHONPATH": root},
        stderr=subprocess.PIPE,
        text=True,
    )
    log, until = tmp_path / "own" / "records" / "a.json", time.monotonic() + 60
    while not (log.exists() and json.loads(log.read_text())["said"].get("made", 0) > 0):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    pids = [int(pid) for pid in listed.stdout.split()]
    assert len(pids) >= 2
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert "interrupted; go on with: inference-marl resume" in error
    assert "Traceback" not in error
    assert all(gone(pid) for pid in pids)


def test_a_host_says_what_its_process_could_not_make() -> None:
    host = Elsewhere(game().plan.recipe._replace(path="nowhere.Env"), ["copy 0"])
    with pytest.raises(ValueError, match=r"^env: got nowhere\.Env, which cannot be imported"):
        host.hear()
    host.close(1.0)


def test_torch_is_not_imported_by_a_process_that_plays() -> None:
    program = "import sys; from inference_marl.simulators import processes; print({'torch', 'pyro'} & set(sys.modules))"
    root = str(Path(__file__).resolve().parents[2])
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "set()"
    assert torch.__version__
    assert PettingZoo.__doc__
