"""Scripts beside the experiment files: what they print is in the runs, and what they do not find they name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from inference_marl import read, run
from inference_marl.config.files import build

ROOT = Path(__file__).resolve().parents[1]
FILE = """
game:
  class_path: Guard
  init_args:
    populations:
      training: {class_path: UniformTypes, init_args: {low: -0.7, high: 0.7, count: 2}}
      interpolated: {class_path: UniformTypes, init_args: {low: -0.7, high: 0.7, count: 2}}
      extrapolated: {class_path: ShellTypes, init_args: {inner: 0.8, outer: 1.0, count: 2}}
replicates: 2
environments: 2
collect: 10
steps: 20
record_every: 20
beliefs_every: 0
tasks: {class_path: Tasks, init_args: {population: training}}
evaluation:
  interpolated:
    class_path: TrialEvaluation
    init_args:
      every: 20
      environments: 2
      after: [5]
      tasks: {class_path: Tasks, init_args: {population: interpolated, episodes: 6}}
  extrapolated:
    class_path: TrialEvaluation
    init_args:
      every: 20
      environments: 2
      after: [5]
      tasks: {class_path: Tasks, init_args: {population: extrapolated, episodes: 6}}
arms:
  nobody: [{class_path: Pearl, init_args: {context: null, hidden: [4]}}, Raiders]
  told: [{class_path: Pearl, init_args: {context: Told, hidden: [4]}}, Raiders]
"""


def script(name: str) -> ModuleType:
    """An experiment's script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the names that guard_opponents.yaml gives them, small."""
    found = tmp_path_factory.mktemp("guard_opponents")
    experiment = build(yaml.safe_load(FILE))
    for name in ("opponents_8", "opponents_32"):
        run(experiment.replace(seed=len(name)), found, name, progress=False)
    return found


def test_pairs_are_of_the_same_seeds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paired, name = script("paired"), "return_after_5_interpolated"
    monkeypatch.setattr(sys, "argv", ["paired.py", str(folder / "opponents_8"), "told"])
    paired.main()
    printed = capsys.readouterr().out
    values = read(folder / "opponents_8").metrics[name].isel(step=-1)
    gap = float((values.sel(learner="nobody") - values.sel(learner="told")).mean())
    assert f"interpolated nobody {gap:.3f}" in " ".join(printed.split())
    monkeypatch.setattr(sys, "argv", ["paired.py", str(folder / "opponents_8"), "nobdy"])
    with pytest.raises(SystemExit, match="arm: got nobdy, expected one of nobody, told"):
        paired.main()


def test_returns_by_number_of_training_opponents(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    opponents = script("guard_opponents")
    monkeypatch.setattr(sys, "argv", ["guard_opponents.py", str(folder)])
    opponents.main()
    printed = capsys.readouterr().out
    assert (folder / "figures" / "training_opponents.png").is_file()
    for count in (8, 32):
        values = read(folder / f"opponents_{count}").metrics["return_after_5_extrapolated"].isel(step=-1)
        assert f"{float(values.sel(learner='told').mean()):.2f} ±" in printed
    monkeypatch.setattr(sys, "argv", ["guard_opponents.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="got no run called opponents_8 or the like"):
        opponents.main()
