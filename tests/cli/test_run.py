"""The commands run and resume."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from inference_marl.cli import main
from inference_marl.cli.parser import make_parser
from inference_marl.config.files import load
from tests.cli.files import ROOT, SPEC, printed_spec


def test_run_writes_a_folder_under_runs_and_says_where(finished: tuple[Path, str]) -> None:
    folder, output = finished
    assert "reward" in output
    assert output.splitlines()[-2:] == [
        "Results are in runs/small: results.csv, results.md, results.tex",
        "Look further with: inference-marl inspect runs/small",
    ]
    for name in ("summary.json", "results.csv", "results.md", "results.tex"):
        assert (folder / name).is_file()


@pytest.mark.slow
def test_run_can_inspect_at_once(file: Path, drawn: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml", "--quiet", "--inspect", "--arms.b", "null"]) == 0
    output = capsys.readouterr().out
    assert output.index("reward per step") < output.index("What do the agents believe of their opponents?")
    assert output.rstrip().splitlines()[-1].startswith("Figures in runs/small/figures: ")
    assert list((file.parent / "runs" / "small" / "figures").glob("*.png"))


def test_run_shows_its_progress(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml"]) == 0
    progress = capsys.readouterr().err
    assert "6/6" in progress
    assert "step" in progress


@pytest.mark.parametrize("option", [["--out", "elsewhere/deep"], ["--out=elsewhere/deep"]])
def test_out_says_where_runs_go(file: Path, option: list[str]) -> None:
    assert main(["run", str(file), "--quiet", *option, "--steps", "1", "--arms.b", "null"]) == 0
    assert (file.parent / "elsewhere" / "deep" / "small" / "summary.json").is_file()
    assert not (file.parent / "runs").exists()


def test_overrides_reach_every_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = printed_spec(
        capsys,
        "small.yaml",
        "--replicates",
        "7",
        "--seed=3",
        "--dtype",
        "float64",
        "--game.payoff",
        "[[1, 2], [3, -4.5]]",
        "--arms.a.temperature.floor=0.25",
        "--arms.a.opponent_prior",
        "{class_path: EmpiricalFrequency, init_args: {window: 9}}",
        "--arms.b.guide.policy=Tabular",
        "--arms.b.opponent_prior.smoothing",
        "1e-1",
        "--arms.a.replay",
        "null",
    )
    assert (written["replicates"], written["seed"], written["dtype"]) == (7, 3, "float64")
    assert written["game"]["init_args"]["payoff"] == [[1, 2], [3, -4.5]]
    a, b = (written["arms"][name]["init_args"] for name in "ab")
    assert a["temperature"]["init_args"]["floor"] == b["temperature"]["init_args"]["floor"] == 0.25
    assert a["opponent_prior"]["init_args"] == {"window": 9, "smoothing": 0.0, "initial": "dirichlet", "exponent": 1.0}
    assert b["opponent_prior"]["init_args"]["smoothing"] == 0.1
    assert b["guide"]["init_args"]["opponent_model"]["class_path"].endswith("Empirical")
    assert b["guide"]["init_args"]["policy"]["class_path"].endswith("Tabular")
    assert a["guide"]["init_args"]["policy"]["class_path"].endswith("Optimal")


def test_negative_numbers_are_values(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = printed_spec(capsys, "small.yaml", "--game.payoff", "penalty", "--game.k", "-30", "--seed", "4")
    assert written["game"]["init_args"]["k"] == -30
    assert written["seed"] == 4


def test_the_last_of_two_overrides_wins(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed_spec(capsys, "small.yaml", "--seed", "1", "--seed", "2")["seed"] == 2


def test_a_printed_spec_is_complete_and_runs_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = printed_spec(capsys, "small.yaml")
    assert not (file.parent / "runs").exists()
    assert {"environments", "record_every", "checkpoint_every", "device", "draws"} <= set(written)
    assert "like" not in written["arms"]["b"]
    (file.parent / "resolved.yaml").write_text(yaml.safe_dump(written))
    assert load(file.parent / "resolved.yaml").describe() == load(file).describe()


def test_overrides_are_in_the_runs_folder(file: Path) -> None:
    assert main(["run", "small.yaml", "--quiet", "--replicates", "3", "--steps=2"]) == 0
    written = yaml.safe_load((file.parent / "runs" / "small" / "spec.yaml").read_text())
    assert (written["replicates"], written["steps"]) == (3, 2)


def test_resume_of_a_finished_run_reports_it_again(
    recorded: Path, finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", "runs/small", "--quiet"]) == 0
    assert capsys.readouterr().out == finished[1]


def test_resume_goes_on_with_an_unfinished_run(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished = (recorded / "metrics.nc").read_bytes()
    unfinished = recorded.parent / "small-again"
    unfinished.mkdir()
    (unfinished / "spec.yaml").write_bytes((recorded / "spec.yaml").read_bytes())
    assert main(["resume", str(unfinished)]) == 0
    assert "6/6" in capsys.readouterr().err
    assert (unfinished / "metrics.nc").stat().st_size == pytest.approx(len(finished), rel=0.1)


def test_an_interrupted_run_says_how_to_go_on(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inference_marl.runs.completion._complete", interrupted)
    assert main(["run", "small.yaml"]) == 130
    assert "interrupted; go on with: inference-marl resume runs/small" in capsys.readouterr().err


@pytest.mark.slow
def test_from_another_directory_with_a_class_of_the_users_own(tmp_path: Path) -> None:
    """The file is elsewhere; the class is in a module of the directory the command runs in."""
    home, files = tmp_path / "home", tmp_path / "files"
    home.mkdir()
    files.mkdir()
    (files / "small.yaml").write_text(SPEC)
    (home / "my_priors.py").write_text(
        "from inference_marl.models import Uniform\n\n\nclass Flat(Uniform):\n    '''Mine.'''\n"
    )
    # -P keeps the directory off the path, as for the installed command.
    command = [sys.executable, "-P", "-W", "error", "-m", "inference_marl", "run", str(files / "small.yaml")]
    done = subprocess.run(
        [*command, "--quiet", "--arms.a.opponent_prior", "my_priors.Flat", "--steps", "2"],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    written = yaml.safe_load((home / "runs" / "small" / "spec.yaml").read_text())
    assert written["arms"]["b"]["init_args"]["opponent_prior"] == {"class_path": "my_priors.Flat", "init_args": {}}
    assert not (files / "runs").exists()


@pytest.mark.parametrize(
    ("command", "jobs"), [("run", 1), ("resume", 1), ("ablate", os.cpu_count()), ("tournament", os.cpu_count())]
)
def test_arms_that_are_compared_are_played_side_by_side(command: str, jobs: int) -> None:
    assert make_parser().parse_args([command, "spec.yaml"]).jobs == jobs
