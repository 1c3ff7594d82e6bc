"""Processes that are really killed, and what is left of them."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from inference_marl.config.files import load
from inference_marl.runs.run import resume, run_or_resume
from tests.runs.small_runs import ROOT, assert_same, run, without_partial_files

KILLED = {
    "rommeo_q": """
game: {class_path: MatrixGame, init_args: {payoff: climbing, horizon: null, memory: 1}}
replicates: 4
steps: 450
record_every: 3
checkpoint_every: 20
arms:
  a:
    class_path: Rommeo
    init_args:
      opponent_prior: {class_path: EmpiricalFrequency, init_args: {window: 50}}
      guide: {class_path: OpponentFirst, init_args: {opponent_model: Optimal, policy: Optimal}}
      critic: {class_path: TabularCritic, init_args: {rate: 0.2}}
""",
    "rommeo_ac": """
game: {class_path: MaxOfTwoQuadratics, init_args: {horizon: 7}}
replicates: 2
steps: 80
record_every: 10
checkpoint_every: 4
draws: 4
arms:
  a:
    class_path: Rommeo
    init_args:
      opponent_prior:
        class_path: Amortised
        init_args: {conditional: {class_path: TanhNormalNetwork, init_args: {hidden: [8]}}, window: 30, batch_size: 8}
      guide:
        class_path: OpponentFirst
        init_args:
          opponent_model: {class_path: TanhNormalNetwork, init_args: {hidden: [8]}}
          policy: {class_path: TanhNormalNetwork, init_args: {hidden: [8]}}
      critic: {class_path: NetworkCritic, init_args: {hidden: [8]}}
      replay: 40
      batch_size: 8
      warmup: 10
""",
    "maddpg": """
game: {class_path: Spread, init_args: {agents: 2, horizon: 5}}
replicates: 2
environments: 2
steps: 200
record_every: 5
checkpoint_every: 5
collect: 5
arms:
  a: {class_path: Maddpg, init_args: {hidden: [8], replay: 60, batch_size: 8, warmup: 5}}
""",
}


def kill_after_the_next_checkpoint(command: list[str], folder: Path, moment: float) -> None:
    """Start the command line, wait until it writes a checkpoint, and kill it `moment` seconds later."""
    checkpoint = folder / "checkpoints" / "a.pt"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "inference_marl", *command, "--quiet"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moment)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed: make it longer"


@pytest.mark.parametrize(
    ("name", "kills", "changes"),
    [
        # Killed at once, and soon at its end: enough to see that what is left can be gone on with.
        ("rommeo_q", 1, {"steps": 90, "checkpoint_every": 5, "replicates": 2}),
        pytest.param("rommeo_q", 6, {"steps": 1200}, marks=pytest.mark.slow),
        pytest.param("rommeo_ac", 5, {"steps": 200}, marks=pytest.mark.slow),
        pytest.param("maddpg", 5, {"steps": 600}, marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_resumes_to_the_unbroken_result(
    name: str, kills: int, changes: dict[str, int], tmp_path: Path
) -> None:
    config = yaml.safe_load(KILLED[name]) | changes
    spec, folder = tmp_path / f"{name}.yaml", tmp_path / "runs" / name
    spec.write_text(yaml.safe_dump(config))
    moments, reached = random.Random(name), 0
    for kill in range(kills):
        command = ["resume", str(folder)] if kill else ["run", str(spec), "--out", str(tmp_path / "runs")]
        kill_after_the_next_checkpoint(command, folder, 0 if kills == 1 else moments.uniform(0, 0.15))
        assert not (folder / "summary.json").exists()
        before, reached = reached, torch.load(folder / "checkpoints" / "a.pt", weights_only=True)["step"]
        assert before < reached < config["steps"]
    resume(folder, progress=False)
    assert_same(folder, run(load(spec), tmp_path / "unbroken", name))
    assert without_partial_files(folder)


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_killed_ablation_leaves_no_process_and_goes_on_in_its_folder(tmp_path: Path) -> None:
    """Two jobs at once, killed four times."""
    config = yaml.safe_load(KILLED["rommeo_q"])
    windows = [2, 5, 10, 20]
    config |= {"steps": 600, "checkpoint_every": 10, "factors": {"opponent_prior.window": windows}}
    spec, folder = tmp_path / "killed.yaml", tmp_path / "runs" / "killed"
    spec.write_text(yaml.safe_dump(config))
    command = ["ablate", str(spec), "--out", str(tmp_path / "runs"), "--jobs", "2", "--quiet"]
    moments = random.Random("ablation")
    for _ in range(4):
        known = {path: path.stat().st_mtime_ns for path in folder.glob("checkpoints/*.pt")}
        process = subprocess.Popen(
            [sys.executable, "-m", "inference_marl", *command],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 120
        while {path: path.stat().st_mtime_ns for path in folder.glob("checkpoints/*.pt")} == known:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.3))
        workers = children(process.pid)
        process.kill()
        while any(map(is_running, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.communicate()[1] == b""
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "summary.json").exists(), "the run ended before it could be killed: make it longer"
    experiment = load(spec)
    assert run_or_resume(experiment, tmp_path / "runs", "killed", progress=False) == (folder, False)
    assert_same(folder, run(experiment, tmp_path, "whole"))
    assert without_partial_files(folder)
