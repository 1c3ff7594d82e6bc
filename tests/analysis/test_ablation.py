"""The table and the figures of an ablation, from the folder of a run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from inference_marl.analysis.posterior import read
from inference_marl.analysis.report.ablation import (
    as_csv,
    elbo_bars,
    groups,
    learning_curves,
    levels_of,
    sections,
    table,
    write,
)
from inference_marl.games import MatrixGame
from inference_marl.guides import Empirical, OpponentFirst, Optimal
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import BernoulliOptimality, EmpiricalFrequency, TabularCritic, Uniform
from inference_marl.runs.run import ArmError, Experiment

GRID = {
    f"{temperature}-{variant}": {"temperature": temperature, "variant": variant}
    for temperature in ("high", "low")
    for variant in ("full", "no_kl", "empirical")
}
FIRST = {"variant": "full", "critic": "random"}
ONE_AT_A_TIME = {
    "reference": FIRST,
    "no_kl": FIRST | {"variant": "no_kl"},
    "empirical": FIRST | {"variant": "empirical"},
    "optimistic": FIRST | {"critic": "optimistic"},
}


def run(experiment: Experiment, out: Path, **options: Any) -> Path:
    return experiment.run(out, "test", progress=False, **options)


def rommeo_q(**changes: Any) -> Rommeo:
    arguments: dict[str, Any] = {
        "opponent_prior": EmpiricalFrequency(window=5),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(),
    }
    return Rommeo(**arguments | changes)


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    """Players that always do the same: (A, A) pays 11 and is the optimum, (B, B) pays 7, A or C half-half."""
    plays = {"best": [1, 0, 0], "second": [0, 1, 0], "both": [1, 0, 1]}
    experiment = Experiment(MatrixGame("climbing"), {"a": Stationary()}, replicates=400, steps=2)
    factors = {"play": {name: {"probabilities": row} for name, row in plays.items()}}
    return run(experiment.ablation(factors), tmp_path)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of ROMMEO-Q."""
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo_q()}, replicates=5, steps=20)
    variants = {
        "full": {},
        "empirical": {"guide.opponent_model": Empirical()},
        "uniform": {"opponent_prior": Uniform()},
    }
    factors = {"temperature": [5.0, 0.5], "variant": variants}
    return run(experiment.ablation(factors), tmp_path_factory.mktemp("runs"))


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# ------------------------------------------------------------------------------------------------------------ the table


def test_the_table_by_hand(scripted: Path) -> None:
    best, second, both = rows(as_csv(read(scripted)))
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
    for row in rows(as_csv(read(ablation))):
        parts = read(ablation).metrics.sel(learner=row["cell"]).isel(step=-1)
        assert float(row["elbo"]) == pytest.approx(float(parts["elbo"].mean()), rel=1e-5)
        assert float(row["elbo_gap"]) == pytest.approx(float(parts["elbo_gap"].mean()), abs=1e-5)
        if row["variant"] != "empirical":
            assert abs(float(row["elbo_gap"])) < 1e-5, "the closed form is the best guide"
        elif row["temperature"] == "5":
            assert float(row["elbo_gap"]) > 1e-2, "rho := P is not"


def test_designs_that_are_no_grid_say_what_differs(tmp_path: Path) -> None:
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo_q()}, replicates=2, steps=2)
    factors = {"temperature": [5.0, 0.5], "kl_weight": {"one": {}, "none": {"kl_weight": 1e-3}}}
    text = table(run(experiment.ablation(factors, "one_at_a_time"), tmp_path))
    named = [line.split()[:2] for line in text.splitlines() if line.startswith(("factor", "-", "temp", "kl_weight"))]
    expected = [["factor", "level"], ["-", "reference"], ["temperature", "0.5"], ["kl_weight", "none"]]
    assert named == expected * 2


def test_arms_that_were_written_one_by_one_have_a_table_too(tmp_path: Path) -> None:
    arms = {"one": Stationary(), "two": Stationary([1, 0, 0])}
    folder = run(Experiment(MatrixGame("climbing"), arms, replicates=2, steps=2), tmp_path)
    assert [row["arm"] for row in rows(as_csv(read(folder)))] == ["one", "two"]
    assert "arm " in table(folder)
    write(folder)
    assert {path.name for path in (folder / "figures").iterdir()} == {"ablation_curves.png"}


def test_a_cell_that_failed_has_a_row_and_a_line_that_says_why(tmp_path: Path) -> None:
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo_q()}, replicates=20, steps=8)
    levels = {
        "full": {},
        "refusing": {"optimality": BernoulliOptimality(5.0)},
        "uniform": {"opponent_prior": Uniform()},
    }
    with pytest.raises(ArmError):
        run(experiment.ablation({"variant": levels}), tmp_path)
    folder = tmp_path / "test"
    text = table(folder)
    (line,) = [line for line in text.splitlines() if line.startswith("failed  ")]
    assert line.startswith("failed  refusing: arms.refusing, step ")
    assert "optimality.upper: got 5.0" in line
    (row, *_) = [line.split() for line in text.splitlines() if line.startswith("refusing")]
    assert row == ["refusing", *["failed"] * 4]
    full, refusing, uniform = rows(as_csv(read(folder)))
    assert (refusing["reward"], refusing["replicates"]) == ("", "0")
    assert refusing["failed"].startswith("arms.refusing, step ")
    assert full["failed"] == uniform["failed"] == ""
    assert float(uniform["reward_difference"]) != 0
    assert len(write(folder)) == 3


def test_without_the_first_cell_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    arms = {"bad": rommeo_q(optimality=BernoulliOptimality(5.0)), "good": rommeo_q()}
    with pytest.raises(ArmError):
        run(Experiment(MatrixGame("climbing"), arms, replicates=20, steps=8), tmp_path)
    header = as_csv(read(tmp_path / "test")).splitlines()[0]
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
    assert paths[0].read_text() == as_csv(read(ablation))
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


# ---------------------------------------------------------------------------------------------------------- the figures


def test_panels_of_a_grid_differ_in_the_last_factor_only() -> None:
    assert groups(GRID) == {
        f"temperature: {temperature}": {f"{temperature}-{level}": level for level in ("full", "no_kl", "empirical")}
        for temperature in ("high", "low")
    }
    assert groups({"a": {"arm": "a"}, "b": {"arm": "b"}}) == {"": {"a": "a", "b": "b"}}


def test_panels_of_other_designs_are_a_factor_each() -> None:
    expected = {
        "variant": {"reference": "reference", "no_kl": "no_kl", "empirical": "empirical"},
        "critic": {"reference": "reference", "optimistic": "optimistic"},
    }
    assert groups(ONE_AT_A_TIME) == expected
    both = {**ONE_AT_A_TIME, "both": {"variant": "no_kl", "critic": "optimistic"}}
    assert groups(both) == {**expected, "several changes": {"reference": "reference", "both": "no_kl + optimistic"}}


def metrics_of(levels: dict[str, dict[str, str]], steps: int = 12, **absent: None) -> xr.Dataset:
    """Metrics whose numbers say which cell they are of: the ELBO of cell `i` is `3 i - 1 - 2`."""
    count = len(levels)
    one = np.ones((count, 4, steps, 2)) * np.arange(count)[:, None, None, None]
    data: dict[str, Any] = {
        "reward": one + np.random.default_rng(0).normal(0, 0.3, one.shape),
        "elbo_reward": 3 * one,
        "elbo_entropy": 0 * one - 1,
        "elbo_kl": 0 * one + 2,
        "elbo": 3 * one - 3,
        "elbo_gap": 0 * one + 0.5,
    }
    dims = ("learner", "replicate", "step", "agent")
    coordinates = {"learner": list(levels), "replicate": range(4), "step": range(1, steps + 1)}
    dataset = xr.Dataset({name: (dims, value) for name, value in data.items() if name not in absent}, coordinates)
    dataset["joint_optimum_probability"] = dataset["elbo_gap" if "elbo_gap" in dataset else "reward"].isel(agent=0)
    dataset.attrs = {"game": "a game", "steps_per_episode": steps}
    return dataset


def visible(figure: Figure) -> list[Any]:
    return [axis for axis in figure.axes if axis.get_visible()]


@pytest.mark.parametrize(("levels", "panels"), [(GRID, 2), (ONE_AT_A_TIME, 2)])
def test_curves_of_every_cell_are_drawn(levels: dict[str, dict[str, str]], panels: int) -> None:
    metrics = metrics_of(levels)
    axes = visible(learning_curves(metrics, levels))
    assert len(axes) == 2 * panels
    expected = [cell for cells in groups(levels).values() for cell in cells]
    for axis, cells in zip(axes[:panels], groups(levels).values(), strict=True):
        assert len(axis.lines) == len(cells)
        for line, cell in zip(axis.lines, cells, strict=True):
            mean = metrics["reward"].sel(learner=cell).mean(["replicate", "agent"])
            np.testing.assert_allclose(line.get_ydata(), mean)
            assert line.get_label() == groups(levels)[axis.get_title(loc="left")][cell]
    assert sum(len(axis.lines) for axis in axes) == 2 * len(expected)
    for axis in axes:
        seen = {(line.get_color(), str(line.get_linestyle())) for line in axis.lines}
        assert len(seen) == len(axis.lines), "lines of one panel can be told apart"


def test_a_grid_has_one_legend_and_other_designs_one_per_panel() -> None:
    grid = learning_curves(metrics_of(GRID), GRID)
    assert [text.get_text() for text in grid.legends[0].get_texts()] == ["full", "no_kl", "empirical"]
    other = learning_curves(metrics_of(ONE_AT_A_TIME), ONE_AT_A_TIME)
    assert not other.legends
    legends = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in other.axes if axis.get_legend()]
    assert legends == [["reference", "no_kl", "empirical"], ["reference", "optimistic"]]


def test_bars_add_up_to_the_elbo() -> None:
    axes = visible(elbo_bars(metrics_of(GRID), GRID))
    assert [[label.get_text() for label in axis.get_yticklabels()] for axis in axes] == [
        ["full", "no_kl", "empirical"]
    ] * 2
    for i, cell in enumerate(GRID):
        axis, y = axes[i // 3], i % 3
        value, entropy, divergence = axis.patches[3 * y : 3 * y + 3]
        assert (value.get_x(), value.get_width()) == pytest.approx((0, 3 * i)), cell
        assert (entropy.get_x(), entropy.get_width()) == pytest.approx((3 * i, -1))
        assert (divergence.get_x(), divergence.get_width()) == pytest.approx((3 * i - 1, -2))
        elbo, evidence = [line for line in axis.lines if line.get_linestyle() == "None"][2 * y : 2 * y + 2]
        assert elbo.get_xdata()[0] == divergence.get_x() + divergence.get_width() == 3 * i - 3
        assert evidence.get_xdata()[0] == 3 * i - 2.5


def test_a_range_of_bars_shows_the_small_ones() -> None:
    """Cells reach `3 i`; the last one 300, a hundred times as far as the smallest that is not 0."""
    levels = {str(i): {"kind": str(i)} for i in range(4)}
    metrics = metrics_of(levels)
    for name in ("elbo_reward", "elbo", "elbo_gap"):
        metrics[name][3] = 300 if name != "elbo_gap" else 0
    (axis,) = visible(elbo_bars(metrics, levels))
    assert axis.get_xlim() == pytest.approx((-3 - 0.03 * 9, 6 + 0.03 * 9))
    assert "beyond the axis: ELBO of 3 300.0" in [text.get_text() for text in axis.texts]
    metrics[{"learner": 3}] = metrics.isel(learner=2)
    (axis,) = visible(elbo_bars(metrics, levels))
    assert not [text for text in axis.texts if text.get_text()]


def test_every_panel_of_bars_has_its_own_range() -> None:
    metrics = metrics_of(GRID)
    far = metrics["learner"].str.startswith("low")
    metrics["elbo_reward"] = metrics["elbo_reward"].where(~far, 1000.0)
    high, low = visible(elbo_bars(metrics, GRID))
    assert high.get_xlim()[1] < 10
    assert low.get_xlim()[1] > 1000


def test_cells_without_an_elbo_or_without_results_are_left_out_of_the_figures() -> None:
    metrics = metrics_of(GRID).drop_sel(learner="high-no_kl")
    lacking = metrics["learner"] == "low-full"
    metrics = metrics.assign({name: metrics[name].where(~lacking) for name in metrics if str(name).startswith("elbo")})
    assert len(learning_curves(metrics, GRID).axes[0].lines) == 3, "the legend still has all"
    axes = visible(elbo_bars(metrics, GRID))
    assert [len(axis.patches) for axis in axes] == [6, 6]
    assert not [line for line in axes[0].lines if len(line.get_xdata()) == 0]


@pytest.mark.parametrize("cells", [7, 14, 20])
def test_nothing_overlaps_or_is_cut_off(cells: int) -> None:
    """Texts of a figure stay apart and inside, also with many cells of long names."""
    variants = ["full", "empirical_guide", "uniform_prior", "no_kl_at_all", "fixed_uniform", "no_warmup", "fast_target"]
    levels = {
        f"{i}": {"values": f"kind_{i // 7}", "variant": variants[i % 7]} for i in range(cells)
    }  # 20 of 21: no grid any more
    metrics = metrics_of(levels)
    for figure in (learning_curves(metrics, levels), elbo_bars(metrics, levels)):
        figure.draw_without_rendering()
        legends = [*figure.legends, *(axis.get_legend() for axis in visible(figure) if axis.get_legend())]
        texts = [text for legend in legends for text in legend.get_texts()]
        for axis in visible(figure):
            low, high = sorted(axis.get_ylim())
            ticks = [text for text in axis.get_yticklabels() if low <= text.get_position()[1] <= high]
            texts += [axis.title, axis._left_title, *ticks, axis.xaxis.label, axis.yaxis.label]
        boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
        for i, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.width
            assert box.y1 <= figure.bbox.height
            for other in boxes[i + 1 :]:
                assert not box.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9))
