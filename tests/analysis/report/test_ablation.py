"""The table and the files of an ablation, from the folder of a run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from inference_marl.analysis.levels import levels_of
from inference_marl.analysis.recorded import read
from inference_marl.analysis.report.ablation import records, sections, table, write
from inference_marl.analysis.tables import as_csv
from inference_marl.config.factors import ablation as factorial
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import Empirical, OpponentFirst, Optimal
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import BernoulliOptimality, EmpiricalFrequency, TabularCritic, Uniform
from inference_marl.runs.errors import ArmError
from inference_marl.runs.run import run as run_experiment


def run(experiment: Experiment, out: Path, **options: Any) -> Path:
    return run_experiment(experiment, out, "test", progress=False, **options)


def rommeo_q(**changes: Any) -> Rommeo:
    arguments: dict[str, Any] = {
        "opponent_prior": EmpiricalFrequency(window=5),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(),
    }
    return Rommeo(**arguments | changes)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Players that always do the same: (A, A) pays 11 and is the optimum, (B, B) pays 7, A or C half-half."""
    plays = {"best": [1, 0, 0], "second": [0, 1, 0], "both": [1, 0, 1]}
    experiment = Experiment(MatrixGame("climbing"), {"a": Stationary()}, replicates=400, steps=2)
    factors = {"play": {name: {"probabilities": row} for name, row in plays.items()}}
    return run(factorial(experiment, factors), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of ROMMEO-Q."""
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo_q()}, replicates=5, steps=10)
    variants = {
        "full": {},
        "empirical": {"guide.opponent_model": Empirical()},
        "uniform": {"opponent_prior": Uniform()},
    }
    factors = {"temperature": [5.0, 0.5], "variant": variants}
    return run(factorial(experiment, factors), tmp_path_factory.mktemp("runs"))


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_by_hand(scripted: Path) -> None:
    best, second, both = rows(as_csv(records(read(scripted))))
    assert [row["cell"] for row in (best, second, both)] == ["best", "second", "both"]
    assert [row["play"] for row in (best, second, both)] == ["best", "second", "both"]
    assert (float(best["reward"]), float(second["reward"])) == (11, 7)
    assert (float(best["joint_optimum_probability"]), float(second["joint_optimum_probability"])) == (1, 0)
    assert float(both["joint_optimum_probability"]) == 0.25
    assert (best["reward_difference"], float(second["reward_difference"])) == ("", -4)
    assert float(both["joint_optimum_probability_difference"]) == -0.75
    # Wilson's interval for 400 of 400, z = 1.959964: n / (n + z^2).
    assert (float(best["success_rate"]), float(best["success_rate_high"])) == (1, 1)
    assert float(best["success_rate_low"]) == pytest.approx(400 / (400 + 1.959964**2))
    assert (float(best["steps_to_success"]), second["steps_to_success"]) == (1, "")
    assert {row["replicates"] for row in (best, second, both)} == {"400"}
    # (A, A) 11, (A, C) and (C, A) 0, (C, C) 5, each 1/4: mean 4, variance 21.5; within 5 standard errors.
    assert abs(float(both["reward"]) - 4) < 5 * (21.5 / 400) ** 0.5
    half = (float(both["reward_difference_high"]) - float(both["reward_difference_low"])) / 2
    assert half == pytest.approx(1.966 * (21.5 / 400) ** 0.5, rel=0.2)
    assert "elbo" not in best, "nobody has an ELBO here"


def test_the_printed_table_by_hand(scripted: Path) -> None:
    lines = table(scripted).splitlines()
    assert lines[0] == "test: MatrixGame(climbing), 3 cells, 400 replicates each, at step 2"
    header = next(line for line in lines if line.startswith("play"))
    assert header.split() == ["play", "reward", "P(optimum)", "success", "rate", "steps"]
    first, second = (next(line for line in lines if line.startswith(name)) for name in ("best", "second"))
    # Replicates that are all the same have no Student's interval.
    assert " ".join(first.split()) == "best 11.00 1.000 1.000 [0.990, 1.000] 1"
    assert " ".join(second.split()) == "second 7.00 0.000 0.000 [0.000, 0.010] > 2"
    again = [line.split() for line in lines if line.startswith(("best", "second"))][2:]
    assert again == [["best", "-", "-"], ["second", "-4.00", "-1.000"]]
    assert "paired difference from the first cell" in table(scripted)


def test_the_table_of_a_grid_has_a_column_per_factor(ablation: Path) -> None:
    text = table(ablation)
    lines = text.splitlines()
    (first, *_) = [i for i, line in enumerate(lines) if line.startswith("temperature  variant")]
    assert [line.split()[:2] for line in lines[first + 1 : first + 7]] == [
        [temperature, variant] for temperature in ("5", "0.5") for variant in ("full", "empirical", "uniform")
    ]
    assert "ELBO gap" in text
    assert max(map(len, lines)) <= 120
    recorded = read(ablation)
    for row in rows(as_csv(records(recorded))):
        parts = recorded.metrics.sel(learner=row["cell"]).isel(step=-1)
        assert float(row["elbo"]) == pytest.approx(float(parts["elbo"].mean()), rel=1e-5)
        assert float(row["elbo_gap"]) == pytest.approx(float(parts["elbo_gap"].mean()), abs=1e-5)
        if row["variant"] != "empirical":
            assert abs(float(row["elbo_gap"])) < 1e-5, "the closed form is the best guide"
        elif row["temperature"] == "5":
            assert float(row["elbo_gap"]) > 1e-2, "rho := P is not"


def test_designs_that_are_no_grid_say_what_differs(tmp_path: Path) -> None:
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo_q()}, replicates=2, steps=2)
    factors = {"temperature": [5.0, 0.5], "kl_weight": {"one": {}, "none": {"kl_weight": 1e-3}}}
    text = table(run(factorial(experiment, factors, "one_at_a_time"), tmp_path))
    named = [line.split()[:2] for line in text.splitlines() if line.startswith(("factor", "-", "temp", "kl_weight"))]
    expected = [["factor", "level"], ["-", "reference"], ["temperature", "0.5"], ["kl_weight", "none"]]
    assert named == expected * 2


@pytest.mark.usefixtures("unrendered")
def test_arms_that_were_written_one_by_one_have_a_table_too(tmp_path: Path) -> None:
    arms = {"one": Stationary(), "two": Stationary(probabilities=[1, 0, 0])}
    folder = run(Experiment(MatrixGame("climbing"), arms, replicates=2, steps=2), tmp_path)
    assert [row["arm"] for row in rows(as_csv(records(read(folder))))] == ["one", "two"]
    assert "arm " in table(folder)
    write(folder)
    assert {path.name for path in (folder / "figures").iterdir()} == {"ablation_curves.png"}


@pytest.mark.usefixtures("unrendered")
def test_a_cell_that_failed_has_a_row_and_a_line_that_says_why(tmp_path: Path) -> None:
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo_q()}, replicates=20, steps=8)
    levels = {
        "full": {},
        "refusing": {"optimality": BernoulliOptimality(5.0)},
        "uniform": {"opponent_prior": Uniform()},
    }
    with pytest.raises(ArmError):
        run(factorial(experiment, {"variant": levels}), tmp_path)
    folder = tmp_path / "test"
    text = table(folder)
    (line,) = [line for line in text.splitlines() if line.startswith("failed  ")]
    assert line.startswith("failed  refusing: arms.refusing, step ")
    assert "optimality.upper: got 5.0" in line
    (row, *_) = [line.split() for line in text.splitlines() if line.startswith("refusing")]
    assert row == ["refusing", *["failed"] * 4]
    full, refusing, uniform = rows(as_csv(records(read(folder))))
    assert (refusing["reward"], refusing["replicates"]) == ("", "0")
    assert refusing["failed"].startswith("arms.refusing, step ")
    assert full["failed"] == uniform["failed"] == ""
    assert float(uniform["reward_difference"]) != 0
    assert len(write(folder)) == 3


def test_without_the_first_cell_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    arms = {"bad": rommeo_q(optimality=BernoulliOptimality(5.0)), "good": rommeo_q()}
    with pytest.raises(ArmError):
        run(Experiment(MatrixGame("climbing"), arms, replicates=20, steps=8), tmp_path)
    header = as_csv(records(read(tmp_path / "test"))).splitlines()[0]
    assert "reward" in header
    assert "difference" not in header
    assert table(tmp_path / "test").count("no differences: the first cell failed (bad)") == 1


def test_what_is_written(ablation: Path) -> None:
    paths = write(ablation)
    assert [path.relative_to(ablation).as_posix() for path in paths] == [
        "ablation.csv",
        "figures/ablation_curves.png",
        "figures/ablation_elbo.png",
    ]
    assert paths[0].read_text() == as_csv(records(read(ablation)))
    for path in paths[1:]:
        assert path.read_bytes().startswith(b"\x89PNG")
    summary = json.loads((ablation / "summary.json").read_text())
    assert summary["levels"] == levels_of(read(ablation))
    assert {row["reference"] for row in summary["differences"]} == {"temperature_5-full"}


def test_sections_name_their_figures(ablation: Path) -> None:
    """After the tables that explain them."""
    assert [section.figures for section in sections(read(ablation))] == [(), (), ("ablation_curves", "ablation_elbo")]


def test_a_level_has_a_column_of_its_own(ablation: Path) -> None:
    for section in sections(read(ablation))[1:]:
        assert (section.names, section.header[:2]) == (2, ["temperature", "variant"])
        assert [row[:2] for row in section.rows] == [
            [temperature, variant] for temperature in ("5", "0.5") for variant in ("full", "empirical", "uniform")
        ]


def test_elbos_that_are_not_comparable_come_with_a_warning(ablation: Path) -> None:
    said = "Where models or critics differ, a higher ELBO is not better inference: compare the gap."
    assert said in sections(read(ablation))[2].explanation
