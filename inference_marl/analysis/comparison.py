"""Two runs side by side: the same quantities of both, their differences, and how far apart their beliefs are."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np

from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.tables import NO_INTERVAL, Section, cell, number
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import (
    SPREAD_FLOOR,
    Numbers,
    as_array,
    discrete_divergence,
    divergences,
    modelling,
    normal_divergence,
)
from inference_marl.statistics.bounds import bounds_of
from inference_marl.statistics.calibration import calibration
from inference_marl.statistics.certainty import certainty
from inference_marl.statistics.changes import belief_change
from inference_marl.statistics.intervals import Interval, mean_interval, median_interval, proportion_interval
from inference_marl.statistics.metrics import metric_difference, per_replicate

MAX_PAIRS = 6
"""Pairs of learners that are compared; the table says how many are left out."""

RESAMPLES = 200
"""Bootstrap resamples of the replicates of both runs."""

METRICS = {
    "reward": "reward per step",
    "joint_optimum_probability": "P(optimum)",
    "success_rate": "success rate",
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
"""What quantities are called, by the names of metrics and of fields of `Certainty` and the like."""


def comparison(first: Recorded, second: Recorded) -> list[Section]:
    """Quantities of two runs at their last records, and the distance of their beliefs.

    Learners of the same name are compared; if there are none, every learner of one run with every one of the other.

    Raises:
        InspectError: if the runs cannot be compared.
    """
    check_comparable(first, second)
    names, paired = run_names(first, second), are_paired(first, second)
    every = learner_pairs(first, second)
    pairs = every[:MAX_PAIRS]
    discrete = first.beliefs.attrs["kind"] == "discrete"
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
        ["", "total variation" if discrete else "1-Wasserstein", "KL(first || second)"],
        [row for pair in pairs for row in _apart(first, second, pair)],
        f"{len(every) - MAX_PAIRS} more pairs of learners not shown" if len(every) > MAX_PAIRS else "",
    )
    return [*(_side_by_side(first, second, pair, names, paired) for pair in pairs), far]


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
    """Learners to compare: those of the same name, or else all with all."""
    common = [(name, name) for name in first.learners if name in second.learners]
    return common or list(product(first.learners, second.learners))


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
    posterior = recorded.beliefs
    if posterior.attrs["kind"] == "continuous":
        edges = f"[{posterior.attrs['low']:g}, {posterior.attrs['high']:g}]"
        actions = f"continuous, {posterior.sizes['action_dim']} of {edges}"
    else:
        real = posterior["policy"].notnull()
        taken = real.any([dim for dim in real.dims if dim not in ("agent", "action")]).sum("action")
        actions = f"discrete, {' x '.join(map(str, taken.to_numpy().tolist()))}"
    return {"agents": str(posterior.sizes["agent"]), "action spaces": actions}


def are_paired(first: Recorded, second: Recorded) -> bool:
    """Whether replicate `r` of both runs used the same random numbers: same game, seed and number of replicates."""
    one, other = (
        (run.metrics.attrs.get("seed"), run.metrics.attrs.get("game"), run.metrics.sizes["replicate"])
        for run in (first, second)
    )
    return one[0] is not None and one == other


def quantities(recorded: Recorded, learner: str) -> dict[str, Numbers]:
    """All of a learner's quantities at the last record, one number per replicate each, by their names in `LABELS`."""
    found: dict[str, Numbers] = {}
    for name in METRICS:
        values = per_replicate(recorded.metrics, name, learner)
        if values is not None:
            found[name] = values[:, -1]
    posterior = recorded.posterior
    if posterior is None or learner not in modelling(posterior):
        return found
    for each in (
        certainty(posterior, learner),
        divergences(posterior, learner),
        calibration(posterior, learner, -1),
        belief_change(posterior, learner),
    ):
        found |= {name: values for name, values in vars(each).items() if name in LABELS} if each else {}
    return {name: found[name] for name in LABELS if name in found and not np.isnan(found[name]).all()}


def _side_by_side(
    first: Recorded, second: Recorded, pair: tuple[str, str], names: tuple[str, str], paired: bool
) -> Section:
    """One pair of learners, a row per quantity that both have."""
    one, other = (quantities(run, learner) for run, learner in zip((first, second), pair, strict=True))
    last, same = max(first.last_step, second.last_step), first.metrics.equals(second.metrics)
    discrete = first.beliefs.attrs["kind"] == "discrete"
    rows = []
    for name in (name for name in one if name in other):
        both = one[name], other[name]
        if name == "at":
            medians = [median_interval(values) for values in both]
            later = medians[1].mean - medians[0].mean if all(math.isfinite(each.mean) for each in medians) else math.nan
            rows.append([LABELS[name], *(cell(each, 1, last) for each in medians), number(later, 1)])
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
    """How the intervals of differences are computed."""
    if same:
        return "without intervals, as both runs have the same results."
    if paired:
        return "replicate by replicate, as both runs have the same game, seed and number of replicates."
    return "by Welch's t (success: Newcombe's score interval), as the runs' replicates do not pair."


def _interval(name: str, values: Numbers, discrete: bool) -> Interval:
    """The interval that suits a quantity."""
    if name == "success_rate":
        return proportion_interval(int(values.sum()), len(values))
    return mean_interval(values, bounds=bounds_of(name, discrete))


def _apart(first: Recorded, second: Recorded, pair: tuple[str, str]) -> list[list[str]]:
    """Rows with the distances of one pair's opponent models and policies."""
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
        of all replicates together), averaged over agents and common states, with intervals from the bootstrap over
        replicates, in pairs where they pair, widened to contain the estimate. `None` if a learner lacks the belief.
    """
    stored = first.beliefs, second.beliefs
    if any(name not in each for each in stored):
        return None
    found = [each[name].sel(learner=learner).isel(step=-1) for each, learner in zip(stored, pair, strict=True)]
    states = found[1]["state"].to_numpy()
    common = [state for state in found[0]["state"].to_numpy() if state in states]
    if not common or any(belief.isnull().all() for belief in found):
        return None
    attrs, last = stored[0].attrs, str(found[0].dims[-1])
    discrete = attrs["kind"] == "discrete"
    event = (last,) if discrete else ("draw", last)
    one, other = (as_array(belief.sel(state=common), "replicate", "agent", "state", *event) for belief in found)
    spread = 0.0 if discrete else SPREAD_FLOOR * (attrs["high"] - attrs["low"])
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
    """Two measures with percentile intervals over replicates of both, resampled in pairs if they are `paired`."""
    estimate = measure(one, other)
    if min(len(one), len(other)) < 2:
        return Interval(estimate[0], math.nan, math.nan), Interval(estimate[1], math.nan, math.nan)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(one), size=len(one))
        drawn.append(measure(one[chosen], other[chosen if paired else rng.integers(len(other), size=len(other))]))
    low = np.minimum(np.quantile(drawn, 0.025, axis=0), estimate)
    high = np.maximum(np.quantile(drawn, 0.975, axis=0), estimate)
    first, second = (Interval(*map(float, each)) for each in zip(estimate, low, high, strict=True))
    return first, second
