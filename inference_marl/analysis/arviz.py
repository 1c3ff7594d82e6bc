"""A run's beliefs for ArviZ. The only module that imports arviz, and only when a function needs it.

Written for ArviZ 1.x; 0.23 works too while Python 3.11, for which there is no other, is supported.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from inference_marl.analysis.recorded import Recorded, read
from inference_marl.described import InspectError
from inference_marl.spaces import Discrete, joint_names
from inference_marl.statistics.beliefs import Numbers, about, modelling
from inference_marl.statistics.forecasts import total_scores
from inference_marl.statistics.latents import MEAN, SD, TYPE, at_the_end, believing
from inference_marl.statistics.probes import probed_everywhere

LEVEL = 0.95
"""Mass of the highest-density intervals in `summary`."""

PREDICTED = 100
"""Predictive draws per replicate of a discrete belief; a continuous one keeps the draws that were recorded."""


def to_arviz(run: Path | str | Recorded, learner: str | None = None, step: int | None = None) -> Any:
    """One learner's beliefs at one step, for ArviZ's own functions: a tree for each arm, with the run's own names.

    * `posterior`: `opponent_model` (rho), `policy` and, for priors with latent types, `opponent_type`;
    * `prior`: `opponent_prior` (P);
    * both with a dimension `other`, whom the belief is about, if there are several opponents; then also
      `joint_opponent_model` and `joint_opponent_prior`, tables of these' joint actions, where they are small;
    * `posterior_predictive`, `prior_predictive`: draws of `opponent_action`, what rho and P expect to see. Continuous
      ones are those recorded; discrete ones are `PREDICTED` seeded draws, numbers of the labels of `opponent_model`;
    * `observed_data`: `opponent_action`, one draw in each replicate of what the opponents really do;
    * `sample_stats`: `metrics.nc`; `constant_data`: `opponent_policy`, the truth, and the game's optimum, if known.

    Replicates are seeds, not chains: beliefs have the sample dimensions `["replicate"]` or, as draws, `["replicate",
    "draw"]`, predictions `["draw"]`, each draw being of all that was observed. Every group says so in its attributes.
    There ArviZ's plots look; its `summary` has to be told: `arviz.summary(data, sample_dims=["replicate"],
    kind="stats")`. So has every function if ArviZ read the tree from a file, as netCDF has no lists of one.

    Which arm it is stands in coordinates without dimension: `learner`, `step` and, for each factor, `factor_<name>`. If
    some of its agents have opponent models, only these are kept.

    Args:
        run: a run's folder, or what `read` made of it.
        learner: which arm; the first with an opponent model if `None`.
        step: a recorded environment step; the last if `None`.

    Returns:
        `xarray.DataTree`. On ArviZ 0.23, which insists on `chain` and `draw`, `arviz.InferenceData` whose only chain
        has all replicates, with all their draws, as its draws.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished or has no beliefs, or for a learner or step
            that was not recorded.
    """
    recorded = read(run)
    stored, metrics = recorded.beliefs, recorded.metrics
    learner = _known(metrics, "learner", learner or next(iter(modelling(stored)), recorded.learners[0]))
    at = {"learner": learner, "step": _known(stored, "step", step)}
    # Metrics have steps of their own, and may have none at this one.
    measured = metrics.reindex(step=stored["step"])
    levels = (recorded.spec.get("levels") or {}).get(learner, {})
    factors = {f"factor_{name}": level for name, level in levels.items()}
    beliefs, played = (_present(each.sel(at).assign_coords(factors)) for each in (stored, measured))
    return _tree(recorded, _groups(beliefs, played), **stored.attrs)


def _tree(recorded: Recorded, groups: dict[str, xr.Dataset], **attributes: Any) -> Any:
    """What ArviZ takes: a tree of the groups that are not empty, which says what run it is of."""
    version = recorded.made.get("versions", {}).get("inference_marl", "unknown")
    library = {"inference_library": "inference_marl", "inference_library_version": version}
    attributes = {**recorded.metrics.attrs, **attributes, **library}
    attributes["spec"] = yaml.safe_dump(recorded.spec, sort_keys=False)
    groups = {name: group.assign_attrs(library) for name, group in groups.items() if group}
    groups["/"] = xr.Dataset(attrs=attributes)
    with _arviz() as az:
        if int(az.__version__.split(".")[0]) >= 1:
            return xr.DataTree.from_dict(groups)
        chained = {name: _chained(group) for name, group in groups.items()}
        return az.InferenceData.from_datatree(xr.DataTree.from_dict(chained))


def _present(dataset: xr.Dataset) -> xr.Dataset:
    """What one arm has at one step, with all its labels and without what only pads it to the size of others."""
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
    """The variables that there are, described, with their sample dimensions first."""
    group = dataset[[name for name in names if name in dataset]].transpose(*sampled, ..., missing_dims="ignore")
    for name, values in group.items():
        units = "units of actions" if str(values.dims[-1]).endswith("_dim") else "1"
        values.attrs = {"long_name": str(name).replace("_", " "), "units": units}
    group.attrs = {"sample_dims": list(sampled)} if sampled else {}
    return group


def _drawn(probabilities: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    """Numbers of labels of `opponent_action`, in the new dimension `draw`; NaN in states that an agent lacks."""
    upper = probabilities.fillna(0.0).astype(np.float64).cumsum("opponent_action")
    total = upper.isel(opponent_action=-1, drop=True)
    uniform = xr.DataArray(rng.random((PREDICTED, *total.shape)), dims=("draw", *total.dims))
    drawn = (uniform * total >= upper).sum("opponent_action")
    return drawn if (total > 0).all() else drawn.where(total > 0)


def _chained(group: xr.Dataset) -> xr.Dataset:
    """The same for ArviZ 0.23: one chain, whose draws are everything along the sample dimensions."""
    if "sample_dims" not in group.attrs:
        return group
    flat = group.stack(sample=group.attrs["sample_dims"], create_index=False).drop_vars("draw", errors="ignore")
    chained = flat.rename(sample="draw").expand_dims(chain=[0]).transpose("chain", "draw", ...)
    return chained.assign_attrs(sample_dims=["chain", "draw"])


def summary(run: Path | str | Recorded, learner: str | None = None, step: int | None = None) -> pd.DataFrame:
    """The posterior over each opponent's action, with the prior and the truth beside it.

    Discrete: a row is the probability of an action; `mean`, `sd` and the highest-density interval, which is ArviZ's,
    are over replicates, so they say how much the seeds differ. Continuous: a row is a dimension of an opponent's
    action, summarised over all draws of all replicates; `sd_seeds` says how much of `sd` is between the seeds.
    Replicates that have failed are left out.

    Args:
        run: a run's folder, or what `read` made of it.
        learner: which arm; every arm with an opponent model if `None`.
        step: a recorded environment step; the last if `None`.

    Returns:
        Index `learner, agent`, `opponent` and `state` where there are several, and `opponent_action` or
        `opponent_dim`. Columns `mean, sd, hdi95_lb, hdi95_ub`, for draws `sd_seeds`, the standard deviation of the
        replicates' means, which is 0 if all agree, and `prior` and `truth`, the means of `P` and of the opponents'
        actual policy. All are probabilities, or in the units of actions. Of several opponents every one has its own
        rows, with the others summed out.

    Raises:
        InspectError: as `to_arviz`, or if no learner, or not the named one, has an opponent model.
    """
    stored = read(run).beliefs
    having = modelling(stored)
    wanted = having if learner is None else [_known(stored, "learner", learner)]
    if not wanted or not set(wanted) <= set(having):
        raise InspectError(
            f"learner: got {learner or 'a run'} without an opponent model, expected "
            + (f"one of {', '.join(having)}" if having else "a run in which some learner has one")
        )
    here, agents = stored.sel(step=_known(stored, "step", step)), stored.sizes["agent"]
    tables = {
        (name, agent, opponent): _summary(about(here, agent, opponent).sel(learner=name).isel(agent=0))
        for name in wanted
        for agent, opponent in permutations(range(agents), 2)
    }
    known = {key: table for key, table in tables.items() if len(table)}
    joined = pd.concat(known, names=["learner", "agent", "opponent"])
    counts = {"opponent": agents - 1, "state": stored.sizes["state"]}
    return joined.droplevel([name for name, count in counts.items() if count == 1])


def _summary(beliefs: xr.Dataset) -> pd.DataFrame:
    """`summary` of one agent's beliefs about one opponent, without rows for what is only padding."""
    beliefs = beliefs.astype(np.float64)
    model = beliefs["opponent_model"]
    going = model.notnull().any([dim for dim in model.dims if dim != "replicate"])
    if going.any() and not going.all():  # without replicates that have failed
        beliefs = beliefs.isel(replicate=going.to_numpy())
        model = beliefs["opponent_model"]
    over = [dim for dim in ("replicate", "draw") if dim in model.dims]
    flat, core = model.stack(sample=over, create_index=False), [["sample"], []]
    with _arviz() as az:
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


def forecasts(run: Path | str | Recorded, learner: str | None = None) -> dict[str, Any]:
    """How well rho, the prior P and a uniform guess forecast the opponents' next actions, for `arviz.compare`.

    The expected log predictive density is leave-future-out, one step ahead (`statistics.forecasts`). Its pointwise
    values are the replicates, which are independent, each summed over agents and records; so standard errors are honest
    and `n_data_points` counts replicates.

    Args:
        run: a run's folder, or what `read` made of it.
        learner: which arm; the first with an opponent model if `None`.

    Returns:
        ArviZ's `ELPDData` by symbol: `rho`, `P` and `uniform`. ArviZ 0.23 knows no leave-future-out and calls it `loo`.

    Raises:
        InspectError: as `to_arviz`, or if no belief of the learner was followed by recorded actions.
    """
    recorded = read(run)
    pointwise = _total_scores(recorded, learner or next(iter(modelling(recorded.beliefs)), None))
    return {
        str(symbol): _elpd(pointwise.sel(forecaster=symbol, drop=True)) for symbol in pointwise["forecaster"].values
    }


def compare_forecasts(run: Path | str | Recorded, learners: Sequence[str], agent: int = 0) -> dict[str, Any]:
    """As `forecasts`, of several learners' opponent models in one seat, for `arviz.compare`.

    Args:
        run: a run's folder, or what `read` made of it.
        learners: which arms, at least one.
        agent: whose opponent model.

    Returns:
        ArviZ's `ELPDData` of rho by learner.

    Raises:
        InspectError: as `forecasts`, if there is no such agent, or if the learners' opponents did not play the same
            actions: then they forecast different things, and scores cannot be compared. Scripted opponents do.
    """
    recorded = read(run)
    agent = _known(recorded.beliefs, "agent", agent)
    pointwise = {learner: _total_scores(recorded, learner, agent) for learner in learners}
    if not pointwise:
        raise InspectError("learners: got none, expected at least one")
    assert recorded.actions is not None  # since there are scores
    others = recorded.actions["actions"].drop_isel(agent=agent)
    for learner in learners:
        if not others.sel(learner=learner, drop=True).equals(others.sel(learner=learners[0], drop=True)):
            raise InspectError(
                f"learners: got {learners[0]} and {learner}, whose opponents played different actions, expected arms "
                "against the same fixed opponents, such as scripted ones"
            )
    return {learner: _elpd(each.sel(forecaster="rho", drop=True)) for learner, each in pointwise.items()}


def _total_scores(recorded: Recorded, learner: str | None, agent: int | None = None) -> xr.DataArray:
    """A learner's summed forecast scores, of all its agents or of one, `forecaster x replicate`."""
    learner, scores = _known(recorded.metrics, "learner", learner), recorded.forecast_scores
    if scores is None or learner not in modelling(recorded.beliefs):
        raise InspectError(
            f"{recorded.folder}: got no recorded belief of {learner} about its opponents that is followed by recorded "
            "actions, expected a learner with an opponent model, and a run with beliefs_every and record_actions"
        )
    sums, _ = total_scores(scores if agent is None else scores.isel(agent=[agent]), learner)
    return sums


def _elpd(pointwise: xr.DataArray) -> Any:
    """ArviZ's container of an expected log predictive density with these pointwise values, `replicate`."""
    count = pointwise.sizes["replicate"]
    total, error = float(pointwise.sum(skipna=False)), float(np.sqrt(count) * pointwise.std(skipna=False))
    with _arviz() as az:
        if int(az.__version__.split(".")[0]) >= 1:
            from arviz_stats.utils import ELPDDataLFO  # type: ignore[import-not-found, unused-ignore]

            numbers = {"elpd": total, "se": error, "p": np.nan, "n_samples": 1, "n_data_points": count}
            how = {"scale": "log", "warning": False, "good_k": None, "elpd_i": pointwise}  # exact: fit at every record
            return ELPDDataLFO(
                **numbers, **how, forecast_horizon=1, min_observations=1, refits=np.array([]), n_refits=0
            )
        names = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "scale"]
        return az.stats.ELPDData([total, error, np.nan, 1, count, False, pointwise, "log"], names)


def parameter_posterior(
    run: Path | str | Recorded,
    learner: str | None = None,
    agent: int = 0,
    replicate: int = 0,
    step: int | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Any:
    """The posterior over the parameters of a `DirichletMultinomial` prior, for ArviZ's own functions such as `loo`.

    In every state `theta` are the probabilities of the opponents' joint actions. Given the actions that the prior has
    counted, they have the distribution Dirichlet(concentration + counts), whose mean is `P`. Draws of it are exact and
    independent, hence a single chain. A replicate is a data set of its own.

    * `posterior`, `prior`: `theta`, `chain x draw x state x opponent_action`, without `state` if there is only one;
    * `log_likelihood`: `opponent_action`, `chain x draw x observation`;
    * `observed_data`: `opponent_action`, numbers of the labels of `theta`, with the `step` and the `state` of each.

    `loo` estimates what leaving an observation out would do with weights `1 / theta`, which have the tail index
    (Pareto's k) `1 / (concentration + count)`. So its warning about rare actions under a small concentration is right.

    Args:
        run: a run's folder, or what `read` made of it.
        learner: which arm; the first if `None`.
        agent: whose prior.
        replicate: which one.
        step: given the actions up to this environment step; the last if `None`.
        draws: of the prior and of the posterior.
        seed: of the draws.

    Returns:
        `xarray.DataTree`; `arviz.InferenceData` on ArviZ 0.23.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished; if it did not record actions, or the
            states that the prior distinguishes; for a learner, agent, replicate or step that was not recorded; or if
            the agent has another prior, or none.
    """
    recorded = read(run)
    learner = _known(recorded.metrics, "learner", learner or recorded.learners[0])
    agent = _known(recorded.metrics, "agent", agent)
    prior = _dirichlet(recorded, learner, agent)
    seen = _counted(recorded, learner, replicate, step, prior)
    counts = np.zeros((prior.states, len(prior.labels["opponent_action"])))
    np.add.at(counts, (seen["state"], seen["opponent_action"]), 1.0)
    rng = np.random.default_rng(seed)
    theta, before = (
        _dirichlet_draws(rng, prior.concentration + each, draws, prior.labels) for each in (counts, 0 * counts)
    )
    likelihood = xr.ufuncs.log(theta.isel({str(name): each for name, each in seen.items() if name in theta.dims}))
    likelihood = likelihood.drop_vars("opponent_action")
    observed = seen["opponent_action"].assign_coords(likelihood.isel(chain=0, draw=0, drop=True).coords)
    named = {
        "theta": {"posterior": theta, "prior": before},
        "opponent_action": {"log_likelihood": likelihood, "observed_data": observed},
    }
    return _tree(recorded, {group: each.to_dataset(name=name) for name in named for group, each in named[name].items()})


def latent_posterior(
    run: Path | str | Recorded,
    learner: str | None = None,
    evaluation: str | None = None,
    draws: int = 100,
    seed: int = 0,
) -> Any:
    """A learner's belief z about each opponent of an evaluation over trials, as it was at the run's last record.

    * `posterior`: `z`, `chain x draw x replicate x opponent x episodes x latent`, independent draws, hence one chain,
      of the normals that the belief is where an episode begins before which the opponents were met for `episodes`
      others; of a point there is one draw, itself;
    * `constant_data`: `mean` and, unless it is a point, `sd` of these normals, `type`, what is hidden in the opponents,
      and what probes read off the mean, `probe_predicted`, `probe_r2` and so on (`statistics.probes.probed`).

    There are many beliefs, so one asks for some: `arviz.summary(data, coords={"replicate": [0], "opponent": [0]})`.

    Args:
        run: a run's folder, or what `read` made of it.
        learner: which arm; the first with such a belief if `None`.
        evaluation: which; the first if `None`.
        draws: of z.
        seed: of the draws.

    Returns:
        `xarray.DataTree`; `arviz.InferenceData` on ArviZ 0.23.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished; if no evaluation recorded beliefs, or not
            the named one; or for a learner without any.
    """
    recorded = read(run)
    if not recorded.latents:
        raise InspectError(
            f"{recorded.folder}: got no recorded latent beliefs, expected a TrialEvaluation with posteriors: true"
        )
    known = list(recorded.latents)
    evaluation = known[0] if evaluation is None else evaluation
    if evaluation not in known:
        raise InspectError(f"evaluation: got {evaluation}, expected one of {', '.join(known)}")
    having = believing(recorded.latents[evaluation])
    learner = having[0] if learner is None else learner
    if learner not in having:
        raise InspectError(f"learner: got {learner} without a latent belief, expected one of {', '.join(having)}")
    here = at_the_end(recorded.latents[evaluation], learner)
    here = here.assign_coords({dim: here[dim] for dim in here.dims})
    probed = probed_everywhere(recorded.latents, learner).get(evaluation, xr.Dataset()).drop_vars(TYPE, errors="ignore")
    facts = here.merge(probed.rename({name: f"probe_{name}" for name in probed}), compat="override")
    drawn = _latent_draws(here, draws, np.random.default_rng(seed))
    return _tree(recorded, {"posterior": drawn.to_dataset(name="z"), "constant_data": facts}, evaluation=evaluation)


def _latent_draws(believed: xr.Dataset, draws: int, rng: np.random.Generator) -> xr.DataArray:
    """Of every belief, `chain x draw x ...`; a point once."""
    mean = believed[MEAN].transpose("replicate", "opponent", "episodes", "latent").astype(np.float64)
    if SD not in believed:
        return mean.expand_dims(chain=[0], draw=[0])
    noise = xr.DataArray(rng.standard_normal((1, draws, *mean.shape)), dims=("chain", "draw", *mean.dims))
    z = mean + believed[SD] * noise
    return z.transpose("chain", "draw", ...).assign_coords(chain=[0], draw=np.arange(draws))


@dataclass(frozen=True)
class _Counting:
    """A `DirichletMultinomial` prior, and what its agent observes.

    Attributes:
        agent: whose it is.
        concentration: see `DirichletMultinomial`.
        window: see `DirichletMultinomial`.
        spaces: of everybody's actions.
        states: how many the agent tells apart.
        labels: names of the states and of the opponents' joint actions.
    """

    agent: int
    concentration: float
    window: int | None
    spaces: Sequence[Discrete]
    states: int
    labels: Mapping[str, Sequence[Any]]

    @property
    def opponents(self) -> list[int]:
        """Numbers of the others."""
        return [other for other in range(len(self.spaces)) if other != self.agent]


def _dirichlet(recorded: Recorded, learner: str, agent: int) -> _Counting:
    """An agent's prior as it was described. No class that the run names is looked up."""
    arm = recorded.spec["arms"][learner]
    described = arm[agent] if isinstance(arm, list) else arm
    prior = described.get("init_args", {}).get("opponent_prior") or {"class_path": "no opponent prior"}
    package, _, name = prior["class_path"].rpartition(".")
    if name != "DirichletMultinomial" or not package.startswith("inference_marl."):
        raise InspectError(
            f"{learner}, agent {agent}: got {name}, expected DirichletMultinomial, whose posterior is known exactly"
        )
    if recorded.actions is None:
        raise InspectError(f"{recorded.folder}: got a run without actions.nc, expected one with record_actions")
    said = recorded.actions.attrs
    if "action_sizes" not in said:
        raise InspectError(f"{recorded.folder}: got a run of a version before 0.2.0, expected one that says its spaces")
    spaces = [Discrete(int(size)) for size in np.atleast_1d(said["action_sizes"])]
    states = int(np.atleast_1d(said["state_sizes"])[agent])
    names = {key: np.atleast_1d(said[key]).tolist() if key in said else None for key in ("state_names", "action_names")}
    others = [space for other, space in enumerate(spaces) if other != agent]
    labels = {
        "state": names["state_names"] or list(range(states)),
        "opponent_action": joint_names(others, names["action_names"]),
    }
    arguments = prior["init_args"]
    return _Counting(agent, arguments["concentration"], arguments.get("window"), spaces, states, labels)


def _counted(recorded: Recorded, learner: str, replicate: int, step: int | None, prior: _Counting) -> xr.Dataset:
    """What the prior remembers after a step: `state` and `opponent_action` by `observation`, in its order."""
    assert recorded.actions is not None  # since the prior's spaces are from there
    played = recorded.actions.sel(learner=learner, drop=True)
    if prior.states > 1 and "state" not in played:
        raise InspectError(f"{recorded.folder}: got actions without the states in which they were taken, expected both")
    played = played.isel(replicate=_known(played, "replicate", replicate)).sel(step=slice(_known(played, "step", step)))
    flat = played.transpose("step", "environment", ...).stack(observation=("step", "environment"), create_index=False)
    each = flat["actions"].isel(agent=prior.opponents).transpose("agent", "observation").to_numpy().astype(np.int64)
    sizes = [prior.spaces[other].features for other in prior.opponents]
    taken = xr.DataArray(np.ravel_multi_index(tuple(each), sizes), dims="observation")  # the last agent's runs fastest
    state = flat["state"].astype(np.int64) if "state" in flat else 0 * taken
    return xr.Dataset({"state": state, "opponent_action": taken}).isel(observation=slice(-(prior.window or 0), None))


def _dirichlet_draws(
    rng: np.random.Generator, concentration: Numbers, draws: int, labels: Mapping[str, Sequence[Any]]
) -> xr.DataArray:
    """Independent draws, `chain x draw x state x opponent_action`, without `state` if there is only one."""
    theta = np.stack([rng.dirichlet(each, draws) for each in concentration], 1)[None]
    drawn = xr.DataArray(theta, {"chain": [0], "draw": np.arange(draws), **labels})
    return drawn if len(concentration) > 1 else drawn.isel(state=0, drop=True)


def _known(dataset: xr.Dataset, dim: str, value: Any) -> Any:
    """`value` if it is one of the dimension's labels; the last label if it is `None`."""
    labels = dataset[dim].to_numpy().tolist()
    if value is None:
        return labels[-1]
    if value not in labels:
        shown = ", ".join(map(str, labels if len(labels) <= 12 else [*labels[:3], "...", *labels[-3:]]))
        raise InspectError(f"{dim}: got {value!r}, which was not recorded, expected one of {shown}")
    return value


@contextmanager
def _arviz() -> Iterator[Any]:
    """ArviZ, without its news of the day at import and its warnings about beliefs that do not vary."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        import arviz as az

        yield az
