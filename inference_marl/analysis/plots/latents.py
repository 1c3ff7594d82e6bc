"""Figures of latent beliefs about opponents: their width and the predictions of linear probes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.adaptation import COLUMNS, label_episodes, mark_arms
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.latents import SD, TYPE, at_the_end, believing
from inference_marl.statistics.probes import HALF, known, probed_everywhere
from inference_marl.types import POSITIVE, Metric

SPREAD = Metric("sd", bounds=POSITIVE)


@drawing.styled
def belief_width(latents: Mapping[str, xr.Dataset], metrics: xr.Dataset) -> Figure:
    """Mean standard deviation of z by the number of earlier episodes with the opponents, in a panel per evaluation.

    Args:
        latents: the dataset of `latent.nc`, by evaluation.
        metrics: the dataset of `metrics.nc`, which identifies the run.

    Raises:
        InspectError: if no belief with a width was recorded.
    """
    arms = {name: {learner: _widths(each, learner) for learner in believing(each)} for name, each in latents.items()}
    arms = {name: {learner: of for learner, of in each.items() if of is not None} for name, each in arms.items()}
    found = {name: each for name, each in arms.items() if each}
    if not found:
        raise InspectError("latents: got none with a standard deviation, expected a TrialEvaluation with posteriors")
    every = list(dict.fromkeys(learner for each in found.values() for learner in each))
    columns = drawing.columns_of(len(found), COLUMNS)
    figure, (axes,) = drawing.panels(1, len(found), (3.9, 3.1), columns, sharex=False, sharey=True)
    for axis, (name, each) in zip(axes, found.items(), strict=True):
        numbers = sorted(latents[name]["episodes"].to_numpy().tolist())
        mark_arms(axis, numbers, {learner: each.get(learner) for learner in every}, SPREAD)
        label_episodes(axis, numbers)
        axis.set_ylim(bottom=0)
    for axis in axes[::columns]:
        axis.set_ylabel("standard deviation of z")
    if any(found):
        drawing.titles(axes, list(found))
    return drawing.finish(figure, f"{_when(metrics)}, mean and 95 % interval", *axes, of=metrics)


def _widths(latents: xr.Dataset, learner: str) -> Numbers | None:
    """Widths of a learner's beliefs, `replicates x episodes`; `None` for points."""
    here = at_the_end(latents, learner)
    if SD not in here:
        return None
    widths: Numbers = here[SD].mean(["opponent", "latent"], skipna=False).transpose("replicate", ...).to_numpy()
    return widths.astype(np.float64)


@drawing.styled
def probes(latents: Mapping[str, xr.Dataset], metrics: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Predictions of linear probes against true types, in the first replicate after the most episodes.

    There is a row of panels for each learner, a column for each coordinate of the type, and a colour for each
    evaluation. Points are predictions; lines are the intervals of `statistics.probes.probed`, for coordinates that the
    belief knows and unless it is a point.

    Args:
        latents: the dataset of `latent.nc`, by evaluation.
        metrics: the dataset of `metrics.nc`, which identifies the run.
        learners: names of the arms; `None` for some of those with beliefs.

    Raises:
        InspectError: if a learner has no beliefs, or no hidden types were recorded.
    """
    every = metrics["learner"].to_numpy().tolist()
    found = {learner: by for learner in every if (by := probed_everywhere(latents, learner))}
    if not found or not set(learners or found) <= set(found):
        raise InspectError(
            f"latents: got no beliefs of {', '.join(learners or every)} about opponents whose types are known, "
            "expected a TrialEvaluation with posteriors, in a game that gives them"
        )
    shown, note = drawing.some_of(list(found), learners)
    names = next(iter(found[shown[0]].values()))["ability"].to_numpy().tolist()
    figure, panels = drawing.panels(len(shown), len(names), (2.2, 2.1))
    for row, learner in zip(panels, shown, strict=True):
        knows = known(found[learner])
        for number, (evaluation, each) in enumerate(found[learner].items()):
            last = each.isel(replicate=0, episodes=-1)
            for axis, name in zip(row, names, strict=True):
                _opponents(axis, last.sel(ability=name), evaluation, number, name in knows)
        row[0].set_ylabel(f"{learner}\nprobe")
    drawing.titles(panels[0], names)
    for axis in panels[-1]:
        axis.set_xlabel("truth")
    for axis in panels.flat:
        axis.axline((0, 0), slope=1, color=drawing.NOTE, linewidth=0.8, zorder=1.5)
    legend = panels[0][:1] if len(latents) > 1 else ()
    return drawing.finish(figure, f"{_when(metrics)}, replicate 0{note}", *legend, of=metrics)


def _opponents(axis: Axes, probed: xr.Dataset, evaluation: str, number: int, sure: bool) -> None:
    """Draw one evaluation's opponents, with intervals if the belief knows the coordinate."""
    color, truth = drawing.PALETTE[number], probed[TYPE].to_numpy()
    if sure and "interval_sd" in probed:
        centre, half = probed["interval_mean"].to_numpy(), HALF * probed["interval_sd"].to_numpy()
        axis.vlines(truth, centre - half, centre + half, color=color, alpha=0.35, linewidth=1.0)
    axis.plot(truth, probed["predicted"].to_numpy(), ".", color=color, markersize=3, label=evaluation)


def _when(metrics: xr.Dataset) -> str:
    return f"after {int(metrics['step'][-1]):,} steps of training"
