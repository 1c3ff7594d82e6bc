"""Comparison of two runs: their quantities, differences, and distances of their beliefs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.tables import NO_INTERVAL, Section, cell
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import EVERY_STATE, Numbers, action_sizes, modelling, places
from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.metrics import difference, estimate, in_dataset, per_replicate
from inference_marl.statistics.quantities import MEASURES, cross_entropy, declaration
from inference_marl.types import POSITIVE, Metric

MAX_PAIRS = 6
"""Maximum number of pairs of learners that are compared; the table says how many are omitted."""

RESAMPLES = 200
"""Number of bootstrap resamples of the replicates of both runs."""

MAX_DIFFERENCES = 20
"""Maximum number of keys of the specifications that are listed; the table says how many are omitted."""


NOT_COMPARABLE = (
    "Not compared: beliefs were recorded where the agents were, and the environments of two runs are at different "
    "observations."
)
"""Explanation for runs whose beliefs are not recorded in every state."""


def comparison(first: Recorded, second: Recorded) -> list[Section]:
    """Compare two runs at their last records: quantities and distances of beliefs.

    Learners with the same name are compared; if there are none, every learner of one run with every one of the other.

    Raises:
        InspectError: if the runs cannot be compared.
    """
    check_comparable(first, second)
    beside = (_side_by_side(first, second, pair) for pair in learner_pairs(first, second)[:MAX_PAIRS])
    return [differences(first, second), *beside, belief_distances(first, second)]


def differences(first: Recorded, second: Recorded) -> Section:
    """Differences of the runs' specifications, and learners without a counterpart."""
    names, specs = run_names(first, second), [_flat(run.spec) for run in (first, second)]
    keys = [key for key in dict.fromkeys([*specs[0], *specs[1]]) if specs[0].get(key) != specs[1].get(key)]
    keys.sort(key=lambda key: not (key in specs[0] and key in specs[1]))  # keys in one run only come last
    table = pd.DataFrame(
        {name: [str(spec.get(key, "-")) for key in keys] for name, spec in zip(names, specs, strict=True)}, index=keys
    )
    notes = [f"{len(keys) - MAX_DIFFERENCES} more keys differ."] if len(keys) > MAX_DIFFERENCES else []
    if first.last_step != second.last_step:
        notes.append(f"The runs end at different steps, {first.last_step} and {second.last_step}.")
    matched = {name for pair in learner_pairs(first, second) for name in pair}
    for run, name in zip((first, second), names, strict=True):
        alone = [learner for learner in run.learners if learner not in matched]
        notes += [f"Only in {name}, so not compared: {', '.join(alone)}."] if alone else []
        notes += [f"Failed in {name}: {', '.join(run.failed)}."] if run.failed else []
    same = "" if keys else "Nothing: both have the same specification."
    return Section(
        "What differs in the specifications?", same, table.head(MAX_DIFFERENCES) if keys else None, " ".join(notes)
    )


def belief_distances(first: Recorded, second: Recorded) -> Section:
    """Distances between the beliefs of two runs at their last records."""
    names, every = run_names(first, second), learner_pairs(first, second)
    title = f"How far are the beliefs of {names[1]} from those of {names[0]}?"
    cut = f"{len(every) - MAX_PAIRS} more pairs of learners not shown" if len(every) > MAX_PAIRS else ""
    if {places(run.beliefs) for run in (first, second)} != {EVERY_STATE}:
        return Section(title, NOT_COMPARABLE, note=cut)
    discrete = first.beliefs.attrs["kind"] == "discrete"
    distance = Metric("distance", "total variation" if discrete else "1-Wasserstein", bounds=POSITIVE)
    divergence = Metric("divergence", "KL(first || second)", bounds=POSITIVE)
    rows = {
        (", ".join(dict.fromkeys(pair)), words): {
            metric.label: cell(metric, interval) for metric, interval in zip((distance, divergence), found, strict=True)
        }
        for pair in every[:MAX_PAIRS]
        for name, words in {"opponent_model": "opponent model rho", "policy": "policy pi"}.items()
        if (found := belief_distance(first, second, pair, name)) is not None
    }
    explanation = (
        "Beliefs are averaged over the replicates of a run (draws: pooled) and compared with those of the other run in "
        "the states that both have, averaged over agents; intervals are from the bootstrap over replicates, of "
        f"{'both runs together' if are_paired(first, second) else 'each run by itself'}. "
    ) + (
        "Total variation is 0 for equal and 1 for disjoint beliefs; KL is in nats."
        if discrete
        else "1-Wasserstein is in units of actions; KL, in nats, is between fitted normals."
    )
    return Section(title, explanation, pd.DataFrame.from_dict(rows, orient="index") if rows else None, cut)


def _flat(content: Any, key: str = "") -> dict[str, Any]:
    """Flatten a specification to dotted keys, without `init_args`."""
    if not isinstance(content, dict | list):
        return {key: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    flat: dict[str, Any] = {}
    for name, value in items:
        flat |= _flat(value, key if name == "init_args" else f"{key}.{name}".removeprefix("."))
    return flat


def run_names(first: Recorded, second: Recorded) -> tuple[str, str]:
    """Short, distinct names of two runs: their folders' names, with the parents' if these are equal.

    For a run compared with itself the second name is `..._again`.
    """
    folders = [recorded.folder.resolve() for recorded in (first, second)]
    if folders[0].name != folders[1].name:
        return folders[0].name, folders[1].name
    one, other = ("/".join(folder.parts[-2:]) for folder in folders)
    if folders[0] == folders[1]:
        return folders[0].name, f"{folders[0].name}_again"
    return (one, other) if one != other else (str(folders[0]), str(folders[1]))


def learner_pairs(first: Recorded, second: Recorded) -> list[tuple[str, str]]:
    """The pairs of learners to compare: those with the same name, or else all pairs."""
    common = [(name, name) for name in first.learners if name in second.learners]
    return common or list(product(first.learners, second.learners))


def check_comparable(first: Recorded, second: Recorded) -> None:
    """Raise for runs whose beliefs cannot be compared.

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
        actions = f"discrete, {' x '.join(map(str, action_sizes(posterior)))}"
    return {"agents": str(posterior.sizes["agent"]), "action spaces": actions}


def are_paired(first: Recorded, second: Recorded) -> bool:
    """Whether replicate `r` of both runs used the same random numbers: same game, seed and number of replicates."""
    one, other = (
        (run.metrics.attrs.get("seed"), run.metrics.attrs.get("game"), run.metrics.sizes["replicate"])
        for run in (first, second)
    )
    return one[0] is not None and one == other


def quantities(recorded: Recorded, learner: str) -> dict[Metric, Numbers]:
    """A learner's quantities at the last record with one number per replicate."""
    found: dict[Metric, Numbers] = {}
    for name, metric in in_dataset(recorded.metrics).items():
        values = per_replicate(recorded.metrics, name, learner)
        if values is not None and metric.tabulated:
            found[metric] = values[:, -1]
    posterior = recorded.posterior
    if posterior is not None and learner in modelling(posterior):
        measured = [pair for measure in MEASURES for pair in measure(posterior, learner).items()]
        found |= {declaration(name, posterior): each for name, each in measured if not isinstance(each, Interval)}
    return {metric: values for metric, values in found.items() if not np.isnan(values).all()}


def _side_by_side(first: Recorded, second: Recorded, pair: tuple[str, str]) -> Section:
    """Compare one pair of learners, with a row per quantity that both have."""
    names, paired = run_names(first, second), are_paired(first, second)
    one, other = (quantities(run, learner) for run, learner in zip((first, second), pair, strict=True))
    last, same = max(first.last_step, second.last_step), first.metrics.equals(second.metrics)
    header = [name if pair[0] == pair[1] else f"{name}: {learner}" for name, learner in zip(names, pair, strict=True)]
    theirs, rows = {metric.name: values for metric, values in other.items()}, {}
    for metric in (metric for metric in one if metric.name in theirs):  # older runs may declare it differently
        samples = one[metric], theirs[metric.name]
        both = [estimate(metric, values) for values in samples]
        if metric.estimate in ("median", "iqm"):  # their differences have no such interval
            known = all(math.isfinite(each.mean) for each in both)
            gap = Interval(both[1].mean - both[0].mean if known else math.nan, math.nan, math.nan)
        else:
            gap = difference(metric, *samples, paired)
        gap = Interval(gap.mean, math.nan, math.nan) if same else gap
        cells = [cell(metric, each, last) for each in (*both, gap)]
        rows[metric.label] = dict(zip([*header, "difference"], cells, strict=True))
    title = f"{pair[0]} in both runs" if pair[0] == pair[1] else f"{pair[0]} and {pair[1]}"
    explanation = (
        "Means over replicates (steps: medians) at each run's last record, with 95 % intervals; the difference is "
        f"the second minus the first, {_how(paired, same)} {NO_INTERVAL}"
    )
    return Section(f"{title}: metrics side by side", explanation, pd.DataFrame.from_dict(rows, orient="index"))


def _how(paired: bool, same: bool) -> str:
    """Describe how the intervals of differences are computed."""
    if same:
        return "without intervals, as both runs have the same results."
    if paired:
        return "replicate by replicate, as both runs have the same game, seed and number of replicates."
    return "by Welch's t (success: Newcombe's score interval), as the runs' replicates are not paired."


def belief_distance(
    first: Recorded, second: Recorded, pair: tuple[str, str], name: str = "opponent_model"
) -> tuple[Interval, Interval] | None:
    """Distance between a belief of two learners in two runs at the last records.

    Args:
        first: the first run.
        second: the second run.
        pair: names of a learner of each run.
        name: the belief: `opponent_model`, `opponent_prior`, `opponent_policy` or `policy`.

    Returns:
        Total variation (draws: 1-Wasserstein distance) and `KL(first || second)` between the means over replicates
        (draws: pooled), averaged over agents and common states, with intervals from the bootstrap over replicates,
        paired if possible, widened to contain the estimate. `None` if a learner lacks the belief.
    """
    stored = first.beliefs, second.beliefs
    if any(name not in each for each in stored):
        return None
    found = [each[name].sel(learner=learner).isel(step=-1) for each, learner in zip(stored, pair, strict=True)]
    states = found[1]["state"].to_numpy()
    common = [state for state in found[0]["state"].to_numpy() if state in states]
    if not common or any(belief.isnull().all() for belief in found):
        return None
    one, other = (belief.sel(state=common).astype(np.float64) for belief in found)
    paired, attrs, rng = are_paired(first, second), stored[0].attrs, np.random.default_rng(0)
    count, size = one.sizes["replicate"], other.sizes["replicate"]
    chosen = [(np.arange(count), np.arange(size))]
    for _ in range(RESAMPLES if min(count, size) > 1 else 0):
        drawn = rng.integers(count, size=count)
        chosen.append((drawn, drawn if paired else rng.integers(size, size=size)))
    distance, divergence = _distances(
        _pooled(one, [each for each, _ in chosen]), _pooled(other, [each for _, each in chosen]), attrs
    )
    return _interval(distance), _interval(divergence)


def _pooled(belief: xr.DataArray, chosen: Sequence[npt.NDArray[np.int64]]) -> xr.DataArray:
    """The mean over chosen replicates, or their pooled draws, with a new first dimension `resample`."""
    if "draw" not in belief.dims:
        times = np.stack([np.bincount(indices, minlength=belief.sizes["replicate"]) for indices in chosen])
        weights = xr.DataArray(times / belief.sizes["replicate"], dims=("resample", "replicate"))
        mean: xr.DataArray = xr.dot(weights, belief, dim="replicate")
        return mean
    together = belief.transpose("replicate", "draw", ...)
    dims = ("resample", "draw", *together.dims[2:])
    return xr.DataArray(np.stack([np.concatenate(together.to_numpy()[indices]) for indices in chosen]), dims=dims)


def _distances(p: xr.DataArray, q: xr.DataArray, attrs: Mapping[str, Any]) -> tuple[Numbers, Numbers]:
    """Distance and divergence, by `resample`."""
    if attrs["kind"] == "discrete":
        apart = abs(p - q).sum(str(p.dims[-1]), min_count=1) / 2
    else:
        levels = (np.arange(200) + 0.5) / 200
        apart = abs(p.quantile(levels, "draw", skipna=False) - q.quantile(levels, "draw", skipna=False))
    divergence = cross_entropy(p, q, attrs) - cross_entropy(p, p, attrs)
    over = [dim for dim in divergence.dims if dim != "resample"]
    return apart.mean([dim for dim in apart.dims if dim != "resample"]).to_numpy(), divergence.mean(over).to_numpy()


def _interval(values: Numbers) -> Interval:
    """The first value with the percentile interval of the others, widened to contain it."""
    estimate, drawn = float(values[0]), values[1:]
    if not len(drawn):
        return Interval(estimate, math.nan, math.nan)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(estimate, float(min(low, estimate)), float(max(high, estimate)))
