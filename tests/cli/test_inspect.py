"""The commands inspect and list."""

from pathlib import Path

import pytest

from inference_marl.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_inspect_tells_beliefs_and_writes_figures(
    recorded: Path, capsys: pytest.CaptureFixture[str], full: bool
) -> None:
    assert main(["inspect", "runs/small", *(["--full"] if full else [])]) == 0
    output = capsys.readouterr().out
    assert output.startswith("small: MatrixGame(climbing), 2 replicates, at step 3\n")
    assert "What do the agents believe" in output
    assert ("summarised by ArviZ" in output) == full
    figures = recorded / "figures"
    assert list(figures.iterdir())
    for figure in figures.iterdir():
        assert figure.name in output


def test_list_names_what_files_can_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for title in ("games:", "opponent priors:", "guides:", "learners:"):
        assert title in lines
    for name in ("MatrixGame", "MaxOfTwoQuadratics", "EmpiricalFrequency", "OpponentFirst", "Rommeo", "TabularCritic"):
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 3  # its one line of description
    assert not [line for line in lines if line.strip().startswith("_")]


@pytest.mark.slow
def test_a_run_without_beliefs_says_so(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("posterior.nc", "SHA256SUMS"):
        (recorded / name).unlink()
    assert main(["inspect", "runs/small"]) == 0
    output = capsys.readouterr().out
    assert "This run did not record beliefs" in output
    assert output.splitlines()[-1] == "Figures in runs/small/figures: learning_curves.png, elbo_parts.png"


@pytest.mark.slow
def test_runs_are_compared(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml", "--quiet", "--seed", "1", "--arms.b", "null"]) == 0
    capsys.readouterr()
    assert main(["inspect", "runs/small", "runs/small-2"]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert lines[0] == "small and small-2"
    (seed,) = (line.split() for line in lines if line.startswith("seed"))
    assert seed == ["seed", "0", "1"]
    assert "Only in small, so not compared: b." in " ".join(output.split())
    assert "a in both runs: metrics side by side" in lines
