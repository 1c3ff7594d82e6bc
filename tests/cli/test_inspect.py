"""The commands inspect and list."""

from pathlib import Path

import pytest

from inference_marl.cli import main


def test_inspect_prints_results_and_writes_figures(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "runs/small"]) == 0
    output = capsys.readouterr()
    assert "reward" in output.out
    assert "opponent model" in output.out.lower()
    figures = recorded / "figures"
    assert list(figures.iterdir())
    for figure in figures.iterdir():
        assert figure.name in output.out


def test_list_names_what_files_can_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for title in ("games:", "opponent priors:", "guides:", "learners:"):
        assert title in lines
    for name in ("MatrixGame", "MaxOfTwoQuadratics", "EmpiricalFrequency", "OpponentFirst", "Rommeo", "TabularCritic"):
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 3  # its one line of description
    assert not [line for line in lines if line.strip().startswith("_")]


def test_inspect_lists_what_is_there(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recorded / "posterior.nc").unlink()
    assert main(["inspect", "runs/small"]) == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last == "The run is in runs/small: spec.yaml, summary.json, metrics.nc, checkpoints, figures"
