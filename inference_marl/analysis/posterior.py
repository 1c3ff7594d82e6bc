"""A run's beliefs as ArviZ sees them. The only file that imports arviz, and only when a function needs it.

ArviZ 0.23 (Python 3.11) and 1.x are both supported; which one is there is read from `arviz.__version__`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from inference_marl.statistics.beliefs import about, modelling

SEEDS_AGREE = "r_hat (seeds agree)"
"""Column of `summary`: R-hat with replicates in the place of chains. Near 1 if all seeds came to one belief."""

LEVEL = 0.95
"""Mass of the highest-density intervals in `summary`."""

GROUPS = {"posterior": "opponent_model", "prior": "opponent_prior", "observed_data": "opponent_policy"}
"""ArviZ group of each belief about the opponents."""


PREDICTED = 100
"""Predictive draws per replicate of a discrete belief; a continuous one has the draws it was recorded with."""


DRAWN = "opponent_action_drawn"
"""Predictive draws of discrete actions; `opponent_action` is the dim that probabilities are over."""


class InspectError(ValueError):
    """A folder that cannot be inspected: not a run, not finished, or without what was asked for."""


@dataclass(frozen=True)
class Recorded:
    """What a finished run left in its folder, in memory.

    Attributes:
        folder: where it is.
        spec: the resolved experiment, as in `spec.yaml`.
        metrics: `metrics.nc`.
        posterior: `posterior.nc`; `None` if the run has none.
        surface: `surface.nc`; `None` if the game has no reward surface.
        summary: `summary.json`.
    """

    folder: Path
    spec: dict[str, Any]
    metrics: xr.Dataset
    posterior: xr.Dataset | None
    surface: xr.Dataset | None
    summary: dict[str, Any]


def read(run: Path | str) -> Recorded:
    """Read a run's folder.

    Raises:
        InspectError: if it is not the folder of a run, or the run has not finished.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise InspectError(f"{folder}: got no such folder, expected the folder of a run")
    if not (folder / "spec.yaml").is_file():
        raise InspectError(f"{folder}: got a folder without spec.yaml, expected the folder of a run")
    # The last file that a run writes.
    if not (folder / "metrics.nc").is_file() or not (folder / "summary.json").is_file():
        raise InspectError(
            f"{folder}: got a run that has not finished (no results yet); go on with: inference-marl resume {folder}"
        )
    metrics = _dataset(folder / "metrics.nc")
    posterior, surface = (
        _dataset(path) if (path := folder / name).is_file() else None for name in ("posterior.nc", "surface.nc")
    )
    spec = _mapping(folder / "spec.yaml", yaml.safe_load)
    if posterior is not None and "state" in posterior.sizes and "state" not in posterior.coords:
        posterior = posterior.assign_coords(state=np.arange(posterior.sizes["state"]))
    results = _mapping(folder / "summary.json", json.loads)
    return Recorded(folder, spec, metrics, posterior, surface, results)


def load(run: Path | str | Recorded) -> xr.DataTree:
    """A run's beliefs in ArviZ's groups, with the dims they are stored with (`replicate` stays `replicate`).

    * `posterior`: the opponent model rho, the marginal policy pi and, for priors with latent types, their probabilities
      `opponent_type`;
    * `prior`: the opponent prior P;
    * `observed_data`: the opponents' actual policy, which the opponent model tries to predict;
    * `sample_stats`: everything in `metrics.nc`, so the ELBO and its parts, rewards and success;
    * `constant_data`: where the game's optimum is, if it is known.

    Draws are called after their Pyro sites, `opponent_action` and `action`. Discrete beliefs are probabilities,
    `opponent_action_probability` and `action_probability`, over the dims `opponent_action` and `action`. The
    name is the same in all groups, so that ArviZ's comparison plots find the pairs.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished or has no beliefs.
    """
    recorded = _recorded(run)
    stored = _beliefs(recorded)
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
    """One learner's beliefs at one step for ArviZ's own functions.

    ArviZ wants the dims `chain` and `draw`. Continuous beliefs have draws, and `replicate` becomes `chain`;
    a discrete belief is a distribution as it stands, so there is one chain and `replicate` becomes `draw`.
    Replicates are independent seeds, not chains of one sampler: R-hat across them asks whether the seeds agree, and
    says nothing of convergence. `observed_data` and `constant_data` have no draws in ArviZ: the truth keeps
    `replicate` there.

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
    recorded = _recorded(run)
    tree = load(recorded)
    discrete = tree.attrs["kind"] == "discrete"
    learner = learner or (modelling(_beliefs(recorded)) or _labels(tree, "learner"))[0]
    groups = {}
    for name, group in tree.children.items():
        here = group.to_dataset()
        if name != "constant_data":
            here = here.sel(learner=_known(tree, "learner", learner), step=_known(tree, "step", step), drop=True)
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
    recorded = _recorded(run)
    stored, tree = _beliefs(recorded), load(recorded)
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
    labels: list[Any] = tree["sample_stats"][dim].to_numpy().tolist()
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


def _recorded(run: Path | str | Recorded) -> Recorded:
    return run if isinstance(run, Recorded) else read(run)


def _beliefs(recorded: Recorded) -> xr.Dataset:
    if recorded.posterior is None:
        raise InspectError(f"{recorded.folder}: got a run without posterior.nc, expected one that records beliefs")
    return recorded.posterior


def _dataset(path: Path) -> xr.Dataset:
    """The whole file in memory; it is closed again.

    Raises:
        InspectError: if it cannot be read.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError) as error:
        raise InspectError(f"{path}: got a file that cannot be read ({error}), expected netCDF") from error


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What a file of text holds.

    Raises:
        InspectError: if that is no mapping.
    """
    try:
        found = parse(path.read_text())
    except (yaml.YAMLError, ValueError) as error:
        why = " ".join(str(error).split())
        raise InspectError(f"{path}: got a file that cannot be read ({why}), expected that of a run") from error
    if not isinstance(found, dict):
        raise InspectError(f"{path}: got {type(found).__name__}, expected a mapping, as a run writes it")
    return found


def _before_1(az: Any) -> bool:
    return int(az.__version__.split(".")[0]) < 1


@contextmanager
def _arviz() -> Iterator[Any]:
    """ArviZ, without its news of the day at import and its warnings about beliefs that do not vary."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        import arviz as az

        yield az
