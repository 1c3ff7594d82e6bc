"""Writes the results of a finished run: datasets with named dimensions, and their summary.

Records are copied block by block, so memory use does not grow with the length of a run.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from inference_marl.described import Described, arguments
from inference_marl.experiment import Experiment
from inference_marl.runs import checksums
from inference_marl.runs.beliefs import write_beliefs
from inference_marl.runs.files import write_atomically, write_text
from inference_marl.runs.latents import latent_files, write_latents
from inference_marl.runs.netcdf import COMPRESSED, Part, Variable, write_variables
from inference_marl.runs.recorder import Values, compact
from inference_marl.runs.records import Records, RecordsOf, coordinates_of
from inference_marl.runs.solution import distances
from inference_marl.spaces import Box, Discrete
from inference_marl.statistics.metrics import OPTIMUM_PROBABILITY, REWARD, SUCCESS_RATE
from inference_marl.statistics.summary import paired_differences, summarise, summarise_agents
from inference_marl.types import ForeignGame, Game

RESULTS = ("metrics.nc", "posterior.nc", "actions.nc", "surface.nc", "solution.nc", "summary.json")
"""The result files, beside those of beliefs that evaluations keep (`runs.latents`)."""


def write_results(
    experiment: Experiment,
    folder: Path,
    recorded: RecordsOf,
    failed: Mapping[str, str],
    lost: Mapping[str, Mapping[str, str]],
    how: Mapping[str, Any],
) -> None:
    """Write the run's datasets and, last, `summary.json`.

    `metrics.nc` is always written, `posterior.nc` and `actions.nc` if beliefs and actions are recorded, `surface.nc`
    for differential games, `solution.nc` if beliefs can be compared with exact ones, and `latent.nc` if an evaluation
    keeps beliefs. Except for `made` in the summary, the results do not depend on how often a run was stopped and
    resumed.

    Args:
        experiment: the experiment that was run.
        folder: the folder of the run.
        recorded: the records of the arms, up to their failure for arms that failed.
        failed: reasons why arms were not played to their end, by name.
        lost: reasons why replicates have failed, by arm and number.
        how: entries of `made`, beside the time.
    """
    (folder / "summary.json").unlink(missing_ok=True)  # its existence says that the files belong together
    with checksums.listing(folder, [*RESULTS, *latent_files(experiment)]), ExitStack() as opened:

        def kept(name: str, written: xr.Dataset | None) -> xr.Dataset:
            """The written dataset or, if it is too large for memory, its file, opened lazily."""
            if written is None:
                written = opened.enter_context(xr.open_dataset(folder / name, engine="h5netcdf", cache=False))
            return written

        attributes = _attributes(experiment) | {"experiment": folder.name}
        metrics = kept("metrics.nc", _write_metrics(folder / "metrics.nc", experiment, recorded, attributes))
        beliefs = None
        if experiment.beliefs_every:
            beliefs = kept("posterior.nc", write_beliefs(folder / "posterior.nc", experiment, recorded))
            # So that readers of the run need not build its game.
            _write_dataset(folder / "solution.nc", distances(experiment, beliefs))
        if experiment.record_actions:
            _write_actions(folder / "actions.nc", experiment, recorded)
        write_latents(folder, experiment, recorded)
        _write_dataset(folder / "surface.nc", _surface(experiment.game))
        summary = _summary(experiment, metrics, beliefs) | {
            "levels": experiment.levels,
            "failed": dict(failed),
            **({"failed_replicates": {arm: dict(why) for arm, why in lost.items()}} if lost else {}),
            "made": {**how, "finished": datetime.now(UTC).isoformat(timespec="seconds")},
        }
        write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False))


def _write_dataset(path: Path, dataset: xr.Dataset | None) -> None:
    """Write a dataset in memory, if there is one."""
    if dataset is not None:
        encoding = dict.fromkeys(dataset.data_vars, COMPRESSED)
        write_atomically(path, lambda beside: dataset.to_netcdf(beside, engine="h5netcdf", encoding=encoding))


def _summary(experiment: Experiment, metrics: xr.Dataset, beliefs: xr.Dataset | None) -> dict[str, Any]:
    """The experiment's settings, and tables of estimates from the datasets."""
    return {
        "experiment": metrics.attrs["experiment"],
        "game": metrics.attrs["game"],
        "replicates": experiment.replicates,
        "steps": experiment.steps,
        "published": experiment.published,
        "source": experiment.source,
        "results": summarise(metrics, beliefs),
        "agents": summarise_agents(metrics),
        "differences": paired_differences(metrics, next(iter(experiment.arms))),
    }


def _attributes(experiment: Experiment) -> dict[str, Any]:
    """The experiment's attributes in `metrics.nc`."""
    game = experiment.game
    attributes = {
        "game": _title(game),
        "seed": experiment.seed,
        "steps_per_episode": game.horizon or experiment.steps,
        "success_window": experiment.success_window,
    }
    return attributes if game.success_reward is None else {**attributes, "success_reward": game.success_reward}


def _write_metrics(
    path: Path, experiment: Experiment, recorded: RecordsOf, attributes: dict[str, Any]
) -> xr.Dataset | None:
    coordinates = coordinates_of(recorded, experiment.game.agents, "metrics", experiment.record_every)
    names = dict.fromkeys(name for records in recorded.values() for name in records.columns["metrics"])
    variables = {}
    for name in names:
        metric = experiment.metrics[name]
        parts = [
            Part.of(records, learner, "metrics", name)
            for learner, records in enumerate(recorded.values())
            if name in records.columns["metrics"]
        ]
        variables[name] = Variable(("learner", "replicate", "step", *metric.dims), parts, metric.attributes())
    parts = _success(experiment, list(recorded.values()))
    if parts:
        variables[SUCCESS_RATE.name] = Variable(("learner", "replicate", "step"), parts, SUCCESS_RATE.attributes())
    replicates = np.arange(experiment.replicates)
    skeleton = xr.Dataset(coords={**coordinates, "replicate": replicates}, attrs=attributes)
    return write_variables(path, skeleton, variables)


def _success(experiment: Experiment, recorded: Sequence[Records]) -> list[Part]:
    """Success of replicates, 0 or 1: by the game's `success_reward` if it has one, else by P(optimum) above 1/2."""
    threshold, window = experiment.game.success_reward, experiment.success_window

    def by_reward(records: Records, start: int, stop: int) -> Values:
        before = min(start, window - 1)
        reward = records.rows("metrics", REWARD.name, start - before, stop).mean(-1, dtype=np.float64)
        padded = np.concatenate([np.zeros((window - 1 - before, *reward.shape[1:])), reward])
        total = np.lib.stride_tricks.sliding_window_view(padded, window, axis=0).sum(-1)
        count = np.minimum(np.arange(start, stop) + 1, window)
        reached: Values = (total / count[:, None] >= threshold).astype(np.float32)
        return reached

    def by_optimum(records: Records, start: int, stop: int) -> Values:
        probability = records.rows("metrics", OPTIMUM_PROBABILITY.name, start, stop)
        return np.where(np.isnan(probability), probability, probability > 0.5)

    source, read = (OPTIMUM_PROBABILITY.name, by_optimum) if threshold is None else (REWARD.name, by_reward)
    return [
        Part(learner, records.counts["metrics"], (experiment.replicates,), np.dtype(np.float32), partial(read, records))
        for learner, records in enumerate(recorded)
        if source in records.columns["metrics"]
    ]


def _write_actions(path: Path, experiment: Experiment, recorded: RecordsOf) -> None:
    """Write the actions of every step; beliefs recorded at step `t` precede the actions of step `t + 1`."""
    spaces, dims = experiment.game.action_spaces, ("learner", "replicate", "environment", "step")
    parts = [
        Part.of(records, learner, "actions", f"action.{agent}", agent=agent)
        for learner, records in enumerate(recorded.values())
        for agent in range(len(spaces))
    ]
    ended = [Part.of(records, learner, "actions", "ended") for learner, records in enumerate(recorded.values())]
    last = () if compact(spaces).kind == "u" else ("action_dim",)
    variables = {
        "actions": Variable((*dims, "agent", *last), parts, {"long_name": "action played"}),
        "ended": Variable(dims, ended, {"long_name": "whether the episode was over then", "dtype": "bool"}),
    }
    if all("state" in records.columns["actions"] and records.everywhere for records in recorded.values()):
        states = [Part.of(records, learner, "actions", "state") for learner, records in enumerate(recorded.values())]
        variables["state"] = Variable(dims, states, {"long_name": "state in which the actions were taken"})
    coordinates = coordinates_of(recorded, len(spaces), "actions", 1)
    write_variables(path, xr.Dataset(coords=coordinates, attrs=_spaces(experiment.game)), variables)


def _spaces(game: Game) -> dict[str, Any]:
    """Attributes of discrete games that readers of recorded actions need."""
    if not all(isinstance(space, Discrete) for space in (*game.action_spaces, *game.observations)):
        return {}
    names = {"action_names": game.action_names, "state_names": game.state_names}
    return {
        "action_sizes": [space.features for space in game.action_spaces],
        "state_sizes": [space.features for space in game.observations],
        **{key: list(value) for key, value in names.items() if value is not None},
    }


def _title(described: Described) -> str:
    """A game's class, with its string arguments, its parts, and numbers that differ from the defaults."""
    parameters, shown = inspect.signature(type(described)).parameters, []
    for name, value in arguments(described).items():
        if isinstance(value, str):
            shown.append(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            shown += [] if value == parameters[name].default else [f"{name}={value:g}"]
        else:
            each = value if isinstance(value, list | tuple) else [value]
            shown += [_title(part) for part in each if isinstance(part, Described)]
    return f"{type(described).__name__}({', '.join(shown)})"


def _surface(game: Game, points: int = 101) -> xr.Dataset | None:
    """Rewards on a grid of joint actions, for stateless games of two agents with one-dimensional boxes."""
    spaces = game.action_spaces
    stateless = set(game.observations) == {Discrete(1)} and not isinstance(game, ForeignGame)
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
