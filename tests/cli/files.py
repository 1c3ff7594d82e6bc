"""Experiment files that commands run, and how tests call them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_marl.cli import main

ROOT = Path(__file__).resolve().parents[2]


SPEC = """
game: {class_path: MatrixGame, init_args: {payoff: climbing}}
replicates: 2
steps: 3
arms:
  a:
    class_path: Rommeo
    init_args:
      opponent_prior: {class_path: EmpiricalFrequency, init_args: {window: 5}}
      guide: {class_path: OpponentFirst, init_args: {opponent_model: Optimal, policy: Optimal}}
      critic: TabularCritic
      temperature: {class_path: ExponentialDecay, init_args: {start: 5.0, rate: 0.1, floor: 0.1}}
  b:
    like: a
    guide.opponent_model: Empirical
"""


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong command writes, without its prefix."""
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("inference-marl: ")
    assert "Traceback" not in line
    return line.removeprefix("inference-marl: ")


def printed_spec(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["run", *arguments, "--print-spec"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


ABLATE = ("ablate", "small.yaml", "--quiet", "--jobs", "1")


FACTORS = ("--factors", "{kl_weight: [1.0, 0.1]}")


SUITE = """
runs:
  climbing: {}
  short: {steps: 2, arms.b: null}
"""


PLAYERS = """
game: {class_path: MatrixGame, init_args: {payoff: stag_hunt}}
replicates: 4
steps: 2
arms:
  hare: {class_path: Stationary, init_args: {probabilities: [0, 1]}}
  stag: {class_path: Stationary, init_args: {probabilities: [1, 0]}}
"""
