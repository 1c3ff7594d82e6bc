"""Figures of a run, drawn from its datasets: learning curves, beliefs over time, the ELBO's parts, final beliefs.

Every function takes the datasets of a run's folder and returns a matplotlib `Figure`; `write_all` writes those that
apply. Means are over replicates, bands are 95 % confidence intervals of the mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from inference_marl.belief_plots import beliefs, opponent_action_bars, surface
from inference_marl.calibration_plots import reliability
from inference_marl.comparison import run_names
from inference_marl.comparison_plots import compared_beliefs
from inference_marl.drawing import (
    draw_band,
    heading,
    label_time,
    looks,
    panels,
    readable_limits,
    shared_legend,
    styled,
    time_axis,
    title,
)
from inference_marl.posterior import InspectError, Recorded, read
from inference_marl.readings import modelling, per_replicate
from inference_marl.state_plots import beliefs_by_state
from inference_marl.statistics import mean_band, metric_band
from inference_marl.time_plots import belief_movement, opponent_types_over_time

__all__ = [
    "belief_movement",
    "beliefs",
    "beliefs_by_state",
    "elbo_parts",
    "learning_curves",
    "opponent_action_bars",
    "opponent_types_over_time",
    "reliability",
    "surface",
    "write_all",
]

DPI = 150
"""Resolution of written figures, dots per inch."""

COMPARED = "compared_with_"
"""How the names of figures begin that show another run as well."""

CAPTIONS = {
    "learning_curves": "Reward, joint probability of the optimum and success over time: means over replicates with "
    "95 % intervals.",
    "elbo_parts": "The ELBO and the parts it is the sum of, over time: means over agents and replicates.",
    "beliefs": "Opponent model, opponent prior and the opponents' actual policy over time: means over replicates with "
    "95 % intervals.",
    "beliefs_replicate_0": "As the figure of beliefs over time, for the first replicate alone.",
    "opponent_actions": "Opponent model, opponent prior and the opponents' actual policy at the last record.",
    "beliefs_by_state": "Beliefs state by state at the last record: opponent model, prior and what the opponents do.",
    "calibration": "Calibration of the opponent models: on the diagonal things happen as often as believed.",
    "belief_change": "How far the opponent models move from record to record, and when each seed's moves most.",
    "opponent_types": "Probabilities of the opponents' types over time: means over replicates with 95 % intervals.",
    "surface": "Paths of the agents' mean actions over the reward surface.",
    "ablation_curves": "Learning curves of the ablation's cells.",
    "ablation_elbo": "The ELBO's parts at the last record, cell by cell.",
}
"""What each figure shows, by its file's name without the ending."""

CURVES = {
    "reward": "reward per step",
    "joint_optimum_probability": "joint probability of the optimum",
    "success": "share of replicates that succeed",
}
ELBO: dict[str, dict[str, Any]] = {
    "elbo": {"label": "ELBO", "color": "#000000", "linewidth": 2.0},
    "elbo_reward": {"label": "expected value $Q$", "color": "#009E73", "linestyle": (0, (6, 1.5, 1.5, 1.5))},
    "elbo_entropy": {"label": "+ entropy (relative to uniform)", "color": "#D55E00", "linestyle": (0, (5, 1.5))},
    "elbo_kl": {"label": r"$-$ KL$(\rho \,\|\, P)$", "color": "#0072B2", "linestyle": (0, (1.5, 1.2))},
}


@styled
def learning_curves(metrics: xr.Dataset) -> Figure:
    """Reward, joint probability of the optimum and success rate over time, all learners in each panel (Fig. 1a, b).

    Rewards and ELBOs are averaged over agents first. The band of the success rate is Wilson's.

    Args:
        metrics: as in `metrics.nc`.
    """
    learners = metrics["learner"].to_numpy().tolist()
    shown = [name for name in CURVES if any(per_replicate(metrics, name, learner) is not None for learner in learners)]
    figure, grid = panels(1, len(shown), (3.3, 2.7), sharey=False)
    x, label = time_axis(metrics)
    for axis, name in zip(grid[0], shown, strict=True):
        for learner, look in looks(learners).items():
            values = per_replicate(metrics, name, learner)
            if values is not None:
                draw_band(axis, x, metric_band(name, values), **look)
        axis.set_ylabel(CURVES[name])
        if name != "reward":
            axis.set_ylim(-0.03, 1.03)
    label_time(grid, x, label)
    if len(learners) > 1:
        shared_legend(figure, grid[0][0])
    else:
        title(grid[0][0], learners[0])
    heading(figure, metrics, "mean and 95 % interval")
    return figure


@styled
def elbo_parts(metrics: xr.Dataset) -> Figure:
    """The ELBO and what it is made of over time, a panel per learner that has one.

    The three parts add up to the ELBO; the first is what the critic expects, so with a discount factor it counts
    future rewards as well. Where an annealed temperature makes the first records huge, the axis
    is fitted to the rest and the panel says how far the curves go.

    Args:
        metrics: as in `metrics.nc`.

    Raises:
        InspectError: if no learner has an ELBO.
    """
    learners = with_elbo(metrics)
    if not learners:
        raise InspectError("metrics: got no learner with an ELBO, expected at least one")
    rows = -(-len(learners) // 3)
    columns = -(-len(learners) // rows)
    figure, grid = panels(rows, columns, (3.6, 2.7), sharey=False)
    axes = [axis for row in grid for axis in row]
    x, label = time_axis(metrics)
    notes = []
    for axis, learner in zip(axes, learners, strict=False):
        curves = []
        for name, look in ELBO.items():
            values = per_replicate(metrics, name, learner)
            if values is not None:
                curves.append(draw_band(axis, x, mean_band(-values if name == "elbo_kl" else values), **look))
        axis.axhline(0, color="#999999", linewidth=0.7, zorder=0.5)
        notes.append(readable_limits(axis, curves))
    for axis, learner, note in zip(axes, learners, notes, strict=False):
        title(axis, learner, note if any(notes) else None)
    for axis in axes[len(learners) :]:
        axis.set_visible(False)
    lowest = axes[: len(learners)][-columns:]
    for axis in lowest:
        axis.tick_params(labelbottom=True)
    for row in grid:
        row[0].set_ylabel("in units of reward")
    label_time([axes, lowest], x, label)
    shared_legend(figure, axes[0])
    heading(figure, metrics, "mean over agents and replicates, 95 % interval")
    return figure


def write_all(run: Path | str | Recorded) -> list[Path]:
    """Draw every figure that applies to a run into its folder `figures`, as PNG.

    Returns:
        The files, in reading order.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished.
    """
    recorded = run if isinstance(run, Recorded) else read(run)
    metrics, posterior = recorded.metrics, recorded.posterior
    figures = {"learning_curves": learning_curves(metrics)}
    if with_elbo(metrics):
        figures["elbo_parts"] = elbo_parts(metrics)
    if posterior is not None:
        posterior = posterior.assign_attrs({**metrics.attrs, **posterior.attrs})
        if modelling(posterior):
            figures["beliefs"] = beliefs(posterior)
            figures["beliefs_replicate_0"] = beliefs(posterior, replicate=0)
            figures["opponent_actions"] = opponent_action_bars(posterior)
            if posterior.attrs["kind"] == "discrete" and posterior.sizes["state"] > 1:
                figures["beliefs_by_state"] = beliefs_by_state(posterior)
            if "opponent_policy" in posterior:
                figures["calibration"] = reliability(posterior)
            if posterior.sizes["step"] > 1:
                figures["belief_change"] = belief_movement(posterior)
        if "opponent_type" in posterior:
            figures["opponent_types"] = opponent_types_over_time(posterior)
        if recorded.surface is not None:
            figures["surface"] = surface(recorded.surface, posterior)
    folder = recorded.folder / "figures"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path, dpi=DPI)
    return paths


def write_comparison(first: Recorded, second: Recorded) -> Path | None:
    """Draw the beliefs of two runs side by side into the first one's folder.

    Returns:
        The file; `None` if no pair of their learners has opponent models.

    Raises:
        InspectError: if the runs cannot be compared.
    """
    if not any(modelling(each.posterior) for each in (first, second) if each.posterior is not None):
        return None
    name = run_names(first, second)[1].replace("/", "_")
    path = first.folder / "figures" / f"{COMPARED}{name}.png"
    path.parent.mkdir(exist_ok=True)
    compared_beliefs(first, second).savefig(path, dpi=DPI)
    return path


def comparison_caption(names: tuple[str, str]) -> str:
    """What the figure of `write_comparison` shows."""
    return (
        f"Opponent models of {names[0]} and {names[1]}: over time, with the opponents' actual policies (dotted), and "
        "at the last records (dashes: the actual policy)."
    )


def with_elbo(metrics: xr.Dataset) -> list[str]:
    """The learners that have an ELBO."""
    names: list[str] = metrics["learner"].to_numpy().tolist()
    return [name for name in names if per_replicate(metrics, "elbo", name) is not None]
