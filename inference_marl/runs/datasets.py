"""The files of a finished run: datasets with named dimensions, and their summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from inference_marl.experiment import Experiment
from inference_marl.runs.files import write_atomically, write_text
from inference_marl.runs.recorder import Recorder
from inference_marl.runs.versions import versions
from inference_marl.spaces import Box, Discrete, joint_names
from inference_marl.statistics.summary import paired_differences, summarise, summarise_agents
from inference_marl.types import Game


def datasets(experiment: Experiment, recorders: Mapping[str, Recorder]) -> tuple[xr.Dataset, xr.Dataset]:
    """Metrics and beliefs of all arms: what `metrics.nc` and `posterior.nc` hold."""
    game = experiment.game
    steps = np.arange(1, experiment.steps // experiment.record_every + 1) * experiment.record_every
    names = list(recorders)

    def joined(parts: list[xr.Dataset]) -> xr.Dataset:
        # What is recorded gets a learner; what the game says, such as where its optimum is, has none.
        named = [
            part.map(lambda value: value.expand_dims("learner") if "step" in value.dims else value) for part in parts
        ]
        merged = xr.concat(named, dim="learner", data_vars="minimal", coords="minimal", compat="equals", join="outer")
        return merged.assign_coords(step=steps, learner=names)

    metrics = joined([recorder.metrics() for recorder in recorders.values()])
    success = _success(experiment, metrics)
    if success is not None:
        metrics["success_rate"] = success
    for name, values in metrics.items():
        values.attrs = experiment.metrics[str(name)].attributes()
    described = experiment.describe()["init_args"]
    metrics.attrs = {
        "game": _title(described["game"]),
        "seed": experiment.seed,
        "steps_per_episode": game.horizon or experiment.steps,
        "success_window": experiment.success_window,
    }
    if game.success_reward is not None:
        metrics.attrs["success_reward"] = game.success_reward
    posterior = joined(_of_as_many_states([recorder.beliefs() for recorder in recorders.values()]))
    posterior.attrs = _belief_attributes(game)
    _label_actions(posterior, experiment)
    if game.state_names is not None and all(recorder.everywhere for recorder in recorders.values()):
        posterior.coords["state"] = list(game.state_names)
    return metrics, posterior


def write_results(
    experiment: Experiment,
    folder: Path,
    recorders: Mapping[str, Recorder],
    seconds: float,
    failed: Mapping[str, str] | None = None,
) -> None:
    """Write `metrics.nc`, `posterior.nc`, `surface.nc` (differential games) and, last, `summary.json`.

    Args:
        experiment: what was run.
        folder: the run's folder.
        recorders: what the arms that were played to their end have recorded.
        seconds: that it took.
        failed: why, by name, of the other arms.
    """
    metrics, posterior = datasets(experiment, recorders)
    metrics.attrs["experiment"] = folder.name
    _write_dataset(folder / "metrics.nc", metrics)
    _write_dataset(folder / "posterior.nc", posterior)
    surface = _surface(experiment.game)
    if surface is not None:
        _write_dataset(folder / "surface.nc", surface)
    summary = {
        "experiment": metrics.attrs["experiment"],
        "game": metrics.attrs["game"],
        "replicates": experiment.replicates,
        "steps": experiment.steps,
        "seconds": round(seconds, 3),
        "published": experiment.published,
        "source": experiment.source,
        "results": summarise(metrics, posterior),
        "agents": summarise_agents(metrics),
        "levels": experiment.levels,
        "differences": paired_differences(metrics, next(iter(experiment.arms))),
        "failed": dict(failed or {}),
        "versions": versions(),
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False))


def _success(experiment: Experiment, metrics: xr.Dataset) -> xr.DataArray | None:
    """1 where a replicate succeeds: by mean reward if the game says from which, else by P(optimum) above 1/2."""
    threshold = experiment.game.success_reward
    if threshold is not None:
        window = experiment.success_window
        recent = metrics["reward"].mean("agent").rolling(step=window, min_periods=1).mean()
        return (recent >= threshold).astype("float32")
    if "joint_optimum_probability" in metrics:
        probability = metrics["joint_optimum_probability"]
        return (probability > 0.5).astype("float32").where(probability.notnull())
    return None


def _title(described: Mapping[str, Any]) -> str:
    arguments = [str(value) for value in described["init_args"].values() if isinstance(value, str)]
    return f"{described['class_path'].rpartition('.')[2]}({', '.join(arguments)})"


def _belief_attributes(game: Game) -> dict[str, Any]:
    space = game.action_spaces[0]
    if not isinstance(space, Box):
        return {"kind": "discrete"}
    attributes: dict[str, Any] = {"kind": "continuous", "low": space.low, "high": space.high}
    radius = getattr(game, "optimum_radius", None)
    return attributes if radius is None else {**attributes, "optimum_radius": radius}


def _of_as_many_states(beliefs: list[xr.Dataset]) -> list[xr.Dataset]:
    """Beliefs of all arms, padded: one whose actors have memories is recorded where they are, others in every state."""
    most = max(part.sizes["state"] for part in beliefs)
    return [part.pad(state=(0, most - size)) if (size := part.sizes["state"]) < most else part for part in beliefs]


def _label_actions(posterior: xr.Dataset, experiment: Experiment) -> None:
    """Name actions as the game does, by letters if they mean the same for every agent."""
    game, seats = experiment.game, experiment.seats()
    for dim, groups in {
        "action": [[seat.action] for seat in seats],
        "opponent_action": [[seat.action_spaces[agent] for agent in seat.opponents] for seat in seats],
    }.items():
        if dim in posterior.sizes and all(isinstance(space, Discrete) for group in groups for space in group):
            named = sorted((joint_names(group, game.action_names) for group in groups), key=len)
            alike = all(names == named[-1][: len(names)] for names in named)
            posterior.coords[dim] = named[-1] if alike else [str(number) for number in range(len(named[-1]))]


def _surface(game: Game, points: int = 101) -> xr.Dataset | None:
    """Rewards over a grid of joint actions, for stateless games of two agents with one-dimensional boxes."""
    spaces = game.action_spaces
    stateless = set(game.observations) == {Discrete(1)}
    if (
        not stateless
        or len(spaces) != 2
        or not all(isinstance(space, Box) and space.features == 1 and space.bounded for space in spaces)
    ):
        return None
    ends = [space.edges(torch.float32, torch.device("cpu")) for space in spaces if isinstance(space, Box)]
    axes = [torch.linspace(float(low), float(high), points) for low, high in ends]
    grid = [values.reshape(1, -1, 1) for values in torch.meshgrid(*axes, indexing="ij")]
    cpu = torch.device("cpu")
    rewards = game.step(game.reset(1, points * points, cpu, torch.float32), grid).rewards
    values = rewards.reshape(points, points, 2).permute(2, 0, 1).numpy()
    coordinates = {"action_0": axes[0].numpy(), "action_1": axes[1].numpy(), "agent": [0, 1]}
    return xr.Dataset({"payoff": (("agent", "action_0", "action_1"), values)}, coords=coordinates)


def _write_dataset(path: Path, dataset: xr.Dataset) -> None:
    squeeze = {"zlib": True, "complevel": 1, "shuffle": True}
    encoding = {name: squeeze for name, variable in dataset.data_vars.items() if variable.dtype.kind == "f"}
    write_atomically(path, lambda beside: dataset.to_netcdf(beside, engine="h5netcdf", encoding=encoding))
