"""Declarations of metrics: what they say, what they refuse, and that files keep them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import xarray as xr

from inference_marl.statistics.quantities import OF_BELIEFS
from inference_marl.statistics.summary import PUBLISHABLE
from inference_marl.types import POSITIVE, PROBABILITY, STEPS, Metric

OWN = Metric("own", "my own", "s", (-1.0, math.inf), ("agent", "box"), "last", "iqm", False, "It.", True, False)
KNOWN = (*PUBLISHABLE, *OF_BELIEFS.values())


@pytest.mark.parametrize("metric", [Metric("bare"), OWN, *KNOWN], ids=lambda metric: metric.name)
def test_a_file_keeps_the_whole_declaration(metric: Metric, tmp_path: Path) -> None:
    data = xr.Dataset({metric.name: ("step", [1.0], metric.attributes())})
    data.to_netcdf(tmp_path / "it.nc", engine="h5netcdf")
    attributes = xr.load_dataset(tmp_path / "it.nc", engine="h5netcdf")[metric.name].attrs
    assert Metric.from_attributes(attributes) == metric
    assert (attributes["long_name"], attributes["units"]) == (metric.label, metric.unit)


def test_the_label_is_the_name_in_words_unless_it_is_given() -> None:
    assert Metric("share_of_firsts").label == "share of firsts"
    assert Metric("share_of_firsts", "firsts").label == "firsts"


@pytest.mark.parametrize("name", ["", "two words", "1st", "a-b", "a.b"])
def test_names_are_words_of_files(name: str) -> None:
    with pytest.raises(ValueError, match=f"^name: got '{name}', expected letters, digits and _$"):
        Metric(name)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 0.0), (math.nan, 1.0)])
def test_bounds_are_a_range(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^bounds: got .* for it, expected a lower and a higher number$"):
        Metric("it", bounds=bounds)


def test_bounds_of_differences() -> None:
    assert Metric("it", bounds=PROBABILITY).difference_bounds == (-1.0, 1.0)
    assert Metric("it", bounds=POSITIVE).difference_bounds == (-math.inf, math.inf)
    assert Metric("it", bounds=(-1.0, 3.0)).difference_bounds == (-4.0, 4.0)


def test_names_and_labels_tell_metrics_apart() -> None:
    for metrics in (PUBLISHABLE, tuple(OF_BELIEFS.values())):
        assert len({metric.name for metric in metrics}) == len({metric.label for metric in metrics}) == len(metrics)
    assert {metric.name for metric in KNOWN if metric.censored} == {"steps_to_98", "steps_to_success", "at", "settled"}
    assert all(metric.unit == STEPS for metric in KNOWN if metric.censored)
