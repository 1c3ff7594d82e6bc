"""Figures of beliefs about opponents: the numbers that they show."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from inference_marl.analysis.plots import belief_width, probes
from inference_marl.described import InspectError
from inference_marl.statistics.probes import HALF, probed_everywhere
from tests.run_folder import latents, metrics_dataset

LATENTS = {"new": latents(0), "far": latents(1, sd=0.3)}
METRICS = metrics_dataset({"reward": np.zeros((1, 2, 1, 2))}, np.array([8]), ["it"])


def test_widths_by_episodes_and_population() -> None:
    axes = belief_width(LATENTS, METRICS).axes
    assert [axis.get_title("left") for axis in axes] == ["new", "far"]
    for axis, sd in zip(axes, (0.1, 0.3), strict=True):
        (line,) = [line for line in axis.lines if line.get_label() == "it"]
        np.testing.assert_allclose(line.get_ydata(), [1.0, sd], rtol=1e-6)
        np.testing.assert_array_equal(line.get_xdata(), [0, 5])


def test_predictions_stand_against_the_truth() -> None:
    figure, found = probes(LATENTS, METRICS), probed_everywhere(LATENTS, "it")
    fire, water = figure.axes
    assert (fire.get_title("left"), water.get_title("left")) == ("fire", "water")
    for axis, name in ((fire, "fire"), (water, "water")):
        for evaluation, each in found.items():
            (dots,) = [line for line in axis.lines if line.get_label() == evaluation]
            here = each.isel(replicate=0, episodes=-1).sel(ability=name)
            np.testing.assert_allclose(dots.get_xdata(), here["type"])
            np.testing.assert_allclose(dots.get_ydata(), here["predicted"])
    assert (len(fire.collections), len(water.collections)) == (2, 0)  # no interval of what is not known
    segments = np.array(fire.collections[0].get_segments())
    half = HALF * found["new"]["interval_sd"].isel(replicate=0, episodes=-1).sel(ability="fire")
    np.testing.assert_allclose(np.diff(segments[..., 1])[:, 0], 2 * half)


def test_refuses_what_was_not_recorded() -> None:
    point = {"new": LATENTS["new"].drop_vars("sd")}
    with pytest.raises(InspectError, match=r"^latents: got none with a standard deviation"):
        belief_width(point, METRICS)
    assert len(probes(point, METRICS).axes) == 2
    silent = {"new": xr.full_like(LATENTS["new"], np.nan)}
    for latent in ({}, silent, {"new": LATENTS["new"].drop_vars(["type", "ability"])}):
        with pytest.raises(InspectError, match=r"^latents: got no beliefs of it about opponents"):
            probes(latent, METRICS)
