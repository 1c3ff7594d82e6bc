from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import xarray as xr

from inference_marl.statistics.intervals import proportion_difference
from inference_marl.statistics.metrics import RETURN
from inference_marl.statistics.summary import PUBLISHABLE, declared, paired_differences, summarise, summarise_agents
from inference_marl.statistics.time_to_threshold import learner_lead
from inference_marl.types import PROBABILITY, Metric
from tests import run_folder


def metrics(*own: Metric, **data: Any) -> xr.Dataset:
    arrays = {name: np.asarray(value, dtype=float) for name, value in data.items()}
    count = next(iter(arrays.values())).shape[2]
    return run_folder.metrics_dataset(arrays, np.arange(1, count + 1), declared=own)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (300, list(range(25, 301, 25))),
        (5, [1, 2, 3, 4, 5]),
        (12, list(range(1, 13))),
        (13, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        (1, [1]),
    ],
)
def test_summarise_reports_evenly_spaced_steps(count: int, expected: list[int]) -> None:
    rows = summarise(metrics(reward=np.zeros((1, 2, count, 2))))
    assert [row["step"] for row in rows] == expected


def test_where_nothing_was_measured_there_is_no_row_but_what_failed_has_one() -> None:
    evaluated = np.full((3, 2, 6, 2), math.nan)
    evaluated[:, :, 1::2] = 1.0
    evaluated[1, :, 4:] = math.nan  # all replicates of one learner have failed, at the fifth record
    evaluated[2, 0, 2:] = math.nan  # one replicate of another
    rows = summarise(metrics(reward=np.zeros((3, 2, 6, 2)), evaluation_reward=evaluated))
    found = {
        learner: [
            (row["step"], row["mean"])
            for row in rows
            if row["learner"] == learner and row["metric"] == "evaluation_reward"
        ]
        for learner in run_folder.SUCCESS
    }
    assert list(found.values())[:3] == [
        [(2, 1.0), (4, 1.0), (6, 1.0)],
        [(2, 1.0), (4, 1.0), (5, None), (6, None)],
        [(2, 1.0), (4, None), (6, None)],
    ]


def test_summarise_by_hand() -> None:
    reward = np.zeros((1, 4, 2, 2))
    reward[0, :, 1] = [[0, 2], [1, 3], [2, 4], [3, 5]]  # means over agents 1, 2, 3, 4
    success = [[[0, 1], [0, 1], [1, 1], [0, 0]]]
    rows = summarise(metrics(reward=reward, success_rate=success, elbo=np.full((1, 4, 2, 2), math.nan)))
    assert [(row["metric"], row["step"]) for row in rows] == [
        ("reward", 1),
        ("reward", 2),
        ("success_rate", 1),
        ("success_rate", 2),
        ("steps_to_success", 2),
    ]
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert rows[1] == {
        "learner": "rommeo_q",
        "metric": "reward",
        "step": 2,
        "mean": 2.5,
        "low": pytest.approx(2.5 - half, rel=1e-6),
        "high": pytest.approx(2.5 + half, rel=1e-6),
        "replicates": 4,
    }
    assert rows[3]["mean"] == 0.75
    # First lasting steps 2, 2, 1, inf: the median is 2, and four replicates allow no interval.
    assert {key: rows[4][key] for key in ("mean", "low", "high")} == {"mean": 2.0, "low": None, "high": None}


def test_summarise_reports_the_gap_where_there_is_one() -> None:
    gap = np.full((2, 3, 2, 2), math.nan)
    gap[0] = [[[1, 3], [0, 0]], [[2, 2], [1, 1]], [[1, 1], [2, 2]]]
    rows = summarise(metrics(reward=np.zeros((2, 3, 2, 2)), elbo_gap=gap))
    found = [row for row in rows if row["metric"] == "elbo_gap"]
    assert [(row["learner"], row["step"]) for row in found] == [("rommeo_q", 1), ("rommeo_q", 2)]
    assert found[0]["mean"] == pytest.approx(5 / 3)
    half = 4.302653 / math.sqrt(3)  # t_{2, .975} = 4.302653, sd = 1; the gap is never below 0
    assert (found[1]["low"], found[1]["high"]) == pytest.approx((0.0, 1 + half), rel=1e-6)


def test_paired_differences_by_hand() -> None:
    reward = np.zeros((3, 3, 2, 2))
    reward[0, :, 1] = [[1, 3], [10, 10], [-5, -5]]  # means over agents 2, 10, -5
    reward[1, :, 1] = [[3, 3], [12, 12], [-4, -2]]  # 3, 12, -3: above by 1, 2, 2
    reward[2] = math.nan
    success = np.zeros((3, 3, 2))
    success[0, :, 1], success[1, :, 1] = [1, 1, 0], [1, 0, 0]
    success[2] = math.nan
    data = metrics(reward=reward, success_rate=success)
    rows = paired_differences(data, "rommeo_q")
    assert [(row["learner"], row["reference"], row["metric"], row["step"]) for row in rows] == [
        ("rommeo_q_emp", "rommeo_q", "reward", 2),
        ("rommeo_q_emp", "rommeo_q", "success_rate", 2),
    ]
    half = 4.302653 * math.sqrt(1 / 3) / math.sqrt(3)  # differences 1, 2, 2: variance 1/3
    found = [rows[0][key] for key in ("mean", "low", "high")]
    assert found == pytest.approx([5 / 3, 5 / 3 - half, 5 / 3 + half], rel=1e-6)
    rate = proportion_difference([1, 1, 0], [1, 0, 0], paired=True)
    assert [rows[1][key] for key in ("mean", "low", "high")] == pytest.approx([-1 / 3, rate.low, rate.high])
    assert rows[0]["replicates"] == 3
    mirrored = paired_differences(data, "rommeo_q_emp")
    assert [row["mean"] for row in mirrored] == pytest.approx([-5 / 3, 1 / 3])
    assert paired_differences(data, "nobody") == []


def test_paired_differences_prefer_the_probability_and_are_valid_json() -> None:
    data = metrics(
        reward=np.zeros((2, 1, 1, 2)),
        joint_optimum_probability=np.full((2, 1, 1), 0.5),
        success_rate=np.ones((2, 1, 1)),
    )
    rows = paired_differences(data, "rommeo_q")
    assert [row["metric"] for row in rows] == ["reward", "joint_optimum_probability"]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0]["low"] is None, "one pair has no interval"


def test_pairs_that_are_alike_narrow_the_interval() -> None:
    """The interval is that of the differences, not of two independent means, and covers as it says."""
    # 300 runs of 8 pairs that share most of their noise. The count that covers is Bin(300, .95): it is more than
    # five standard deviations below its mean with probability below 1e-4.
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for _ in range(300):
        shared = rng.normal(0, 10, (1, 8, 1, 1))
        reward = np.concatenate([shared, shared + 1]) + rng.normal(0, 1, (2, 8, 1, 1))
        ((row, *_),) = [paired_differences(metrics(reward=np.repeat(reward, 2, -1)), "rommeo_q")]
        covered += row["low"] <= 1 <= row["high"]
        widths.append(row["high"] - row["low"])
    assert covered > 285 - 5 * math.sqrt(300 * 0.95 * 0.05)
    # Twice t_{7, .975} sqrt(2 / 8) for differences of standard deviation sqrt 2, not 10 sqrt 2; the mean of a sample's
    # standard deviation is c4(8) = .9650 of the true one, its spread .27 of it.
    expected = 2 * 2.364624 * 0.9650 * math.sqrt(2) / math.sqrt(8)
    assert np.mean(widths) == pytest.approx(expected, rel=5 * 0.27 / math.sqrt(300))


def test_summarise_is_valid_json_when_censored_and_alone() -> None:
    rows = summarise(metrics(reward=np.zeros((1, 1, 3, 2)), success_rate=np.zeros((1, 1, 3))))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[-1]["metric"] == "steps_to_success"
    assert rows[-1]["mean"] is None
    assert rows[0]["low"] is None


def test_summarise_a_run() -> None:
    run = run_folder.discrete(10, 40)
    rows = summarise(**run)
    json.dumps(rows, allow_nan=False)
    final = {(row["learner"], row["metric"]): row for row in rows if row["step"] == 40}
    learners = ("rommeo_q", "rommeo_q_emp", "jal", "wolf_phc")
    assert {name for name, metric in final if metric == "elbo"} == {"rommeo_q", "rommeo_q_emp"}
    assert {name for name, metric in final if metric == "opponent_model_lead"} == set(learners[:3])
    for learner in learners:
        found = learner_lead(run["posterior"], learner)
        assert (found is None) == ((learner, "opponent_model_lead") not in final)
        if found is not None:
            assert final[learner, "opponent_model_lead"]["replicates"] == 10 - found.excluded
        expected = run["metrics"]["reward"].sel(learner=learner).isel(step=-1).mean()
        assert final[learner, "reward"]["mean"] == pytest.approx(float(expected), rel=1e-5)


def test_what_a_joint_policy_is_worth_by_hand() -> None:
    returns = np.zeros((1, 3, 2, 2))
    returns[0, :, 1] = [[1, -1], [2, -2], [6, 0]]  # means over agents 0, 0, 3
    data = metrics(
        Metric("tit_for_tat", bounds=PROBABILITY),
        **{"return": returns},
        nash_conv=[[[0, 0.0], [0, 0.1], [0, 3.0]]],
        tit_for_tat=[[[0, 1.0], [0, 0.8], [0, 1.0]]],
        my_own_share=[[[0, 0.2], [0, 0.2], [0, 0.2]]],
    )
    last = {row["metric"]: row for row in summarise(data) if row["step"] == 2}
    assert list(last) == ["return", "return_deviation", "nash_conv", "tit_for_tat", "my_own_share"]
    assert last["return"]["mean"] == pytest.approx(1)
    # Variances over replicates: of agent 0 (4 + 1 + 9) / 2, of agent 1 (0 + 1 + 1) / 2.
    assert last["return_deviation"]["mean"] == pytest.approx(math.sqrt((7 + 1) / 2))
    assert last["return_deviation"]["replicates"] == 3
    assert last["nash_conv"]["low"] == 0.0  # cut to what is possible
    assert last["tit_for_tat"]["mean"] == pytest.approx(2.8 / 3)
    assert last["tit_for_tat"]["high"] == 1.0
    assert (last["my_own_share"]["mean"], last["my_own_share"]["low"]) == (pytest.approx(0.2), None)


def test_steps_to_98_are_those_of_the_mean() -> None:
    optimum = np.zeros((2, 4, 3))
    optimum[0] = [[0.5, 1, 1], [1, 1, 1], [1, 0.94, 1], [1, 1, 0.95]]  # means .875, .985, .9875
    optimum[1, :, 2] = 0.97
    rows = [row for row in summarise(metrics(joint_optimum_probability=optimum)) if row["metric"] == "steps_to_98"]
    assert [(row["learner"], row["step"], row["mean"]) for row in rows] == [
        ("rommeo_q", 3, 2.0),
        ("rommeo_q_emp", 3, None),
    ]
    assert (rows[1]["low"], rows[1]["high"]) == (None, None)
    assert rows[0]["low"] <= 2 <= (rows[0]["high"] or math.inf)


def test_steps_to_success_are_judged_by_each_records_own_reward() -> None:
    """Success itself is of a mean over a window, which comes later."""
    reward = np.array([[[0, 9, 9, 9], [0, 0, 9, 9], [0, 9, 0, 9]]])[..., None].repeat(2, -1)
    success = np.array([[[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]])
    data = metrics(reward=reward, success_rate=success)
    for threshold, expected in ((9, 3), (None, 4)):  # medians of 2, 3, 4, and of 3, 4, never
        attrs = {} if threshold is None else {"success_reward": threshold}
        (row,) = [row for row in summarise(data.assign_attrs(attrs)) if row["metric"] == "steps_to_success"]
        assert row["mean"] == expected


def test_agents_by_hand() -> None:
    returns = np.full((2, 3, 2, 2), math.nan)
    returns[0, :, 1] = [[1, -1], [2, -2], [6, -6]]
    rewards = np.zeros((2, 3, 2, 2))
    rewards[1, :, 1, 1] = 4
    rows = summarise_agents(metrics(reward=rewards, **{"return": returns}))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    found = {(row["learner"], row["metric"], row["agent"]): row for row in rows}
    assert len(found) == len(rows) == 6  # the second learner has no returns
    half = 4.302653 * math.sqrt(7 / 3)  # t_{2, .975} sd / sqrt(3), variance (4 + 1 + 9) / 2 = 7
    assert found["rommeo_q", "return", 1] == {
        "learner": "rommeo_q",
        "agent": 1,
        "metric": "return",
        "step": 2,
        "mean": pytest.approx(-3),
        "low": pytest.approx(-3 - half, rel=1e-6),
        "high": pytest.approx(-3 + half, rel=1e-6),
        "replicates": 3,
    }
    assert found["rommeo_q", "return", 0]["mean"] == pytest.approx(3)
    assert found["rommeo_q_emp", "reward", 1]["mean"] == 4
    assert found["rommeo_q_emp", "reward", 1]["low"] is None


def test_metrics_are_summarised_as_they_are_declared() -> None:
    """Medians, what is not clipped, and what is recorded but no result; of agents one by one too."""
    middle, hidden = Metric("middle", bounds=PROBABILITY, estimate="median"), Metric("hidden", tabulated=False)
    values = np.array([0.0, 0, 0.5, 0.75, 1, 1, 0.25]).reshape(1, 7, 1, 1).repeat(2, -1)
    data = metrics(middle, hidden, middle=values, hidden=values)
    (row,) = summarise(data)
    assert (row["metric"], row["mean"], row["low"], row["high"]) == ("middle", 0.5, 0.0, 1.0)
    assert [(row["agent"], row["mean"]) for row in summarise_agents(data)] == [(0, 0.5), (1, 0.5)]


def test_everything_that_is_summarised_is_declared_in_the_order_of_its_table() -> None:
    run = run_folder.discrete(3, 4)
    names = list(declared(run["metrics"]))
    found = list(dict.fromkeys(row["metric"] for row in summarise(**run)))
    assert found == [name for name in names if name in found]
    assert set(names) - set(found) == {"elbo_reward", "elbo_entropy", "elbo_kl"}
    missing = {metric.name for metric in PUBLISHABLE} - set(names)
    of_evaluations = {"evaluation_reward", "evaluation_return", "evaluation_success"}
    assert missing == {"return", "return_deviation", "relapse_rate", "nash_conv"} | of_evaluations


def test_relapses_are_of_those_who_had_succeeded() -> None:
    """Of four, one never succeeds, and of the others one falls back for good and one for a single record."""
    curves = ["00000", "11000", "11011", "01111"]
    values = np.array([[float(each) for each in curve] for curve in curves]).reshape(1, 4, 5, 1).repeat(2, -1)
    data = metrics(RETURN, **{"return": values})
    assert "relapse_rate" not in {row["metric"] for row in summarise(data)}
    (row,) = [each for each in summarise(data.assign_attrs(success_reward=0.5)) if each["metric"] == "relapse_rate"]
    assert (row["mean"], row["replicates"]) == (pytest.approx(1 / 3), 3)
    values[0, 1, 3:] = np.nan
    failed = metrics(RETURN, **{"return": values}).assign_attrs(success_reward=0.5)
    assert [each["mean"] for each in summarise(failed) if each["metric"] == "relapse_rate"] == [None]
