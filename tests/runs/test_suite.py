"""Suites: what their files build, what their folders hold, what is played again and what is not, and their tables."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from inference_marl.analysis.report import suite
from inference_marl.analysis.report.tables import Report
from inference_marl.config.build import SpecError
from inference_marl.config.check import play_one_step
from inference_marl.config.files import build, build_suite, dump, load, load_any
from inference_marl.experiment import Experiment, Suite
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.learners import Stationary
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.runs.arm import Arm
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.executors import Serial
from inference_marl.runs.run import resume, run
from inference_marl.runs.suite import finished
from inference_marl.types import PROBABILITY, Actor, Metric
from tests.runs.small_runs import Breaking

ROOT = Path(__file__).resolve().parents[2]

FILE = """
game: {class_path: MatrixGame, init_args: {payoff: climbing}}
replicates: 3
steps: 4
published:
  iql: {success_rate: 0.16}
  wolf: {success_rate: 0.0}
arms:
  iql: {class_path: IndependentQ, init_args: {exploration: {class_path: Boltzmann, init_args: {temperature: 2.0}}}}
  wolf: {like: iql, rate: 0.5}
  sheep: {like: wolf, discount: 0.5}
runs:
  climbing: {}
  penalty:
    game: {class_path: MatrixGame, init_args: {payoff: penalty, k: -50}}
    steps: 2
    arms.wolf: null
    arms.iql.rate: 0.25
"""


def file() -> Any:
    return yaml.safe_load(FILE)


def refused(config: Any, *overrides: tuple[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        build_suite(config, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def arguments(experiment: Experiment, arm: str) -> Any:
    return experiment.describe()["init_args"]["arms"][arm]["init_args"]


# ------------------------------------------------------------------------------------------------------------- the file


def test_runs_state_what_differs() -> None:
    runs = build_suite(file()).runs
    assert list(runs) == ["climbing", "penalty"]
    assert [runs[name].steps for name in runs] == [4, 2]
    assert runs["penalty"].describe()["init_args"]["game"]["init_args"]["k"] == -50
    assert [arguments(runs[name], "iql")["rate"] for name in runs] == [0.1, 0.25]
    rest = file()
    del rest["runs"]
    assert runs["climbing"].describe() == build(rest).describe()


def test_what_differs_in_one_run_is_not_left_to_the_next() -> None:
    built = build_suite(file()).runs
    config = file()
    config["runs"] = dict(reversed(config["runs"].items()))
    turned = build_suite(config).runs
    assert list(turned) == ["penalty", "climbing"]
    for name, experiment in built.items():
        assert turned[name].describe() == experiment.describe()


def test_an_arm_that_is_left_out_is_still_what_others_are_like() -> None:
    penalty = build_suite(file()).runs["penalty"]
    assert list(penalty.arms) == ["iql", "sheep"]
    # From wolf its rate, through wolf what differs of iql, and its own discount.
    assert [arguments(penalty, "sheep")[key] for key in ("rate", "discount")] == [0.5, 0.5]
    assert penalty.published == {"iql": {"success_rate": 0.16}}


def test_overrides_hold_for_every_run_and_those_of_one_run_win() -> None:
    overrides = [("steps", 9), ("runs.penalty.steps", 5), ("arms.iql.rate", 0.75), ("runs.climbing.arms.sheep", None)]
    runs = build_suite(file(), overrides).runs
    assert [runs[name].steps for name in runs] == [9, 5]
    assert [arguments(runs[name], "iql")["rate"] for name in runs] == [0.75, 0.75]
    assert [list(runs[name].arms) for name in runs] == [["iql", "wolf"], ["iql", "sheep"]]
    assert list(build_suite(file(), [("runs.climbing", None)]).runs) == ["penalty"]
    assert list(build_suite(file(), [("runs", {"other": {"steps": 1}})]).runs) == ["other"]
    assert build_suite(file(), [("show", ["nash_conv"])]).show == ["nash_conv"]


def test_building_leaves_the_files_content_alone() -> None:
    config = file()
    before = copy.deepcopy(config)
    overrides = [("steps", 9), ("runs.penalty.arms.iql.rate", 0.5), ("arms.wolf", None), ("runs.other", {})]
    build_suite(config, overrides)
    assert config == before


def test_an_arm_can_be_left_out_of_a_single_experiment(tmp_path: Path) -> None:
    config = file()
    del config["runs"]
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    experiment = load(tmp_path / "file.yaml", [("arms.iql", None)])
    assert list(experiment.arms) == ["wolf", "sheep"]
    assert experiment.published == {"wolf": {"success_rate": 0.0}}
    again = load(tmp_path / "file.yaml", [("arms.sheep", None), ("arms.sheep", "Stationary")])
    assert list(again.arms) == ["iql", "wolf", "sheep"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([("runs.penalty.steps", 0)], "runs.penalty.steps: got 0, expected a positive integer"),
        ([("runs.penalty.game.payof", 1)], "runs.penalty.game.payof: got an unknown key, expected one of payoff"),
        ([("runs.climbing.arms.wolf.rte", 1)], "runs.climbing.arms.wolf.rte: got an unknown key, expected one of"),
        ([("runs.climbing.stepz", 1)], "runs.climbing.stepz: got an unknown key, expected one of game"),
        ([("steps", "many")], "steps: got many, expected int (in runs.climbing)"),
        ([("arms.wolf.rate", -1.0)], "arms.wolf.rate: got -1.0, expected"),
        ([("runs.other.steps", 1)], "runs.other: got an unknown run, expected one of climbing, penalty"),
        ([("runs.other", None)], "runs.other: got an unknown run, expected one of climbing, penalty"),
        ([("arms.other", None)], "arms.other: got an unknown arm to leave out, expected one of iql, wolf, sheep"),
        ([("runs.other", {})], ""),
        ([("runs.penalty", 3)], "runs.penalty: got 3, expected a mapping from dotted keys to values"),
        ([("runs.penalty", {3: 4})], "runs.penalty: got {3: 4}, expected a mapping from dotted keys to values"),
        ([("runs", {})], "runs: got {}, expected a mapping from names to what differs there"),
        ([("runs", ["a"])], "runs: got ['a'], expected a mapping from names to what differs there"),
        ([("runs", {"a b": {}})], "runs: got a run called 'a b', expected letters, digits, _ and - only"),
        ([("runs.penalty", None), ("runs.climbing", None)], "runs: got none, expected at least one"),
        ([("show", ["retrun"])], "show: got retrun, expected one of reward, "),
        ([("show", "return")], "show: got 'return', expected a list of metrics"),
        ([("arms", {})], "arms: got {}, expected a mapping from names to learners (in runs.climbing)"),
        ([("runs.penalty.arms.iql", None), ("runs.penalty.arms.sheep", None)], "runs.penalty.arms: got none, expected"),
        ([("runs.climbing.game", "MaxOfTwoQuadratics")], "arms.iql: IndependentQ got actions Box("),
    ],
)
def test_what_is_refused_and_where(overrides: list[tuple[str, Any]], message: str) -> None:
    if not message:
        assert list(build_suite(file(), overrides).runs) == ["climbing", "penalty", "other"]
        return
    assert refused(file(), *overrides).startswith(message)


def test_a_fault_that_is_not_the_runs_own_says_in_which_run_it_is() -> None:
    said = refused(file(), ("runs.climbing.game", "MaxOfTwoQuadratics"))
    assert said.endswith("(in runs.climbing)")


def test_a_file_and_its_python_twin_are_the_same_suite(tmp_path: Path) -> None:
    iql = IndependentQ(exploration=Boltzmann(2.0))
    twin = Suite({"climbing": Experiment(MatrixGame("climbing"), {"iql": iql}, replicates=3, steps=4)}, ["return"])
    config = file() | {"runs": {"climbing": {"arms": {"iql": file()["arms"]["iql"]}, "published": {}}}}
    built = build_suite(config | {"show": ["return"]})
    first, second = (each.describe() for each in (twin, built))
    for described in (first, second):
        described["runs"]["climbing"].pop("published")
    assert first == second
    (tmp_path / "dumped.yaml").write_text(dump(twin))
    again = load_any(tmp_path / "dumped.yaml")
    assert isinstance(again, Suite)
    assert again.describe() == twin.describe()


def test_one_experiment_is_asked_for_and_a_suite_is_there(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(FILE)
    with pytest.raises(SpecError, match=r"suite.yaml: got a suite of 2 runs, expected one experiment"):
        load(tmp_path / "suite.yaml")
    with pytest.raises(SpecError, match=r"^runs: got a suite of several runs, expected one experiment"):
        build(file())


def test_an_experiment_that_cannot_be_played_is_named_before_anything_runs(tmp_path: Path) -> None:
    fits = Experiment(MatrixGame("climbing"), {"a": Stationary(probabilities=[1, 0, 0])})
    with pytest.raises(ValueError, match=r"^runs.bad.arms.a.probabilities: got 3 numbers"):
        run(
            Suite(
                {"good": fits, "bad": Experiment(MatrixGame("stag_hunt"), {"a": Stationary(probabilities=[1, 0, 0])})}
            ),
            tmp_path,
        )
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------------- folders


def scripted(**settings: Any) -> Suite:
    """(A, A) is the optimum of both games; `best` plays it, `half` with probability 1/4 each time."""
    best, half = Stationary(probabilities=[1, 0, 0]), Stationary(probabilities=[1, 0, 1])
    return Suite(
        {
            "climbing": Experiment(
                MatrixGame("climbing"),
                {"best": best, "half": half},
                replicates=40,
                steps=2,
                published={"half": {"success_rate": 0.25}},
                **settings,
            ),
            "pennies": Experiment(
                MatrixGame("matching_pennies"),
                {"heads": Stationary(probabilities=[1, 0])},
                replicates=40,
                steps=2,
                **settings,
            ),
        }
    )


def played(out: Path, of: Suite, **options: Any) -> Path:
    return run(of, out, "test", progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `scripted()`, finished, to be read only."""
    return played(tmp_path_factory.mktemp("whole"), scripted())


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return shutil.copytree(whole, tmp_path / "test")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_run_has_a_folder_like_any_other(whole: Path, tmp_path: Path) -> None:
    folder = whole
    assert folder.name == "test"
    alone = run(scripted().runs["climbing"], tmp_path, "climbing", progress=False)
    for name in ("metrics.nc", "posterior.nc"):
        xr.testing.assert_identical(xr.load_dataset(folder / "climbing" / name), xr.load_dataset(alone / name))
    assert (folder / "climbing" / "spec.yaml").read_text() == (alone / "spec.yaml").read_text()
    assert load(folder / "climbing" / "spec.yaml").describe() == scripted().runs["climbing"].describe()


def test_what_is_finished_is_not_played_again(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied
    before = contents(folder)
    assert finished(scripted(), tmp_path, "test") == ["climbing", "pennies"]
    monkeypatch.setattr(Arm, "advance", None)
    assert played(tmp_path, scripted()) == folder
    assert contents(folder) == before


def test_only_a_run_that_has_changed_is_played_anew(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied
    changed = scripted()
    pennies = changed.runs["pennies"].describe()["init_args"]
    changed = Suite({**scripted().runs, "pennies": build(pennies | {"steps": 3})})
    assert finished(changed, tmp_path, "test") == ["climbing"]
    steps = counted(monkeypatch)
    played(tmp_path, changed)
    assert steps == [("heads", 1), ("heads", 2), ("heads", 3)], "the check was made when it was built"
    index = json.loads((folder / "suite.json").read_text())["runs"]
    assert {run: at["folder"] for run, at in index.items()} == {"climbing": "climbing", "pennies": "pennies-2"}
    assert [run.folder.name for run in suite.read(folder).runs] == ["climbing", "pennies-2"]


class _CutError(BaseException):
    """Stands for a kill: no handler of the library may catch it."""


def counted(monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> list[tuple[str, int]]:
    """Keep a list of the steps that are played, and stop dead after some of them."""
    advance: Callable[[Arm], None] = Arm.advance
    steps: list[tuple[str, int]] = []

    def counting(arm: Arm) -> None:
        if len(steps) == stop:
            raise _CutError
        steps.append((arm.name, arm.step + 1))
        advance(arm)

    def checking(experiment: Experiment, actors: Sequence[Actor]) -> None:
        if len(steps) == stop:
            raise _CutError
        steps.append(("check", 1))
        check(experiment, actors)

    check = play_one_step
    monkeypatch.setattr("inference_marl.config.check.play_one_step", checking)
    monkeypatch.setattr(Arm, "advance", counting)
    return steps


def test_a_suite_that_was_cut_off_goes_on_where_it_was(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        counted(patch, stop=3 + 3)  # three steps of checks, then 2 of `best` and 1 of `half`
        with pytest.raises(_CutError):
            played(tmp_path, scripted(checkpoint_every=1))
    with monkeypatch.context() as patch:
        steps = counted(patch)
        folder = played(tmp_path, scripted(checkpoint_every=1))
    assert steps == [("half", 2), ("heads", 1), ("heads", 2)]
    for name in ("climbing", "pennies"):
        mine, theirs = (xr.load_dataset(each / name / "metrics.nc") for each in (folder, whole))
        xr.testing.assert_identical(mine, theirs)


def test_a_run_has_its_results_before_the_next_one_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, stop=3 + 4)
    with pytest.raises(_CutError):
        played(tmp_path, scripted())
    assert (tmp_path / "test" / "climbing" / "summary.json").is_file()
    assert not (tmp_path / "test" / "pennies" / "summary.json").exists()


def test_a_suite_is_resumed_from_its_folder_alone(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        counted(patch, stop=3 + 3)
        with pytest.raises(_CutError):
            played(tmp_path, scripted(checkpoint_every=1))
    folder = (tmp_path / "test").rename(tmp_path / "moved")
    with monkeypatch.context() as patch:
        steps = counted(patch)
        assert resume(folder, progress=False) == folder
    assert steps == [*[("check", 1)] * 3, ("half", 2), ("heads", 1), ("heads", 2)]
    for name in ("climbing", "pennies"):
        mine, theirs = (xr.load_dataset(each / name / "metrics.nc") for each in (folder, whole))
        xr.testing.assert_identical(mine, theirs)


def test_an_interrupted_suite_says_what_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inference_marl.runs.completion._complete", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^resume .*/test$"):
        played(tmp_path, scripted())


def test_a_run_that_was_cut_off_before_its_records_were_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("inference_marl.runs.completion.remove", lambda folder: None)
        folder = played(tmp_path, scripted())
    records = folder / "climbing" / "records"
    assert (records / "best" / "metrics" / "reward").is_file()
    played(tmp_path, scripted())
    assert not records.exists()


def test_an_index_that_cannot_be_read_says_what_to_do(copied: Path, tmp_path: Path) -> None:
    folder = copied
    (folder / "suite.json").write_text("{")
    for act in (suite.read, resume):
        with pytest.raises(RunError, match=r"suite.json: got a file that cannot be read \(.*\), expected that of a su"):
            act(folder)
    assert [run.name for run in suite.read(played(tmp_path, scripted())).runs] == ["climbing", "pennies"]


def test_as_many_arms_are_played_at_once_as_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def processes(number: int) -> Serial:
        asked.append(number)
        return Serial()

    monkeypatch.setattr("inference_marl.runs.completion.Processes", processes)
    played(tmp_path, scripted(), jobs=2)
    assert asked == [2]
    run(scripted(), tmp_path, "other", progress=False, jobs=9)
    assert asked == [2, 3], "there are three arms"
    run(scripted(), tmp_path, "third", progress=False)
    assert asked == [2, 3], "one at once needs no process"


def test_the_folder_of_a_single_run_is_left_alone(tmp_path: Path) -> None:
    run(scripted().runs["climbing"], tmp_path, "test", progress=False)
    with pytest.raises(RunError, match=r"test: got the folder of a single run, expected room for a suite"):
        played(tmp_path, scripted())
    with pytest.raises(RunError, match=r"climbing: got no suite.json there, expected the folder of a suite"):
        suite.read(tmp_path / "climbing")
    with pytest.raises(RunError, match=r"^jobs: got 0, expected a positive integer"):
        played(tmp_path, scripted(), jobs=0)


def test_an_arm_that_fails_keeps_to_itself(tmp_path: Path) -> None:
    game, good = MatrixGame("climbing"), Stationary()
    runs = {
        "all": Experiment(game, {"bad": Breaking()}, replicates=2, steps=2),
        "some": Experiment(game, {"bad": Breaking(), "good": good}, replicates=2, steps=2),
        "none": Experiment(game, {"good": good}, replicates=2, steps=2),
    }
    with pytest.raises(ArmError) as caught:
        played(tmp_path, Suite(runs))
    assert str(caught.value) == (
        "runs.all.arms.bad, step 1: RuntimeError: shapes cannot be multiplied (arms of some failed as well)"
    )
    assert caught.value.folder == tmp_path / "test"
    report = suite.suite_report(suite.read(tmp_path / "test"))
    success = tables(report)["success rate"]
    assert success.columns.tolist() == ["all", "some", "none"]
    assert success.loc["bad"].tolist() == ["failed", "failed", "-"]
    assert success.loc["good"].tolist()[0] == "-"
    lines = report.text().splitlines()
    assert "failed  some, bad: arms.bad, step 1: RuntimeError: shapes cannot be multiplied" in lines
    assert "failed  all, bad: no results" in lines


# --------------------------------------------------------------------------------------------------------------- tables


def tables(report: Report) -> dict[str, pd.DataFrame]:
    """By title."""
    return {section.title: section.table for section in report.sections if section.table is not None}


def report_of(folder: Path) -> Report:
    return suite.suite_report(suite.read(folder))


def means(report: Report, metric: str, what: str = "mean") -> pd.DataFrame:
    """The estimates of one metric, rows by runs."""
    found = report.estimates[report.estimates["metric"] == metric]
    return found.pivot(index="name", columns="run", values=what)


def test_the_tables_by_hand(whole: Path) -> None:
    report = report_of(whole)
    shown = tables(report)
    assert list(shown) == [
        "test: 2 runs",
        "success rate",
        "exact return, no time limit",
        "NashConv",
        "steps until P(optimum) stays at 0.98 or above",
        "steps to success",
    ]
    runs = shown["test: 2 runs"].to_dict("index")
    assert runs["climbing"] == {"game": "MatrixGame(climbing)", "replicates": "40", "steps": "2"}
    assert runs["pennies"] == {"game": "MatrixGame(matching_pennies)", "replicates": "40", "steps": "2"}
    for table in list(shown.values())[1:]:
        assert (table.index.name, table.index.tolist()) == ("arm", ["best", "half", "heads"])
    returns = means(report, "return").loc[["best", "half", "heads"]]
    # (A, A) 11, (A, C) and (C, A) 0, (C, C) 5, each 1/4: 4. Heads against heads: agent 0 gains 1, agent 1 loses it.
    np.testing.assert_allclose(returns, [[11, np.nan], [4, np.nan], [np.nan, 1]], atol=1e-6)
    said = {section.title: section.explanation for section in report.sections}
    assert said["exact return, no time limit"].endswith("Where the agents' rewards sum to 0, of agent 0: pennies.")
    assert "rewards sum to 0" not in said["NashConv"]
    # Against half A and half C: A pays 5.5, B -15, C 2.5, so each gains 5.5 - 4. Heads against heads: one gains 2.
    gains = means(report, "nash_conv").loc[["best", "half", "heads"]]
    np.testing.assert_allclose(gains, [[0, np.nan], [3, np.nan], [np.nan, 2]], atol=1e-6)
    assert shown["success rate"].to_numpy().tolist() == [
        ["1.000 [0.912, 1.000]", "-"],
        ["0.000 [0.000, 0.088] (0.250)", "-"],  # of success: more likely than not at the optimum
        ["-", "-"],
    ]
    reached = shown["steps until P(optimum) stays at 0.98 or above"]
    assert reached["climbing"].tolist() == ["1.0", "> 2", "-"]
    assert reached["pennies"].tolist() == ["-"] * 3


def test_what_is_shown_can_be_chosen(tmp_path: Path) -> None:
    chosen = Suite(scripted().runs, ["reward_1", "opponent_model_lead", "reward"])
    report = report_of(played(tmp_path, chosen))
    assert list(tables(report))[1:] == ["reward per step, agent 1", "reward per step"]
    assert means(report, "reward_1").loc["heads", "pennies"] == -1, "agent 1 of matching pennies wants them to differ"
    assert means(report, "reward").loc["heads", "pennies"] == 1, "the mean over agents would be 0"
    assert report.text().endswith("not shown, since no run has it: opponent_model_lead")


def mixed_pairs(published: dict[str, dict[str, float]]) -> Experiment:
    """Both nice 3 each, both mean 1 each, else 4 for the mean and 0 for the nice one."""
    game = MatrixGame([[[3, 0], [4, 1]], [[3, 4], [0, 1]]], common=False)
    nice, mean = Stationary(probabilities=[1, 0]), Stationary(probabilities=[0, 1])
    arms = {"nice": nice, "pair": [nice, mean], "mean": mean}
    return Experiment(game, arms, replicates=3, steps=2, published=published)


def test_what_no_run_has_is_said(tmp_path: Path) -> None:
    one = Suite({"climbing": scripted().runs["climbing"]}, show=["opponent_model_lead", "return"])
    lines = report_of(played(tmp_path, one)).text().splitlines()
    assert lines[0] == "test: 1 run"
    assert lines[-1] == "not shown, since no run has it: opponent_model_lead"


def test_agents_with_a_learner_each_have_a_row_each(tmp_path: Path) -> None:
    published = {
        "pair": {"return_0": 0.5, "return_1": 3.5, "reward": 2.5},
        "nice": {"return_0": 2.9, "return_1": 2.7},
        "mean": {"return": 1.5, "return_0": 1.25},
    }
    other = Experiment(MatrixGame("stag_hunt"), {"pair": Stationary(probabilities=[1, 0])}, replicates=3, steps=2)
    runs = {"dilemma": mixed_pairs(published), "stags": other}
    report = report_of(played(tmp_path, Suite(runs, ["return", "return_1", "nash_conv"])))
    returns, second, nash_conv = list(tables(report).values())[1:]
    rows = ["nice", "pair, agent 0", "pair, agent 1", "pair", "mean"]
    assert returns.index.tolist() == rows
    expected = [[3, np.nan], [0, np.nan], [4, np.nan], [np.nan, 4], [1, np.nan]]
    np.testing.assert_allclose(means(report, "return").loc[rows], expected)
    # Of an arm whose agents are alike what is published of each stands beside their mean.
    given = means(report, "return", "published").loc[["nice", *rows[1:3], "mean"], "dilemma"].tolist()
    assert given == pytest.approx([2.8, 0.5, 3.5, 1.5])
    assert second.index.tolist() == nash_conv.index.tolist() == ["nice", "pair", "mean"]
    assert second.loc["pair", "dilemma"] == returns.loc["pair, agent 1", "dilemma"] == "4.000 (3.500)"
    assert "rewards sum to 0" not in report.text()


def test_a_pair_in_a_zero_sum_game_has_a_row_for_each_agent(tmp_path: Path) -> None:
    arms = {
        "pair": [Stationary(probabilities=[1, 0]), Stationary(probabilities=[1, 0])],
        "heads": Stationary(probabilities=[1, 0]),
    }
    published = {"heads": {"return": 0.75}, "pair": {"return_1": -0.5}}
    pennies = Experiment(MatrixGame("matching_pennies"), arms, replicates=3, steps=1, published=published)
    report = report_of(played(tmp_path, Suite({"pennies": pennies}, ["return"])))
    returns = tables(report)["exact return, no time limit"]["pennies"]
    assert returns.to_dict() == {"pair, agent 0": "1.000", "pair, agent 1": "-1.000 (-0.500)", "heads": "1.000 (0.750)"}


def test_a_failed_pair_has_failed_where_another_run_has_its_agents(tmp_path: Path) -> None:
    pennies = MatrixGame("matching_pennies")
    good, bad = [Stationary(), Stationary()], [Stationary(), Breaking()]
    rest = {"replicates": 2, "steps": 2}
    runs = {
        "good": Experiment(pennies, {"pair": good}, **rest),
        "bad": Experiment(pennies, {"pair": bad, "alone": Stationary()}, **rest),
    }
    with pytest.raises(ArmError):
        played(tmp_path, Suite(runs, ["return"]))
    returns = tables(report_of(tmp_path / "test"))["exact return, no time limit"]
    assert returns.index.tolist() == ["pair, agent 0", "pair, agent 1", "alone"]
    assert returns["bad"].tolist()[:2] == ["failed", "failed"]


def test_a_suite_of_which_nothing_was_played_to_its_end_says_so(tmp_path: Path) -> None:
    runs = {name: Experiment(MatrixGame("climbing"), {"bad": Breaking()}, replicates=2, steps=2) for name in "xy"}
    with pytest.raises(ArmError):
        played(tmp_path, Suite(runs))
    report = report_of(tmp_path / "test")
    assert tables(report)["test: 2 runs"].to_numpy().tolist() == [["-"] * 3] * 2
    assert report.text().endswith("failed  x, bad: no results\nfailed  y, bad: no results")
    assert [path.name for path in report.write()] == ["suite.csv", "suite.md", "suite.tex"]


def test_three_agents_stand_beside_two(tmp_path: Path) -> None:
    three = Experiment(MatrixGame(np.ones((2, 2, 2)).tolist(), common=True), {"a": [Stationary()] * 3}, steps=1)
    two = Experiment(MatrixGame("stag_hunt"), {"a": Stationary()}, steps=1)
    returns = tables(report_of(played(tmp_path, Suite({"three": three, "two": two}, ["return"]))))
    assert returns["exact return, no time limit"].index.tolist() == [*(f"a, agent {i}" for i in range(3)), "a"]


class _Scored(MatrixGame):
    """Says how often both choose their first action."""

    metrics = (*MatrixGame.metrics, Metric("both_first", "P(both first)", bounds=PROBABILITY, dims=()))

    def scores(self, policies: Any) -> Any:
        return {"both_first": policies[0][:, 0, 0] * policies[1][:, 0, 0]}


def test_scores_of_a_games_own_can_be_shown_and_published(tmp_path: Path) -> None:
    scored = Experiment(
        _Scored("stag_hunt"),
        {"half": Stationary(probabilities=[1, 1])},
        replicates=3,
        steps=1,
        published={"half": {"both_first": 0.5}},
    )
    hunt = Experiment(MatrixGame("stag_hunt"), {"half": Stationary(probabilities=[1, 1])}, replicates=3, steps=1)
    report = report_of(played(tmp_path, Suite({"scored": scored, "hunt": hunt}, ["both_first"])))
    assert tables(report)["P(both first)"].to_numpy().tolist() == [["0.250 (0.500)", "-"]]
    with pytest.raises(ValueError, match=r"^show: got both_first, expected one of reward, "):
        Suite({"hunt": hunt}, ["both_first"])
    with pytest.raises(ValueError, match=r"^published.a: got both_last, expected one of reward, .*, both_first, "):
        Experiment(_Scored("stag_hunt"), {"a": Stationary()}, published={"a": {"both_last": 0.5}})


def test_reward_stands_in_where_no_return_is_known(tmp_path: Path) -> None:
    quadratics = Experiment(MaxOfTwoQuadratics(), {"a": Stationary()}, replicates=2, steps=2)
    report = report_of(played(tmp_path, Suite({"quadratics": quadratics, **scripted().runs})))
    assert list(tables(report))[1:4] == ["success rate", "exact return, no time limit", "reward per step"]


def test_the_files_say_what_the_tables_say(copied: Path) -> None:
    report = report_of(copied)
    paths = report.write()
    names = ["suite.csv", "suite.md", "suite.tex", "figures/success_rate.png", "figures/nash_conv.png"]
    assert [path.relative_to(copied).as_posix() for path in paths] == names
    rows = pd.read_csv(paths[0])
    pd.testing.assert_frame_equal(rows, report.estimates.reset_index(drop=True), check_dtype=False)
    (half,) = rows[(rows["learner"] == "half") & (rows["metric"] == "success_rate")].itertuples()
    assert (half.run, half.mean, half.published, half.replicates, half.step) == ("climbing", 0.0, 0.25, 40, 2)
    # Wilson's interval for 0 of 40, z = 1.959964: up to z^2 / (n + z^2).
    assert half.high == pytest.approx(1.959964**2 / (40 + 1.959964**2))
    text = " ".join(paths[1].read_text().split())
    assert "| best | 1.000 [0.912, 1.000] | - |" in text
    assert "## success rate" in text
    assert r"\caption{success rate}" in paths[2].read_text()
    for path in paths[3:]:
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_wide_tables_are_printed_in_parts(tmp_path: Path) -> None:
    game, arm = MatrixGame("climbing"), Stationary()
    names = [f"a_run_with_a_long_name_{i}" for i in range(5)]
    runs = {name: Experiment(game, {"a": arm}, replicates=4, steps=1) for name in names}
    lines = report_of(played(tmp_path, Suite(runs, ["success_rate"]))).text().splitlines()
    assert max(map(len, lines)) <= 120
    table = lines[lines.index("success rate") :]
    headers = [name for line in table if line.startswith("  ") for name in line.split()]
    assert headers == list(runs)


# --------------------------------------------------------------------------------------------------------- a real kill


@pytest.mark.slow
def test_a_killed_suite_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    config = file() | {"steps": 600, "record_every": 100, "checkpoint_every": 20}
    config["runs"] = {"one": {}, "two": {"seed": 1}}
    spec, folder = tmp_path / "killed.yaml", tmp_path / "runs" / "killed"
    spec.write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "inference_marl", "run", str(spec), "--out", str(folder.parent), "--quiet"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    try:
        while not (folder / "one" / "checkpoints" / "wolf.pt").exists():
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "one" / "summary.json").exists(), "the run ended before it could be killed: make it longer"
    built = load_any(spec)
    assert isinstance(built, Suite)
    assert run(built, folder.parent, "killed", progress=False) == folder
    whole = run(built, tmp_path, "whole", progress=False)
    for name in built.runs:
        mine, theirs = (xr.load_dataset(each.folder / "metrics.nc") for each in (at(folder, name), at(whole, name)))
        mine.attrs["experiment"] = theirs.attrs["experiment"]
        xr.testing.assert_identical(mine, theirs)
    assert not list(folder.rglob(".*"))


def at(folder: Path, run: str) -> suite.RunOfSuite:
    (found,) = [each for each in suite.read(folder).runs if each.name == run]
    return found
