"""Numbers read off a run's datasets: beliefs, how sure, how calibrated, how they change, how far from exact."""

from inference_marl.readings.beliefs import (
    BELIEFS,
    PROBABILITY_FLOOR,
    ROUNDING,
    SPREAD_FLOOR,
    Divergences,
    Numbers,
    about,
    discrete_divergence,
    divergences,
    favourites,
    modelling,
    normal_divergence,
    opponent_types,
    optimum_probability,
    per_replicate,
)

__all__ = [
    "BELIEFS",
    "PROBABILITY_FLOOR",
    "ROUNDING",
    "SPREAD_FLOOR",
    "Divergences",
    "Numbers",
    "about",
    "discrete_divergence",
    "divergences",
    "favourites",
    "modelling",
    "normal_divergence",
    "opponent_types",
    "optimum_probability",
    "per_replicate",
]
