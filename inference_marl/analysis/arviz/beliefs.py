"""A learner's beliefs at one step, as ArviZ data and as a table of those about opponents' actions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from inference_marl.analysis.arviz.library import known, quiet_arviz, tree
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import about, modelling

LEVEL = 0.95
"""Probability of the highest-density intervals in `summary`."""

PREDICTED = 100
"""Number of predictive draws per replicate for a discrete belief; a continuous one keeps its recorded draws."""


def to_arviz(run: Path | str | Recorded, learner: str | None = None, step: int | None = None) -> Any:
    """One learner's beliefs at one step, for ArviZ's own functions.

    * `posterior`: `opponent_model` (rho), `policy` and, for priors with latent types, `opponent_type`;
    * `prior`: `opponent_prior` (P);
    * both have a dimension `other`, the opponent that a belief is about, if there are several; then also
      `joint_opponent_model` and `joint_opponent_prior`, tables over their joint actions, if these are small;
    * `posterior_predictive`, `prior_predictive`: draws of `opponent_action` from rho and P. Continuous ones are those
      recorded; discrete ones are `PREDICTED` seeded draws, as indices of the labels of `opponent_model`;
    * `observed_data`: `opponent_action`, one draw in each replicate from the opponents' actual policy;
    * `sample_stats`: `metrics.nc`; `constant_data`: the opponents' actual `opponent_policy` and the game's optimum, if
      known.

    Replicates are seeds, not chains: beliefs have the sample dimensions `["replicate"]` or, as draws, `["replicate",
    "draw"]`, predictions `["draw"]`, where each draw covers all observations. Every group has them in its attributes,
    where ArviZ's plots find them; its `summary` needs an argument: `arviz.summary(data, sample_dims=["replicate"],
    kind="stats")`. So does every function if ArviZ read the tree from a file, since netCDF has no lists of length 1.

    Scalar coordinates identify the arm: `learner`, `step` and, for each factor, `factor_<name>`. If only some of its
    agents have opponent models, only these are kept.

    Args:
        run: a run's folder, or the result of `read`.
        learner: name of the arm; `None` for the first with an opponent model.
        step: a recorded environment step; `None` for the last.

    Returns:
        `xarray.DataTree`. On ArviZ 0.23, which requires `chain` and `draw`, `arviz.InferenceData` with one chain, whose
        draws are those of all replicates.

    Raises:
        InspectError: if the folder is not a run, the run is not finished or has no beliefs, or the learner or step was
            not recorded.
    """
    recorded = read(run)
    stored, metrics = recorded.beliefs, recorded.metrics
    learner = known(metrics, "learner", learner or next(iter(modelling(stored)), recorded.learners[0]))
    at = {"learner": learner, "step": known(stored, "step", step)}
    # Metrics have their own steps, and perhaps none at this one.
    measured = metrics.reindex(step=stored["step"])
    levels = (recorded.spec.get("levels") or {}).get(learner, {})
    factors = {f"factor_{name}": level for name, level in levels.items()}
    beliefs, played = (_present(each.sel(at).assign_coords(factors)) for each in (stored, measured))
    return tree(recorded, _groups(beliefs, played), **stored.attrs)


def _present(dataset: xr.Dataset) -> xr.Dataset:
    """The data of one arm at one step, with all its labels and without padding to the size of others."""
    labelled = dataset.assign_coords({dim: dataset[dim] for dim in ("replicate", "agent")})
    here = labelled[[name for name, values in labelled.items() if values.notnull().any()]]
    if "opponent_model" in here:
        here = here.dropna("agent", how="all", subset=["opponent_model"])
    if "state" in here.sizes:
        here = here.dropna("state", how="all")
    return here.isel(state=0, drop=True) if here.sizes.get("state") == 1 else here


def _groups(beliefs: xr.Dataset, played: xr.Dataset) -> dict[str, xr.Dataset]:
    """ArviZ's groups, some of them empty."""
    discrete, rng = beliefs.attrs["kind"] == "discrete", np.random.default_rng(0)
    sampled = ["replicate"] if discrete else ["replicate", "draw"]
    groups = {
        "posterior": _chosen(beliefs, ["opponent_model", "joint_opponent_model", "policy", "opponent_type"], sampled),
        "prior": _chosen(beliefs, ["opponent_prior", "joint_opponent_prior"], sampled),
        "sample_stats": played.drop_attrs(deep=False).assign_attrs(sample_dims=["replicate"]),
        "constant_data": _chosen(beliefs, ["opponent_policy", "optimal_action", "optimal_opponent_action"]),
    }
    sources = {"posterior_predictive": "opponent_model", "prior_predictive": "opponent_prior"}
    for group, name in {**sources, "observed_data": "opponent_policy"}.items():
        if name in beliefs:
            drawn = _drawn(beliefs[name], rng) if discrete else beliefs[name]
            groups[group] = _chosen(drawn.to_dataset(name="opponent_action"), ["opponent_action"], ["draw"])
    if "observed_data" in groups:
        groups["observed_data"] = groups["observed_data"].isel(draw=0).drop_attrs(deep=False)
    return groups


def _chosen(dataset: xr.Dataset, names: Sequence[str], sampled: Sequence[str] = ()) -> xr.Dataset:
    """The variables that exist, with attributes, and with sample dimensions first."""
    group = dataset[[name for name in names if name in dataset]].transpose(*sampled, ..., missing_dims="ignore")
    for name, values in group.items():
        units = "units of actions" if str(values.dims[-1]).endswith("_dim") else "1"
        values.attrs = {"long_name": str(name).replace("_", " "), "units": units}
    group.attrs = {"sample_dims": list(sampled)} if sampled else {}
    return group


def _drawn(probabilities: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    """Draws of indices of `opponent_action`, in the new dimension `draw`; NaN in states that an agent lacks."""
    upper = probabilities.fillna(0.0).astype(np.float64).cumsum("opponent_action")
    total = upper.isel(opponent_action=-1, drop=True)
    uniform = xr.DataArray(rng.random((PREDICTED, *total.shape)), dims=("draw", *total.dims))
    drawn = (uniform * total >= upper).sum("opponent_action")
    return drawn if (total > 0).all() else drawn.where(total > 0)


def summary(run: Path | str | Recorded, learner: str | None = None, step: int | None = None) -> pd.DataFrame:
    """Summarise the posterior over each opponent's action, with the prior and the truth.

    Discrete: a row is the probability of an action; `mean`, `sd` and ArviZ's highest-density interval are over
    replicates, so they measure how much the seeds differ. Continuous: a row is a dimension of an opponent's action,
    summarised over all draws of all replicates; `sd_seeds` is the part of `sd` between seeds. Failed replicates are
    omitted.

    Args:
        run: a run's folder, or the result of `read`.
        learner: name of the arm; `None` for every arm with an opponent model.
        step: a recorded environment step; `None` for the last.

    Returns:
        A frame with the index `learner, agent`, `opponent` and `state` if there are several, and `opponent_action` or
        `opponent_dim`. Columns are `mean, sd, hdi95_lb, hdi95_ub`, for draws `sd_seeds`, the standard deviation of the
        replicates' means, and `prior` and `truth`, the means of `P` and of the opponents' actual policy. All are
        probabilities, or in units of actions. With several opponents each has its own rows, with the others summed out.

    Raises:
        InspectError: like `to_arviz`, or if no learner, or not the named one, has an opponent model.
    """
    stored = read(run).beliefs
    having = modelling(stored)
    wanted = having if learner is None else [known(stored, "learner", learner)]
    if not wanted or not set(wanted) <= set(having):
        raise InspectError(
            f"learner: got {learner or 'a run'} without an opponent model, expected "
            + (f"one of {', '.join(having)}" if having else "a run in which some learner has one")
        )
    here, agents = stored.sel(step=known(stored, "step", step)), stored.sizes["agent"]
    tables = {
        (name, agent, opponent): _summary(about(here, agent, opponent).sel(learner=name).isel(agent=0))
        for name in wanted
        for agent, opponent in permutations(range(agents), 2)
    }
    there = {key: table for key, table in tables.items() if len(table)}
    joined = pd.concat(there, names=["learner", "agent", "opponent"])
    counts = {"opponent": agents - 1, "state": stored.sizes["state"]}
    return joined.droplevel([name for name, count in counts.items() if count == 1])


def _summary(beliefs: xr.Dataset) -> pd.DataFrame:
    """`summary` of one agent's beliefs about one opponent, without padding."""
    beliefs = beliefs.astype(np.float64)
    model = beliefs["opponent_model"]
    going = model.notnull().any([dim for dim in model.dims if dim != "replicate"])
    if going.any() and not going.all():  # without failed replicates
        beliefs = beliefs.isel(replicate=going.to_numpy())
        model = beliefs["opponent_model"]
    over = [dim for dim in ("replicate", "draw") if dim in model.dims]
    flat, core = model.stack(sample=over, create_index=False), [["sample"], []]
    with quiet_arviz() as az:
        ends = xr.apply_ufunc(az.hdi, flat, LEVEL, input_core_dims=core, output_core_dims=[["end"]], vectorize=True)
        columns = {"mean": flat.mean("sample", skipna=False), "sd": flat.std("sample", ddof=1, skipna=False)}
        columns |= {"hdi95_lb": ends.isel(end=0), "hdi95_ub": ends.isel(end=1)}
        if "draw" in over:
            columns["sd_seeds"] = model.mean("draw").std("replicate", ddof=1, skipna=False)
        for column, name in {"prior": "opponent_prior", "truth": "opponent_policy"}.items():
            if name in beliefs:
                columns[column] = beliefs[name].mean(over)
    rows = [dim for dim in model.dims if dim not in over]
    return xr.Dataset(columns).to_dataframe(rows)[list(columns)].dropna(subset="mean")
