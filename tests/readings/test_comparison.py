from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from inference_marl.plots.comparison import compared_beliefs
from inference_marl.posterior import InspectError, Recorded, read
from inference_marl.readings.comparison import (
    belief_distance,
    comparison,
    difference_interval,
    learner_pairs,
    learner_readings,
    run_names,
)
from inference_marl.report.text import compare_runs
from tests import run_folder


def recorded(folder: Path, beliefs: list[float] | None = None, **renamed: str) -> Recorded:
    """A discrete run; with `beliefs` those are rho at the end, in all seeds."""
    run = run_folder.discrete(6, 8)
    if beliefs is not None:
        run["posterior"]["opponent_model"][0, :, -1] = beliefs
    if renamed:
        names = [renamed.get(name, name) for name in run["metrics"]["learner"].to_numpy().tolist()]
        run = {name: dataset.assign_coords(learner=names) for name, dataset in run.items()}
    return read(run_folder.write(folder, **run))


def test_distance_by_hand(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "a", [0.5, 0.3, 0.2]), recorded(tmp_path / "b", [0.2, 0.3, 0.5])
    found = belief_distance(one, other, ("rommeo_q", "rommeo_q"))
    assert found is not None
    total, divergence = found
    assert total.mean == pytest.approx(0.3, rel=1e-5)
    assert divergence.mean == pytest.approx(0.3 * math.log(0.5 / 0.2), rel=1e-5)
    assert (total.low, total.high) == (pytest.approx(0.3, rel=1e-5), pytest.approx(0.3, rel=1e-5))
    same = belief_distance(one, one, ("rommeo_q", "rommeo_q"))
    assert same is not None
    assert same[0].mean == pytest.approx(0.0, abs=1e-6)
    assert belief_distance(one, other, ("wolf_phc", "rommeo_q")) is None


def test_distance_of_draws(tmp_path: Path) -> None:
    run = run_folder.continuous(4, 5, 50)
    one = read(run_folder.write(tmp_path / "a", **run))
    run["posterior"]["opponent_model"] = run["posterior"]["opponent_model"] + 1.5
    other = read(run_folder.write(tmp_path / "b", **run))
    found = belief_distance(one, other, ("rommeo_q", "rommeo_q"))
    assert found is not None
    assert found[0].mean == pytest.approx(1.5, rel=1e-4)


def test_difference_is_welchs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 12), rng.normal(1, 3, 20)
    found, expected = difference_interval(first, second), stats.ttest_ind(second, first, equal_var=False)
    ends = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(ends.low), pytest.approx(ends.high))
    assert found.mean == pytest.approx(second.mean() - first.mean())
    assert difference_interval(np.ones(3), np.full(3, 4.0)).low == 3.0
    assert math.isnan(difference_interval(first[:1], second).low)


def test_readings_of_both_runs_side_by_side(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "a"), recorded(tmp_path / "b", [1.0, 0.0, 0.0])
    sections = comparison(one, other)
    table = {row[0]: row[1:] for row in sections[0].rows}
    assert sections[0].header == ["", "a", "b", "difference"]
    assert table["reward per step"][2].startswith("0.000 [")
    entropy = learner_readings(one, "rommeo_q")["entropy of rho"].mean()
    assert table["entropy of rho"][0].startswith(f"{entropy:.3f} [")
    assert table["entropy of rho"][1].startswith("0.000 [")
    assert table["largest probability"][1] == "1.000 [1.000, 1.000]"
    assert max(len(line) for section in sections for line in section.text().splitlines()) <= 100
    last = sections[-1]
    assert [row[0] for row in last.rows if len(row) == 1] == ["rommeo_q", "rommeo_q_emp", "jal", "wolf_phc"]
    assert [row[0].strip() for row in last.rows[-2:]] == ["wolf_phc", "policy pi"]


def test_learners_of_the_same_name_or_all_with_all(tmp_path: Path) -> None:
    one = recorded(tmp_path / "a")
    other = recorded(tmp_path / "b", rommeo_q="pr2", jal="masql")
    assert learner_pairs(one, other) == [("rommeo_q_emp", "rommeo_q_emp"), ("wolf_phc", "wolf_phc")]
    foreign = recorded(tmp_path / "c", rommeo_q="w", rommeo_q_emp="x", jal="y", wolf_phc="z")
    assert len(learner_pairs(one, foreign)) == 16
    assert comparison(one, foreign)[-1].note == "10 more pairs of learners not shown"


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    one = recorded(tmp_path / "a")
    continuous = read(run_folder.write(tmp_path / "b", **run_folder.continuous(3, 4)))
    with pytest.raises(
        InspectError, match=r"action spaces continuous, 1 of \[-10, 10\], expected discrete, 3 x 3 as in"
    ):
        comparison(one, continuous)
    run = run_folder.discrete(3, 4)
    run["posterior"] = run["posterior"].isel(action=slice(2), opponent_action=slice(2))
    with pytest.raises(InspectError, match="got action spaces discrete, 2 x 2, expected discrete, 3 x 3"):
        comparison(one, read(run_folder.write(tmp_path / "c", **run)))
    bare = read(run_folder.write(tmp_path / "d", metrics=run["metrics"]))
    with pytest.raises(InspectError, match=r"without posterior\.nc"):
        comparison(one, bare)


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "x" / "run"), recorded(tmp_path / "y" / "run")
    assert run_names(one, other) == ("x/run", "y/run")


def test_command_prints_and_draws_every_pair(tmp_path: Path) -> None:
    run = {name: dataset.sel(learner=["rommeo_q"]) for name, dataset in run_folder.discrete(4, 6).items()}
    folders = [run_folder.write(tmp_path / name, **run) for name in "abc"]
    blocks: list[str] = []
    compare_runs(folders, print=blocks.append)
    text = "\n".join(blocks)
    assert text.startswith("a and b\n")
    assert "a and c\n" in text
    drawn = sorted(path.name for path in (folders[0] / "figures").iterdir())
    assert drawn == ["compared_with_b.png", "compared_with_c.png"]


@pytest.mark.parametrize("make", [run_folder.discrete, run_folder.continuous])
def test_figure_shows_both_runs(tmp_path: Path, make: type) -> None:
    one = read(run_folder.write(tmp_path / "a", **make(4, 6)))
    other = read(run_folder.write(tmp_path / "b", **make(5, 9, seed=1)))
    figure = compared_beliefs(one, other)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == [r"$\rho$, a", "actual, a", r"$\rho$, b", "actual, b"]
    assert figure.axes[0].get_xlim()[1] == 9
