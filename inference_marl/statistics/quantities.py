"""Quantities that describe a learner's opponent model at the end of a run, with their declarations.

They are averaged over states, over opponents, and over the agents that have a model. Discrete beliefs are exact, with
probabilities floored at `PROBABILITY_FLOOR`. Continuous ones are recorded as samples and approximated by a normal with
their mean and standard deviation in every dimension, which is crude for multimodal beliefs; their entropies and log
scores are unbounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import xarray as xr

from inference_marl.statistics.beliefs import PROBABILITY_FLOOR, ROUNDING, SPREAD_FLOOR, Numbers, modelling
from inference_marl.statistics.calibration import calibration
from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.time_to_threshold import first_lasting_step, learner_lead
from inference_marl.types import POSITIVE, PROBABILITY, SEEDS, STEPS, UNBOUNDED, Metric

Measured = Mapping[str, Numbers | Interval]
"""Quantities by name: one number per replicate, or an estimate for all replicates together."""

SETTLED = 0.1
"""Distance to its final value within which a belief has settled: total variation, or fraction of the action range."""

CHANCE_DRAWS = 10_000
"""Simulated votes used to compute the agreement expected by chance."""

NATS = "nats"

_DECLARED = (
    Metric("entropy", "entropy of rho", NATS, POSITIVE, meaning="Entropy over an opponent's actions; 0 is certainty."),
    Metric("favourite", "largest probability", bounds=PROBABILITY, meaning="Of an opponent's actions under rho."),
    Metric("spread", "sd of rho", bounds=POSITIVE, meaning="Standard deviation of rho's samples, in units of actions."),
    Metric("entropy_of_truth", "entropy of truth", NATS, POSITIVE, meaning="Entropy of the actual policies."),
    Metric("favourite_of_truth", "its largest probability", bounds=PROBABILITY, meaning="Of the actual policies."),
    Metric("spread_of_truth", "its sd", bounds=POSITIVE, meaning="Of samples from the actual policies."),
    Metric("from_prior", "KL(rho || P)", NATS, POSITIVE, meaning="How far optimism moves rho from what was observed."),
    Metric("from_truth", "KL(truth || rho)", NATS, POSITIVE, higher_is_better=False, meaning="How wrong rho is."),
    Metric(
        "log_score",
        "log score",
        NATS,
        (-float("inf"), 0.0),
        higher_is_better=True,
        meaning="Expected log-probability of the opponents' actions under rho.",
    ),
    Metric("best_log_score", "best", NATS, (-float("inf"), 0.0), meaning="Log score of the actual policies."),
    Metric(
        "calibration_error",
        bounds=PROBABILITY,
        higher_is_better=False,
        meaning="Mean gap between forecast and frequency, pooled over the whole run; bootstrap interval.",
    ),
    Metric(
        "overconfidence",
        bounds=(-1.0, 1.0),
        meaning="rho's probability of its favourite action minus the frequency of that action; of continuous actions, "
        "nominal minus actual coverage of central intervals.",
    ),
    Metric("error_at_end", bounds=PROBABILITY, higher_is_better=False, meaning="Calibration error at the last record."),
    Metric("overconfidence_at_end", bounds=(-1.0, 1.0), meaning="Overconfidence at the last record."),
    Metric("share", "same favourite", bounds=PROBABILITY, meaning="Share of seeds with the most common favourite."),
    Metric("chance", "by chance", bounds=PROBABILITY, meaning="That share if favourites were random."),
    Metric("distance", "distance from the mean belief", bounds=POSITIVE, meaning="Of the belief of one seed."),
    Metric("at", "largest change at step", STEPS, estimate="median", censored=True, meaning="Median over seeds."),
    Metric("size", "size of largest change", bounds=POSITIVE, meaning="Between successive records."),
    Metric("settled", "settled from step", STEPS, estimate="median", censored=True, meaning="Median over seeds."),
    Metric(
        "lead",
        "lead of rho",
        STEPS,
        meaning="Number of steps by which rho finds the optimum for good before the opponents' policies do.",
    ),
    Metric("excluded", "seeds without lead", SEEDS, meaning="Their rho or truth never finds the optimum."),
    Metric("gap", bounds=(-1.0, 1.0), meaning="rho's probability of the optimum minus the truth's, over the run."),
)
OF_BELIEFS: Mapping[str, Metric] = {metric.name: metric for metric in _DECLARED}
"""The declarations of all quantities, by name."""


def declaration(name: str, posterior: xr.Dataset) -> Metric:
    """The declaration of a quantity, adapted to these beliefs."""
    unbounded = name.startswith("entropy") or name.endswith("log_score")
    bounds = UNBOUNDED if unbounded and posterior.attrs["kind"] == "continuous" else OF_BELIEFS[name].bounds
    return replace(OF_BELIEFS[name], bounds=bounds)


def cross_entropy(p: xr.DataArray, q: xr.DataArray, attrs: Mapping[str, float | str]) -> xr.DataArray:
    """Cross-entropy `-E_p[log q]` in nats, of probabilities or of normals fitted to samples; NaN in both is padding.

    For `q = p` it is the entropy; minus the entropy of `p` it is `KL(p || q)`; negated it is the log score of `q`.

    Args:
        p: the true distribution, with the beliefs' last dimensions.
        q: the belief, likewise.
        attrs: attributes of the dataset of beliefs: `kind` and, for samples, `low` and `high`.
    """
    last = str(p.dims[-1])
    if attrs["kind"] == "discrete":
        return -(p * np.log(q.clip(PROBABILITY_FLOOR))).sum(last, min_count=1)
    floor = SPREAD_FLOOR * (float(attrs["high"]) - float(attrs["low"]))
    (mean_p, sd_p), (mean_q, sd_q) = (
        (draws.mean("draw", skipna=False), draws.std("draw", skipna=False).clip(floor)) for draws in (p, q)
    )
    surprise = (sd_p**2 + (mean_p - mean_q) ** 2) / (2 * sd_q**2)
    total: xr.DataArray = (np.log(sd_q * np.sqrt(2 * np.pi)) + surprise).sum(last, min_count=1)
    return total


def sureness(posterior: xr.Dataset, learner: str) -> Measured:
    """Certainty of rho and of the opponents' policies: entropy, and probability of the favourite action or spread."""
    found: dict[str, Numbers] = {}
    for suffix, name in {"": "opponent_model", "_of_truth": "opponent_policy"}.items():
        belief = _at_the_end(posterior, learner, name)
        if belief is None:
            continue
        found[f"entropy{suffix}"] = _mean(cross_entropy(belief, belief, posterior.attrs))
        if posterior.attrs["kind"] == "discrete":
            found[f"favourite{suffix}"] = _mean(belief.max("opponent_action"))
        else:
            found[f"spread{suffix}"] = _mean(belief.std("draw", skipna=False))
    return found


def distances(posterior: xr.Dataset, learner: str) -> Measured:
    """Distances of rho from the prior and the opponents' policies; NaN where one is not known."""
    rho, *others = (
        _at_the_end(posterior, learner, name) for name in ("opponent_model", "opponent_prior", "opponent_policy")
    )
    if rho is None:
        return {}
    having = rho.notnull().any([dim for dim in rho.dims if dim != "agent"])
    rho, prior, truth = ((xr.full_like(rho, np.nan) if each is None else each).where(having) for each in (rho, *others))

    def crossed(p: xr.DataArray, q: xr.DataArray) -> xr.DataArray:
        return cross_entropy(p, q, posterior.attrs)

    return {
        "from_prior": _mean(crossed(rho, prior) - crossed(rho, rho)),
        "from_truth": _mean(crossed(truth, rho) - crossed(truth, truth)),
        "log_score": _mean(-crossed(truth, rho)),
        "best_log_score": _mean(-crossed(truth, truth)),
    }


def calibrated(posterior: xr.Dataset, learner: str) -> Measured:
    """Calibration of rho over the run and at its end, see `calibration`."""
    whole, end = (calibration(posterior, learner, record) for record in (None, -1))
    if whole is None or end is None:
        return {}
    return {
        "calibration_error": whole.error,
        "overconfidence": whole.overconfidence,
        "error_at_end": end.error,
        "overconfidence_at_end": end.overconfidence,
    }


def agreed(posterior: xr.Dataset, learner: str) -> Measured:
    """Agreement of seeds on rho: on its most probable action, and the distance of each seed from the mean of all.

    Tied favourites share a seed's vote. Distances are total variation or, for samples, those of means in units of
    actions.
    """
    belief = _at_the_end(posterior, learner, "opponent_model")
    if belief is None:
        return {}
    if posterior.attrs["kind"] == "continuous":
        centre = belief.mean("draw")
        return {"distance": _mean(abs(centre - centre.mean("replicate")))}
    action = "opponent_action"
    liked = belief >= belief.max(action) - ROUNDING  # NaN is not
    voters = liked.any(action).sum("replicate")
    votes = (liked / liked.sum(action)).sum("replicate").max(action) / voters
    actions = belief.notnull().any("replicate").sum(action)
    counts = zip(voters.to_numpy().ravel().tolist(), actions.to_numpy().ravel().tolist(), strict=True)
    chance = float(np.mean([_chance(*each) for each in counts if each[0]]))
    apart = abs(belief - belief.mean("replicate")).sum(action, min_count=1) / 2
    return {
        "share": Interval(float(votes.where(voters > 0).mean()), np.nan, np.nan),
        "chance": Interval(chance, np.nan, np.nan),
        "distance": _mean(apart),
    }


@cache
def _chance(voters: int, actions: int) -> float:
    """Expected share of the most common action if each voter picks one at random."""
    counts = np.random.default_rng(0).multinomial(voters, np.full(actions, 1 / actions), CHANCE_DRAWS)
    return float(counts.max(-1).mean()) / voters


def movement(posterior: xr.Dataset, learner: str) -> xr.Dataset | None:
    """Changes of rho between records, and the step at which it settles.

    Discrete beliefs are compared by total variation, in [0, 1]; continuous ones by the 1-Wasserstein distance of their
    samples (the mean distance of sorted samples, for each dimension), in units of actions. As samples are random, the
    latter is never exactly 0.

    Returns:
        `change` (`replicate x step`, since the previous record), `size` of the largest change, `at`, its step (infinite
        if rho never changed), and `settled`, the first step from which rho stays within `SETTLED` of its final value.
        `None` if the learner has no opponent model, or the run has only one record.
    """
    if learner not in modelling(posterior) or posterior.sizes["step"] < 2:
        return None
    discrete = posterior.attrs["kind"] == "discrete"
    span = 1.0 if discrete else posterior.attrs["high"] - posterior.attrs["low"]
    event = ("opponent_action",) if discrete else ("opponent_dim", "draw")
    values = posterior["opponent_model"].sel(learner=learner).transpose("step", "replicate", "agent", ..., *event)
    rho = values.to_numpy() if discrete else np.sort(values.to_numpy(), axis=-1)
    change = np.stack([_apart(new, old, discrete) for old, new in pairwise(rho)], axis=1)
    from_last = np.stack([_apart(each, rho[-1], discrete) for each in rho], axis=1)
    steps = posterior["step"].to_numpy()
    size = change.max(1)
    return xr.Dataset(
        {
            "change": (("replicate", "step"), change),
            "size": ("replicate", size),
            "at": ("replicate", np.where(size > ROUNDING * span, steps[1:][change.argmax(1)], np.inf)),
            "settled": ("replicate", first_lasting_step(from_last <= SETTLED * span, steps)),
        },
        {"step": steps[1:]},
    )


def _apart(new: Numbers, old: Numbers, discrete: bool) -> Numbers:
    """Distance of two records, `replicates x agents x states x ...`, averaged over all dimensions but the first."""
    gap = np.abs(new.astype(np.float64) - old)
    total = np.where(np.isnan(gap).all(-1), np.nan, np.nansum(gap, -1) / (2 if discrete else gap.shape[-1]))
    flat = total.reshape(len(gap), -1)
    known = ~np.isnan(flat)
    with np.errstate(invalid="ignore"):  # replicates without any belief are NaN
        mean: Numbers = np.where(known, flat, 0.0).sum(1) / known.sum(1)
    return mean


def changed(posterior: xr.Dataset, learner: str) -> Measured:
    """Step and size of the largest change of rho, and the step at which it settles; see `movement`."""
    found = movement(posterior, learner)
    if found is None or not np.isfinite(found["size"]).all():
        return {}
    return {name: found[name].to_numpy() for name in ("at", "size", "settled")}


def ahead(posterior: xr.Dataset, learner: str) -> Measured:
    """The lead of rho over the opponents' policies in finding the optimum, see `lead`."""
    found = learner_lead(posterior, learner)
    if found is None:
        return {}
    excluded = Interval(found.excluded, np.nan, np.nan)
    return {"lead": found.interval, "excluded": excluded, "gap": found.mean_gap}


MEASURES: tuple[Callable[[xr.Dataset, str], Measured], ...] = (sureness, distances, calibrated, agreed, changed, ahead)
"""Functions that measure a learner with an opponent model."""


def _at_the_end(posterior: xr.Dataset, learner: str, name: str) -> xr.DataArray | None:
    """A belief of a learner at the last record; `None` without it."""
    if name not in posterior:
        return None
    belief = posterior[name].sel(learner=learner).isel(step=-1).astype(np.float64)
    return None if belief.isnull().all() else belief


def _mean(values: xr.DataArray) -> Numbers:
    """Average over all dimensions but `replicate`."""
    array: Numbers = values.mean([dim for dim in values.dims if dim != "replicate"]).to_numpy()
    return array
