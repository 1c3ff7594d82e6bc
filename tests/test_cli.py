"""The command `inference-marl`: commands, overrides, exit status, and errors of one line."""

import itertools
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_marl import cli
from inference_marl.cli import main
from inference_marl.config.files import load

ROOT = Path(__file__).resolve().parents[1]
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


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path / "small.yaml"


@pytest.fixture
def recorded(file: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of a finished run."""
    assert main(["run", file.name, "--quiet", "--steps", "2", "--replicates", "1"]) == 0
    capsys.readouterr()
    return file.parent / "runs" / "small"


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


# ------------------------------------------------------------------------------------------------------------------ run


def test_run_writes_a_folder_under_runs_and_says_where(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "reward" in output.out
    last = output.out.rstrip().splitlines()[-1]
    assert last == "Results are in runs/small; look at them with: inference-marl inspect runs/small"
    assert (file.parent / "runs" / "small" / "summary.json").is_file()


def test_run_can_inspect_at_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml", "--quiet", "--inspect"]) == 0
    output = capsys.readouterr().out
    assert "summarised by ArviZ" in output
    assert output.rstrip().splitlines()[-1].startswith("The run is in runs/small:")
    assert list((file.parent / "runs" / "small" / "figures").glob("*.png"))


def test_run_shows_its_progress(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml"]) == 0
    progress = capsys.readouterr().err
    assert "6/6" in progress
    assert "step" in progress


@pytest.mark.parametrize("option", [["--out", "elsewhere/deep"], ["--out=elsewhere/deep"]])
def test_out_says_where_runs_go(file: Path, option: list[str]) -> None:
    assert main(["run", str(file), "--quiet", *option]) == 0
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


# --------------------------------------------------------------------------------------------------------------- ablate

ABLATE = ("ablate", "small.yaml", "--quiet", "--jobs", "1")
FACTORS = ("--factors", "{kl_weight: [1.0, 0.1]}")


def test_ablate_prints_its_table_and_says_where_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ABLATE, *FACTORS]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = output.out.splitlines()
    assert lines[0] == "small: MatrixGame(climbing), 4 cells, 2 replicates each, at step 3"
    (first,) = [i for i, line in enumerate(lines) if line.startswith("arm  kl_weight  ") and "success rate" in line]
    assert [line.split()[:2] for line in lines[first + 1 : first + 5]] == [
        ["a", "1"],
        ["a", "0.1"],
        ["b", "1"],
        ["b", "0.1"],
    ]
    assert lines[-1].startswith("Results are in runs/small: ablation.csv, figures/ablation_curves.png, figures/")
    for name in ("ablation.csv", "figures/ablation_curves.png", "figures/ablation_elbo.png", "summary.json"):
        assert (file.parent / "runs" / "small" / name).is_file()


def test_ablate_again_says_so_and_a_change_starts_a_new_folder(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*ABLATE])
    first = capsys.readouterr().out
    assert main([*ABLATE]) == 0
    again = capsys.readouterr().out
    assert again == f"This experiment was run to its end before, in runs/small. It found:\n\n{first}"
    assert main([*ABLATE, "--seed", "1"]) == 0
    assert "Results are in runs/small-2: " in capsys.readouterr().out
    file.write_text(file.read_text().replace("steps: 3", "steps: 2"))
    assert main([*ABLATE]) == 0
    assert "Results are in runs/small-3: " in capsys.readouterr().out


def test_run_and_resume_of_a_file_with_factors_print_the_same_table(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "small.yaml", "--quiet", *FACTORS]) == 0
    ran = capsys.readouterr().out
    assert main(["resume", "runs/small", "--quiet"]) == 0
    assert capsys.readouterr().out == ran
    assert main([*ABLATE, *FACTORS]) == 0
    assert capsys.readouterr().out.endswith(ran)


@pytest.mark.parametrize("command", ["run", "ablate"])
def test_a_failed_arm_is_status_1_with_the_results_of_the_others(
    file: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    refusing = ("--arms.b.optimality", "{class_path: BernoulliOptimality, init_args: {upper: 5}}", "--replicates", "50")
    assert main([command, "small.yaml", "--quiet", "--jobs", "1", *refusing]) == 1
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("inference-marl: arms.b, step ")
    assert "reward" in output.out
    assert ("failed  b: arms.b, step " in output.out) == (command == "ablate")
    assert main(["resume", "runs/small", "--quiet"]) == 1
    assert capsys.readouterr().err.splitlines() == [line]
    if command == "ablate":
        assert main(["ablate", "small.yaml", "--quiet", "--jobs", "1", *refusing]) == 1
        assert capsys.readouterr() == output
        assert not (file.parent / "runs" / "small-2").exists()


def test_an_interrupted_ablation_says_how_to_go_on(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("inference_marl.runs.run._complete", interrupted)
        assert main([*ABLATE]) == 130
    assert "interrupted; go on with: inference-marl resume runs/small" in capsys.readouterr().err
    assert main([*ABLATE]) == 0
    assert "Results are in runs/small: " in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ suites, tournaments

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


@pytest.fixture
def several(file: Path) -> Path:
    """The file of a suite, in the working directory."""
    (file.parent / "several.yaml").write_text(SPEC + SUITE)
    return file.parent / "several.yaml"


def test_a_suite_prints_its_runs_together_and_where_each_is(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "several.yaml", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = output.out.splitlines()
    assert lines[0] == "several: 2 runs"
    assert lines[-5:] == [
        "Results of all runs together are in runs/several: suite.csv, suite.md, figures/success_rate.png, "
        "figures/nash_conv.png",
        "",
        "climbing is in runs/several/climbing",
        "short is in runs/several/short",
        "Look into one with: inference-marl inspect FOLDER",
    ]
    assert "replicates, at step" not in output.out, "no run's own table"
    assert main(["run", "several.yaml", "--quiet"]) == 0
    again = capsys.readouterr().out
    assert again == f"Run to their end before, in runs/several: climbing, short.\n\n{output.out}"
    assert main(["inspect", "runs/several/short"]) == 0
    assert main(["ablate", "several.yaml", "--quiet", "--jobs", "1"]) == 0
    assert "short is in runs/several/short: ablation.csv, figures/ablation_curves.png" in capsys.readouterr().out


def test_a_suite_can_be_inspected_and_reported(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "several.yaml", "--quiet", "--inspect"]) == 0
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith("short is in runs/several/short: ")]
    assert "figures/learning_curves.png, " in line
    for name in line.removeprefix("short is in runs/several/short: ").split(", "):
        assert (several.parent / "runs" / "several" / "short" / name).is_file()
    assert main(["inspect", "runs/several"]) == 0
    assert capsys.readouterr().out == output
    assert main(["report", "runs/several"]) == 0
    assert capsys.readouterr().out == "The report is runs/several/report.html\n"
    text = (several.parent / "runs" / "several" / "report.html").read_text()
    headings = re.findall(r"<h2>(.*)</h2>", text)
    assert headings[0] == "several: 2 runs"
    assert headings[-2:] == ["climbing", "short"]
    assert "NashConv: what best responses would gain, summed" in headings
    assert text.count("<h3>Results</h3>") == 2


def test_suites_are_not_compared(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "several.yaml", "--quiet"]) == 0
    capsys.readouterr()
    for command in ("inspect", "report"):
        assert failure(capsys, command, "runs/several/short", "runs/several") == (
            "runs/several: got a suite among several folders, expected those of runs, such as runs/several/climbing; "
            "a suite is looked at by itself"
        )


def test_overrides_of_a_suite(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = printed_spec(capsys, "several.yaml", "--replicates", "5", "--runs.short.steps", "1", "--show", "[reward]")
    assert {name: (run["replicates"], run["steps"], list(run["arms"])) for name, run in written["runs"].items()} == {
        "climbing": (5, 3, ["a", "b"]),
        "short": (5, 1, ["a"]),
    }
    assert written["show"] == ["reward"]
    (several.parent / "printed.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    assert printed_spec(capsys, "printed.yaml") == written
    assert failure(capsys, "run", "several.yaml", "--runs.shrt.steps", "1").startswith("runs.shrt: got an unknown run")
    assert not (several.parent / "runs").exists()


def test_a_suite_shows_its_progress_and_which_run_it_is_at(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "several.yaml"]) == 0
    progress = capsys.readouterr().err
    assert "short, 3 of 3 arms done" in progress
    assert "8/8" in progress


def test_a_failed_arm_of_a_suite_is_status_1_with_the_results_of_the_others(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = "{class_path: BernoulliOptimality, init_args: {upper: 5}}"
    options = ("--runs.climbing.arms.b.optimality", refusing, "--replicates", "50")
    assert main(["run", "several.yaml", "--quiet", *options]) == 1
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("inference-marl: runs.climbing.arms.b, step ")
    assert "failed  climbing, b: arms.b, step " in output.out
    assert "short is in runs/several/short\n" in output.out


def test_an_interrupted_suite_says_how_to_go_on(
    several: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("inference_marl.runs.run._complete", interrupted)
        assert main(["run", "several.yaml", "--quiet"]) == 130
    assert "interrupted; go on with: inference-marl resume runs/several\n" in capsys.readouterr().err
    assert main(["resume", "runs/several", "--quiet"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("several: 2 runs")
    assert output.endswith("short is in runs/several/short\nLook into one with: inference-marl inspect FOLDER\n")


def test_a_tournament_prints_its_matrix_and_says_where_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "players.yaml").write_text(PLAYERS)
    command = ["tournament", "players.yaml", "--quiet", "--jobs", "1"]
    assert main(command) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = [" ".join(line.split()) for line in output.out.splitlines()]
    # Stag hunt [[4, 1], [3, 2]]: who hunts a stag gets 4 with another, 1 alone; who hunts a hare 3 or 2.
    assert {"hare 2.500 2.000 3.000", "stag 2.500 1.000 4.000"} <= set(lines)
    assert lines[-1].startswith("Results are in runs/players_tournament: tournament.csv, tournament.md, figures/tourna")
    assert main(command) == 0
    again = capsys.readouterr().out
    assert again == f"This experiment was run to its end before, in runs/players_tournament. It found:\n\n{output.out}"
    assert main(["resume", "runs/players_tournament", "--quiet"]) == 0
    assert capsys.readouterr().out == output.out
    assert main(["inspect", "runs/players_tournament"]) == 0
    inspected = capsys.readouterr().out
    assert inspected.startswith(output.out)
    assert inspected.splitlines()[-1].startswith("The run is in runs/players_tournament: spec.yaml, ")
    assert main(["report", "runs/players_tournament"]) == 0
    capsys.readouterr()
    page = (file.parent / "runs" / "players_tournament" / "report.html").read_text()
    assert "<h2>reward per step of the row&#x27;s learner</h2>" in page
    assert "<dd>hare, stag</dd>" in page
    assert "inference-marl run players_tournament.yaml" in page
    assert page.count("<img ") == 3
    alone = failure(capsys, *command, "--arms.hare", "[Stationary, Stationary]")
    assert alone.startswith("arms.hare: got a list of learners, expected one: a tournament seats it")
    assert main([*command, "--runs", "{one: {}, two: {arms.hare: null}}"]) == 2
    assert "players_tournament: got the folder of a single run, expected room for a suite" in capsys.readouterr().err
    assert main([*command, "--runs", "{one: {}, two: {arms.hare: null}}", "--out", "elsewhere"]) == 0
    output = capsys.readouterr().out
    assert "Results of all runs together are in elsewhere/players_tournament: " in output
    assert "one is in elsewhere/players_tournament/one: tournament.csv, tournament.md, figures/tournament.png" in output
    assert "reward per step of the row's learner, one" in output
    assert "exact return of the row's learner, one" not in output, "a run's other tables are in its folder"


# --------------------------------------------------------------------------------------------- resume, inspect, list


def test_resume_of_a_finished_run_reports_it_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "small.yaml", "--quiet"])
    first = capsys.readouterr().out
    assert main(["resume", "runs/small", "--quiet"]) == 0
    assert capsys.readouterr().out == first


def test_resume_goes_on_with_an_unfinished_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "small.yaml", "--quiet"])
    finished = (file.parent / "runs" / "small" / "metrics.nc").read_bytes()
    unfinished = file.parent / "runs" / "small-again"
    unfinished.mkdir()
    (unfinished / "spec.yaml").write_bytes((file.parent / "runs" / "small" / "spec.yaml").read_bytes())
    assert main(["resume", str(unfinished)]) == 0
    assert "6/6" in capsys.readouterr().err
    assert (unfinished / "metrics.nc").stat().st_size == pytest.approx(len(finished), rel=0.1)


def test_inspect_prints_results_and_writes_figures(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "small.yaml", "--quiet"])
    capsys.readouterr()
    assert main(["inspect", "runs/small"]) == 0
    output = capsys.readouterr()
    assert "reward" in output.out
    assert "opponent model" in output.out.lower()
    figures = file.parent / "runs" / "small" / "figures"
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


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.yaml"], "none.yaml: got no readable file (No such file or directory), expected an experiment"),
        (["run", "small.yaml", "--stepz", "3"], "stepz: got an unknown key, expected one of game, arms"),
        (["run", "small.yaml", "--steps", "many"], "steps: got many, expected int"),
        (["run", "small.yaml", "--steps="], "steps: got nothing, expected int"),
        (["run", "small.yaml", "--steps"], "steps: got no value, expected --steps VALUE"),
        (["run", "small.yaml", "--steps", "3", "4"], "4: got a stray word, expected --KEY VALUE or --KEY=VALUE"),
        (["run", "small.yaml", "-s", "3"], "-s: got a stray word, expected --KEY VALUE"),
        (["run", "small.yaml", "--=3"], "--=3: got a stray word, expected --KEY VALUE"),
        (["run", "small.yaml", "--steps", "[1"], "steps: got '[1', expected a YAML value"),
        (["run", "small.yaml", "--game", "!!python/object/apply:os.getcwd []"], "game: got '!!python"),
        (["run", "small.yaml", "--arms.a.opponent_prior.window", "0"], "arms.a.opponent_prior.window: got 0, expected"),
        (["run", "small.yaml", "--arms.c.like", "z"], "arms.c.like: got 'z', expected another arm: a, b, c"),
        (["run", "small.yaml", "--game", "MaxOfTwoQuadratics"], "arms.a.opponent_prior: EmpiricalFrequency got Box("),
        (["run", "small.yaml", "--game.payoff", "[[1, 2], [3]]"], "game.payoff: got [[1, 2], [3]]"),
        (["run", "small.yaml", "--quiet", "--out", "small.yaml"], "small.yaml: got no folder to write to (Not a dir"),
        (["run", "small.yaml", "--jobs", "0"], "jobs: got 0, expected a positive integer"),
        (["run", "small.yaml", "--runs.x.steps", "1"], "runs: got None, expected a mapping from names to what differs"),
        (
            ["ablate", "--steps", "3", "none.yaml"],
            "3: got no such file, expected SPEC before the overrides: ablate SPEC",
        ),
        (
            ["ablate", "small.yaml", "--factors", "{x: {y: {z: 1}}}"],
            "factors.x.y.z: got an unknown key, expected one of",
        ),
        (["resume", "nowhere"], "nowhere: got no spec.yaml there, expected the folder of a run"),
        (["resume", "."], ".: got no spec.yaml there, expected the folder of a run"),
        (["inspect", "nowhere"], "nowhere"),
        (["inspect", "."], "."),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert failure(capsys, *arguments).startswith(message)
    assert {path.name for path in file.parent.iterdir()} == {"small.yaml"}


def test_a_damaged_checkpoint_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "small.yaml", "--quiet"])
    folder = file.parent / "runs" / "small"
    (folder / "summary.json").unlink()
    (folder / "checkpoints" / "a.pt").write_bytes(b"half")
    capsys.readouterr()
    message = failure(capsys, "resume", "runs/small", "--quiet")
    assert message.startswith("runs/small/checkpoints/a.pt: got a file that is not a checkpoint")


def test_a_damaged_spec_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "small.yaml", "--quiet"])
    folder = file.parent / "runs" / "small"
    (folder / "summary.json").unlink()
    (folder / "spec.yaml").write_text("game: [")
    capsys.readouterr()
    assert failure(capsys, "resume", "runs/small").startswith("runs/small/spec.yaml: got malformed YAML")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        *itertools.product(["summary.json"], ["inspect", "report", "resume"]),
        *itertools.product(["spec.yaml"], ["inspect", "report", "resume"]),
    ],
)
@pytest.mark.parametrize("content", [b"{'a: [", b"", b"\xff\xfe\x00"])
def test_a_damaged_file_of_a_run_is_one_line(
    recorded: Path, capsys: pytest.CaptureFixture[str], name: str, command: str, content: bytes
) -> None:
    (recorded / name).write_bytes(content)
    assert failure(capsys, command, "runs/small").startswith(f"runs/small/{name}: got ")


def test_places_that_cannot_be_written_are_one_line(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failure(capsys, "report", "runs/small", "--out", "runs")
    assert said == "runs: got Is a directory, expected a place to read and write"
    assert failure(capsys, "report", "runs/small", "--out", "small.yaml/report.html").startswith("small.yaml: got ")
    shutil.rmtree(recorded / "figures")
    (recorded / "figures").write_text("in the way")
    assert failure(capsys, "report", "runs/small").startswith("runs/small/figures: got File exists")


def test_runs_that_cannot_be_compared_are_one_line(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "small.yaml", "--quiet", "--game.payoff", "[[1, 2], [3, 4]]"])
    capsys.readouterr()
    assert failure(capsys, "inspect", "runs/small", "runs/small", "runs/small-2").startswith("runs/small-2: got action")


def test_inspect_lists_what_is_there(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recorded / "posterior.nc").unlink()
    assert main(["inspect", "runs/small"]) == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last == "The run is in runs/small: spec.yaml, summary.json, metrics.nc, checkpoints, figures"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        *itertools.product(
            [["resume", "x"], ["inspect", "x"], ["report", "x"], ["list"]], [["--steps", "3"], ["--unknown"]]
        ),
        (["resume", "x"], ["stray"]),
        (["list"], ["stray"]),
    ],
)
def test_only_run_takes_overrides(command: list[str], extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, *extra])
    assert stopped.value.code == 2
    assert f"error: unrecognized arguments: {' '.join(extra)}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run"], ["ablate"], ["tournament"], ["resume"], ["inspect"]])
def test_wrong_usage_shows_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: inference-marl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ([], ["run an experiment file", "resume", "inspect", "list", "probabilistic inference"]),
        (
            ["run"],
            [
                "SPEC [--out DIR] [--jobs N] [--inspect] [--print-spec] [--quiet] [--KEY VALUE ...]",
                "dotted path",
                "default: runs",
            ],
        ),
        (["ablate"], ["SPEC [--out DIR] [--jobs N] [--quiet] [--KEY VALUE ...]", "compare its arms", "dotted path"]),
        (
            ["tournament"],
            ["SPEC [--out DIR] [--jobs N] [--quiet] [--KEY VALUE ...]", "against every arm", "dotted path"],
        ),
        (["resume"], ["RUN", "the folder of a run", "--quiet", "--jobs"]),
        (["inspect"], ["RUN", "the folder of a run"]),
        (["list"], ["usage: inference-marl list"]),
    ],
)
def test_help(arguments: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--help"])
    assert stopped.value.code == 0
    output = " ".join(capsys.readouterr().out.split())
    for text in texts:
        assert text in output


def test_an_interrupted_run_says_how_to_go_on(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inference_marl.runs.run._complete", interrupted)
    assert main(["run", "small.yaml"]) == 130
    assert "interrupted; go on with: inference-marl resume runs/small" in capsys.readouterr().err


def test_overrides_come_after_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected SPEC before the overrides" in failure(capsys, "run", "--replicates", "3", "small.yaml")


def test_errors_in_the_program_are_not_hidden(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_report", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", "small.yaml", "--quiet"])


# -------------------------------------------------------------------------------------------------- as its own process


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
    command = [sys.executable, "-P", "-W", "error", "-m", "inference_marl.cli", "run", str(files / "small.yaml")]
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


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize(("arguments", "status"), [(["list"], 0), (["run", "none.yaml"], 2)])
def test_the_process_exits_with_the_status(
    file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["inference-marl", *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("inference_marl.cli", run_name="__main__")
    assert stopped.value.code == status
