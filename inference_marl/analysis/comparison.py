"""Two runs side by side: the same readings of both, their differences, and how far apart their beliefs are."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np

from inference_marl.analysis.posterior import InspectError, Recorded
from inference_marl.analysis.report.tables import NO_INTERVAL, Section, cell, number, step_cell
from inference_marl.statistics.beliefs import (
    SPREAD_FLOOR,
    Numbers,
    discrete_divergence,
    divergences,
    modelling,
    normal_divergence,
    per_replicate,
)
from inference_marl.statistics.bounds import bounds_of
from inference_marl.statistics.calibration import calibration
from inference_marl.statistics.certainty import certainty
from inference_marl.statistics.changes import belief_change
from inference_marl.statistics.intervals import (
    Interval,
    mean_interval,
    median_interval,
    metric_difference,
    proportion_interval,
)

MAX_PAIRS = 6
"""Pairs of learners that are compared; the rest is left out, and said."""

RESAMPLES = 200
"""Of the replicates of both runs, for bootstrap intervals."""

METRICS = {
    "reward": "reward per step",
    "joint_optimum_probability": "P(optimum)",
    "success": "success rate",
    "elbo": "ELBO",
    "elbo_gap": "evidence minus ELBO",
}

LABELS = METRICS | {
    "entropy": "entropy of rho",
    "favourite": "largest probability",
    "spread": "sd of rho",
    "from_prior": "KL(rho || P)",
    "from_truth": "KL(truth || rho)",
    "log_score": "log score",
    "overconfidence": "overconfidence",
    "at": "step of largest change",
    "size": "size of largest change",
}
"""What readings are called, by the names of metrics and of fields."""


def comparison(first: Recorded, second: Recorded) -> list[Section]:
    """Readings of two runs at their last records, and the distance of their beliefs.

    Learners of the same name are compared; if there are none, every learner of one run with every one of the other.

    Raises:
        InspectError: if the runs cannot be compared.
    """
    check_comparable(first, second)
    names = run_names(first, second)
    every = learner_pairs(first, second)
    pairs = every[:MAX_PAIRS]
    left_out = f"{len(every) - MAX_PAIRS} more pairs of learners not shown" if len(every) > MAX_PAIRS else ""
    paired = are_paired(first, second)
    sections = [_readings(first, second, pair, names, paired) for pair in pairs]
    apart = [_apart(first, second, pair) for pair in pairs]
    discrete = first.posterior is not None and first.posterior.attrs["kind"] == "discrete"
    measure = "total variation" if discrete else "1-Wasserstein"
    explanation = (
        "Beliefs averaged over the replicates of a run (draws: all together) and compared with those of the other, on "
        "the states both have, averaged over agents; intervals from the bootstrap over replicates"
        + (", of both runs together. " if paired else ", of each run by itself. ")
        + ("Total variation runs from 0, the same, to 1, nothing in common; KL in nats." if discrete else "")
        + ("" if discrete else "1-Wasserstein is in units of actions; KL, in nats, is that of fitted normals.")
    )
    far = Section(
        f"How far are the beliefs of {names[1]} from those of {names[0]}?",
        explanation,
        ["", measure, "KL(first || second)"],
        [row for rows in apart for row in rows],
        left_out,
    )
    return [*sections, far]


def run_names(first: Recorded, second: Recorded) -> tuple[str, str]:
    """Short names that tell two runs apart: their folders', with the parents' where these are the same.

    A run that is compared with itself is `..._again` the second time.
    """
    folders = [recorded.folder.resolve() for recorded in (first, second)]
    if folders[0].name != folders[1].name:
        return folders[0].name, folders[1].name
    one, other = ("/".join(folder.parts[-2:]) for folder in folders)
    if folders[0] == folders[1]:
        return folders[0].name, f"{folders[0].name}_again"
    return (one, other) if one != other else (str(folders[0]), str(folders[1]))


def learner_pairs(first: Recorded, second: Recorded) -> list[tuple[str, str]]:
    """Learners to compare: those of the same name, or else everyone with everyone."""
    one, other = (recorded.metrics["learner"].to_numpy().tolist() for recorded in (first, second))
    common = [(name, name) for name in one if name in other]
    return common or list(product(one, other))


def check_comparable(first: Recorded, second: Recorded) -> None:
    """Refuse runs whose beliefs are not about the same things.

    Raises:
        InspectError: if action spaces or the numbers of agents differ, or a run has no beliefs.
    """
    one, other = (_described(recorded) for recorded in (first, second))
    for what, found in one.items():
        if found != other[what]:
            raise InspectError(
                f"{second.folder}: got {what} {other[what]}, expected {found} as in {first.folder}; "
                "only runs with the same agents and actions can be compared"
            )


def _described(recorded: Recorded) -> dict[str, str]:
    posterior = recorded.posterior
    if posterior is None:
        raise InspectError(f"{recorded.folder}: got a run without posterior.nc, expected one that records beliefs")
    agents = str(posterior.sizes["agent"])
    if posterior.attrs["kind"] == "continuous":
        edges = f"[{posterior.attrs['low']:g}, {posterior.attrs['high']:g}]"
        actions = f"continuous, {posterior.sizes['action_dim']} of {edges}"
    else:
        real = posterior["policy"].notnull()
        taken = real.any([dim for dim in real.dims if dim not in ("agent", "action")]).sum("action")
        actions = f"discrete, {' x '.join(map(str, taken.to_numpy().tolist()))}"
    return {"agents": agents, "action spaces": actions}


def are_paired(first: Recorded, second: Recorded) -> bool:
    """Whether replicate `r` of both runs started from the same random numbers: one game, seed and number of them."""
    one, other = (
        (run.metrics.attrs.get("seed"), run.metrics.attrs.get("game"), run.metrics.sizes["replicate"])
        for run in (first, second)
    )
    return one[0] is not None and one == other


def learner_readings(recorded: Recorded, learner: str) -> dict[str, Numbers]:
    """Everything that one number per replicate says of a learner at the last record, by its name in `LABELS`."""
    found: dict[str, Numbers] = {}
    for name in METRICS:
        values = per_replicate(recorded.metrics, name, learner)
        if values is not None:
            found[name] = values[:, -1]
    posterior = recorded.posterior
    if posterior is None or learner not in modelling(posterior):
        return found
    read = (
        certainty(posterior, learner),
        divergences(posterior, learner),
        calibration(posterior, learner, -1),
        belief_change(posterior, learner),
    )
    for reading in read:
        if reading is not None:
            found |= {name: values for name, values in vars(reading).items() if name in LABELS}
    return {name: found[name] for name in LABELS if name in found and not np.isnan(found[name]).all()}


def _readings(
    first: Recorded, second: Recorded, pair: tuple[str, str], names: tuple[str, str], paired: bool
) -> Section:
    """One pair of learners, a row per reading that both have."""
    one, other = (learner_readings(run, learner) for run, learner in zip((first, second), pair, strict=True))
    last = max(int(run.metrics["step"][-1]) for run in (first, second))
    discrete = first.posterior is not None and first.posterior.attrs["kind"] == "discrete"
    same = first.metrics.equals(second.metrics)
    rows = []
    for name in (name for name in one if name in other):
        both = one[name], other[name]
        if name == "at":
            medians = [median_interval(values) for values in both]
            later = medians[1].mean - medians[0].mean if all(math.isfinite(each.mean) for each in medians) else math.nan
            rows.append([LABELS[name], *(step_cell(each, last) for each in medians), number(later, 1)])
            continue
        cells = [cell(_interval(name, values, discrete)) for values in both]
        gap = metric_difference(name, *both, paired, discrete)
        rows.append([LABELS[name], *cells, cell(Interval(gap.mean, math.nan, math.nan) if same else gap)])
    header = [name if pair[0] == pair[1] else f"{name}: {learner}" for name, learner in zip(names, pair, strict=True)]
    title = f"{pair[0]} in both runs" if pair[0] == pair[1] else f"{pair[0]} and {pair[1]}"
    explanation = (
        "Means over replicates at the last record of each run with 95 % intervals (steps: medians); the difference is "
        f"the second minus the first, {_how(paired, same)} {NO_INTERVAL}"
    )
    return Section(f"{title}: the same readings", explanation, ["", *header, "difference"], rows)


def _how(paired: bool, same: bool) -> str:
    """How the differences of two runs came by their intervals."""
    if same:
        return "without intervals, as both runs have the same results."
    if paired:
        return "replicate by replicate, as both runs have the same game, seed and number of replicates."
    return "by Welch's t (success: Newcombe's score interval), as the runs' replicates do not pair."


def _interval(name: str, values: Numbers, discrete: bool) -> Interval:
    """The interval that suits a reading."""
    if name == "success":
        return proportion_interval(int(values.sum()), len(values))
    return mean_interval(values, bounds=bounds_of(name, discrete))


def _apart(first: Recorded, second: Recorded, pair: tuple[str, str]) -> list[list[str]]:
    """Distances of one pair's opponent models and policies."""
    label = pair[0] if pair[0] == pair[1] else f"{pair[0]}, {pair[1]}"
    rows = [[label]]
    for name, words in {"opponent_model": "opponent model rho", "policy": "policy pi"}.items():
        distances = belief_distance(first, second, pair, name)
        if distances is not None:
            rows.append([f"  {words}", *(cell(interval) for interval in distances)])
    return rows if len(rows) > 1 else []


def belief_distance(
    first: Recorded, second: Recorded, pair: tuple[str, str], name: str = "opponent_model"
) -> tuple[Interval, Interval] | None:
    """How far apart a belief of two learners in two runs is at the last records.

    Args:
        first: a run.
        second: another one.
        pair: a learner of each.
        name: `opponent_model`, `opponent_prior`, `opponent_policy` or `policy`.

    Returns:
        Total variation (draws: 1-Wasserstein distance) and `KL(first || second)` of the means over replicates (draws:
        of all replicates' together), averaged over agents and common states, with intervals from the bootstrap over
        replicates, in pairs where they pair, widened to contain the estimate. `None` if a learner
        lacks the belief.
    """
    if first.posterior is None or second.posterior is None:
        return None
    if name not in first.posterior or name not in second.posterior:
        return None
    found = [
        recorded.posterior[name].sel(learner=learner).isel(step=-1)
        for recorded, learner in zip((first, second), pair, strict=True)
        if recorded.posterior is not None
    ]
    if any(belief.isnull().all() for belief in found):
        return None
    labelled = [
        belief if "state" in belief.coords else belief.assign_coords(state=np.arange(belief.sizes["state"]))
        for belief in found
    ]
    common = [state for state in labelled[0]["state"].to_numpy() if state in labelled[1]["state"].to_numpy()]
    if not common:
        return None
    discrete = first.posterior.attrs["kind"] == "discrete"
    last = str(found[0].dims[-1])
    event = (last,) if discrete else ("draw", last)
    one, other = (
        belief.sel(state=common).transpose("replicate", "agent", "state", *event).to_numpy().astype(np.float64)
        for belief in labelled
    )
    spread = 0.0 if discrete else SPREAD_FLOOR * (first.posterior.attrs["high"] - first.posterior.attrs["low"])
    return _bootstrapped(one, other, are_paired(first, second), lambda p, q: _distances(p, q, discrete, spread))


def _distances(p: Numbers, q: Numbers, discrete: bool, spread: float) -> tuple[float, float]:
    """Distance and divergence of `replicates x agents x states x ...`."""
    if discrete:
        p, q = p.mean(0), q.mean(0)
        total = np.where(np.isnan(p).all(-1), np.nan, np.nansum(np.abs(p - q), -1) / 2)
        return float(np.nanmean(total)), float(np.nanmean(discrete_divergence(p, q, False)))
    p, q = (np.concatenate(list(each), axis=-2) for each in (p, q))  # all replicates' draws
    levels = (np.arange(200) + 0.5) / 200
    apart = np.abs(np.quantile(p, levels, axis=-2) - np.quantile(q, levels, axis=-2)).mean(0)
    return float(np.nanmean(apart)), float(np.nanmean(normal_divergence(p, q, False, spread)))


def _bootstrapped(
    one: Numbers, other: Numbers, paired: bool, measure: Callable[[Numbers, Numbers], tuple[float, float]]
) -> tuple[Interval, Interval]:
    """Two measures with percentile intervals over replicates of both, drawn in pairs if they are `paired`."""
    estimate = measure(one, other)
    if min(len(one), len(other)) < 2:
        first, second = (Interval(each, math.nan, math.nan) for each in estimate)
        return first, second
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(one), size=len(one))
        drawn.append(measure(one[chosen], other[chosen if paired else rng.integers(len(other), size=len(other))]))
    low, high = (
        np.minimum(np.quantile(drawn, 0.025, axis=0), estimate),
        np.maximum(np.quantile(drawn, 0.975, axis=0), estimate),
    )
    first, second = (Interval(*map(float, each)) for each in zip(estimate, low, high, strict=True))
    return first, second
