from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import StepPatch

from inference_marl.analysis.comparison import (
    are_paired,
    belief_distance,
    comparison,
    differences,
    learner_pairs,
    quantities,
    run_names,
)
from inference_marl.analysis.plots.comparison import compared_beliefs
from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.report.text import compare_runs
from inference_marl.analysis.tables import Section
from inference_marl.described import InspectError
from inference_marl.types import Metric
from tests import run_folder


def recorded(folder: Path, beliefs: list[float] | None = None, **renamed: str) -> Recorded:
    """A discrete run; with `beliefs` those are rho at the end, in all seeds."""
    run = run_folder.discrete(6, 8)
    if beliefs is not None:
        run["posterior"]["opponent_model"][0, :, -1] = beliefs
    if renamed:
        names = [renamed.get(name, name) for name in run["metrics"]["learner"].to_numpy().tolist()]
        run = {name: dataset.assign_coords(learner=names) for name, dataset in run.items()}
    return run_folder.recorded(folder, **run)


def table(section: Section) -> pd.DataFrame:
    assert section.table is not None
    return section.table


def readings(one: Recorded, other: Recorded) -> tuple[pd.DataFrame, str]:
    """The quantities of the first pair of learners side by side, and how their differences are computed."""
    section = comparison(one, other)[1]
    return table(section), section.explanation


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
    one = run_folder.recorded(tmp_path / "a", **run)
    run["posterior"] = run["posterior"].assign(opponent_model=run["posterior"]["opponent_model"] + 1.5)
    other = run_folder.recorded(tmp_path / "b", **run)
    found = belief_distance(one, other, ("rommeo_q", "rommeo_q"))
    assert found is not None
    assert found[0].mean == pytest.approx(1.5, rel=1e-4)
    for recorded in (one, other):  # an agent without draws does not count, and is no warning
        recorded.beliefs["opponent_model"][:, :, :, 1] = math.nan
    found = belief_distance(one, other, ("rommeo_q", "rommeo_q"))
    assert found is not None
    assert found[0].mean == pytest.approx(1.5, rel=1e-4)


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    one = recorded(tmp_path / "a")
    specifications, *_, far = comparison(one, one)
    assert (specifications.table, specifications.explanation) == (None, "Nothing: both have the same specification.")
    shown, how = readings(one, one)
    assert "both runs have the same results" in how
    assert set(shown["difference"]) <= {"0.000", "0.0"}
    assert set(table(far).to_numpy().ravel()) == {"0.000 [0.000, 0.000]"}
    assert run_names(one, one) == ("a", "a_again")


def test_beliefs_of_different_observations_are_not_compared(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "a"), recorded(tmp_path / "b")
    other.beliefs.attrs["state_counts"] = "environments"
    *sections, far = comparison(one, other)
    assert far.title == "How far are the beliefs of b from those of a?"
    assert far.table is None
    assert far.explanation.startswith("Not compared: beliefs were recorded where the agents were")
    assert "entropy of rho" in table(sections[1]).index, "each run's own readings are"


def test_what_differs_in_the_specifications_comes_first(tmp_path: Path) -> None:
    learner = {"class_path": "Rommeo", "init_args": {"temperature": 1.0, "guide": {"class_path": "Exact"}}}
    spec = {"game": {"class_path": "Matrix", "init_args": {"payoff": [1, 2]}}, "arms": {"it": learner}, "seed": 0}
    changed = {"class_path": "Rommeo", "init_args": {"temperature": 0.5, "guide": {"class_path": "Exact"}}}
    other = {"game": spec["game"], "arms": {"it": changed}, "seed": None, "steps": 9}
    one, two = recorded(tmp_path / "a"), recorded(tmp_path / "b")
    section = differences(replace(one, spec=spec), replace(two, spec=other))
    assert table(section).T.to_dict("list") == {
        "arms.it.temperature": ["1.0", "0.5"],
        "seed": ["0", "None"],
        "steps": ["-", "9"],
    }
    assert table(section).columns.tolist() == ["a", "b"]
    assert section.note == ""
    many = {f"key_{i}": i for i in range(25)}
    section = differences(replace(one, spec=many | {"seed": 0}), replace(two, spec={"seed": 1}))
    assert table(section).index.tolist() == ["seed", *list(many)[:19]], "what one run lacks comes last"
    assert section.note == "6 more keys differ."


def test_other_steps_and_learners_without_a_counterpart_are_told(tmp_path: Path) -> None:
    one = recorded(tmp_path / "a", jal="pr2")
    shorter = {name: dataset.isel(step=slice(5)) for name, dataset in run_folder.discrete(6, 8).items()}
    other = replace(run_folder.recorded(tmp_path / "b", **shorter), summary={"failed": {"bad": "why"}})
    assert differences(one, other).note == (
        "The runs end at different steps, 8 and 5. Only in a, so not compared: pr2. Only in b, so not compared: jal. "
        "Failed in b: bad."
    )


@pytest.mark.slow
def test_replicates_pair_where_runs_share_their_random_numbers(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "a"), recorded(tmp_path / "b")
    noise = np.array([0.0, 0.1, 0.2, 0.0, 0.1, 0.2], dtype=np.float32)
    shared = np.arange(6, dtype=np.float32)[:, None, None]
    attrs = one.metrics["reward"].attrs
    one.metrics["reward"] = (one.metrics["reward"] + shared).assign_attrs(attrs)
    other.metrics["reward"] = (one.metrics["reward"] + 1 + noise[:, None, None]).assign_attrs(attrs)
    assert are_paired(one, other)
    paired, how = readings(one, other)
    half = 2.570582 * math.sqrt(0.008) / math.sqrt(6)  # t_{5, .975}, variance .04 / 5 of the differences
    assert "replicate by replicate" in how
    assert paired.loc["reward per step", "difference"] == f"1.100 ± {half:.3f}"
    for name, value in {"seed": 1, "game": "another"}.items():
        foreign = replace(other, metrics=other.metrics.assign_attrs({name: value}))
        assert not are_paired(one, foreign)
        welch, how = readings(one, foreign)
        assert "are not paired" in how
        assert welch.loc["reward per step", "difference"] not in ("", paired.loc["reward per step", "difference"])
    assert not are_paired(one, replace(other, metrics=other.metrics.isel(replicate=slice(4))))


def test_distances_of_paired_runs_are_resampled_in_pairs(tmp_path: Path) -> None:
    """Both runs' beliefs scatter alike over replicates, so pairs are all equally far apart."""
    one, other = recorded(tmp_path / "a"), recorded(tmp_path / "b")
    assert one.posterior is not None
    assert other.posterior is not None
    scatter = np.linspace(0.2, 0.6, 6)[:, None, None]
    for run, shift in ((one, 0.0), (other, 0.1)):
        first = np.broadcast_to(scatter + shift, (6, 2, 1))
        run.posterior["opponent_model"][0, :, -1] = np.stack([first, 0.9 - first, np.full_like(first, 0.1)], -1)
    paired = belief_distance(one, other, ("rommeo_q", "rommeo_q"))
    other.metrics.attrs["seed"] = 1
    alone = belief_distance(one, other, ("rommeo_q", "rommeo_q"))
    assert paired is not None
    assert alone is not None
    assert (paired[0].low, paired[0].high) == pytest.approx((0.1, 0.1), abs=1e-6)
    assert alone[0].high > 0.15


def test_a_belief_that_never_moved_leaves_the_median_alone(tmp_path: Path) -> None:
    one, other, row = recorded(tmp_path / "a"), recorded(tmp_path / "b"), "largest change at step"
    assert one.posterior is not None
    one.posterior["opponent_model"][0, 0] = 1 / 3
    shown, _ = readings(one, other)
    assert ">" not in shown.loc[row, "a"].split()[0]
    assert shown.loc[row, "a"].endswith("> 8]")
    one.posterior["opponent_model"][0] = 1 / 3
    shown, _ = readings(one, other)
    assert shown.loc[row, ["a", "difference"]].tolist() == ["> 8 [> 8, > 8]", "-"]


def test_readings_of_both_runs_side_by_side(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "a"), recorded(tmp_path / "b", [1.0, 0.0, 0.0])
    sections = comparison(one, other)
    shown, _ = readings(one, other)
    assert shown.columns.tolist() == ["a", "b", "difference"]
    assert shown.loc["reward per step", "difference"] == "0.000"
    entropy = next(values for metric, values in quantities(one, "rommeo_q").items() if metric.name == "entropy").mean()
    assert shown.loc["entropy of rho", ["a", "b"]].tolist() == [f"{entropy:.3f}", "0.000"], "all have come to the same"
    assert shown.loc["largest probability", "b"] == "1.000"
    assert max(len(line) for section in sections for line in section.text().splitlines()) <= 120
    assert table(sections[-1]).index.tolist() == [
        *(
            (name, belief)
            for name in ("rommeo_q", "rommeo_q_emp", "jal")
            for belief in ("opponent model rho", "policy pi")
        ),
        ("wolf_phc", "policy pi"),
    ]


def test_a_metric_that_runs_declare_differently_is_compared(tmp_path: Path) -> None:
    """As a run of a version without declarations does."""
    one, other = recorded(tmp_path / "a"), recorded(tmp_path / "b")
    for run, metric in ((one, Metric("odd_play", "odd share", estimate="median")), (other, Metric("odd_play"))):
        values = run.metrics["joint_optimum_probability"] + (run is other)
        run.metrics["odd_play"] = values.assign_attrs(metric.attributes())
    shown, _ = readings(one, other)
    assert shown.loc["odd share", "difference"] == "1.000"


def test_learners_of_the_same_name_or_all_with_all(tmp_path: Path) -> None:
    one = recorded(tmp_path / "a")
    other = recorded(tmp_path / "b", rommeo_q="pr2", jal="masql")
    assert learner_pairs(one, other) == [("rommeo_q_emp", "rommeo_q_emp"), ("wolf_phc", "wolf_phc")]
    foreign = recorded(tmp_path / "c", rommeo_q="w", rommeo_q_emp="x", jal="y", wolf_phc="z")
    assert len(learner_pairs(one, foreign)) == 16
    sections = comparison(one, foreign)
    assert sections[0].note == "", "each has counterparts"
    assert sections[1].title == "rommeo_q and w: metrics side by side"
    assert table(sections[1]).columns.tolist() == ["a: rommeo_q", "c: w", "difference"]
    assert sections[-1].note == "10 more pairs of learners not shown"
    shown = {", ".join(pair) for pair in learner_pairs(one, foreign)[:6]}
    assert {who for who, _ in table(sections[-1]).index} == shown


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    one = recorded(tmp_path / "a")
    continuous = run_folder.recorded(tmp_path / "b", **run_folder.continuous(3, 4))
    with pytest.raises(
        InspectError, match=r"action spaces continuous, 1 of \[-10, 10\], expected discrete, 3 x 3 as in"
    ):
        comparison(one, continuous)
    run = run_folder.discrete(3, 4)
    run["posterior"] = run["posterior"].isel(action=slice(2), opponent_action=slice(2))
    with pytest.raises(InspectError, match="got action spaces discrete, 2 x 2, expected discrete, 3 x 3"):
        comparison(one, run_folder.recorded(tmp_path / "c", **run))
    bare = run_folder.recorded(tmp_path / "d", metrics=run["metrics"])
    with pytest.raises(InspectError, match=r"without posterior\.nc"):
        comparison(one, bare)


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "x" / "run"), recorded(tmp_path / "y" / "run")
    assert run_names(one, other) == ("x/run", "y/run")


@pytest.mark.usefixtures("unrendered")
def test_command_prints_and_draws_every_pair(tmp_path: Path) -> None:
    run = {name: dataset.sel(learner=["rommeo_q"]) for name, dataset in run_folder.discrete(4, 6).items()}
    folders = [run_folder.write(tmp_path / name, **run) for name in "abc"]
    blocks: list[str] = []
    compare_runs(folders, print=blocks.append)
    text = "\n".join(blocks)
    assert text.startswith("a and b\n")
    assert "a and c\n" in text
    assert text.count("What differs in the specifications?") == 2
    drawn = sorted(path.name for path in (folders[0] / "figures").iterdir())
    assert drawn == ["compared_with_b.png", "compared_with_c.png"]


@pytest.mark.parametrize("make", [run_folder.discrete, run_folder.continuous])
def test_figure_shows_both_runs(tmp_path: Path, make: type) -> None:
    one = run_folder.recorded(tmp_path / "a", **make(4, 6))
    other = run_folder.recorded(tmp_path / "b", **make(5, 9, seed=1))
    figure = compared_beliefs(one, other)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == [r"$\rho$, a", "actual, a", r"$\rho$, b", "actual, b"]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [*labels, *(["actual, at the end"] if make is run_folder.discrete else [])]
    assert figure.axes[0].get_xlim()[1] == 9


def test_the_figure_has_room_for_the_higher_density(tmp_path: Path) -> None:
    """Whichever run is drawn first."""
    wide, narrow = run_folder.continuous(6, 20), run_folder.continuous(6, 20)
    narrow["posterior"]["opponent_model"] = 0.05 * narrow["posterior"]["opponent_model"] + 4.75
    runs = [run_folder.recorded(tmp_path / name, **run) for name, run in {"wide": wide, "narrow": narrow}.items()]
    for one, other in (runs, runs[::-1]):
        densities = compared_beliefs(one, other).axes[2:]
        for axis in densities:
            heights = [patch.get_data().values.max() for patch in axis.patches if isinstance(patch, StepPatch)]
            assert max(heights) > 2 * min(heights)
            assert axis.get_ylim()[1] > max(heights)
            assert axis.get_xlim() == (-10, 10)
