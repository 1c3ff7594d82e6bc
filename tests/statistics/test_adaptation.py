from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from inference_marl.statistics.adaptation import (
    WHAT,
    at_the_end,
    by_evaluation,
    forecasts_after,
    of_trials,
    return_after,
)
from tests import run_folder


def test_names_are_read_back() -> None:
    names = ["return_after_10_b", "return_after_0_after_1", "return_after_2_b", "return_after_3", "return_5_after_1"]
    last = xr.Dataset({name: ("step", [np.nan, 1.0]) for name in [*names, "forecast_score_after_3", "return"]})
    last["return_after_7"] = ("step", [1.0, np.nan])
    assert by_evaluation(last, "return") == {
        "b": {2: "return_after_2_b", 10: "return_after_10_b"},
        "after_1": {0: "return_after_0_after_1"},
        "": {3: "return_after_3"},
    }
    assert by_evaluation(last, "forecast_score") == {"": {3: "forecast_score_after_3"}}
    assert by_evaluation(last, "posterior_sd") == {}


@pytest.mark.parametrize("discrete", [False, True])
def test_all_that_is_declared_is_known_by_name(discrete: bool) -> None:
    every = (return_after(4), *forecasts_after(4, discrete))
    assert all(of_trials(metric.name) and of_trials(f"{metric.name}_new") for metric in every)
    assert {metric.name.removesuffix("_after_4") for metric in every} == {*WHAT} - (
        {"forecast_coverage"} if discrete else set()
    )
    assert all(metric.meaning.endswith(".") and not metric.dims for metric in every)
    assert not any(map(of_trials, ("return", "reward", "forecast_score", "my_return_after_2")))


def test_numbers_at_the_end() -> None:
    metrics = run_folder.of_trials(3)
    names = by_evaluation(metrics, "return")["new"]
    found = at_the_end(metrics, names.values(), "told")
    assert found is not None
    assert found.shape == (3, 4)
    assert found[:, 3] == pytest.approx(metrics["return_after_5_new"].sel(learner="told").isel(step=-1).to_numpy())
    silent = metrics.assign(return_after_5_new=metrics["return_after_5_new"].where(metrics["learner"] != "told"))
    assert at_the_end(silent, names.values(), "told") is None
    assert at_the_end(metrics, [], "told") is None
