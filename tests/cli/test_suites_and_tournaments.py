"""Suites, and the command tournament."""

import html
import re
from pathlib import Path

import pytest
import yaml

from inference_marl.cli import main
from tests.cli.files import PLAYERS, failure, printed_spec


@pytest.mark.slow
def test_a_suite_prints_its_runs_together_and_where_each_is(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "several.yaml", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = output.out.splitlines()
    assert lines[0] == "several: 2 runs"
    assert lines[-5:] == [
        "Results of all runs together are in runs/several: suite.csv, suite.md, suite.tex, figures/success_rate.png, "
        "figures/nash_conv.png",
        "",
        "climbing is in runs/several/climbing: results.csv, results.md, results.tex",
        "short is in runs/several/short: results.csv, results.md, results.tex",
        "Look into one with: inference-marl inspect FOLDER",
    ]
    assert "replicates, at step" not in output.out, "no run's own table"
    assert main(["run", "several.yaml", "--quiet"]) == 0
    again = capsys.readouterr().out
    assert again == f"Run to their end before, in runs/several: climbing, short.\n\n{output.out}"
    assert main(["inspect", "runs/several/short"]) == 0
    assert main(["ablate", "several.yaml", "--quiet", "--jobs", "1"]) == 0
    said = "short is in runs/several/short: ablation.csv, ablation.md, ablation.tex, figures/ablation_curves.png"
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_a_suite_can_be_inspected_and_reported(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "several.yaml", "--quiet", "--inspect", "--arms.b", "null"]) == 0
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
    assert "NashConv" in headings
    assert text.count("<h3>Results</h3>") == 2


@pytest.mark.slow
def test_suites_are_not_compared(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "several.yaml", "--quiet"]) == 0
    capsys.readouterr()
    for command in ("inspect", "report"):
        assert failure(capsys, command, "runs/several/short", "runs/several") == (
            "runs/several: got a suite among several folders, expected those of runs, such as runs/several/climbing; "
            "inspect a suite by itself"
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


@pytest.mark.slow
def test_a_suite_shows_its_progress_and_which_run_it_is_at(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "several.yaml"]) == 0
    progress = capsys.readouterr().err
    assert "short, 3 of 3 arms done" in progress
    assert "8/8" in progress


@pytest.mark.slow
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
    assert "short is in runs/several/short: results.csv, " in output.out


@pytest.mark.slow
def test_an_interrupted_suite_says_how_to_go_on(
    several: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("inference_marl.runs.completion._complete", interrupted)
        assert main(["run", "several.yaml", "--quiet"]) == 130
    assert "interrupted; go on with: inference-marl resume runs/several\n" in capsys.readouterr().err
    assert main(["resume", "runs/several", "--quiet"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("several: 2 runs")
    last = "short is in runs/several/short: results.csv, results.md, results.tex"
    assert output.endswith(f"{last}\nLook into one with: inference-marl inspect FOLDER\n")


def test_a_tournament_prints_its_matrix_and_says_where_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "players.yaml").write_text(PLAYERS)
    command = ["tournament", "players.yaml", "--quiet", "--jobs", "1"]
    assert main(command) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = [" ".join(line.split()) for line in output.out.splitlines()]
    # Stag hunt [[4, 1], [3, 2]]: who hunts a stag gets 4 with another, 1 alone; who hunts a hare 3 or 2.
    assert {"hare 2.500 2.000 3.000", "stag 2.500 1.000 4.000"} <= set(lines)
    assert lines[-1] == (
        "Results are in runs/players_tournament: tournament.csv, tournament.md, tournament.tex, "
        "figures/tournament.png, figures/tournament_return.png, figures/tournament_success_rate.png"
    )
    assert main(command) == 0
    again = capsys.readouterr().out
    assert again == f"This experiment was run to its end before, in runs/players_tournament. It found:\n\n{output.out}"
    assert main(["resume", "runs/players_tournament", "--quiet"]) == 0
    assert capsys.readouterr().out == output.out
    assert main(["inspect", "runs/players_tournament"]) == 0
    assert capsys.readouterr().out == output.out
    assert main(["report", "runs/players_tournament"]) == 0
    capsys.readouterr()
    page = html.unescape((file.parent / "runs" / "players_tournament" / "report.html").read_text())
    assert "<h2>reward per step of the row's learner</h2>" in page
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
    assert (
        "one is in elsewhere/players_tournament/one: tournament.csv, tournament.md, tournament.tex, figures/tour"
        in output
    )
    assert "reward per step of the row's learner, one" in output
    assert "return of the row's learner" not in output, "a run's other tables are in its folder"
