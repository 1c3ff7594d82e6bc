"""Figures as files: all that apply to a run, and what they show."""

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
"""Prefix of figures that show another run too."""

CAPTIONS = {
    "learning_curves": "Learning curves, a panel for each metric: means over replicates with 95 % intervals.",
    "elbo_parts": "The ELBO and the parts it is the sum of, over time: means over agents and replicates. Both weights "
    "are included: the temperature in the entropy, beta in the KL from the model (of rho from the prior P; of a "
    "planner that bends the dynamics, of these as well).",
    "adaptation": "Return of an episode by how many episodes the opponents were met before, in the last evaluation: "
    "means over replicates with 95 % intervals. Marks that stand beside each other mean the same number of episodes.",
    "belief_width": "Standard deviation of z where an episode begins, mean over its coordinates and the opponents, by "
    "how many episodes they were met before, in the last evaluation: means over replicates with 95 % intervals.",
    "probes": "What linear probes read off the belief in the first replicate after the most episodes, against the "
    "truth, opponent by opponent. Lines: 90 % intervals of a linear function of z, of numbers that are known. On the "
    "diagonal it is right; points away from it with short lines are confident and wrong.",
    "beliefs": "Opponent model, opponent prior and the opponents' actual policy over time: means over replicates with "
    "95 % intervals.",
    "beliefs_replicate_0": "As the figure of beliefs over time, for the first replicate alone.",
    "opponent_actions": "Opponent model, opponent prior and the opponents' actual policy at the last record.",
    "who_believes_what": "Who believes what of whom at the last record; shaded: what the agent itself does.",
    "beliefs_by_state": "Beliefs state by state at the last record: opponent model, prior and what the opponents do.",
    "calibration": "Calibration of the opponent models: on the diagonal things happen as often as believed.",
    "belief_change": "How far the opponent models move from record to record, and when each seed's moves most.",
    "opponent_types": "Probabilities of the opponents' types over time: means over replicates with 95 % intervals.",
    "surface": "Paths of the agents' mean actions over the reward surface.",
    "ablation_curves": "Learning curves of the ablation's cells: means over replicates with 95 % intervals.",
    "ablation_elbo": "The ELBO of every cell at the last record and the parts it is the sum of, both weights included; "
    "every panel has a range of its own. Where models or critics differ, a higher ELBO is not better inference: "
    "compare the gap, from the ELBO to the evidence.",
}
"""What each figure shows, by the name of its file without suffix."""


def write_all(run: Path | str | Recorded) -> list[Path]:
    """Draw every figure that applies to a run into its folder `figures`, as PNG.

    Returns:
        The files, in reading order.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished.
    """
    recorded = read(run)
    figures = {}
    for name, draw in _drawn_by(recorded).items():
        with suppress(InspectError):  # the run has nothing that this figure shows
            figures[name] = draw()
    return write_figures(recorded.folder, figures)


def _drawn_by(recorded: Recorded) -> dict[str, Callable[[], Figure]]:
    """What draws each figure, in reading order; it refuses (`InspectError`) runs without what the figure shows."""
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
    """Write figures, by name, into the folder `figures` of a run or a suite as PNG, and return where they are."""
    return [_save(figure, folder / "figures" / f"{name}.png") for name, figure in figures.items()]


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
    return _save(compared_beliefs(first, second), first.folder / "figures" / f"{COMPARED}{name}.png")


def _save(figure: Figure, path: Path) -> Path:
    """Write a figure whole, since a report may be reading it."""
    write_atomically(path, partial(figure.savefig, dpi=DPI, format="png"))
    return path


def comparison_caption(names: tuple[str, str]) -> str:
    """What the figure of `write_comparison` shows."""
    return (
        f"Opponent models of {names[0]} and {names[1]}: over time, with the opponents' actual policies (dotted), and "
        "at the last records (dashes: the actual policy)."
    )
