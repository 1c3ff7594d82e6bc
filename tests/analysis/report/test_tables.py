"""What commands print of a run and write into its folder: its results, and the cells of an ablation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from inference_marl.analysis.estimates import at_the_end
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.report.findings import predicted
from inference_marl.analysis.report.tables import Report, ablation_report, run_report
from inference_marl.config.factors import ablation as factorial
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import Empirical, OpponentFirst, Optimal
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import BernoulliOptimality, EmpiricalFrequency, TabularCritic, Uniform
from inference_marl.runs.errors import ArmError
from inference_marl.runs.run import run as run_experiment
from inference_marl.types import PROBABILITY, Metric
from tests import run_folder


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


def tables(report: Report) -> list[pd.DataFrame]:
    return [section.table for section in report.sections if section.table is not None]


def of_arms(folder: Path, metric: str, paired: bool = False) -> Mapping[str, Any]:
    """The estimates of one metric at the end, or the differences from the first arm, by arm."""
    found = read(folder).frame()
    found = found[(found["step"] == found["step"].max()) & (found["reference"].notna() == paired)]
    rows = found[(found["metric"] == metric) & found["agent"].isna()]
    return {row.learner: row for row in rows.itertuples()}


# ---------------------------------------------------------------------------------------------------------- the results


def results(recorded: Recorded) -> pd.DataFrame:
    (table,) = tables(run_report(recorded))
    return table


def test_results_are_those_of_the_summary_beside_the_published(tmp_path: Path) -> None:
    run = run_folder.discrete()
    recorded = read(run_folder.write(tmp_path / "run", **run))
    table = results(recorded)
    reward = run["metrics"]["reward"].sel(learner="rommeo_q").isel(step=-1)
    mean, *_, published = table.loc["reward per step", "rommeo_q"]
    assert (mean, published) == (f"{float(reward.mean()):.3f}", "11.000")
    assert table.loc[("reward per step", "jal"), ["replicates", "published"]].tolist() == ["8", ""]
    rows = [row for row in recorded.summary["results"] if row["step"] == 40]
    assert len(table) == len(rows), "every estimate has a row"
    assert table.index.to_flat_index().tolist() == [
        (recorded.metric(row["metric"]).label, row["learner"])
        for row in sorted(rows, key=lambda row: list(recorded.declared).index(row["metric"]))
    ]


def test_a_reader_sees_what_was_run_and_from_where_numbers_are(tmp_path: Path) -> None:
    text = run_report(read(run_folder.write(tmp_path / "run", **run_folder.discrete()))).text()
    lines = text.splitlines()
    assert lines[0] == "synthetic: MatrixGame(climbing), 8 replicates, at step 40"
    assert " ".join(lines[-3:]).endswith(
        "published: at the last step of the published experiment, which may not be this one's; a paper"
    )
    assert len({line.rindex("]") for line in lines if "[" in line}) == 1, "aligned"
    assert "An estimate without an interval" in text


def test_what_was_not_reached_is_more_than_the_last_step(tmp_path: Path) -> None:
    run = run_folder.discrete(10, 12)
    run["metrics"]["success_rate"][:] = 0.0
    run["metrics"]["success_rate"][0, :7, 4:] = 1.0
    run["metrics"]["success_rate"][1, :3, 4:] = 1.0
    table = results(read(run_folder.write(tmp_path / "run", **run))).loc["steps to success"]
    assert table.loc["rommeo_q"].tolist()[:2] == ["5.0", "[5.0, > 12]"]
    assert table.loc["rommeo_q_emp"].tolist()[:2] == ["> 12", "[5.0, > 12]"]
    assert table.loc["jal"].tolist()[:2] == ["> 12", ""]


def worth(replicates: int = 3) -> dict[str, xr.Dataset]:
    """A zero-sum game of one learner, with scores of its own, one of them under a label."""
    returns = np.broadcast_to([1.0, -1.0], (1, replicates, 2, 2)) * np.linspace(0, 1, replicates)[:, None, None]
    shares = np.broadcast_to(np.linspace(0.1, 0.3, replicates)[:, None], (1, replicates, 2))
    data = {"reward": 2 * returns, "return": returns, "nash_conv": shares, "tit_for_tat": shares, "odd_play": shares}
    labelled = Metric("tit_for_tat", "share of tit-for-tat", bounds=PROBABILITY)
    return {"metrics": run_folder.metrics_dataset(data, np.arange(1, 3), declared=[labelled])}


def test_worth_is_told_in_order_and_agents_of_zero_sum_games_one_by_one(tmp_path: Path) -> None:
    table = results(read(run_folder.write(tmp_path / "run", **worth())))
    assert table.index.unique(0).tolist() == [
        "reward per step",
        "exact return, no time limit",
        "standard deviation of an agent's return",
        "NashConv",
        "share of tit-for-tat",
        "odd play",
    ]
    reward = table.loc["reward per step"]
    assert reward["mean"].to_dict() == {"rommeo_q, agent 0": "1.000", "rommeo_q, agent 1": "-1.000"}
    assert reward["published"].tolist() == ["11.000", ""], "of the reward: of a mean it can be no number but 0"
    assert table.loc["exact return, no time limit", "mean"].tolist() == ["0.500", "-0.500"]
    assert table.loc["standard deviation of an agent's return", "mean"].to_dict() == {"rommeo_q": "0.500"}
    assert table.loc["odd play", "mean"].to_dict() == {"rommeo_q": "0.200"}


def test_agents_are_told_one_by_one_where_their_learners_differ(tmp_path: Path) -> None:
    run = worth()
    attrs = run["metrics"]["reward"].attrs
    run["metrics"]["reward"] = (run["metrics"]["reward"] + 1.0).assign_attrs(attrs)  # no longer zero-sum
    twice = [run["metrics"], run["metrics"].assign_coords(learner=["alike"])]
    folder = run_folder.write(tmp_path / "run", metrics=xr.concat(twice, dim="learner", data_vars="minimal"))
    (folder / "spec.yaml").write_text("arms: {rommeo_q: [{class_path: A}, {class_path: B}], alike: {class_path: A}}")
    recorded = read(folder)
    told = ["rommeo_q", "rommeo_q, agent 0", "rommeo_q, agent 1", "alike"]

    def published(numbers: dict[str, float]) -> dict[str, str]:
        of_both = dict.fromkeys(("rommeo_q", "alike"), numbers)
        table = results(replace(recorded, summary=recorded.summary | {"published": of_both}))
        assert len(table.loc["standard deviation of an agent's return"]) == 2
        found: dict[str, str] = table.loc["exact return, no time limit", "published"].to_dict()
        return found

    rows = published({"return": 0.1, "return_1": -0.4})
    assert rows == dict(zip(told, ["0.100", "", "-0.400", "0.100"], strict=True))
    rows = published({"return_0": 0.3, "return_1": -0.4})
    assert rows == dict(zip(told, ["", "0.300", "-0.400", "-0.050"], strict=True))
    assert "published" not in results(replace(recorded, summary=recorded.summary | {"published": {}}))


def test_published_steps_are_written_like_measured_ones(tmp_path: Path) -> None:
    recorded = read(run_folder.write(tmp_path / "run", **run_folder.discrete(3, 4)))
    table = results(replace(recorded, summary=recorded.summary | {"published": {"jal": {"steps_to_success": 46}}}))
    assert table.loc[("steps to success", "jal"), "published"] == "46.0"


def test_a_failed_arm_is_said_below_the_results(tmp_path: Path) -> None:
    recorded = read(run_folder.write(tmp_path / "run", **run_folder.discrete(3, 4)))
    report = run_report(replace(recorded, summary=recorded.summary | {"failed": {"bad": "why", "worse": "how"}}))
    assert report.text().endswith("\n\nfailed  bad: why\nfailed  worse: how")


def test_the_files_say_what_the_table_says(tmp_path: Path) -> None:
    report = run_report(read(run_folder.write(tmp_path / "a_run", **worth())))
    csv, markdown, latex = report.write()
    assert [path.name for path in (csv, markdown, latex)] == ["results.csv", "results.md", "results.tex"]
    pd.testing.assert_frame_equal(pd.read_csv(csv), report.estimates, check_dtype=False)
    (table,) = tables(report)
    for path, separator in ((markdown, "|"), (latex, "&")):
        lines = path.read_text().replace("\\_", "_").splitlines()
        rows = [[cell for part in line.split(separator) if (cell := part.strip(" \\"))] for line in lines]
        for names, row in table.iterrows():
            assert [cell for cell in (*names, *row) if cell] in rows


class _Scored(MatrixGame):
    """Says how often both choose their first action."""

    metrics = (*MatrixGame.metrics, Metric("both_first", "P(both first)", bounds=PROBABILITY, dims=()))

    def scores(self, policies: Any) -> Any:
        return {"both_first": policies[0][:, 0, 0] * policies[1][:, 0, 0]}


def test_a_score_of_a_game_of_ones_own_is_printed_under_its_label(tmp_path: Path) -> None:
    game, arms = (
        _Scored("stag_hunt"),
        {"half": Stationary(probabilities=[1, 1]), "first": Stationary(probabilities=[1, 0])},
    )
    published = {"half": {"both_first": 0.5}}
    folder = run(Experiment(game, arms, replicates=3, steps=2, published=published), tmp_path)
    report = run_report(read(folder))
    (table,) = tables(report)
    assert table.loc["P(both first)"].to_numpy().tolist() == [["0.250", "", "3", "0.500"], ["1.000", "", "3", ""]]
    csv, markdown, latex = (path.read_text() for path in report.write())
    assert "half,,,both_first,2,0.25,,,3,0.5" in csv
    assert "| P(both first) " in markdown
    assert "P(both first) & half & 0.250" in latex
    compared = ablation_report(read(folder))
    assert tables(compared)[1]["P(both first)"].tolist() == ["0.250 (0.500)", "1.000"]
    assert [section.explanation.endswith("In parentheses: published.") for section in compared.sections] == [
        *(False, False, True)
    ]


# --------------------------------------------------------------------------------------------------------- the ablation


def test_the_cells_by_hand(scripted: Path) -> None:
    reward, optimum = of_arms(scripted, "reward"), of_arms(scripted, "joint_optimum_probability")
    assert list(reward) == ["best", "second", "both"]
    assert [row.play for row in reward.values()] == ["best", "second", "both"]
    assert (reward["best"].mean, reward["second"].mean) == (11, 7)
    assert [row.mean for row in optimum.values()] == [1, 0, 0.25]
    differences = of_arms(scripted, "reward", paired=True)
    assert list(differences) == ["second", "both"]
    assert differences["second"].mean == -4
    assert of_arms(scripted, "joint_optimum_probability", paired=True)["both"].mean == -0.75
    # Wilson's interval for 400 of 400, z = 1.959964: n / (n + z^2).
    success = of_arms(scripted, "success_rate")["best"]
    assert (success.mean, success.low, success.high) == (1, pytest.approx(400 / (400 + 1.959964**2)), 1)
    assert [row.mean for row in of_arms(scripted, "steps_to_success").values()] == [1, np.inf, np.inf]
    assert {row.replicates for row in reward.values()} == {400}
    # (A, A) 11, (A, C) and (C, A) 0, (C, C) 5, each 1/4: mean 4, variance 21.5; within 5 standard errors.
    assert abs(reward["both"].mean - 4) < 5 * (21.5 / 400) ** 0.5
    half = (differences["both"].high - differences["both"].low) / 2
    assert half == pytest.approx(1.966 * (21.5 / 400) ** 0.5, rel=0.2)
    assert not of_arms(scripted, "elbo"), "nobody has an ELBO here"


def test_the_printed_tables_by_hand(scripted: Path) -> None:
    report = ablation_report(read(scripted))
    lines = report.text().splitlines()
    assert lines[0] == "test: MatrixGame(climbing), 3 cells, 400 replicates each, at step 2"
    reached, differs = tables(report)
    assert reached.columns.tolist() == ["reward per step", "P(optimum)", "success rate", "steps to success"]
    assert reached.index.names == ["play"]
    # Replicates that are all the same have no Student's interval.
    assert reached.loc["best"].to_numpy().ravel().tolist() == [
        "11.000",
        "1.000",
        "1.000 [0.990, 1.000]",
        "1.0 [1.0, 1.0]",
    ]
    assert reached.loc["second"].to_numpy().ravel().tolist()[:3] == ["7.000", "0.000", "0.000 [0.000, 0.010]"]
    assert reached.loc["second", "steps to success"].item().startswith("> 2")
    assert differs.columns.tolist() == ["reward per step vs first", "P(optimum) vs first"]
    assert differs.loc["best"].to_numpy().ravel().tolist() == ["-", "-"]
    assert differs.loc["second"].to_numpy().ravel().tolist() == ["-4.000", "-1.000"]
    assert "The paired difference from the first cell" in report.text()


@pytest.mark.slow
def test_the_table_of_a_grid_has_a_column_per_factor(ablation: Path) -> None:
    recorded = read(ablation)
    report = ablation_report(recorded)
    for table in tables(report):
        assert table.index.names == ["temperature", "variant"]
        assert table.index.tolist() == [
            (temperature, variant) for temperature in ("5", "0.5") for variant in ("full", "empirical", "uniform")
        ]
    assert "ELBO gap" in tables(report)[1]
    assert max(map(len, report.text().splitlines())) <= 120
    for arm, row in of_arms(ablation, "elbo").items():
        parts = recorded.metrics.sel(learner=arm).isel(step=-1)
        gap = of_arms(ablation, "elbo_gap")[arm]
        assert row.mean == pytest.approx(float(parts["elbo"].mean()), rel=1e-5)
        assert gap.mean == pytest.approx(float(parts["elbo_gap"].mean()), abs=1e-5)
        if gap.variant != "empirical":
            assert abs(gap.mean) < 1e-5, "the closed form is the best guide"
        elif gap.temperature == "5":
            assert gap.mean > 1e-2, "rho := P is not"


@pytest.mark.slow
def test_an_ablation_says_who_predicts_better_and_when(ablation: Path) -> None:
    """As `inspect` does; the cells in which rho is the prior forecast as well as it, always."""
    recorded = read(ablation)
    overall, by_part = tables(ablation_report(recorded))[2:]
    section = predicted(recorded)
    assert section is not None
    assert section.table is not None
    assert overall.to_numpy().tolist() == section.table.to_numpy().tolist()
    assert by_part.columns.tolist() == ["steps 1-2", "steps 3-4", "steps 5-6", "steps 7-8", "steps 9"]
    assert set(by_part.xs("empirical", level="variant").to_numpy().ravel()) == {"0.000"}
    # The parts make up the whole, weighted by their records.
    parts = by_part.loc[("5", "full")].str.split().str[0].astype(float)
    whole = float(overall.loc[("5", "full"), "rho minus P"].split()[0])
    assert whole != 0
    assert np.average(parts, weights=[2, 2, 2, 2, 1]) == pytest.approx(whole, abs=1e-3)


def test_designs_that_are_no_grid_say_what_differs(tmp_path: Path) -> None:
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo_q()}, replicates=2, steps=2)
    factors = {"temperature": [5.0, 0.5], "kl_weight": {"one": {}, "none": {"kl_weight": 1e-3}}}
    folder = run(factorial(experiment, factors, "one_at_a_time"), tmp_path)
    for table in tables(ablation_report(read(folder))):
        assert table.index.names == ["factor", "level"]
        assert table.index.tolist() == [("-", "reference"), ("temperature", "0.5"), ("kl_weight", "none")]


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("names", [["one", "two"], ["one"]])
def test_arms_that_were_written_one_by_one_have_a_table_too(tmp_path: Path, names: list[str]) -> None:
    arms = dict(zip(names, [Stationary(), Stationary(probabilities=[1, 0, 0])], strict=False))
    folder = run(Experiment(MatrixGame("climbing"), arms, replicates=2, steps=2), tmp_path)
    report = ablation_report(read(folder))
    assert tables(report)[0].index.to_flat_index().tolist() == [(name,) for name in names]
    assert tables(report)[0].index.names == ["arm"]
    assert len(tables(report)) == len(names), "there is nothing to compare one arm with"
    written = [path.relative_to(folder).as_posix() for path in report.write()]
    assert written == ["ablation.csv", "ablation.md", "ablation.tex", "figures/ablation_curves.png"]


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell between two others has failed."""
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo_q()}, replicates=20, steps=8)
    levels = {
        "full": {},
        "refusing": {"optimality": BernoulliOptimality(5.0)},
        "uniform": {"opponent_prior": Uniform()},
    }
    out = tmp_path_factory.mktemp("runs")
    with pytest.raises(ArmError):
        run(factorial(experiment, {"variant": levels}), out)
    return out / "test"


@pytest.mark.usefixtures("unrendered")
def test_a_cell_that_failed_has_a_row_and_a_line_that_says_why(lacking: Path, tmp_path: Path) -> None:
    report = ablation_report(read(shutil.copytree(lacking, tmp_path / "test")))
    (line,) = [line for line in report.text().splitlines() if line.startswith("failed  ")]
    assert line.startswith("failed  refusing: arms.refusing, step ")
    assert "optimality.upper: got 5.0" in line
    found = tables(report)
    assert len(found) == 4, "with the forecasts"
    _, differs, *_ = found
    for table in found:
        assert table.index.get_level_values(0).tolist() == ["full", "refusing", "uniform"]
        assert set(table.loc["refusing"].to_numpy().ravel()) == {"failed"}
        assert "failed" not in table.drop("refusing").to_numpy()
    found = report.estimates
    assert set(found["learner"]) == {"full", "uniform"}
    assert float(differs.loc["uniform", "reward per step vs first"].item().split()[0]) != 0
    csv, markdown, latex, *figures = report.write()
    assert pd.read_csv(csv)["variant"].unique().tolist() == ["full", "uniform"]
    assert line in markdown.read_text()
    assert f"% {line}" in latex.read_text()
    assert len(figures) == 2


@pytest.mark.parametrize("good", [rommeo_q(), Stationary()], ids=["with an ELBO", "without"])
def test_without_the_first_cell_there_is_nothing_to_compare_with(tmp_path: Path, good: Any) -> None:
    arms = {"bad": rommeo_q(optimality=BernoulliOptimality(5.0)), "good": good}
    with pytest.raises(ArmError):
        run(Experiment(MatrixGame("climbing"), arms, replicates=20, steps=8), tmp_path)
    report = ablation_report(read(tmp_path / "test"))
    assert report.estimates["reference"].isna().all()
    assert tables(report)[0].loc["good", "reward per step"].item() != "failed"
    assert report.text().count("no differences: the first cell failed (bad)") == 1
    assert "paired difference" not in report.text()
    assert report.text().count("How far inference came: the ELBO") == ("ELBO" in report.text())
    assert ("ELBO" in report.text()) == (not isinstance(good, Stationary))
    assert "\n\n\n" not in report.text()


def test_an_ablation_explains_what_its_table_has(scripted: Path, ablation: Path, tmp_path: Path) -> None:
    def explained(folder: Path) -> str:
        return ablation_report(read(folder)).sections[2].explanation

    caution = "Where models or critics differ, a higher ELBO is not better inference"
    assert explained(scripted) == "The paired difference from the first cell, replicate by replicate."
    assert explained(ablation) == (
        "The paired difference from the first cell, replicate by replicate; and how far inference came: the ELBO, in "
        "units of reward, and what it lacks of the evidence, where the learner can compute that. "
        f"{caution}: compare the gap."
    )
    data = {"reward": np.zeros((2, 3, 2, 2)), "elbo": np.ones((2, 3, 2, 2)), "mine": np.ones((2, 3, 2))}
    folder = run_folder.write(tmp_path / "run", metrics=run_folder.metrics_dataset(data, np.arange(2), list("ab")))
    (folder / "spec.yaml").write_text("arms: {a: null, b: null}\n")
    assert explained(folder) == (
        "How far inference came: the ELBO, in units of reward; and what the game and the learners measure of their "
        f"own. {caution}."
    )


def test_an_evaluated_reward_is_among_what_was_reached(tmp_path: Path) -> None:
    data = {"reward": np.zeros((2, 3, 2, 2)), "evaluation_reward": np.ones((2, 3, 2, 2))}
    folder = run_folder.write(tmp_path / "run", metrics=run_folder.metrics_dataset(data, np.arange(2), list("ab")))
    (folder / "spec.yaml").write_text("arms: {a: null, b: null}\n")
    (table,) = tables(ablation_report(read(folder)))
    assert table["reward per step, evaluated"].tolist() == ["1.000"] * 2


def test_metrics_of_one_label_have_a_column_each(tmp_path: Path) -> None:
    twins = [Metric("mine", "share"), Metric("yours", "share")]
    data = {"reward": np.zeros((2, 3, 2, 2)), "mine": np.ones((2, 3, 2)), "yours": np.zeros((2, 3, 2))}
    folder = run_folder.write(
        tmp_path / "run", metrics=run_folder.metrics_dataset(data, np.arange(2), list("ab"), twins)
    )
    (folder / "spec.yaml").write_text("arms: {a: null, b: null}\n")
    table = tables(ablation_report(read(folder)))[1]
    assert table["share"].to_numpy().tolist() == [["1.000", "0.000"]] * 2


def test_what_is_written(ablation: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ablation, tmp_path / "test"))
    report = ablation_report(read(folder))
    paths = report.write()
    assert [path.relative_to(folder).as_posix() for path in paths] == [
        *("ablation.csv", "ablation.md", "ablation.tex"),
        *("figures/ablation_curves.png", "figures/ablation_elbo.png"),
    ]
    written = pd.read_csv(paths[0], dtype={"temperature": str})
    pd.testing.assert_frame_equal(written, report.estimates, check_dtype=False)
    assert written.columns.tolist()[:4] == ["learner", "temperature", "variant", "agent"]
    for path in paths[3:]:
        assert path.read_bytes().startswith(b"\x89PNG")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["levels"] == read(folder).levels
    assert {row["reference"] for row in summary["differences"]} == {"temperature_5-full"}
    assert len(at_the_end(report.estimates)) == sum(
        row["step"] == 10 for part in ("results", "agents") for row in summary[part]
    )


def test_sections_name_their_figures(ablation: Path) -> None:
    """After the tables that explain them."""
    sections = ablation_report(read(ablation)).sections
    assert [section.figures for section in sections] == [(), (), ("ablation_curves", "ablation_elbo"), (), ()]
    said = "Where models or critics differ, a higher ELBO is not better inference: compare the gap."
    assert said in sections[2].explanation
