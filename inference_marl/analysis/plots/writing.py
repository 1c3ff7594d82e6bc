"""Writing of figures to files, and their captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from inference_marl.analysis.comparison import run_names
from inference_marl.analysis.plots.adaptation import adaptation
from inference_marl.analysis.plots.calibration import belief_movement, reliability
from inference_marl.analysis.plots.comparison import compared_beliefs
from inference_marl.analysis.plots.heat_map import beliefs_by_state
from inference_marl.analysis.plots.latents import belief_width, probes
from inference_marl.analysis.plots.learning import elbo_parts, learning_curves
from inference_marl.analysis.plots.opponents import (
    beliefs,
    opponent_action_bars,
    opponent_types_over_time,
    who_believes_what,
)
from inference_marl.analysis.plots.surface import surface
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.described import InspectError
from inference_marl.runs.files import write_atomically
from inference_marl.statistics.beliefs import modelling

DPI = 150
"""Resolution of written figures, dots per inch."""

COMPARED = "compared_with_"
"""Prefix of the files of figures that compare a run with another."""

CAPTIONS = {
    "learning_curves": "Learning curves, a panel for each metric: means over replicates with 95 % intervals.",
    "elbo_parts": "The ELBO and the terms that it is the sum of, over time: means over agents and replicates. Weights "
    "are included: the temperature in the entropy, beta in the KL from the model (of rho from the prior P; of a "
    "planner with inferred dynamics, of these as well).",
    "adaptation": "Returns by the number of earlier episodes with the same opponents, in the last evaluation: "
    "means over replicates with 95 % intervals. Adjacent marks belong to the same number of episodes.",
    "belief_width": "Standard deviation of z at the start of an episode, mean over its coordinates and opponents, by "
    "the number of earlier episodes, in the last evaluation: means over replicates with 95 % intervals.",
    "probes": "What linear probes read off the belief in the first replicate after the most episodes, against the "
    "truth, for each opponent. Lines: 90 % intervals of a linear function of z, for known numbers. Points on the "
    "diagonal are correct; points away from it with short lines are confident and wrong.",
    "beliefs": "Opponent model, opponent prior and the opponents' actual policy over time: means over replicates with "
    "95 % intervals.",
    "beliefs_replicate_0": "As the figure of beliefs over time, for the first replicate alone.",
    "opponent_actions": "Opponent model, opponent prior and the opponents' actual policy at the last record.",
    "who_believes_what": "All agents' beliefs about each other at the last record; shaded: the agent's own policy.",
    "beliefs_by_state": "Opponent model, prior and the opponents' actual policy in each state at the last record.",
    "calibration": "Calibration of the opponent models: on the diagonal, frequencies equal believed probabilities.",
    "belief_change": "Change of the opponent models between records, and the time of each seed's largest change.",
    "opponent_types": "Probabilities of the opponents' types over time: means over replicates with 95 % intervals.",
    "surface": "Paths of the agents' mean actions over the reward surface.",
    "ablation_curves": "Learning curves of the ablation's cells: means over replicates with 95 % intervals.",
    "ablation_elbo": "The ELBO of every cell at the last record and the terms that it is the sum of, with weights; "
    "every panel has its own range. Where models or critics differ, a higher ELBO is not better inference: "
    "compare the gap, from the ELBO to the evidence.",
}
"""Captions of figures, by the name of the file without suffix."""


def write_all(run: Path | str | Recorded) -> list[Path]:
    """Write every figure that applies to a run to its folder `figures`, as PNG.

    Returns:
        The files, in reading order.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished.
    """
    recorded = read(run)
    figures = {}
    for name, draw in _drawn_by(recorded).items():
        with suppress(InspectError):  # the run lacks the data of this figure
            figures[name] = draw()
    return write_figures(recorded.folder, figures)


def _drawn_by(recorded: Recorded) -> dict[str, Callable[[], Figure]]:
    """The function of each figure, in reading order; it raises `InspectError` for runs that lack the data."""
    metrics, latents, posterior = recorded.metrics, recorded.latents, recorded.posterior
    found: dict[str, Callable[[], Figure]] = {
        "learning_curves": partial(learning_curves, metrics),
        "elbo_parts": partial(elbo_parts, metrics),
        "adaptation": partial(adaptation, metrics),
        "belief_width": partial(belief_width, latents, metrics),
        "probes": partial(probes, latents, metrics),
    }
    if posterior is None:
        return found
    posterior = posterior.assign_attrs({**metrics.attrs, **posterior.attrs})
    found |= {
        "beliefs": partial(beliefs, posterior),
        "beliefs_replicate_0": partial(beliefs, posterior, replicate=0),
        "opponent_actions": partial(opponent_action_bars, posterior),
        "who_believes_what": partial(who_believes_what, posterior),
        "beliefs_by_state": partial(beliefs_by_state, posterior),
        "calibration": partial(reliability, posterior),
        "belief_change": partial(belief_movement, posterior),
        "opponent_types": partial(opponent_types_over_time, posterior),
    }
    if recorded.surface is not None:
        found["surface"] = partial(surface, recorded.surface, posterior)
    return found


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write figures, by name, to the folder `figures` of a run or a suite as PNG; returns the files."""
    return [_save(figure, folder / "figures" / f"{name}.png") for name, figure in figures.items()]


def write_comparison(first: Recorded, second: Recorded) -> Path | None:
    """Write the figure that compares the beliefs of two runs to the first one's folder.

    Returns:
        The file; `None` if no pair of their learners has opponent models.

    Raises:
        InspectError: if the runs cannot be compared.
    """
    if not any(modelling(each.posterior) for each in (first, second) if each.posterior is not None):
        return None
    name = run_names(first, second)[1].replace("/", "_")
    return _save(compared_beliefs(first, second), first.folder / "figures" / f"{COMPARED}{name}.png")


def _save(figure: Figure, path: Path) -> Path:
    """Write a figure atomically, since a report may be reading it."""
    write_atomically(path, partial(figure.savefig, dpi=DPI, format="png"))
    return path


def comparison_caption(names: tuple[str, str]) -> str:
    """The caption of the figure of `write_comparison`."""
    return (
        f"Opponent models of {names[0]} and {names[1]}: over time, with the opponents' actual policies (dotted), and "
        "at the last records (dashes: the actual policy)."
    )
