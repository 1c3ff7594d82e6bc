"""Figures of a run: learning, adaptation, beliefs over time and by state, calibration, and comparisons.

Every function takes datasets of a run's folder and returns a matplotlib `Figure`; `write_all` writes those that apply.
Means are over replicates, and bands are 95 % confidence intervals of the mean.
"""

from inference_marl.analysis.plots.adaptation import adaptation
from inference_marl.analysis.plots.calibration import belief_movement, reliability
from inference_marl.analysis.plots.heat_map import beliefs_by_state
from inference_marl.analysis.plots.latents import belief_width, probes
from inference_marl.analysis.plots.learning import ablation_curves, elbo_bars, elbo_parts, learning_curves
from inference_marl.analysis.plots.opponents import (
    beliefs,
    opponent_action_bars,
    opponent_types_over_time,
    who_believes_what,
)
from inference_marl.analysis.plots.surface import surface
from inference_marl.analysis.plots.writing import write_all

__all__ = [
    "ablation_curves",
    "adaptation",
    "belief_movement",
    "belief_width",
    "beliefs",
    "beliefs_by_state",
    "elbo_bars",
    "elbo_parts",
    "learning_curves",
    "opponent_action_bars",
    "opponent_types_over_time",
    "probes",
    "reliability",
    "surface",
    "who_believes_what",
    "write_all",
]
