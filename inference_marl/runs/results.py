"""The files of a finished run: datasets with named dimensions, and their summary."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from inference_marl.runs.recorder import Recorder
from inference_marl.spaces import Box, Discrete, joint_names
from inference_marl.statistics.summary import paired_differences, summarise, summarise_agents
from inference_marl.types import Game, Seat

if TYPE_CHECKING:
    from inference_marl.runs.run import Experiment


PACKAGES = {"inference_marl": "inference-marl", "torch": "torch", "pyro": "pyro-ppl", "numpy": "numpy"}
"""What the numbers of a run depend on: names in `summary.json`, and those of the distributions."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then move it there, so that `path` is never half a file.

    The file beside it is this process's own, so of two that write at once the later one wins, with a whole file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a file, never half of it, and return where it is."""
    write_atomically(path, lambda beside: beside.write_text(text))
    return path


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
        metrics["success"] = success
    described = experiment.describe()["init_args"]
    metrics.attrs = {
        "game": _title(described["game"]),
        "seed": experiment.seed,
        "steps_per_episode": game.horizon or experiment.steps,
        "success_window": experiment.success_window,
    }
    if game.success_reward is not None:
        metrics.attrs["success_reward"] = game.success_reward
    posterior = joined([recorder.beliefs() for recorder in recorders.values()])
    posterior.attrs = _belief_attributes(game)
    _label(posterior, game, experiment.seats())
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
    text = json.dumps(summary, indent=1, allow_nan=False)
    write_atomically(folder / "summary.json", lambda path: path.write_text(text))


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers of a run depend on, of now."""
    return {"python": platform.python_version()} | {name: _version(of) for name, of in PACKAGES.items()}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _success(experiment: Experiment, metrics: xr.Dataset) -> xr.DataArray | None:
    """1 where a replicate succeeds: by mean reward if the game says from which, else by P(optimum) above 1/2."""
    threshold = experiment.game.success_reward
    if threshold is not None:
        window = experiment.success_window
        recent = metrics["reward"].mean("agent").rolling(step=window, min_periods=1).mean()
        return (recent >= threshold).astype("float32")
    if "joint_optimum_probability" in metrics:
        return (metrics["joint_optimum_probability"] > 0.5).astype("float32")
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


def _label(posterior: xr.Dataset, game: Game, seats: list[Seat]) -> None:
    """Name states and actions as the game does; actions by letters if they mean the same for every agent."""
    if game.state_names is not None and posterior.sizes.get("state") == len(game.state_names):
        posterior.coords["state"] = list(game.state_names)
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
    if not stateless or len(spaces) != 2 or not all(isinstance(space, Box) and space.dim == 1 for space in spaces):
        return None
    axes = [torch.linspace(space.low, space.high, points) for space in spaces if isinstance(space, Box)]
    grid = [values.reshape(1, -1, 1) for values in torch.meshgrid(*axes, indexing="ij")]
    cpu = torch.device("cpu")
    rewards = game.step(game.reset(1, points * points, cpu, torch.float32), grid)[1]
    values = rewards.reshape(points, points, 2).permute(2, 0, 1).numpy()
    coordinates = {"action_0": axes[0].numpy(), "action_1": axes[1].numpy(), "agent": [0, 1]}
    return xr.Dataset({"payoff": (("agent", "action_0", "action_1"), values)}, coords=coordinates)


def _write_dataset(path: Path, dataset: xr.Dataset) -> None:
    squeeze = {"zlib": True, "complevel": 1, "shuffle": True}
    encoding = {name: squeeze for name, variable in dataset.data_vars.items() if variable.dtype.kind == "f"}
    write_atomically(path, lambda beside: dataset.to_netcdf(beside, engine="h5netcdf", encoding=encoding))
