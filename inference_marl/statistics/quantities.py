"""What is measured of a learner's opponent model: every quantity with its declaration, one number per replicate each.

For continuous actions beliefs are densities, whose entropies and log scores have no bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import xarray as xr

from inference_marl.statistics.beliefs import Numbers, divergences
from inference_marl.statistics.calibration import calibration
from inference_marl.statistics.certainty import agreement, certainty
from inference_marl.statistics.changes import belief_change
from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.time_to_threshold import learner_lead
from inference_marl.types import POSITIVE, PROBABILITY, STEPS, UNBOUNDED, Metric

Measured = Mapping[Metric, Numbers | Interval]
"""Quantities: `replicates`, or what has been estimated of all together."""

NATS = "nats"

_DECLARED = (
    Metric("entropy", "entropy of rho", NATS, POSITIVE, meaning="Over the opponents' joint actions: 0 is certainty."),
    Metric("favourite", "largest probability", bounds=PROBABILITY, meaning="Of any joint action under rho."),
    Metric("spread", "sd of rho", bounds=POSITIVE, meaning="Standard deviation of rho's draws, in units of actions."),
    Metric("entropy_of_truth", "entropy of truth", NATS, POSITIVE, meaning="Of the opponents' actual policies."),
    Metric("favourite_of_truth", "its largest probability", bounds=PROBABILITY, meaning="Of the actual policies."),
    Metric("spread_of_truth", "its sd", bounds=POSITIVE, meaning="Of the draws of the opponents' actual policies."),
    Metric("from_prior", "KL(rho || P)", NATS, POSITIVE, meaning="How far optimism moves rho from what was observed."),
    Metric("from_truth", "KL(truth || rho)", NATS, POSITIVE, higher_is_better=False, meaning="How wrong rho is."),
    Metric(
        "log_score",
        "log score",
        NATS,
        (-float("inf"), 0.0),
        higher_is_better=True,
        meaning="What the opponents' actions earn rho as a forecast, in expectation.",
    ),
    Metric("best_log_score", "best", NATS, (-float("inf"), 0.0), meaning="The log score of the truth itself."),
    Metric(
        "calibration_error",
        bounds=PROBABILITY,
        higher_is_better=False,
        meaning="Mean gap between forecast and frequency, pooled over the whole run; bootstrap.",
    ),
    Metric(
        "overconfidence",
        bounds=(-1.0, 1.0),
        meaning="rho's probability of its favourite action minus how often it is played; of draws, nominal minus "
        "actual coverage of central intervals.",
    ),
    Metric("error_at_end", bounds=PROBABILITY, higher_is_better=False, meaning="Calibration error, last record alone."),
    Metric("overconfidence_at_end", bounds=(-1.0, 1.0), meaning="Overconfidence at the last record alone."),
    Metric("share", "same favourite", bounds=PROBABILITY, meaning="Share of seeds with the most common favourite."),
    Metric("chance", "by chance", bounds=PROBABILITY, meaning="That share if seeds drew their favourites at random."),
    Metric("distance", "distance from the mean belief", bounds=POSITIVE, meaning="Of a seed's belief from all seeds'."),
    Metric("at", "largest change at step", STEPS, estimate="median", censored=True, meaning="Median over seeds."),
    Metric("size", "size of largest change", bounds=POSITIVE, meaning="Between successive records."),
    Metric("settled", "settled from step", STEPS, estimate="median", censored=True, meaning="Median over seeds."),
    Metric(
        "lead",
        "lead of rho",
        STEPS,
        meaning="Steps by which rho finds the optimum for good before the opponents' policies do.",
    ),
    Metric("excluded", "seeds without lead", meaning="Replicates in which rho or the truth never finds the optimum."),
    Metric("gap", bounds=(-1.0, 1.0), meaning="rho's probability of the optimum minus the truth's, over the run."),
)
OF_BELIEFS: Mapping[str, Metric] = {metric.name: metric for metric in _DECLARED}
"""All of them, by name."""


def _declared(posterior: xr.Dataset, found: Mapping[str, Any]) -> Measured:
    """Numbers by their declarations; others are left out."""
    discrete = posterior.attrs["kind"] == "discrete"
    densities = ("entropy", "entropy_of_truth", "log_score", "best_log_score")
    return {
        OF_BELIEFS[name] if discrete or name not in densities else replace(OF_BELIEFS[name], bounds=UNBOUNDED): (
            Interval(value, float("nan"), float("nan")) if isinstance(value, float | int) else value
        )
        for name, value in found.items()
        if name in OF_BELIEFS
    }


def sureness(posterior: xr.Dataset, learner: str) -> Measured:
    """How certain rho is, and the truth, see `certainty`."""
    rho, truth = (certainty(posterior, learner, name) for name in ("opponent_model", "opponent_policy"))
    unused = "spread" if posterior.attrs["kind"] == "discrete" else "favourite"
    found = {name: value for name, value in _fields(rho).items() if name != unused}
    actual = {f"{name}_of_truth": value for name, value in _fields(truth).items() if name != unused}
    return _declared(posterior, found | actual)


def distances(posterior: xr.Dataset, learner: str) -> Measured:
    """How far rho is from the prior and the truth, see `divergences`."""
    return _declared(posterior, _fields(divergences(posterior, learner)))


def calibrated(posterior: xr.Dataset, learner: str) -> Measured:
    """Calibration of rho over the run and at its end, see `calibration`."""
    whole, end = (_fields(calibration(posterior, learner, record)) for record in (None, -1))
    found = {"calibration_error": whole.get("error"), "overconfidence": whole.get("overconfidence")}
    found |= {"error_at_end": end.get("error"), "overconfidence_at_end": end.get("overconfidence")}
    return _declared(posterior, found) if whole else {}


def agreed(posterior: xr.Dataset, learner: str) -> Measured:
    """Whether the seeds agree on rho, see `agreement`."""
    found = _fields(agreement(posterior, learner))
    shares = {name: found[name] for name in ("share", "chance") if found and posterior.attrs["kind"] == "discrete"}
    return _declared(posterior, shares | {"distance": found["spread"]}) if found else {}


def changed(posterior: xr.Dataset, learner: str) -> Measured:
    """When rho changed, see `belief_change`."""
    found = _fields(belief_change(posterior, learner))
    return _declared(posterior, {name: found[name] for name in ("at", "size", "settled") if found})


def ahead(posterior: xr.Dataset, learner: str) -> Measured:
    """Whether rho finds the optimum before the opponents do, see `lead`."""
    found = learner_lead(posterior, learner)
    if found is None:
        return {}
    return _declared(posterior, {"lead": found.interval, "excluded": found.excluded, "gap": found.mean_gap})


MEASURES: tuple[Callable[[xr.Dataset, str], Measured], ...] = (sureness, distances, calibrated, agreed, changed, ahead)
"""Everything that is measured, of a learner with an opponent model."""


def _fields(found: Any) -> dict[str, Any]:
    return {} if found is None else dict(vars(found))
