"""Figures of a run, drawn from its datasets: learning, beliefs over time and by state, calibration, comparison.

Every function takes the datasets of a run's folder and returns a matplotlib `Figure`; `write_all` writes those that
apply. Means are over replicates, bands are 95 % confidence intervals of the mean.
"""

from inference_marl.analysis.plots.calibration import reliability
from inference_marl.analysis.plots.learning import elbo_parts, learning_curves
from inference_marl.analysis.plots.movement import belief_movement, opponent_types_over_time
from inference_marl.analysis.plots.opponents import beliefs, opponent_action_bars, surface
from inference_marl.analysis.plots.states import beliefs_by_state
from inference_marl.analysis.plots.writing import (
    CAPTIONS,
    COMPARED,
    DPI,
    comparison_caption,
    save,
    write_all,
    write_comparison,
)

__all__ = [
    "CAPTIONS",
    "COMPARED",
    "DPI",
    "belief_movement",
    "beliefs",
    "beliefs_by_state",
    "comparison_caption",
    "elbo_parts",
    "learning_curves",
    "opponent_action_bars",
    "opponent_types_over_time",
    "reliability",
    "save",
    "surface",
    "write_all",
    "write_comparison",
]
