"""A run's beliefs for ArviZ. The only module that imports arviz, and only when a function needs it.

ArviZ 0.23 (Python 3.11) and 1.x are both supported; `arviz.__version__` says which one is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from inference_marl.analysis.recorded import Recorded, read
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import about, modelling

SEEDS_AGREE = "r_hat (seeds agree)"
"""Column of `summary`: R-hat with replicates as chains. Near 1 if all seeds agree on one belief."""

LEVEL = 0.95
"""Mass of the highest-density intervals in `summary`."""

GROUPS = {"posterior": "opponent_model", "prior": "opponent_prior", "observed_data": "opponent_policy"}
"""ArviZ group of each belief about the opponents."""

PREDICTED = 100
"""Predictive draws per replicate of a discrete belief; a continuous one keeps the draws that were recorded."""

DRAWN = "opponent_action_drawn"
"""Predictive draws of discrete actions; `opponent_action` is the dimension of probabilities."""


def load(run: Path | str | Recorded) -> xr.DataTree:
    """A run's beliefs in ArviZ's groups, with their dimensions as recorded (`replicate` stays `replicate`).

    * `posterior`: the opponent model rho, the marginal policy pi and, for priors with latent types, their probabilities
      `opponent_type`;
    * `prior`: the opponent prior P;
    * `observed_data`: the opponents' actual policy, which the opponent model predicts;
    * `sample_stats`: all of `metrics.nc`: the ELBO and its parts, rewards and success;
    * `constant_data`: the game's optimum, if it is known.

    Draws are named after their Pyro sites, `opponent_action` and `action`. Discrete beliefs are probabilities,
    `opponent_action_probability` and `action_probability`, over the dimensions `opponent_action` and `action`. Names
    are the same in all groups, so that ArviZ's comparison plots find the pairs.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished or has no beliefs.
    """
    recorded = read(run)
    stored = recorded.beliefs
    suffix = "_probability" if stored.attrs["kind"] == "discrete" else ""
    groups = {
        group: xr.Dataset({f"opponent_action{suffix}": stored[name]})
        for group, name in GROUPS.items()
        if name in stored
    }
    if "policy" in stored:
        groups.setdefault("posterior", xr.Dataset())[f"action{suffix}"] = stored["policy"]
    if "opponent_type" in stored:
        groups["posterior"]["opponent_type"] = stored["opponent_type"]
    groups["sample_stats"] = recorded.metrics
    known = [name for name in stored.data_vars if str(name).startswith("optimal_")]
    if known:
        groups["constant_data"] = stored[known]
    tree = xr.DataTree.from_dict({f"/{group}": dataset for group, dataset in groups.items()})
    tree.attrs = {**recorded.metrics.attrs, **stored.attrs}
    return tree


def to_arviz(run: Path | str | Recorded, learner: str | None = None, step: int | None = None) -> Any:
    """One learner's beliefs at one step, for ArviZ's own functions.

    ArviZ needs the dimensions `chain` and `draw`. Continuous beliefs have draws, and `replicate` becomes `chain`; a
    discrete belief is itself a distribution, so there is one chain and `replicate` becomes `draw`. Replicates are
    independent seeds, not chains of one sampler: R-hat across them tells whether the seeds agree, not whether a
    sampler has converged. `observed_data` and `constant_data` have no draws in ArviZ: there the truth keeps
    `replicate`.

    Beside the groups of `load` there are `posterior_predictive` and `prior_predictive`, what the agent expects to see:
    the opponents' next action under rho and under P. `replicate` is `chain` in these, since all are draws. Continuous
    ones are the recorded `opponent_action`. Discrete ones, `opponent_action_drawn`, are `PREDICTED` seeded draws of the
    indices of actions, -1 where an agent has no such belief or no such state; `observed_data` has one draw of what each
    replicate's opponents do under that name, so `arviz.plot_ppc(data, var_names=["opponent_action_drawn"])` works.

    Args:
        run: a run's folder, or what `read` made of it.
        learner: which arm; the first with an opponent model if `None`.
        step: a recorded environment step; the last if `None`.

    Returns:
        `arviz.InferenceData` on ArviZ 0.23, `xarray.DataTree` on 1.x.

    Raises:
        InspectError: as `load`, or for a learner or step that was not recorded.
    """
    recorded = read(run)
    tree = load(recorded)
    discrete = tree.attrs["kind"] == "discrete"
    learner = learner or (modelling(recorded.beliefs) or _labels(tree, "learner"))[0]
    groups = {}
    for name, group in tree.children.items():
        here = group.to_dataset()
        if name != "constant_data":
            here = here.sel(learner=_known(tree, "learner", learner), drop=True)
            # Metrics have steps of their own: NaN if not at this one.
            here = here.reindex(step=[_known(tree, "step", step)]).isel(step=0, drop=True)
            here = here.isel(state=0, drop=True) if here.sizes.get("state") == 1 else here
        if name in ("posterior", "prior", "sample_stats"):
            here = here.rename(replicate="draw" if discrete else "chain")
            here = here.expand_dims(chain=[0]) if discrete else here
            here = here.transpose("chain", "draw", ..., missing_dims="ignore")
        groups[f"/{name}"] = here
    for name, source in {"posterior_predictive": "posterior", "prior_predictive": "prior"}.items():
        if f"/{source}" in groups:
            groups[f"/{name}"] = _predicted(groups[f"/{source}"], discrete)
    if "/observed_data" in groups and discrete:
        probabilities = groups["/observed_data"]["opponent_action_probability"]
        groups["/observed_data"][DRAWN] = _drawn(probabilities, 1).isel(draw=0)
    selected = xr.DataTree.from_dict(groups)
    selected.attrs = {**tree.attrs, "learner": learner, "step": int(_known(tree, "step", step))}
    with _arviz() as az:
        return az.InferenceData.from_datatree(selected) if _before_1(az) else selected


def _predicted(beliefs: xr.Dataset, discrete: bool) -> xr.Dataset:
    """Draws of the opponents' next action from a group of `to_arviz`."""
    if not discrete:
        return beliefs[["opponent_action"]]
    probabilities = beliefs["opponent_action_probability"].isel(chain=0, drop=True).rename(draw="chain")
    return _drawn(probabilities, PREDICTED).transpose("chain", "draw", ...).to_dataset(name=DRAWN)


def _drawn(probabilities: xr.DataArray, draws: int) -> xr.DataArray:
    """Seeded draws of indices along `opponent_action`, in the new dim `draw`."""
    table = probabilities.transpose(..., "opponent_action")
    edges = np.cumsum(np.nan_to_num(table.to_numpy().astype(np.float64)), -1)
    total = edges[..., -1:]
    uniform = np.random.default_rng(0).random((draws, *total.shape)) * total
    drawn = np.where(total[..., 0] > 0, (uniform >= edges).sum(-1), -1)
    return xr.DataArray(drawn, table.isel(opponent_action=0, drop=True).coords, ("draw", *table.dims[:-1]))


def summary(run: Path | str | Recorded, learner: str | None = None, step: int | None = None) -> pd.DataFrame:
    """ArviZ's summary of the posterior over each opponent's action, with the prior and the truth beside it.

    Discrete: a row is the probability of an action; `mean`, `sd` and the highest-density interval are over
    replicates, so they say how much the seeds differ. Continuous: a row is a dimension of an opponent's
    action, summarised over all draws of all replicates; `r_hat (seeds agree)` compares the replicates.

    Args:
        run: a run's folder, or what `read` made of it.
        learner: which arm; every arm with an opponent model if `None`.
        step: a recorded environment step; the last if `None`.

    Returns:
        Index `learner, agent`, `opponent` and `state` where there are several, and `opponent_action` or
        `opponent_dim`. Columns `mean, sd, hdi95_lb, hdi95_ub`, for draws `r_hat (seeds agree)`, and `prior` and
        `truth`, the means of `P` and of the opponents' actual policy. All are probabilities, or in the units of
        actions. Of several opponents every one has its own rows, with the others summed out.

    Raises:
        InspectError: as `to_arviz`, or if no learner, or not the named one, has an opponent model.
    """
    recorded = read(run)
    stored, tree = recorded.beliefs, load(recorded)
    having = modelling(stored)
    wanted = having if learner is None else [_known(tree, "learner", learner)]
    if not wanted or not set(wanted) <= set(having):
        raise InspectError(
            f"learner: got {learner or 'a run'} without an opponent model, "
            f"expected one of: {', '.join(having) or 'none in this run has one'}"
        )
    at = _known(tree, "step", step)
    here = stored.sel(step=[at])
    agents = range(stored.sizes["agent"])
    tables = []
    for agent in agents:
        for opponent in (other for other in agents if other != agent):
            beliefs = about(here, agent, opponent).isel(agent=0, step=0)
            tables += [(name, agent, opponent, _summary(beliefs.sel(learner=name))) for name in wanted]
    tables.sort(key=lambda entry: (wanted.index(entry[0]), entry[1], entry[2]))
    levels = ["learner", "agent", "opponent"]
    joined = pd.concat({entry[:3]: entry[3] for entry in tables if len(entry[3])}, names=levels)
    return joined if len(agents) > 2 else joined.droplevel("opponent")


def _summary(beliefs: xr.Dataset) -> pd.DataFrame:
    """`summary` of one agent's beliefs about one opponent, without rows for what is only padding."""
    discrete = beliefs.attrs["kind"] == "discrete"
    name = "opponent_action_probability" if discrete else "opponent_action"
    last = "opponent_action" if discrete else "opponent_dim"
    rows = ["state", last] if beliefs.sizes["state"] > 1 else [last]
    beliefs = beliefs if "state" in rows else beliefs.isel(state=0, drop=True)
    sampled = beliefs["opponent_model"].rename(replicate="draw" if discrete else "chain")
    sampled = (sampled.expand_dims(chain=[0]) if discrete else sampled).transpose("chain", "draw", *rows)
    for dim in rows:  # Stored without labels, states and dimensions are numbers.
        sampled = sampled if dim in sampled.coords else sampled.assign_coords({dim: np.arange(sampled.sizes[dim])})
    labels = [sampled[dim].to_numpy().tolist() for dim in rows]
    index = pd.MultiIndex.from_product(labels, names=rows)
    dataset = sampled.reset_coords(drop=True).astype(np.float64).to_dataset(name=name)
    with _arviz() as az:
        if _before_1(az):
            table = az.summary(dataset, kind="stats", hdi_prob=LEVEL, round_to="none")
        else:
            table = az.summary(dataset, kind="stats", ci_kind="hdi", ci_prob=LEVEL, round_to="none")
        table = pd.DataFrame(table.to_numpy(dtype=np.float64), index, ["mean", "sd", "hdi95_lb", "hdi95_ub"])
        if not discrete:
            comparable = sampled.sizes["chain"] > 1 and sampled.sizes["draw"] > 3
            table[SEEDS_AGREE] = az.rhat(dataset)[name].to_numpy().ravel() if comparable else np.nan
    for column, stored in {"prior": "opponent_prior", "truth": "opponent_policy"}.items():
        if stored in beliefs:
            over = [dim for dim in ("replicate", "draw") if dim in beliefs[stored].dims]
            table[column] = beliefs[stored].mean(over).transpose(*rows).to_numpy().astype(np.float64).ravel()
    return table.dropna(subset="mean")


def _labels(tree: xr.DataTree, dim: str) -> list[Any]:
    labels: list[Any] = tree["posterior" if "posterior" in tree.children else "sample_stats"][dim].to_numpy().tolist()
    return labels


def _known(tree: xr.DataTree, dim: str, value: Any) -> Any:
    """`value` if it is one of the dim's labels; the last label if it is `None`."""
    labels = _labels(tree, dim)
    if value is None:
        return labels[-1]
    if value not in labels:
        shown = ", ".join(map(str, labels if len(labels) <= 12 else [*labels[:3], "...", *labels[-3:]]))
        raise InspectError(f"{dim}: got {value!r}, which was not recorded, expected one of {shown}")
    return value


def _before_1(az: Any) -> bool:
    return int(az.__version__.split(".")[0]) < 1


@contextmanager
def _arviz() -> Iterator[Any]:
    """ArviZ, without its news of the day at import and its warnings about beliefs that do not vary."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        import arviz as az

        yield az
