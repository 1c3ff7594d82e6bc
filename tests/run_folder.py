"""Synthetic folders of finished runs: what a run would write, with curves that look like learning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from inference_marl.analysis.recorded import Recorded
from inference_marl.learners.variational import ELBO_PARTS
from inference_marl.statistics.adaptation import return_after
from inference_marl.statistics.metrics import OF_PLAY
from inference_marl.statistics.summary import summarise, summarise_agents
from inference_marl.types import Metric

SUCCESS = {"rommeo_q": 0.95, "rommeo_q_emp": 0.2, "jal": 0.1, "wolf_phc": 0.15}


def write(folder: Path, **datasets: xr.Dataset) -> Path:
    """A run's folder with these datasets."""
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("game: {class_path: Synthetic}\nsteps: 1  # <not markup> & all\n")
    for name, dataset in datasets.items():
        dataset.to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
    results = summarise(datasets["metrics"], datasets.get("posterior"))
    agents = summarise_agents(datasets["metrics"])
    summary = {"results": results, "agents": agents, "published": {"rommeo_q": {"reward": 11.0}}, "source": "a paper"}
    (folder / "summary.json").write_text(json.dumps(summary, allow_nan=False))
    return folder


def recorded(folder: Path, **datasets: xr.Dataset) -> Recorded:
    """What `read` would make of such a folder, which is not written."""
    posterior = datasets.get("posterior")
    if posterior is not None and "state" not in posterior.coords:
        posterior = posterior.assign_coords(state=np.arange(posterior.sizes["state"]))
    return Recorded(folder, {}, datasets["metrics"], posterior, datasets.get("surface"), datasets.get("solution"), {})


def metrics_dataset(
    data: dict[str, Any],
    steps: np.ndarray,
    learners: list[str] | None = None,
    declared: Sequence[Metric] = (),
    **attrs: Any,
) -> xr.Dataset:
    """`metrics.nc` of arrays `learner x replicate x step [x agent]`; what no run has may be `declared`."""
    dims = ("learner", "replicate", "step", "agent")
    known = {metric.name: metric for metric in (*OF_PLAY, *ELBO_PARTS, *declared)}
    variables = {
        name: (dims[: value.ndim], value.astype(np.float32), known.get(name, Metric(name)).attributes())
        for name, value in data.items()
    }
    first = next(iter(data.values()))
    coords = {
        "learner": learners or list(SUCCESS)[: first.shape[0]],
        "replicate": np.arange(first.shape[1]),
        "step": steps,
    }
    return xr.Dataset(variables, coords, {"experiment": "synthetic", "seed": 0, **attrs})


def beliefs(kind: str, optimal: Any = None, **values: Any) -> xr.Dataset:
    """A posterior of one learner, `it`; each value is `replicate x step x agent x state x ...`."""
    discrete = kind == "discrete"
    last = {True: ("opponent_action",), False: ("draw", "opponent_dim")}[discrete]
    dims = ("learner", "replicate", "step", "agent", "state")
    dataset = xr.Dataset()
    for name, value in values.items():
        event = ("action" if discrete else "action_dim",) if name == "policy" else last[-1:]
        array = np.asarray(value, dtype=float)[None]
        dataset[name] = ((*dims, *last[:-1], *event), array)
    dataset.attrs = {"kind": kind} | ({} if discrete else {"low": -1.0, "high": 1.0})
    if optimal is not None:
        dataset["optimal_opponent_action"] = (("agent", last[-1]), np.asarray(optimal))
    return dataset.assign_coords(learner=["it"], step=np.arange(1, dataset.sizes["step"] + 1))


def discrete(replicates: int = 8, records: int = 40, seed: int = 0) -> dict[str, xr.Dataset]:
    """A climbing game: four learners, two agents, actions A, B, C, the optimum (A, A).

    `rommeo_q` has an opponent model that is ahead of the truth; `rommeo_q_emp` and `jal` believe their prior,
    `jal` without an ELBO; `wolf_phc` has no beliefs.
    """
    rng = np.random.default_rng(seed)
    steps = np.arange(1, records + 1)
    learners = list(SUCCESS)
    shape = (len(learners), replicates, records, 2)
    found = rng.random(shape[:2]) < np.array(list(SUCCESS.values()))[:, None]
    onset = records / 5 * np.exp(0.25 * rng.standard_normal(shape[:2]))

    def policy(ahead: float) -> np.ndarray:
        time = (steps - onset[..., None] + ahead * records) / (records / 60)
        rise = 1 / (1 + np.exp(-np.clip(time, -30, 30)))
        start = rng.dirichlet([60, 60, 60], size=shape[:3]) * (1 - rise[..., None])
        end = np.where(found[:, :, None, None], np.array([0.99, 0.004, 0.006]), np.array([0.004, 0.99, 0.006]))
        return np.stack([start + rise[..., None] * end] * 2, axis=3)

    truth, model = policy(0.0), policy(0.02)
    prior = np.empty_like(truth)
    prior[:, :, 0] = 1 / 3
    for t in range(1, records):
        prior[:, :, t] = 0.93 * prior[:, :, t - 1] + 0.07 * truth[:, :, t]
    model[1:3] = prior[1:3]
    model[3] = prior[3] = np.nan

    payoff = np.array([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])
    reward = np.einsum("lrta,ab,lrtb->lrt", truth[..., 0, :], payoff, truth[..., 1, :])
    noisy = reward + rng.normal(0, 4 * np.exp(-steps / (records / 8)), shape[:3])
    temperature = 500 * np.exp(-30 * steps / records) + 0.1
    divergence = (truth * np.log(3 * truth)).sum(-1)
    parts = {
        "elbo_reward": np.stack([reward] * 2, -1),
        "elbo_entropy": -temperature[:, None] * divergence,
        "elbo_kl": (model * np.log(model / prior)).sum(-1),
    }
    parts["elbo"] = parts["elbo_reward"] + parts["elbo_entropy"] - parts["elbo_kl"]
    for part in parts.values():
        part[2:] = np.nan
    optimum = truth[..., 0, 0] * truth[..., 1, 0]
    data = {
        "reward": np.stack([noisy] * 2, -1),
        "joint_optimum_probability": optimum,
        "success_rate": optimum > 0.5,
        **parts,
    }
    metrics = metrics_dataset(data, steps, game="MatrixGame(climbing)", steps_per_episode=1)
    beliefs = {"opponent_model": model, "opponent_prior": prior, "opponent_policy": truth, "policy": truth}
    dims = ("learner", "replicate", "step", "agent", "state")
    posterior = xr.Dataset(
        {
            name: ((*dims, "action" if name == "policy" else "opponent_action"), value[:, :, :, :, None])
            for name, value in beliefs.items()
        },
        {"action": list("ABC"), "opponent_action": list("ABC"), "learner": learners, "step": steps},
        {"kind": "discrete"},
    ).astype(np.float32)
    mask = np.array([[1, 0, 0]] * 2, dtype=np.int8)
    posterior["optimal_action"] = (("agent", "action"), mask)
    posterior["optimal_opponent_action"] = (("agent", "opponent_action"), mask)
    return {"metrics": metrics, "posterior": posterior}


def continuous(replicates: int = 6, records: int = 20, draws: int = 8, seed: int = 0) -> dict[str, xr.Dataset]:
    """Two quadratics on [-10, 10] in episodes of 25 steps: `rommeo_q` mostly goes to (5, 5), the rest to (-5, -5).

    `wolf_phc` is a learner with a policy only.
    """
    rng = np.random.default_rng(seed)
    steps = 25 * np.arange(1, records + 1)
    learners = ["rommeo_q", "wolf_phc"]
    shape = (2, replicates, records, 2)
    goal = np.where(rng.random(shape[:2]) < np.array([0.8, 0.1])[:, None], 5.0, -5.0)
    onset = records / 6 * np.exp(0.3 * rng.standard_normal((2, replicates, 1, 2)))

    def beliefs(ahead: float) -> np.ndarray:
        time = (np.arange(records)[:, None] - onset + ahead * records) / (records / 25)
        rise = 1 / (1 + np.exp(-np.clip(time, -30, 30)))
        wander = np.cumsum(rng.normal(0, 0.3, shape), axis=2) * (1 - rise)
        mean, sd = goal[:, :, None, None] * rise + wander, 2.5 * (1 - rise) + 0.15
        return (mean[..., None] + sd[..., None] * rng.standard_normal((*shape, draws))).clip(-10, 10)

    policy = beliefs(0.0)
    model = beliefs(0.05)[:, :, :, ::-1]
    prior = np.copy(policy)
    prior[:, :, 3:] = policy[:, :, :-3]
    prior = prior[:, :, :, ::-1]
    model[1] = prior[1] = np.nan
    named = {
        "opponent_model": model,
        "opponent_prior": prior,
        "opponent_policy": policy[:, :, :, ::-1],
        "policy": policy,
    }
    dims = ("learner", "replicate", "step", "agent", "state", "draw")
    posterior = xr.Dataset(
        {
            name: ((*dims, "action_dim" if name == "policy" else "opponent_dim"), value[:, :, :, :, None, :, None])
            for name, value in named.items()
        },
        {"learner": learners, "step": steps},
        {"kind": "continuous", "low": -10.0, "high": 10.0, "optimum_radius": 1.0},
    ).astype(np.float32)
    posterior["optimal_action"] = (("agent", "action_dim"), np.full((2, 1), 5.0))
    posterior["optimal_opponent_action"] = (("agent", "opponent_dim"), np.full((2, 1), 5.0))

    x = policy.mean(-1)
    reward = payoff(x[..., 0], x[..., 1])
    inside = (np.hypot(policy[:, :, :, 0] - 5, policy[:, :, :, 1] - 5) <= 1).mean(-1)
    parts = {
        "elbo_reward": np.stack([reward] * 2, -1),
        "elbo_entropy": np.log(policy.std(-1) / 5.0).clip(-4, 0),
        "elbo_kl": 0.2 * (model.mean(-1) - prior.mean(-1)) ** 2,
    }
    parts["elbo"] = parts["elbo_reward"] + parts["elbo_entropy"] - parts["elbo_kl"]
    for part in parts.values():
        part[1] = np.nan
    data = {
        "reward": np.stack([reward] * 2, -1),
        "joint_optimum_probability": inside,
        "success_rate": reward > 9,
        **parts,
    }
    metrics = metrics_dataset(data, steps, game="MaxOfTwoQuadratics(text)", steps_per_episode=25)
    axis = np.linspace(-10, 10, 101)
    values = payoff(axis[:, None], axis[None, :])
    surface = xr.Dataset(
        {"payoff": (("agent", "action_0", "action_1"), np.stack([values] * 2))},
        {"action_0": axis, "action_1": axis},
    )
    metrics = metrics.assign_coords(learner=learners)
    return {"metrics": metrics, "posterior": posterior, "surface": surface}


def of_trials(replicates: int = 6, evaluations: Sequence[str] = ("known", "new"), arms: int = 4) -> xr.Dataset:
    """Metrics of arms of which the first two do not adapt, the second always being better; the rest do.

    Of ten records, the last has returns after 0, 1, 2 and 5 episodes.
    """
    rng = np.random.default_rng(0)
    numbers, records = np.array([0, 1, 2, 5]), 10
    rates = np.array([0.0, 0.0, *np.linspace(1, 2, max(0, arms - 2))])[:arms, None, None]
    start = np.where(np.arange(arms) == 1, 3.0, 1.0)[:, None, None]
    learned = start + 2 * (1 - np.exp(-rates * numbers)) + rng.normal(0, 0.2, (arms, replicates, 1))
    data, declared = {"reward": np.zeros((arms, replicates, records, 2))}, []
    for place, evaluation in enumerate(evaluations):
        for i, number in enumerate(numbers.tolist()):
            metric = return_after(number)
            declared.append(replace(metric, name=f"{metric.name}_{evaluation}" if evaluation else metric.name))
            values = np.full((arms, replicates, records), np.nan)
            values[..., -1] = learned[..., i] - 4 * place + rng.normal(0, 0.1, (arms, replicates))
            data[declared[-1].name] = values
    names = ["nobody", "told", *(f"learner_{i}" for i in range(arms - 2))][:arms]
    return metrics_dataset(data, 40 * np.arange(1, records + 1), names, declared, game="Guard", steps_per_episode=10)


def payoff(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The max of two quadratics of the ROMMEO paper, section 5.2."""
    low = 0.8 * (-(((x + 5) / 3) ** 2) - ((y + 5) / 3) ** 2)
    return np.maximum(low, 10 - (x - 5) ** 2 - (y - 5) ** 2)


def of_three(posterior: xr.Dataset) -> xr.Dataset:
    """The beliefs of two agents as those of three about each other: agent 2 is a second agent 1."""
    wide = posterior.isel(agent=[0, 1, 1]).assign_coords(agent=[0, 1, 2])
    about_others = [name for name in wide if str(name).startswith(("opponent_", "optimal_opponent"))]
    each = wide[about_others].expand_dims(other=[0, 1, 2])
    own = wide.drop_vars(about_others)
    return own.merge(each.where(each["other"] != each["agent"])).assign_attrs(posterior.attrs)


def latents(
    seed: int = 0, sd: float = 0.1, error: float | None = None, opponents: int = 40, latent: int = 3
) -> xr.Dataset:
    """`latent.nc` of the learner `it`: z's first coordinate is twice the first ability, after 5 episodes.

    After none it knows nothing. The second ability is in no coordinate. `error` is how far the mean is off, as a rule;
    as far as `sd` if `None`.
    """
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-1, 1, (1, 2, 1, opponents, 2))
    mean = np.zeros((1, 2, 1, opponents, 2, latent))
    mean[..., 1, :] = (sd if error is None else error) * rng.standard_normal(mean[..., 1, :].shape)
    mean[..., 1, 0] += 2 * truth[..., 0]
    width = np.broadcast_to(np.array([1.0, sd])[:, None], mean.shape)
    dims = ("learner", "replicate", "step", "opponent", "episodes", "latent")
    variables = {
        "mean": (dims, mean.astype(np.float32)),
        "sd": (dims, width.astype(np.float32)),
        "type": ((*dims[:4], "ability"), truth.astype(np.float32)),
    }
    coordinates = {"learner": ["it"], "step": [8], "episodes": [0, 5], "ability": ["fire", "water"]}
    return xr.Dataset(variables, coordinates)


def of_beliefs(folder: Path, **evaluations: xr.Dataset) -> Path:
    """A run's folder with what its evaluations kept of beliefs, and metrics of the same learners."""
    learners = [str(name) for name in next(iter(evaluations.values()))["learner"].to_numpy()]
    metrics = metrics_dataset({"reward": np.zeros((len(learners), 2, 1, 2))}, np.array([8]), learners)
    write(folder, metrics=metrics, **{f"latent_{name}": each for name, each in evaluations.items()})
    spec = "".join(f"  {name}: {{class_path: TrialEvaluation}}\n" for name in evaluations)
    (folder / "spec.yaml").write_text(f"game: {{class_path: Synthetic}}\nsteps: 8\nevaluation:\n{spec}")
    return folder
