"""The tidy frame of a run's results: what its rows say, and beside which a published number stands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from inference_marl.analysis.estimates import at_the_end, cells, pivot, shown
from inference_marl.analysis.recorded import Recorded
from inference_marl.statistics.summary import paired_differences, summarise, summarise_agents
from inference_marl.types import Metric
from tests import run_folder

SEATED = [{"class_path": "A"}, {"class_path": "B"}]
"""An arm with a learner per seat."""


def recorded(metrics: xr.Dataset, arms: dict[str, Any] | None = None, **summary: Any) -> Recorded:
    """What a run of these metrics leaves."""
    spec = {"arms": arms or dict.fromkeys(metrics["learner"].to_numpy().tolist())}
    if "levels" in summary:
        spec["levels"] = summary["levels"]
    told = {
        "results": summarise(metrics),
        "agents": summarise_agents(metrics),
        "differences": paired_differences(metrics, str(metrics["learner"][0].item())),
    }
    return Recorded(Path("run"), spec, metrics, None, None, None, told | summary)


def opposed(learners: tuple[str, ...] = ("a",), shift: float = 0.0) -> xr.Dataset:
    """Returns of three replicates whose means are .5 and -.5, and twice as large rewards; zero-sum without `shift`."""
    returns = np.broadcast_to([1.0, -1.0], (len(learners), 3, 2, 2)) * np.linspace(0, 1, 3)[:, None, None]
    data = {"reward": 2 * returns + shift, "return": returns, "nash_conv": returns[..., 0]}
    return run_folder.metrics_dataset(data, np.array([1, 2]), list(learners))


def test_the_frame_has_every_estimate_once() -> None:
    found = recorded(opposed(("a", "b"))).frame()
    assert found.columns.tolist() == [
        *("learner", "agent", "reference", "metric", "step"),
        *("mean", "low", "high", "replicates", "published"),
    ]
    assert not found.duplicated(["learner", "agent", "reference", "metric", "step"]).any()
    last = at_the_end(found)
    assert len(last) == 2 * (4 + 2 * 2), "reward, return, its deviation, NashConv; reward and return of both agents"
    (row,) = found[(found["learner"] == "b") & (found["metric"] == "return") & (found["agent"] == 1)].itertuples()
    assert (row.mean, row.replicates, row.step) == (-0.5, 3, 2)
    half = 4.302653 * 0.5 / math.sqrt(3)  # t_{2, .975}, sd 1/2
    assert (row.low, row.high) == pytest.approx((-0.5 - half, -0.5 + half), rel=1e-6)
    assert found.loc[found["reference"].notna(), ["learner", "reference", "metric"]].to_numpy().tolist() == [
        ["b", "a", "reward"]
    ]


def test_what_was_not_reached_is_infinite_and_what_is_unknown_missing() -> None:
    reward = np.zeros((2, 8, 4, 2))
    success = np.zeros((2, 8, 4))
    success[0, :4, 1:] = 1
    metrics = run_folder.metrics_dataset({"reward": reward, "success_rate": success}, np.arange(1, 5))
    found = recorded(metrics).frame()
    one, other = found[found["metric"] == "steps_to_success"].itertuples()
    # Four replicates succeed from step 2 on; of those that never do there is no interval that ends.
    assert (one.mean, one.low, one.high) == (math.inf, 2.0, math.inf)
    assert (other.mean, math.isnan(other.high)) == (math.inf, True)
    reward_row = next(found[found["metric"] == "reward"].itertuples())
    assert (reward_row.mean, math.isnan(reward_row.low)) == (0.0, True)


@pytest.mark.parametrize("factor", ["variant", "learner", "metric", "agent", "step", "mean", "published"])
def test_levels_have_columns_of_their_own(factor: str) -> None:
    levels = {"a": {factor: "full", "critic": "x"}, "b": {factor: "none", "critic": "y"}}
    found = recorded(opposed(("a", "b")), levels=levels).frame()
    assert not found.columns.duplicated().any()
    (column,) = (name for name in found.columns[1:] if name.startswith(factor) and set(found[name]) == {"full", "none"})
    assert (found["learner"].map({"a": "full", "b": "none"}) == found[column]).all()
    assert set(zip(found["learner"], found["critic"], strict=True)) == {("a", "x"), ("b", "y")}


@pytest.mark.parametrize(
    ("numbers", "agent", "zero_sum", "apart", "expected"),
    [
        ({"return": 2.0}, None, False, False, 2.0),
        ({"return": 2.0, "return_0": 5.0}, None, False, False, 2.0),
        ({"return_0": 5.0, "return_1": 2.0, "reward_0": 99.0}, None, False, False, 3.5),
        ({"return_0": 5.0, "return_1": 2.0}, None, False, True, math.nan),
        ({"return_0": 5.0, "return_1": 2.0}, None, True, False, math.nan),
        ({"return_deviation": 1.0}, None, False, False, math.nan),
        ({"return": 2.0, "return_0": 5.0}, 0, True, False, 5.0),
        ({"return": 2.0}, 0, True, False, 2.0),  # of agent 0, since it can be no mean
        ({"return": 2.0}, 1, True, False, math.nan),
        ({"return": 2.0}, 0, False, False, math.nan),
        ({"return_1": 3.0}, 1, False, False, 3.0),
        ({}, 0, True, False, math.nan),
    ],
)
def test_where_a_published_number_stands(
    numbers: dict[str, float], agent: int | None, zero_sum: bool, apart: bool, expected: float
) -> None:
    published = {"a": numbers, "b": {"return": 77.0}}
    arms: dict[str, Any] = {"a": SEATED if apart else None}
    found = at_the_end(recorded(opposed(shift=0.0 if zero_sum else 1.0), arms, published=published).frame())
    found = found[found["metric"] == "return"]
    here = found[found["agent"].isna() if agent is None else found["agent"] == agent]
    assert here["published"].tolist() == pytest.approx([expected], nan_ok=True)


def test_a_difference_has_nothing_published() -> None:
    found = recorded(opposed(("a", "b")), published={"b": {"reward": 5.0}}).frame()
    assert found.loc[found["reference"].notna(), "published"].isna().all()


@pytest.mark.parametrize(
    ("shift", "arm", "expected"),
    [
        (1.0, None, {"reward": ["a"], "return": ["a"], "nash_conv": ["a"]}),
        (1.0, SEATED, {name: ["a", "a, agent 0", "a, agent 1"] for name in ("reward", "return")}),
        (0.0, None, {name: ["a, agent 0", "a, agent 1"] for name in ("reward", "return")}),
        (0.0, SEATED, {name: ["a, agent 0", "a, agent 1"] for name in ("reward", "return")}),
    ],
)
def test_agents_are_shown_one_by_one_where_their_mean_says_too_little(
    shift: float, arm: Any, expected: dict[str, list[str]]
) -> None:
    run = recorded(opposed(shift=shift), {"a": arm})
    rows = shown(run, at_the_end(run.frame()))
    found = {name: rows.loc[rows["metric"] == name, "name"].tolist() for name in ("reward", "return", "nash_conv")}
    assert found == {"nash_conv": ["a"]} | expected


@pytest.mark.parametrize(
    ("published", "reward"),
    [({}, ["a"]), ({"reward": 1.0}, ["a"]), ({"reward_1": 1.0}, ["a", "a, agent 0", "a, agent 1"])],
)
def test_agents_that_all_get_the_same_are_shown_by_the_mean(published: dict[str, float], reward: list[str]) -> None:
    """Unless something is published of one of them; where one agent alone has a metric, it is said which."""
    metrics = opposed(shift=1.0)
    metrics["reward"][:] = metrics["reward"].isel(agent=0)
    metrics["return"][..., 1] = math.nan
    run = recorded(metrics, {"a": SEATED}, published={"a": published})
    rows = shown(run, at_the_end(run.frame()))
    assert rows.loc[rows["metric"] == "reward", "name"].tolist() == reward
    assert rows.loc[rows["metric"] == "return", "name"].tolist() == ["a", "a, agent 0"]


def test_agents_of_which_only_the_mean_is_known_are_shown_by_it() -> None:
    run = recorded(opposed(), agents=[])
    rows = shown(run, at_the_end(run.frame()))
    assert rows.loc[rows["metric"] == "reward", "name"].tolist() == ["a"]


def test_a_table_is_a_pivot_in_the_order_of_the_rows() -> None:
    rows = pd.DataFrame(
        [("b", "y", 1.5, 1.0, 2.0, math.nan), ("a", "x", 2.5, math.nan, math.nan, 0.0), ("b", "x", 0.5, 0.0, 1.0, 3.0)],
        columns=["learner", "run", "mean", "low", "high", "published"],
    ).assign(metric="it", step=9)
    metrics = {"it": Metric("it")}
    assert cells(rows, metrics) == ["1.500 ± 0.500", "2.500 (0.000)", "0.500 ± 0.500 (3.000)"]
    table = pivot(rows, ["learner"], "run", metrics, intervals=False)
    assert (table.index.tolist(), table.columns.tolist()) == (["b", "a"], ["y", "x"])
    assert table.fillna("-").to_numpy().tolist() == [["1.500", "0.500 (3.000)"], ["-", "2.500 (0.000)"]]


def test_a_run_without_results_has_an_empty_frame() -> None:
    nothing = Recorded(Path("run"), {"arms": {}}, opposed(), None, None, None, {})
    assert nothing.frame().empty
